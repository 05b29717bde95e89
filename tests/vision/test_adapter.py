"""What would run for a detector: which Python, where, with how much memory; and what is wrong, before anything runs."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from corral.config.settings import ModelSettings
from corral.engines.adapter import Start
from corral.engines.detector import CONTEXT_BYTES, DetectorAdapter, Library
from corral.engines.detector_flags import parse
from corral.engines.detector_folder import exported, read_detector
from corral.engines.from_ledger import FromLedger
from corral.engines.placement import TOP, Step
from corral.engines.plan import Endpoint, LaunchPlan
from corral.engines.rooms import Machine
from corral.environments.shelf import Environment
from corral.errors import CannotFit, EngineError, EngineFlagError, EngineMissing, ModelFileError
from corral.hardware.devices import Device
from corral.ledger.ledger import Ledger
from support.detecting import TINY

GIB = 1 << 30


def model(folder: Path = TINY, **more: Any) -> ModelSettings:
    settings: dict[str, Any] = {"name": "shapes", "source": folder, "engine": "detector", "parallel": 16}
    return ModelSettings(**settings | more)


def planned(adapter: DetectorAdapter, settings: ModelSettings, step: Step = TOP) -> LaunchPlan:
    return adapter.plan(Start(settings, generation=3, endpoint=Endpoint(socket=Path("/run/x.sock")), step=step))


def machine(*gpus: tuple[str, int], memory: int = 8 * GIB, **more: Any) -> Machine:
    found = [Device("cpu", "", "the processor", memory, memory, "test")]
    for number, (vendor, size) in enumerate(gpus):
        found.append(Device(f"gpu{number}", vendor, f"{vendor} {number}", size, size, "test"))
    return Machine(tuple(found), headroom=0, **more)


@pytest.fixture
def adapter(tmp_path: Path) -> DetectorAdapter:
    return DetectorAdapter(machine, tmp_path / "cache", environment={})


def after(plan: LaunchPlan, flag: str) -> str:
    return plan.argv[plan.argv.index(flag) + 1]


def test_plan(adapter: DetectorAdapter) -> None:
    """The plan names Corral's own Python, the files, the socket, and as many slots as two batches."""
    plan = planned(adapter, model())
    assert plan.argv[:2] == (sys.executable, "-I")
    assert Path(plan.argv[2], "__main__.py").is_file()
    assert after(plan, "--model") == str(TINY / "model.onnx")
    assert (after(plan, "--host"), after(plan, "--alias"), after(plan, "--confidence")) == (
        "/run/x.sock",
        "shapes",
        "0.5",
    )
    assert (plan.unit, plan.engine, plan.slots, plan.devices) == ("shapes.3", "detector", 16, ("cpu",))
    assert {each.source.name for each in plan.mounts} == {"model.onnx", "config.json", "preprocessor_config.json"}
    assert plan.engine_version.count(".") == 2
    assert planned(adapter, model()) == plan
    flags = parse(plan.argv[3:])
    assert (flags.max_batch, flags.provider) == (8, "cpu")
    tcp = adapter.plan(Start(model(), generation=1, endpoint=Endpoint(port=5000)))
    assert (after(tcp, "--host"), after(tcp, "--port")) == ("127.0.0.1", "5000")


def test_footprint(adapter: DetectorAdapter) -> None:
    """It grows with the batch; a smaller batch is what is left to try when memory was not enough."""
    plan = planned(adapter, model())
    assert plan.footprint.origin == "estimated"
    assert plan.footprint == adapter.footprint(model())
    assert plan.footprint.parts["cpu"].weights == (TINY / "model.onnx").stat().st_size
    small = planned(adapter, model(args=("--max-batch", "1")))
    assert small.footprint.total_bytes < plan.footprint.total_bytes
    assert (plan.left, small.left) == (("batch",), ())
    half = planned(adapter, model(), Step(batch=1))
    assert parse(half.argv[3:]).max_batch == 4
    assert small.footprint.total_bytes < half.footprint.total_bytes < plan.footprint.total_bytes


def test_no_room(tmp_path: Path) -> None:
    """One that can never fit is refused before it runs."""
    tight = DetectorAdapter(lambda: machine(budgets={"cpu": 1 << 20}), tmp_path, environment={})
    with pytest.raises(CannotFit, match=r"shapes needs .* on cpu"):
        planned(tight, model())


def test_confidence(tmp_path: Path) -> None:
    """RTDETR_CONFIDENCE counts, the model's own before the server's; one that is none is an error."""
    adapter = DetectorAdapter(None, tmp_path, environment={"RTDETR_CONFIDENCE": "0.3"})
    assert after(planned(adapter, model()), "--confidence") == "0.3"
    assert after(planned(adapter, model(env={"RTDETR_CONFIDENCE": "0.7"})), "--confidence") == "0.7"
    with pytest.raises(EngineFlagError, match="RTDETR_CONFIDENCE must be from 0 to 1"):
        planned(adapter, model(env={"RTDETR_CONFIDENCE": "high"}))


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("--host", "0.0.0.0"), "does not know '--host'"),
        (("--export-with", "/bin/sh"), "does not know '--export-with'"),
        (("--threads", "many"), "--threads cannot be 'many'"),
        (("--max-batch", "0"), "--max-batch cannot be '0'"),
        (("--threads",), "needs a value"),
        (("threads",), "does not know 'threads'"),
    ],
)
def test_flags(adapter: DetectorAdapter, args: tuple[str, ...], words: str) -> None:
    """`args` may have the detector's own free flags, and nothing that is Corral's affair."""
    with pytest.raises(EngineFlagError, match=words):
        planned(adapter, model(args=args))


