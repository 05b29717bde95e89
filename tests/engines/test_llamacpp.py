"""The llama.cpp adapter: plans, and that a real engine runs them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import gguf
import pytest

from corral.config.settings import ModelSettings
from corral.engines.adapter import Start
from corral.engines.llamacpp import LlamaCpp
from corral.engines.plan import Endpoint, LaunchPlan
from corral.errors import EngineFlagError, EngineMissing, ModelFileError, UnknownArchitecture
from support import ggufs
from support.http import unix_request, wait_healthy
from support.llama import llama_server

WORDS = ["the", "gate", "is", "open"]


@pytest.fixture
def chain(short_tmp: Path) -> ModelSettings:
    path = ggufs.write_chain(short_tmp / "chain.gguf", WORDS, context=1024)
    return ModelSettings(name="gate", source=path, executable="embedded")


def plan_of(model: ModelSettings, generation: int = 1) -> LaunchPlan:
    endpoint = Endpoint(socket=model.source.with_name(f"{generation}.sock"))
    return LlamaCpp().plan(Start(model, generation=generation, endpoint=endpoint))


def value(plan: LaunchPlan, flag: str) -> str:
    return plan.argv[plan.argv.index(flag) + 1]


@contextmanager
def running(plan: LaunchPlan) -> Iterator[Path]:
    """The socket of the engine that `plan` describes, ready; TERM must end it."""
    assert plan.endpoint.socket is not None
    with subprocess.Popen(plan.argv, env={"PATH": os.environ["PATH"], **plan.env}, stderr=subprocess.DEVNULL) as child:
        try:
            wait_healthy(plan.endpoint.socket, lambda: child.poll() is None)
            yield plan.endpoint.socket
        finally:
            child.send_signal(signal.SIGTERM)
        assert child.wait(10) in (0, -signal.SIGTERM)  # the latter in the moment between readiness and its handler


def chat(path: Path) -> str:
    body = {"messages": [{"role": "user", "content": "is it?"}]}
    status, _, answer = unix_request(path, "POST", "/v1/chat/completions", body)
    assert status == 200, answer
    text = json.loads(answer)["choices"][0]["message"]["content"]
    assert isinstance(text, str)
    return text


def test_plan(chain: ModelSettings) -> None:
    """A plan says in full what would run: model, name, socket, context of all slots, slots, and extra flags last."""
    model = replace(chain, context=512, parallel=2, gpu_layers=0, args=("--top-k", "5"), env={"A": "b"})
    plan = plan_of(model, 3)
    assert (plan.unit, plan.model, plan.generation, plan.engine) == ("gate.3", "gate", 3, "llama.cpp")
    assert plan.engine_version.startswith("xllamacpp ")
    assert plan.argv[:2] == (sys.executable, "-I")
    assert value(plan, "--model") == str(model.source)
    assert value(plan, "--alias") == "gate"
    assert value(plan, "--host") == str(plan.endpoint.socket)
    assert value(plan, "--ctx-size") == "1024"
    assert value(plan, "--parallel") == "2"
    assert value(plan, "--gpu-layers") == "0"
    assert plan.argv[-2:] == ("--top-k", "5")
    assert (plan.context, plan.slots, plan.devices, plan.warnings) == (512, 2, ("cpu",), ())
    assert plan.env == {"A": "b"}
    assert plan.mounts[0].source == model.source


def test_context(chain: ModelSettings) -> None:
    """Without a context the model's own is used; one longer than that is done, with a warning."""
    assert plan_of(chain).context == 1024
    longer = plan_of(replace(chain, context=4096))
    assert longer.context == 4096
    assert longer.warnings == ("context 4096 is longer than the 1024 tokens the model was made for",)


def test_tcp(chain: ModelSettings) -> None:
    """An endpoint on loopback becomes a host and a port."""
    plan = LlamaCpp().plan(Start(chain, generation=1, endpoint=Endpoint(host="127.0.0.1", port=4711)))
    assert (value(plan, "--host"), value(plan, "--port")) == ("127.0.0.1", "4711")


