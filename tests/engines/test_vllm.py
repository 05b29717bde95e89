"""Plans of vLLM: what is refused before anything runs, what becomes of settings, and how much it is granted.

Environments are folders with the few files that a plan looks at; what a real one does is in tests/vllm.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from corral.config.settings import ModelSettings
from corral.engines import vllm_builds
from corral.engines.adapter import Start
from corral.engines.placement import TOP, Step
from corral.engines.plan import Endpoint, LaunchPlan
from corral.engines.rooms import Machine
from corral.engines.vllm import Vllm
from corral.errors import (
    CannotFit,
    CorralError,
    EngineError,
    EngineFlagError,
    EngineMissing,
    ModelFileError,
    UnknownArchitecture,
)
from corral.hardware.devices import Device
from corral.models.memory.vllm import OUTSIDE
from corral.runners.record import dump_plan, load_plan

GIB = 1 << 30
SOCKET = Endpoint(socket=Path("/run/corral/v.sock"))

HELP = """usage: entry.py [-h] [--uds UDS] [--model MODEL]
                [--served-model-name SERVED_MODEL_NAME [SERVED_MODEL_NAME ...]]
                [--enforce-eager | --no-enforce-eager] [--hf-token [HF_TOKEN]]
                [--tokenizer-mode ['auto', 'hf', 'mistral']] [--shutdown-timeout SHUTDOWN_TIMEOUT]
                [--tensor-parallel-size TENSOR_PARALLEL_SIZE] [--kv-cache-memory-bytes KV_CACHE_MEMORY_BYTES]
                [--quantization QUANTIZATION] [--trust-remote-code | --no-trust-remote-code]
                [--compilation-config COMPILATION_CONFIG] [--max-num-seqs MAX_NUM_SEQS]

vLLM OpenAI-Compatible RESTful API server.

options:
  --tensor-parallel-size, -tp TENSOR_PARALLEL_SIZE
                        Number of tensor parallel groups.
  --quantization, -q QUANTIZATION