def test_no_context(adapter: DetectorAdapter) -> None:
    """A detector has no context."""
    with pytest.raises(EngineFlagError, match="no context"):
        planned(adapter, model(context=2048))


def test_python(adapter: DetectorAdapter, tmp_path: Path) -> None:
    """`executable` is a Python; one that is not there, or has no onnxruntime, is told with what to do."""
    assert planned(adapter, model(executable=sys.executable)).argv[0] == sys.executable
    with pytest.raises(EngineMissing, match="no program no-such-python"):
        planned(adapter, model(executable="no-such-python"))
    bare = tmp_path / "python"
    bare.write_text("#!/bin/sh\necho \"ModuleNotFoundError: No module named 'onnxruntime'\" >&2; exit 1\n")
    bare.chmod(0o755)
    with pytest.raises(EngineMissing, match=r"libraries are not here.*onnxruntime") as error:
        planned(adapter, model(executable=str(bare)))
    assert f"{bare} -m pip install 'corral[vision]'" in error.value.hint
    assert adapter.footprint(model(executable=str(bare))).total_bytes > 0


def has(*providers: str) -> Any:
    """Another onnxruntime than the one that is here, for what this machine has no hardware for."""
    return lambda python: Library(python, "1.99.0", (*providers, "CPUExecutionProvider"))


@pytest.mark.parametrize(
    ("providers", "vendor", "wanted"),
    [("CUDAExecutionProvider", "nvidia", "cuda"), ("MIGraphXExecutionProvider", "amd", "rocm"),
     ("OpenVINOExecutionProvider", "intel", "openvino-gpu")],
)  # fmt: skip
def test_gpus(tmp_path: Path, providers: str, vendor: str, wanted: str) -> None:
    """A GPU that onnxruntime reaches is used, and its memory planned; on others, and by wish, it does without."""
    library = has(providers)
    adapter = DetectorAdapter(
        lambda: machine(("other", GIB), (vendor, 4 * GIB), (vendor, GIB)), tmp_path, environment={}, library=library
    )
    plan = planned(adapter, model())
    assert (after(plan, "--provider"), after(plan, "--device"), plan.devices) == (wanted, "0", ("cpu", "gpu1"))
    assert plan.footprint.bytes_by_device["gpu1"] > CONTEXT_BYTES
    assert adapter.has_gpus(model())
    second = planned(adapter, model(args=("--device", "1")))
    assert second.devices == ("cpu", "gpu2")
    assert plan.room.gpus == ("gpu1", "gpu2")
    without = planned(adapter, model(gpu_layers=0))
    assert (without.devices, without.degraded) == (("cpu",), "")
    lost = planned(adapter, model(), TOP.without_gpus("the GPU failed"))
    assert (lost.devices, lost.degraded, lost.awaits_gpu) == (("cpu",), "cpu (the GPU failed)", True)
    none = DetectorAdapter(machine, tmp_path, environment={}, library=library)
    assert planned(none, model()).devices == ("cpu",)
    assert not none.has_gpus(model())
    with pytest.raises(EngineError, match="wants a GPU"):
        planned(none, model(gpu_layers=99))


def test_openvino_without_a_gpu(tmp_path: Path) -> None:
    """OpenVINO serves the processor too."""
    adapter = DetectorAdapter(machine, tmp_path, environment={}, library=has("OpenVINOExecutionProvider"))
    assert after(planned(adapter, model()), "--provider") == "openvino"


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """The folder as it is published: without ONNX."""
    folder = tmp_path / "published"
    shutil.copytree(TINY, folder)
    (folder / "model.onnx").unlink()
    return folder


def test_export_is_missing(weights: Path, tmp_path: Path) -> None:
    """Without ONNX and without anything to make it, the command that mends it is told."""
    adapter = DetectorAdapter(None, tmp_path / "cache", environment={}, exports=lambda python: False)
    with pytest.raises(EngineMissing, match="nothing here can make one") as error:
        planned(adapter, model(weights))
    assert "`corral engine install detector-export`" in error.value.hint


