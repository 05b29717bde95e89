"""Why engines ended: real last lines in, one sentence out."""

from __future__ import annotations

import signal
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral.engines import exits
from corral.runners.runner import Exit
from corral.supervisor import reasons

# What llama-server (build 11434) and xllamacpp (2026.10) print, shortened to the lines that matter.
MISSING = """\
0.00.016.669 E gguf_init_from_file: failed to open GGUF file 'missing.gguf' (No such file or directory)
0.00.016.704 E llama_model_load: error loading model: llama_model_loader: failed to load model from missing.gguf
0.00.016.777 E srv    load_model: failed to load model, 'missing.gguf'
0.00.017.511 E srv  llama_server: exiting due to model loading error
"""
TRUNCATED_HEADER = """\
0.00.018.031 E gguf_init_from_reader: failed to read key-value pairs
0.00.018.073 E llama_model_load: error loading model: llama_model_loader: failed to load model from trunc.gguf
0.00.018.908 E srv  llama_server: exiting due to model loading error
"""
TRUNCATED_DATA = """\
0.00.017.927 E llama_model_load: error loading model: tensor 'token_embd.weight' data is not within the file bounds, \
model is corrupted or incomplete
0.00.017.953 E llama_model_load_from_file_impl: failed to load model
0.00.018.691 E srv  llama_server: exiting due to model loading error
"""
WRONG_MAGIC = """\
0.00.016.859 E gguf_init_from_reader: invalid magic characters: 'notg', expected 'GGUF'
0.00.016.900 E llama_model_load: error loading model: llama_model_loader: failed to load model from magic.gguf
"""
EMPTY = """\
0.00.019.252 E gguf_init_from_reader: failed to read magic
0.00.019.284 E llama_model_load: error loading model: llama_model_loader: failed to load model from empty.gguf
"""
VERSION = """\
0.00.011.259 E gguf_init_from_reader: this GGUF file is version 99 but this software only supports up to version 3
0.00.011.275 E gguf_init_from_reader: failed to read header
"""
MISSING_KEY = """\
0.00.018.277 E llama_model_load: error loading model: error loading model hyperparameters: key not found in model: \
llama.block_count
0.00.020.835 E srv  llama_server: exiting due to model loading error
"""
ARCHITECTURE = """\
0.00.026.501 E llama_model_load: error loading model: unknown model architecture: 'lzzzz'
0.00.028.833 E llama_model_load_from_file_impl: failed to load model
0.00.029.476 E srv  llama_server: exiting due to model loading error
"""
LORA = """\
0.00.049.791 E llama_adapter_lora_init: failed to open 'nope.gguf': No such file or directory
0.00.049.820 E cmn  common_init_: failed to load lora adapter 'nope.gguf'
0.00.053.346 E srv  llama_server: exiting due to model loading error
"""
ROWS = """\
0.00.412.127 E llama_model_load: error loading model: device Vulkan0 does not support split buffers
0.00.412.136 E llama_model_load_from_file_impl: failed to load model
"""
UNKNOWN_FLAG = "error: invalid argument: --no-such-flag\n"
BAD_VALUE = """\
error while handling argument "--cache-type-k": Unsupported cache type: zzz

usage:
-ctk,  --cache-type-k TYPE              KV cache data type for K
                                        (default: f16)


to show complete usage, run with -h
"""
PORT_TAKEN = """\
0.00.011.613 W srv  llama_server: security: no API key is set and CORS allows all origins
0.00.011.715 E srv         start: couldn't bind HTTP server socket, hostname: 127.0.0.1, port: 18992
0.00.011.717 I srv    operator(): operator(): cleaning up before exit...
0.00.016.569 E srv  llama_server: exiting due to HTTP server error
"""
SOCKET = """\
0.00.009.274 E srv         start: couldn't bind HTTP server socket, hostname: /nowhere/x.sock, port: 8080
0.00.017.496 E srv  llama_server: exiting due to HTTP server error
"""
NO_MEMORY = """\
0.04.932.418 E llama_init_from_model: failed to initialize the context: std::bad_alloc
0.04.932.448 E srv    load_model: failed to create_context with model 'demo.gguf'
0.04.935.387 E srv          init: exiting due to model loading error
RuntimeError: Failed to init server, please check the input params.
"""
NO_LIBRARY = """\
./llama-server: error while loading shared libraries: libllama-server-impl.so: cannot open shared object file: No such \
file or directory
"""
NO_MODULE = "Traceback (most recent call last):\nModuleNotFoundError: No module named 'xllamacpp'\n"
CUDA_MEMORY = (
    "ggml_backend_cuda_buffer_type_alloc_buffer: allocating 9000.00 MiB on device 0: cudaMalloc failed: out of memory\n"
)
CUDA_FAULT = "CUDA error: an illegal memory access was encountered\n"


