"""Finding llama.cpp builds, and asking them what they are."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import xllamacpp

from corral.engines import architecture, executables
from corral.engines.architectures import FIRST_RELEASE
from corral.errors import EngineError, EngineMissing, UnknownArchitecture
from support.llama import llama_server

HELP = """\
----- common params -----

-h,    --help, --usage                  print usage and exit
-t,    --threads N                      number of CPU threads (default: -1)
                                        (env: LLAMA_ARG_THREADS)
-fa,   --flash-attn [on|off|auto]       set Flash Attention use
-kvo,  --kv-offload, -nkvo, --no-kv-offload
                                        whether to enable KV cache offloading
-ot,   --override-tensor <tensor name pattern>=<buffer type>,...
                                        override
--control-vector-layer-range START END
                                        layer range, -1 and --all included
-m,    --model FNAME                    model path
--host HOST                             address
"""


def script(path: Path, text: str) -> Path:
    path.write_text("#!/bin/sh\n" + text)
    path.chmod(0o755)
    return path


def saying(folder: Path, version: str) -> Path:
    """A program that speaks as llama-server does when it is asked what it is."""
    (folder / "help").write_text(HELP)
    return script(
        folder / "llama-server",
        f'case "$1" in --version) echo "{version}" >&2;; --help) cat "{folder}/help";; *) exit 1;; esac\n',
    )


def test_reads_help() -> None:
    """The flags in --help are found in all their spellings, with the number of values; descriptions are not."""
    assert executables.flags_in(HELP) == {
        "-h": 0, "--help": 0, "--usage": 0, "-t": 1, "--threads": 1, "-fa": 1, "--flash-attn": 1, "-kvo": 0,
        "--kv-offload": 0, "-nkvo": 0, "--no-kv-offload": 0, "-ot": 1, "--override-tensor": 1,
        "--control-vector-layer-range": 2, "-m": 1, "--model": 1, "--host": 1,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("said", "version"),
    [
        ("version: 11434 (abc1234)", "b11434"),
        ("version: 0.6.0-dev (build 11434, commit abc1234)", "b11434"),
        ("version: 0.6.0-dev (build 0, commit unknown)", "0.6.0-dev"),
        ("hello", "of unknown version"),
    ],
)
def test_reads_versions(said: str, version: str, short_tmp: Path) -> None:
    """A build is called by its number, or by what it calls itself where it has none."""
    assert executables.llama_server(str(saying(short_tmp, said))).version == version


def test_asks_once(short_tmp: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A build is asked once and again only when its file has changed."""
    monkeypatch.setenv("PATH", f"{short_tmp}:{os.environ['PATH']}")
    program = saying(short_tmp, "version: 1 (a)")
    first = executables.llama_server("llama-server")
    assert executables.llama_server("llama-server") is first
    assert executables.on_path() == program
    saying(short_tmp, "version: 22 (b)")
    assert executables.llama_server("llama-server").version == "b22"


def test_missing(short_tmp: Path) -> None:
    """A program that is not there is EngineMissing, saying where it was looked for."""
    with pytest.raises(EngineMissing, match="no-such-llama is not on PATH") as caught:
        executables.llama_server("no-such-llama")
    assert "executable: embedded" in caught.value.hint
    with pytest.raises(EngineMissing, match="is not there, or not executable"):
        executables.llama_server(str(short_tmp / "llama-server"))


def test_another_program(short_tmp: Path) -> None:
    """A program that is no llama-server, or fails, is refused with its own last words."""
    with pytest.raises(EngineError, match="is no llama-server"):
        executables.llama_server(str(script(short_tmp / "a", "echo hello\n")))
    with pytest.raises(EngineError, match="failed with exit code 3: oh no"):
        executables.llama_server(str(script(short_tmp / "b", "echo oh no; exit 3\n")))
    broken = short_tmp / "c"
    broken.write_text("#!/no/such/interpreter\n")
    broken.chmod(0o755)
    with pytest.raises(EngineMissing, match="cannot be run"):
        executables.llama_server(str(broken))