def test_export_is_planned(weights: Path, tmp_path: Path) -> None:
    """With a Python that can, the first start exports into the cache, and is planned with the memory for it."""
    cache = tmp_path / "cache"
    own = DetectorAdapter(None, cache, environment={}, exports=lambda python: python == sys.executable)
    assert after(planned(own, model(weights)), "--export-with") == sys.executable
    made = Environment(
        "detector-export", "cpu", "5.23.0", "cpython-3.11-linux-x86_64", "ab" * 32, "wheels", 3, 1, 0.0, "", tmp_path
    )
    other = tmp_path / "bin" / "python"
    adapter = DetectorAdapter(None, cache, lambda: made, environment={}, exports=lambda python: python == str(other))
    first = planned(adapter, model(weights))
    target = Path(after(first, "--model"))
    assert after(first, "--export-with") == str(other)
    assert target.parent == tmp_path / "cache"
    assert "model.safetensors" in {each.source.name for each in first.mounts}
    target.parent.mkdir()
    shutil.copy(TINY / "model.onnx", target)
    second = planned(adapter, model(weights))
    assert "--export-with" not in second.argv
    assert second.footprint.total_bytes < first.footprint.total_bytes


def test_found_by_content(weights: Path, tmp_path: Path) -> None:
    """The exported file is found by what the model is: the same elsewhere is the same, other weights are another."""
    cache = tmp_path / "cache"
    one = exported(read_detector(weights), cache)
    copy = tmp_path / "copy"
    shutil.copytree(weights, copy)
    assert exported(read_detector(copy), cache) == one
    data = bytearray((copy / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (copy / "model.safetensors").write_bytes(data)
    assert exported(read_detector(copy), cache) != one


def test_measured(tmp_path: Path) -> None:
    """What a load took is known for the next plan, and nothing is asked of it as of llama.cpp."""
    ledger = Ledger(tmp_path / "ledger.db")
    adapter = FromLedger(DetectorAdapter(machine, tmp_path, environment={}), ledger)
    plan = adapter.plan(Start(model(), generation=1, endpoint=Endpoint(socket=Path("/run/x.sock"))))
    assert "--log-verbosity" not in plan.argv
    assert plan.footprint.origin == "estimated"
    ledger.close()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda folder: shutil.rmtree(folder), "is not there, and a detector is a folder"),
        (lambda folder: (folder / "config.json").unlink(), "cannot read .*config.json"),
        (lambda folder: (folder / "config.json").write_text("{"), "is no JSON"),
        (lambda folder: (folder / "config.json").write_text("[]"), "no JSON object"),
        (lambda folder: _set(folder, "config.json", model_type="bert"), "'bert', and the detector serves 'rt_detr_v2'"),
        (lambda folder: _set(folder, "config.json", id2label={}), "names no labels"),
        (lambda folder: _set(folder, "config.json", id2label={"1": "a"}), "not numbered from 0"),
        (lambda folder: _set(folder, "config.json", num_queries="x"), "num_queries must be"),
        (lambda folder: _set(folder, "preprocessor_config.json", size={"shortest_edge": 800}), "no fixed size"),
        (lambda folder: _set(folder, "preprocessor_config.json", size={"height": 1, "width": 96}), "from 32 to 4096"),
        (lambda folder: _set(folder, "preprocessor_config.json", do_pad=True), "padding"),
        (lambda folder: _set(folder, "preprocessor_config.json", resample=9), "resample is not right"),
        (lambda folder: _set(folder, "preprocessor_config.json", do_normalize=True, image_mean=[1]), "three numbers"),
        (lambda folder: [each.unlink() for each in folder.glob("model.*")], "neither model.safetensors nor model.onnx"),
    ],
)
def test_bad_folders(tmp_path: Path, adapter: DetectorAdapter, change: Any, words: str) -> None:
    """What is wrong with a folder is said before anything runs."""
    folder = tmp_path / "m"
    shutil.copytree(TINY, folder)
    change(folder)
    with pytest.raises(ModelFileError, match=words):
        planned(adapter, model(folder))


def _set(folder: Path, name: str, **values: Any) -> None:
    path = folder / name
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_normalised(tmp_path: Path) -> None:
    """Models that want normalised pictures say so in their folder."""
    folder = tmp_path / "m"
    shutil.copytree(TINY, folder)
    _set(folder, "preprocessor_config.json", do_normalize=True, image_mean=[0.4, 0.5, 0.6], image_std=[0.2, 0.2, 0.2])
    assert read_detector(folder).preprocessing.mean == (0.4, 0.5, 0.6)
    assert read_detector(TINY).preprocessing.mean == ()


def test_outside_roots(adapter: DetectorAdapter, tmp_path: Path) -> None:
    """A folder outside what is allowed is refused, links followed."""
    link = tmp_path / "link"
    link.symlink_to(TINY)
    with pytest.raises(ModelFileError, match="outside what is allowed"):
        planned(adapter, replace(model(link), roots=(tmp_path,)))


@pytest.mark.parametrize("head", [b"", b"\xff" * 8, b"\x02\0\0\0\0\0\0\0[]", b'\x10\0\0\0\0\0\0\0{"a":{"b":1}}'])
def test_bad_weights(weights: Path, head: bytes) -> None:
    """Files that are no safetensors are told, not believed."""
    (weights / "model.safetensors").write_bytes(head)
    with pytest.raises(ModelFileError, match="no safetensors"):
        _ = read_detector(weights).weights_bytes