@pytest.mark.parametrize(
    ("tail", "code", "kind", "words"),
    [
        (MISSING, 1, "file", "cannot open missing.gguf (No such file or directory)"),
        (TRUNCATED_HEADER, 1, "file", "damaged or cut short (failed to read key-value pairs)"),
        (TRUNCATED_DATA, 1, "file", "damaged or cut short (model is corrupted or incomplete)"),
        (WRONG_MAGIC, 1, "file", "no GGUF file"),
        (EMPTY, 1, "file", "no GGUF file"),
        (VERSION, 1, "file", "GGUF version 99, and this engine reads up to 3"),
        (MISSING_KEY, 1, "file", "key not found in model: llama.block_count"),
        (ARCHITECTURE, 1, "architecture", "architecture 'lzzzz'"),
        (LORA, 1, "file", "cannot open nope.gguf (No such file or directory)"),
        (ROWS, 1, "flag", "Vulkan0 cannot split a model by rows"),
        (UNKNOWN_FLAG, 1, "flag", "does not know the flag --no-such-flag"),
        (BAD_VALUE, 1, "flag", "refuses the flag --cache-type-k (Unsupported cache type: zzz)"),
        (PORT_TAKEN, 1, "address", "127.0.0.1 port 18992"),
        (SOCKET, 1, "address", "the socket /nowhere/x.sock"),
        (NO_MEMORY, 1, "memory", "std::bad_alloc"),
        (NO_LIBRARY, 127, "library", "libllama-server-impl.so is missing"),
        (NO_MODULE, 1, "library", "No module named 'xllamacpp'"),
        (CUDA_MEMORY, 1, "memory", "GPU's memory was not enough"),
        (CUDA_FAULT, 1, "device", "an illegal memory access"),
        (
            "noise\ncorral: cannot read the model /m: Permission denied\n",
            exits.MODEL_FILE,
            "file",
            "/m: Permission denied",
        ),
        ("corral: unknown flag --x\n", exits.FLAG, "flag", "unknown flag --x"),
        (ARCHITECTURE + "corral: refused\n", exits.REFUSED, "architecture", "architecture 'lzzzz'"),
        ("corral: refused\n", exits.REFUSED, "exit", "exit code 70: refused"),
        ("something new\n", 3, "exit", "exit code 3: something new"),
        ("", 3, "exit", "exit code 3"),
    ],
)
def test_last_lines_become_a_sentence(tail: str, code: int, kind: str, words: str) -> None:
    """What an engine says before it exits decides the kind, and its own words are in the sentence."""
    reason = reasons.explain(Exit(code=code), tail, "m")
    assert (reason.kind, words in reason.text) == (kind, True), reason.text
    assert reason.text.startswith("m ")
    assert "\n" not in reason.text
    assert reason.hint