"""

CONFIG: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "max_position_embeddings": 8192,
    "vocab_size": 128256,
    "dtype": "bfloat16",
}


def environment(at: Path, variant: str = "cpu", help_text: str = HELP) -> Path:
    """An environment as a plan sees it; its `python` says `help_text` whatever it is asked."""
    packages = at / "lib" / "python3.11" / "site-packages"
    (packages / "vllm" / "model_executor" / "models").mkdir(parents=True)
    (packages / "vllm" / "__init__.py").touch()
    (packages / "vllm" / "model_executor" / "models" / "registry.py").write_text('"LlamaForCausalLM": ()')
    (packages / "vllm-0.32.0.dist-info").mkdir()
    tag = {"cpu": "+cpu", "cuda": "+cu130", "rocm": "+rocm7.2"}[variant]
    (packages / f"torch-2.13.0{tag}.dist-info").mkdir()
    (at / "bin").mkdir()
    (at / "help").write_text(help_text)
    (at / "bin" / "python").write_text(f"#!/bin/sh\nexec cat {at}/help\n")
    (at / "bin" / "python").chmod(0o755)
    return at


def folder(at: Path, config: dict[str, Any] = CONFIG, weights: int = 1 << 20) -> Path:
    """A model whose header claims bf16 weights of so many bytes; the file is sparse."""
    at.mkdir(parents=True)
    (at / "config.json").write_text(json.dumps(config))
    (at / "tokenizer.json").write_text("{}")
    header = json.dumps({"w": {"dtype": "BF16", "shape": [weights // 2], "data_offsets": [0, weights]}}).encode()
    with (at / "model.safetensors").open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(8 + len(header) + weights)
    return at


def gpu(number: int, gib: int = 80, vendor: str = "nvidia") -> Device:
    return Device(f"gpu{number}", vendor, f"{vendor} {number}", gib * GIB, gib * GIB, "test")


def machine(*gpus: Device, gib: int = 64) -> Callable[[], Machine]:
    cpu = Device("cpu", "", "", gib * GIB, gib * GIB, "test")
    return lambda: Machine((cpu, *gpus), {}, 0)


class Place:
    def __init__(self, root: Path, variant: str = "cpu", *gpus: Device, help_text: str = HELP) -> None:
        self.root, self.env = root, environment(root / "env", variant, help_text)
        self.adapter = Vllm(machine(*gpus), lambda: self.env, root / "cache")
        self.model = ModelSettings("m", folder(root / "model"), engine="vllm", parallel=256)

    def plan(self, step: Step = TOP, **keys: Any) -> LaunchPlan:
        return self.adapter.plan(Start(replace(self.model, **keys), generation=1, endpoint=SOCKET, step=step))


def value(plan: LaunchPlan, flag: str) -> str:
    return plan.argv[plan.argv.index(flag) + 1]


def test_help_is_read() -> None:
    """Every flag with the number of its values, short spellings too."""
    found = vllm_builds.flags_in(HELP)
    assert found["--model"] == 1 and found["--no-enforce-eager"] == 0 and found["-tp"] == found["-q"] == 1
    assert found["--served-model-name"] == vllm_builds.MANY and found["--hf-token"] == vllm_builds.MAYBE
    assert found["--tokenizer-mode"] == 1
    assert vllm_builds.flags_in("usage: other [--foo]") == {}


def test_a_plan_on_the_processor(tmp_path: Path) -> None:
    """What a CPU environment is started with; it survives being written down, and is the same when made again."""
    place = Place(tmp_path)
    plan = place.plan(context=1024, max_num_seqs=16, args=("--enforce-eager",))
    assert plan.argv[:3] == (str(place.env / "bin" / "python"), "-m", "vllm.entrypoints.openai.api_server")
    assert value(plan, "--uds") == str(SOCKET.socket) and value(plan, "--max-model-len") == "1024"
    assert value(plan, "--max-num-seqs") == "16" and plan.argv[-1] == "--enforce-eager"
    assert plan.env["VLLM_NO_USAGE_STATS"] == plan.env["DO_NOT_TRACK"] == plan.env["HF_HUB_OFFLINE"] == "1"
    assert "VLLM_SERVER_DEV_MODE" not in plan.env and "--gpu-memory-utilization" not in plan.argv
    assert plan.devices == ("cpu",) and plan.slots == 256 and plan.probe.canary == "/v1/completions"
    assert load_plan(json.loads(json.dumps(dump_plan(plan)))) == plan
    again = place.adapter.plan(Start(
        replace(place.model, context=1024, max_num_seqs=16, args=("--enforce-eager",)),
        generation=1, endpoint=SOCKET, room=plan.room,
    ))  # fmt: skip
    assert again == plan


def test_a_plan_on_gpus(tmp_path: Path) -> None:
    """Two of three GPUs share the model; each is granted what it needs, not what there is; asleep it keeps little."""
    place = Place(tmp_path, "cuda", gpu(0), gpu(1), gpu(2))
    plan = place.plan(tensor_parallel=2, quantization="fp8_per_block", kv_cache_type="fp8", sleep=1)
    assert plan.devices == ("gpu0", "gpu1") and plan.env["CUDA_VISIBLE_DEVICES"] == "0,1"
    assert value(plan, "--tensor-parallel-size") == "2" and value(plan, "--quantization") == "fp8_per_block"
    assert value(plan, "--kv-cache-dtype") == "fp8" and "--enable-sleep-mode" in plan.argv
    assert plan.env["VLLM_SERVER_DEV_MODE"] == "1" and plan.sleep == 1
    share = float(value(plan, "--gpu-memory-utilization"))
    taken = plan.footprint.bytes_by_device["gpu0"]
    assert share < 0.5 and taken <= share * 80 * GIB < taken + GIB
    assert plan.footprint.asleep["gpu0"] == OUTSIDE < taken


def test_amd_is_shown_its_own(tmp_path: Path) -> None:
    """ROCm environments see AMD's GPUs only."""
    plan = Place(tmp_path, "rocm", gpu(0), gpu(1, vendor="amd")).plan()
    assert plan.env["HIP_VISIBLE_DEVICES"] == "0" and plan.devices == ("gpu1",)


@pytest.mark.parametrize(
    ("keys", "error", "words"),
    [
        ({"args": ("--foo",)}, EngineFlagError, "does not know the flag --foo"),
        ({"args": ("--model", "x")}, EngineFlagError, "use the key `source`"),
        ({"args": ("--api-key=planted",)}, EngineFlagError, "the flag --api-key=<removed> is Corral's own"),
        ({"args": ("--api-key", "x")}, EngineFlagError, "corral keys"),
        ({"args": ("-tp=2",)}, EngineFlagError, "use the key `tensor_parallel`"),
        ({"args": ("--quantization", "awq"), "quantization": "fp8_per_block"}, EngineFlagError, "use the key"),
        ({"args": ("--config", "x")}, EngineFlagError, "names a file of further flags"),
        ({"args": ("--tokenizer-mode",)}, EngineFlagError, "wants a value"),
        ({"args": ("--enforce-eager", "yes")}, EngineFlagError, "yes"),
        ({"env": {"VLLM_SERVER_DEV_MODE": "1"}}, EngineFlagError, "Corral's own to set"),
        ({"executable": "embedded"}, EngineMissing, "no vLLM comes with Corral"),
        ({"executable": "/nonexistent"}, EngineMissing, "no Python environment"),
        ({"context": 100_000_000}, CannotFit, "may be used on each device"),
        ({"kv_cache_bytes": 1 << 20, "context": 8192}, CannotFit, "one sequence of 8192 tokens"),
    ],
)
def test_what_is_refused(tmp_path: Path, keys: dict[str, Any], error: type[CorralError], words: str) -> None:
    """Each before anything runs, with a hint."""
    with pytest.raises(error) as caught:
        Place(tmp_path).plan(**keys)
    assert words in f"{caught.value.message} ({caught.value.hint})" and caught.value.hint


