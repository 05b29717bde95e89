"""vLLM's last words and how far it says it is. The lines are those of vLLM 0.32 on the processor, shortened."""

from __future__ import annotations

import signal

import pytest

from corral.runners.runner import Exit
from corral.supervisor import progress, reasons, reasons_vllm

E = "(Worker pid=7318) ERROR 11-21 19:11:52 [multiproc_executor.py:1063] "

HEADS = f"""(APIServer pid=2981) WARNING 11-21 19:03:57 [system_utils.py:255] Found ulimit of 20000. OSError: [Errno 24]
{E}WorkerProc hit an exception.
{E}Traceback (most recent call last):
{E}  File "vllm/_custom_ops.py", line 3865, in cpu_attn_get_scheduler_metadata
{E}RuntimeError: Unsupported CPU attention configuration: head_dim=16 isa=2 kv_cache_idx=0
(APIServer pid=2981) ERROR 11-21 19:11:52 [vllm_error.py:54] vllm.v1.engine.exceptions.EngineDeadError: EngineCore \
encountered an issue. See stack trace (above) for the root cause.
INFO:     Shutting down
nanobind: leaked 64 types!
See https://nanobind.readthedocs.io/en/latest/refleaks.html
"""

STARTS = """(APIServer pid=1) INFO 11-21 19:03:57 [api_utils.py:286] non-default args: {'uds': '/s'}
(EngineCore pid=2) INFO 11-21 19:08:25 [ompmultiprocessing.py:185] OpenMP thread binding info:
(Worker pid=3) INFO 11-21 19:09:41 [cpu_model_runner.py:68] Starting to load model /m...
Loading safetensors checkpoint shards:   0% Completed | 0/3 [00:00<?, ?it/s]\
\rLoading safetensors checkpoint shards:  33% Completed | 1/3 [00:00<00:00, 33.62it/s]
"""


def test_the_cause_is_found_among_what_follows_it() -> None:
    """Of many processes that fail one after another, the first one's error is the reason."""
    reason = reasons.explain(Exit(code=0), HEADS, "m", engine="vllm")
    assert reason.kind == "architecture"
    assert reason.text == (
        "m ended: its attention on the processor cannot compute this model "
        "(Unsupported CPU attention configuration: head_dim=16 isa=2 kv_cache_idx=0)"
    )


@pytest.mark.parametrize(
    ("line", "kind", "words"),
    [
        (
            "ValueError: Free memory on device cuda:0 (1.2/79.1 GiB) on startup is less than desired GPU memory "
            "utilization (0.9, 71.2 GiB). Decrease GPU memory utilization",
            "memory",
            "the GPU's memory was not enough",
        ),
        (
            "ValueError: To serve at least one request with the models's max seq len (8192), (1.0 GiB KV cache is "
            "needed, which is larger than the available KV cache memory (0.5 GiB).",
            "memory",
            "no room for one sequence",
        ),
        ("ValueError: No available memory for the cache blocks. Try increasing it", "memory", "no room for a cache"),
        ("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0", "memory", "the GPU's memory"),
        ("RuntimeError: Found no NVIDIA driver on your system. Please check", "device", "finds no GPU"),
        ("RuntimeError: Failed to infer device type, please set", "device", "finds no GPU"),
        (
            "ValueError: Model architectures ['FooForCausalLM'] are not supported for now.",
            "architecture",
            "does not serve such models",
        ),
        ("ModuleNotFoundError: No module named 'torch'", "library", "its environment is damaged"),
        ("api_server.py: error: unrecognized arguments: --foo", "flag", "refuses a flag"),
        (
            "ValueError: User-specified max_model_len (4096) is greater than the derived max_model_len (max=2048).",
            "file",
            "longer than the model was made for",
        ),
        (f"{E}SomethingError: it went wrong", "exit", "it failed with SomethingError: it went wrong"),
    ],
)
def test_what_it_says_in_words(line: str, kind: str, words: str) -> None:
    """Each usual end has a sentence, a kind and a hint."""
    found = reasons_vllm.explain(f"INFO something\n{line}\n{E}EngineCore failed to start.\n")
    assert found is not None and found.kind == kind and words in found.text and found.hint


def test_of_nothing_nothing_is_told() -> None:
    """A log without an error has no reason in it: the exit has to tell."""
    assert reasons_vllm.explain("INFO:     Application startup complete.\n") is None
    assert "SIGSEGV" in reasons.explain(Exit(signal=signal.SIGSEGV), "", "m", engine="vllm").text


def test_a_worker_that_the_kernel_killed_is_the_reason() -> None:
    """Its other processes end by themselves then, with a code."""
    reason = reasons.explain(Exit(code=1), HEADS, "m", oom_kills=1, engine="vllm")
    assert reason.kind == "memory" and "want of memory" in reason.text


def test_the_furthest_is_told() -> None:
    """Whatever the log has said last of how far it is, in words."""
    lines = [f"{line}\n" for line in STARTS.split("\n")[:-1]]
    told = [progress.said("".join(lines[:count])) for count in range(len(lines) + 1)]
    assert told == [
        "",
        "its modules are loaded",
        "its workers are started",
        "loads the model",
        "reads its weights, 33 %",
    ]