@pytest.mark.parametrize(
    ("number", "kind", "words"),
    [
        (signal.SIGSEGV, "signal", "SIGSEGV"),
        (signal.SIGILL, "cpu", "instruction that this processor does not have (SIGILL)"),
        (signal.SIGBUS, "file", "SIGBUS"),
        (signal.SIGABRT, "signal", "GGML_ASSERT(n > 0) failed"),
        (signal.SIGTERM, "signal", "outside Corral"),
        (signal.SIGUSR2, "signal", "SIGUSR2"),
        (64, "signal", "SIGRTMAX"),
    ],
)
def test_signals_have_names(number: int, kind: str, words: str) -> None:
    """An engine that a signal ended is explained by that signal, with its last line."""
    reason = reasons.explain(Exit(signal=number), "0.00.1\nGGML_ASSERT(n > 0) failed\n", "m")
    assert (reason.kind, words in reason.text) == (kind, True), reason.text


def test_a_signal_does_not_hide_what_was_said() -> None:
    """An engine that aborts after saying that memory ran out is explained by memory."""
    assert reasons.explain(Exit(signal=signal.SIGABRT), "terminate called: std::bad_alloc\n", "m").kind == "memory"


@pytest.mark.parametrize(("oom_kills", "kind"), [(None, "signal"), (0, "signal"), (1, "memory")])
def test_kill_is_memory_when_the_kernel_says_so(oom_kills: int | None, kind: str) -> None:
    """An unasked KILL is called out-of-memory only when the kernel counted one; otherwise it is called a guess."""
    reason = reasons.explain(Exit(signal=signal.SIGKILL), "", "m", oom_kills=oom_kills)
    assert reason.kind == kind
    assert "SIGKILL" in reason.text
    assert ("often" in reason.text) is (oom_kills is None)


@pytest.mark.parametrize("exit_", [Exit(signal=signal.SIGKILL), Exit(code=1)])
def test_its_own_limit_is_named(exit_: Exit) -> None:
    """Whichever of its processes it was; one that ended well all the same did not end for that."""
    reason = reasons.explain(replace(exit_, limit_bytes=3 << 29), "", "m", oom_kills=1, engine="vllm")
    assert reason.kind == "memory" and "its memory limit of 1.5 GiB" in reason.text
    assert "limit" not in reasons.explain(Exit(code=0, limit_bytes=3 << 29), "", "m").text


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_asked_is_stopped(number: int) -> None:
    """An engine that we ended was stopped, whatever its log says."""
    assert reasons.explain(Exit(signal=number, asked=True), NO_MEMORY, "m").kind == "stopped"


def test_unseen_exit() -> None:
    """When nobody saw the exit, that is what is said."""
    assert reasons.explain(Exit(), "listening\n", "m").kind == "unseen"


def test_last_lines_are_cleaned_and_few() -> None:
    """The last lines come without llama.cpp's clock, colours and empty lines, five at most."""
    tail = "\n".join(f"0.00.000.{number:03} I \x1b[31mline {number}\x1b[0m\n" for number in range(9))
    assert reasons.explain(Exit(code=1), tail, "m").lines == tuple(f"line {number}" for number in range(4, 9))


def test_kernel_counts() -> None:
    """The kernel's count is found in /proc/vmstat's and memory.events' form, and is unknown elsewhere."""
    assert reasons.oom_kills_in("pgfault 12\noom_kill 3\nnuma_hit 1\n") == 3
    assert reasons.oom_kills_in("low 0\noom 2\noom_kill 1\noom_group_kill 0\n") == 1
    assert reasons.oom_kills_in("") is None


@given(
    st.builds(Exit, st.none() | st.integers(0, 255), st.none() | st.integers(1, 64), asked=st.booleans()),
    st.text(max_size=200),
    st.text(max_size=20),
)
def test_anything_is_explained(exit_: Exit, tail: str, model: str) -> None:
    """No exit and no log is beyond words, and the words fit in a line of a table."""
    reason = reasons.explain(exit_, tail, model)
    assert reason.text.startswith(model)
    assert len(reason.text) < 600