def test_says_nothing(short_tmp: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that does not answer is given up after a bounded time."""
    monkeypatch.setattr(executables, "ASK_WITHIN_S", 0.2)
    with pytest.raises(EngineError, match="said nothing within"):
        executables.llama_server(str(script(short_tmp / "llama-server", "exec sleep 60\n")))


def test_embedded() -> None:
    """The embedded engine is found without being loaded, with its version and its devices as it reports them."""
    build = executables.embedded()
    assert (build.kind, build.version) == ("embedded", f"xllamacpp {xllamacpp.__version__}")
    gpus = [each for each in xllamacpp.get_device_info() if each["type"].name.endswith("GPU")]
    assert len(executables.devices(build)) == len(gpus)


def test_lists_devices(short_tmp: Path) -> None:
    """A llama-server's GPUs are those it lists under the environment of the model."""
    (short_tmp / "help").write_text(HELP + "--list-devices    print list\n")
    program = script(
        short_tmp / "llama-server",
        f'case "$1" in --version) echo "version: 5 (a)";; --help) cat "{short_tmp}/help";;\n'
        '*) echo "ggml: 1 device"; echo "Available devices:"; [ -n "$HIDE" ] && echo "  (none)" ||'
        ' echo "  Vulkan0: AMD Radeon (8176 MiB, 8000 MiB free)";; esac\n',
    )
    build = executables.llama_server(str(program))
    assert executables.devices(build) == ("Vulkan0",)
    assert executables.devices(build, {"HIDE": "1"}) == ()


def test_embedded_knows_architectures() -> None:
    """The embedded engine knows every architecture of the shipped table but the one that llama.cpp dropped."""
    build = executables.embedded()
    assert [name for name in FIRST_RELEASE if not architecture.knows(build, name)] == ["persimmon"]
    assert architecture.knows(build, "llama9000") is False


def test_unknown_architecture(short_tmp: Path) -> None:
    """A model the build is too old for is refused, naming the release that brought it and what here can run it."""
    library = short_tmp / "libllama.so"
    library.write_bytes(b"\0llama\0nomic-bert\0gpt2\0")
    old = executables.llama_server(str(saying(short_tmp, "version: 42 (a)")))
    assert old.libraries == (library.resolve(),)
    architecture.check(old, "gpt2", "m")
    architecture.check(old, "bert", "m")  # the end of another name: linkers store it once
    with pytest.raises(UnknownArchitecture) as caught:
        architecture.check(old, "gemma3", "m", lambda: [executables.embedded()])
    assert "llama.cpp b42) does not know the architecture 'gemma3' of m" in caught.value.message
    assert "here it can run with `executable: embedded`" in caught.value.hint
    assert f"since the release of gguf {FIRST_RELEASE['gemma3']}" in caught.value.hint
    with pytest.raises(UnknownArchitecture) as caught:
        architecture.check(old, "llama9000", "m", lambda: [executables.embedded()])
    assert "does not name it" in caught.value.hint


def test_nothing_to_see(short_tmp: Path) -> None:
    """A build whose files do not show the names is trusted: the engine itself will say."""
    build = executables.llama_server(str(saying(short_tmp, "version: 42 (a)")))
    assert architecture.knows(build, "llama9000") is None
    architecture.check(build, "llama9000", "m")


@pytest.mark.engines
def test_a_real_llama_server() -> None:
    """A real llama-server tells its version, its flags and its devices, and its libraries the architectures."""
    build = executables.llama_server(str(llama_server()))
    assert build.version != "of unknown version"
    assert {"--model", "--metrics", "--slots", "--no-ui"} <= build.flags.keys()
    assert isinstance(executables.devices(build), tuple)
    assert architecture.knows(build, "llama") is True
    assert architecture.knows(build, "bert") is True
    assert architecture.knows(build, "llama9000") is False