def test_flags_that_are_right(tmp_path: Path) -> None:
    """Values of all kinds, `=` and inner keys of JSON flags."""
    args = ("--tokenizer-mode=hf", "--hf-token", "--compilation-config.mode", "3", "--trust_remote_code", "-q", "awq")
    assert Place(tmp_path).plan(args=args).argv[-len(args) :] == args


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda at: (at / "config.json").unlink(), "no config.json"),
        (lambda at: (at / "model.safetensors").unlink(), "no safetensors"),
        (lambda at: (at / "model.safetensors").rename(at / "pytorch_model.bin"), "only safetensors are opened"),
        (lambda at: (at / "tokenizer.json").unlink(), "no tokenizer"),
        (lambda at: (at / "config.json").write_text('{"model_type": "llama"}'), "names no architectures"),
        (lambda at: (at / "model.safetensors").write_bytes(b"abc"), "no usable safetensors"),
    ],
)
def test_folders_that_are_not_whole(tmp_path: Path, spoil: Callable[[Path], object], words: str) -> None:
    """What a folder lacks is said."""
    place = Place(tmp_path)
    spoil(place.model.source)
    with pytest.raises(ModelFileError) as caught:
        place.plan()
    assert words in caught.value.message


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    """A GGUF file is llama.cpp's, and a path that leads nowhere is said to."""
    place = Place(tmp_path)
    (tmp_path / "x.gguf").touch()
    with pytest.raises(ModelFileError, match="vLLM opens folders"):
        place.plan(source=tmp_path / "x.gguf")
    with pytest.raises(ModelFileError, match="there is no folder"):
        place.plan(source=tmp_path / "none")


def test_an_unknown_architecture(tmp_path: Path) -> None:
    """One that neither vLLM nor transformers has; what brings its own code is left to the engine."""
    place = Place(tmp_path)
    strange = {**CONFIG, "architectures": ["FooForCausalLM"]}
    with pytest.raises(UnknownArchitecture, match="FooForCausalLM"):
        place.plan(source=folder(tmp_path / "foo", strange))
    place.plan(source=folder(tmp_path / "own", {**strange, "auto_map": {}}))


def test_gpus_that_are_not_there(tmp_path: Path) -> None:
    """An environment for GPUs needs them, as many as the model's keys say, and cannot do without."""
    place = Place(tmp_path, "cuda", gpu(0))
    with pytest.raises(EngineError, match=r"needs 2 GPUs .* and 1 that it can use is here"):
        place.plan(tensor_parallel=2)
    with pytest.raises(EngineError, match="cannot do without a GPU"):
        place.plan(step=TOP.without_gpus("it failed"))


def test_without_unix_sockets_it_is_refused(tmp_path: Path) -> None:
    """An engine that only Corral reaches, or none."""
    with pytest.raises(EngineError, match="cannot listen on a unix socket"):
        Place(tmp_path, help_text=HELP.replace("[--uds UDS] ", "")).plan()


def test_flags_are_asked_once(tmp_path: Path) -> None:
    """What an environment said is kept on disk, and asked anew when it is another."""
    place = Place(tmp_path)
    build = vllm_builds.build_in(place.env)
    known = vllm_builds.flags_of(build, tmp_path / "cache")
    (place.env / "help").write_text("broken")
    assert vllm_builds.flags_of(build, tmp_path / "cache") == known
    assert list((tmp_path / "cache").glob("vllm-flags-*.json"))
    with pytest.raises(EngineError, match="does not say its flags: broken"):
        vllm_builds.flags_of(replace(build, version="0.33.0"), tmp_path / "cache")


def inside(variant: vllm_builds.Variant = "cpu", help_text: str = HELP) -> vllm_builds.VllmBuild:
    """A build as an image's answers make it."""
    command = ("python3", "-m", "vllm.entrypoints.openai.api_server")
    image = vllm_builds.VllmInImage(
        "localhost/v:1", "ab" * 32, command, vllm_builds.VllmFlags(), ("nvidia.com/gpu=0",), {"A": "1"}, ("not locked",)
    )
    return vllm_builds.build_inside("vLLM 0.32.0\n", help_text, variant, image)