def test_footprint(chain: ModelSettings) -> None:
    """The footprint holds weights and cache, grows with slots, and shrinks with a smaller cache type."""
    adapter = LlamaCpp()
    one = adapter.footprint(chain)
    assert one == plan_of(chain).footprint
    assert one.bytes_by_device.keys() == {"cpu"}
    assert one.total_bytes > 64_000
    assert adapter.footprint(replace(chain, parallel=4)).total_bytes > one.total_bytes
    assert adapter.footprint(replace(chain, args=("-ctk", "q8_0"))).total_bytes < one.total_bytes
    draft = adapter.footprint(replace(chain, args=("-md", str(chain.source))))
    assert draft.total_bytes - draft.growth == 2 * (
        one.total_bytes - one.growth
    )  # the same file once more, with a cache and scratch of its own


def test_gpu_asked_in_vain(chain: ModelSettings) -> None:
    """Layers for a GPU that this build does not have are a warning, not silence."""
    plan = plan_of(replace(chain, gpu_layers=10))
    if plan.devices != ("cpu",):
        pytest.skip("the embedded engine has a GPU here")
    assert len(plan.warnings) == 1
    assert plan.warnings[0].startswith("degraded: cpu (gpu_layers is 10, but the embedded engine")
    assert plan_of(chain).warnings == ()


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"args": ("--top-q", "5")}, EngineFlagError, "does not know the flag --top-q"),
        ({"args": ("-c", "5")}, EngineFlagError, "the flag -c is Corral's own"),
        ({"args": ("--hf-repo", "a/b")}, EngineFlagError, "makes the engine fetch"),
        ({"env": {"LLAMA_ARG_CTX_SIZE": "5"}}, EngineFlagError, "LLAMA_ARG_CTX_SIZE"),
        ({"executable": "no-such-llama"}, EngineMissing, "no-such-llama is not on PATH"),
        ({"source": Path("/no/such/model.gguf")}, ModelFileError, "model.gguf"),
    ],
)
def test_caught_before_launch(
    change: dict[str, object], error: type[Exception], words: str, chain: ModelSettings
) -> None:
    """What cannot work is one clear error before anything is started."""
    with pytest.raises(error, match=words):
        plan_of(replace(chain, **change))  # type: ignore[arg-type]


def test_unknown_architecture(chain: ModelSettings, short_tmp: Path) -> None:
    """A model of an architecture that no engine here knows is caught before launch."""
    writer = gguf.GGUFWriter(short_tmp / "new.gguf", "llama9000")
    writer.add_context_length(512)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(UnknownArchitecture, match="does not know the architecture 'llama9000' of gate"):
        plan_of(replace(chain, source=short_tmp / "new.gguf"))


def test_projector(chain: ModelSettings, short_tmp: Path) -> None:
    """A projector given as the model is refused, and the hint says where it belongs."""
    writer = gguf.GGUFWriter(short_tmp / "mmproj.gguf", "clip")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(ModelFileError, match="is a projector") as caught:
        plan_of(replace(chain, source=short_tmp / "mmproj.gguf"))
    assert "--mmproj" in caught.value.hint


def test_runs(chain: ModelSettings) -> None:
    """A plan for the embedded engine runs as it is: ready on its socket, the right answer, ended by TERM."""
    with running(plan_of(replace(chain, parallel=2, args=("--no-warmup", "--temp", "0")))) as path:
        assert chat(path) == "the gate is open"
        assert unix_request(path, "GET", "/metrics")[0] == 200
        slots = json.loads(unix_request(path, "GET", "/slots")[2])
        assert [slot["n_ctx"] for slot in slots] == [1024, 1024]


def test_what_is_too_long_is_refused(chain: ModelSettings) -> None:
    """A prompt longer than the context is an error with both numbers; nothing of it is cut off in silence."""
    with running(plan_of(replace(chain, context=256, args=("--no-warmup",)))) as path:
        body = {"messages": [{"role": "user", "content": "is it? " * 400}]}
        status, _, answer = unix_request(path, "POST", "/v1/chat/completions", body)
        assert status == 400
        said = json.loads(answer)["error"]
        assert (said["type"], said["n_ctx"]) == ("exceed_context_size_error", 256)
        assert "256 tokens" in said["message"]


def test_embeds(short_tmp: Path) -> None:
    """An embedding model is served as one by itself, with its whole input in one batch."""
    source = ggufs.write_bert(short_tmp / "bert.gguf")
    plan = plan_of(ModelSettings(name="e", source=source, executable="embedded"))
    assert "--embedding" in plan.argv
    assert value(plan, "--ubatch-size") == str(plan.context)
    with running(plan) as path:
        status, _, answer = unix_request(path, "POST", "/v1/embeddings", {"input": "hello"})
        assert status == 200, answer
        assert json.loads(answer)["data"][0]["embedding"]


def test_reranks(short_tmp: Path) -> None:
    """A model that ranks is served for reranking by itself."""
    source = ggufs.write_bert(short_tmp / "rank.gguf", rank=True)
    plan = plan_of(ModelSettings(name="r", source=source, executable="embedded"))
    assert "--reranking" in plan.argv
    with running(plan) as path:
        body = {"query": "hello", "documents": ["one", "two"]}
        status, _, answer = unix_request(path, "POST", "/v1/rerank", body)
        assert status == 200, answer
        assert len(json.loads(answer)["results"]) == 2


def test_auto_without_a_program(chain: ModelSettings, monkeypatch: pytest.MonkeyPatch, short_tmp: Path) -> None:
    """`auto` is the embedded engine where no llama-server is on PATH."""
    monkeypatch.setenv("PATH", str(short_tmp))
    assert plan_of(replace(chain, executable="auto")).engine_version.startswith("xllamacpp")


@pytest.mark.engines
def test_a_real_llama_server(chain: ModelSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    """A real llama-server runs the same settings and gives the same answer; `auto` takes it from PATH."""
    program = llama_server()
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    model = replace(chain, executable="auto", parallel=2, args=("--top-k", "5", "--no-warmup"))
    plan = plan_of(model)
    assert plan.argv[0] == str(program.resolve())
    with running(plan) as path:
        assert chat(path) == "the gate is open"
        assert unix_request(path, "GET", "/metrics")[0] == 200
        models = json.loads(unix_request(path, "GET", "/v1/models")[2])
        assert [each["id"] for each in models["data"]] == ["gate"]
    with pytest.raises(EngineFlagError, match="does not know the flag --top-q"):
        plan_of(replace(chain, executable=str(program), args=("--top-q", "5")))
    absent = replace(chain, executable="embedded", args=("--override-kv", "general.name=str:x"))
    with pytest.raises(EngineFlagError, match="has no parameter"):
        plan_of(absent)
    assert plan_of(replace(absent, executable=str(program))).argv[-1] == "general.name=str:x"


def test_auto_goes_round(chain: ModelSettings, monkeypatch: pytest.MonkeyPatch, short_tmp: Path) -> None:
    """`auto` leaves a llama-server that cannot run the model for the embedded engine, and says so."""
    old = short_tmp / "old"
    old.mkdir()
    (old / "libllama.so").write_bytes(b"\0nomic-bert\0")
    program = old / "llama-server"
    program.write_text('#!/bin/sh\necho "version: 42 (a)"; printf "%s\\n" "-m,  --model FNAME" "--host HOST"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{old}:{os.environ['PATH']}")
    plan = plan_of(replace(chain, executable="auto"))
    assert plan.engine_version.startswith("xllamacpp")
    assert "because" in plan.warnings[0]
    assert "does not know the architecture 'llama'" in plan.warnings[0]
    with pytest.raises(UnknownArchitecture) as caught:
        plan_of(replace(chain, executable=str(program)))
    assert "`executable: embedded`" in caught.value.hint
    program.write_text("#!/bin/sh\necho hello world\n")
    (said,) = plan_of(replace(chain, executable="auto")).warnings
    assert "is no llama-server" in said