def test_a_plan_for_a_container(tmp_path: Path) -> None:
    """The same words as on this machine but for what begins them; the image's environment, its devices only with GPUs,
    shared memory and code of its own making."""
    place = Place(tmp_path)
    own = place.plan(context=1024)
    place.adapter = Vllm(machine(), lambda: None, tmp_path / "cache", lambda model: inside())
    plan = place.plan(context=1024, runner="podman")
    assert plan.argv[:3] == ("python3", "-m", "vllm.entrypoints.openai.api_server") and plan.argv[3:] == own.argv[3:]
    assert (plan.image, plan.image_id, plan.nodes) == ("localhost/v:1", "ab" * 32, ())
    assert plan.env["A"] == plan.env["VLLM_NO_USAGE_STATS"] == "1" and plan.env["GLOO_SOCKET_IFNAME"] == "lo"
    assert plan.shared_bytes and plan.makes_code and not own.shared_bytes and not own.makes_code
    assert plan.mounts == own.mounts and "not locked" in plan.warnings and "0.32.0" in plan.engine_version
    assert load_plan(json.loads(json.dumps(dump_plan(plan)))) == plan
    place.adapter = Vllm(machine(gpu(0)), lambda: None, tmp_path / "cache", lambda model: inside("cuda"))
    assert place.plan(runner="podman").nodes == ("nvidia.com/gpu=0",)


def test_an_image_without_vllm(tmp_path: Path) -> None:
    """What says no flags is no vLLM, and where there are no containers, that is said."""
    with pytest.raises(EngineError, match=r"localhost/v:1 has no vLLM that says its flags: 'no such module'"):
        inside(help_text="no such\nmodule")
    with pytest.raises(EngineMissing, match="no containers for m here"):
        Place(tmp_path).plan(runner="podman")


def test_what_links_lead_to_is_seen_in_a_container(tmp_path: Path) -> None:
    """A folder of links, as Hugging Face's cache has, is given file by file; another tokenizer's folder too."""
    place = Place(tmp_path)
    links = tmp_path / "snapshot"
    links.mkdir()
    for path in place.model.source.iterdir():
        (links / path.name).symlink_to(path)
    other = folder(tmp_path / "tokenizer")
    place = Place(tmp_path / "more", help_text=HELP.replace("[--uds UDS]", "[--uds UDS] [--tokenizer TOKENIZER]"))
    mounts = place.plan(source=links, args=("--tokenizer", str(other))).mounts
    assert {mount.target for mount in mounts} == {*(str(path) for path in links.iterdir()), str(other)}
    assert all(str(mount.source) == mount.target and mount.read_only for mount in mounts)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    weights=st.integers(1 << 20, 1 << 36),
    gib=st.integers(4, 160),
    count=st.sampled_from([1, 2, 4]),
    sequences=st.integers(1, 1024),
    context=st.one_of(st.none(), st.integers(64, 131072)),
    cache=st.one_of(st.none(), st.integers(1 << 24, 1 << 36)),
    kind=st.sampled_from(["auto", "fp8"]),
    sleep=st.sampled_from([0, 1, 2]),
    batch=st.integers(0, 3),
)
def test_what_is_granted_is_there(
    tmp_path_factory: pytest.TempPathFactory, weights: int, gib: int, count: int, sequences: int,
    context: int | None, cache: int | None, kind: str, sleep: int, batch: int,
) -> None:  # fmt: skip
    """Whatever is asked: never more than the room of each GPU, a configured context is never cut, one sequence always
    fits in the cache, and nothing holds more asleep than awake on a GPU."""
    root = tmp_path_factory.mktemp("granted")
    place = Place(root, "cuda", *(gpu(number, gib) for number in range(count)))
    source = folder(root / "sized", weights=weights // 2 * 2)
    keys: dict[str, Any] = {"kv_cache_type": kind, "kv_cache_bytes": cache, "sleep": sleep}
    try:
        plan = place.plan(
            Step(batch=batch), source=source, max_num_seqs=sequences, context=context, tensor_parallel=count, **keys
        )
    except CannotFit:
        return
    assert context is None or plan.context == context
    assert plan.context <= (context or 8192) and int(value(plan, "--max-num-seqs")) >= 1
    for name in plan.devices:
        assert plan.footprint.bytes_by_device[name] <= gib * GIB
        assert plan.footprint.asleep.get(name, 0) <= plan.footprint.bytes_by_device[name]
    assert float(value(plan, "--gpu-memory-utilization")) <= 0.97
    assert plan.sleep in (0, sleep)
