"""What vLLM says of the memory of a load, and what the ledger makes of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

from corral.engines.from_ledger import key_of, merged
from corral.engines.loaded import figures_of
from corral.engines.plan import Endpoint, Footprint, LaunchPlan, Mount
from corral.engines.report_vllm import is_whole, read_report
from corral.ledger.ledger import Ledger
from corral.models.memory.predict import Parts

MIB, GIB = 1 << 20, 1 << 30

# The lines of vLLM 0.32: two workers on GPUs, and one on a processor.
GPUS = """
(Worker_TP0 pid=9) INFO 11-21 22:55:08 [gpu_model_runner.py:5150] Model loading took 7.51 GiB memory and 3.1 seconds
(Worker_TP1 pid=10) INFO 11-21 22:55:08 [gpu_model_runner.py:5150] Model loading took 7.48 GiB memory and 3.2 seconds
(Worker_TP0 pid=9) INFO 11-21 22:55:18 [gpu_worker.py:759] Available KV cache memory: 2.25 GiB
(EngineCore pid=8) INFO 11-21 22:55:18 [kv_cache_utils.py:2327] GPU KV cache size: 36,864 tokens, 4.5x concurrency
(Worker_TP0 pid=9) INFO 11-21 22:55:21 [gpu_model_runner.py:6581] Graph capturing finished in 3 secs, took 0.50 GiB
(APIServer pid=6) INFO:     Application startup complete.
"""
PROCESSOR = """
(EngineCore pid=80) INFO 11-21 22:55:18 [cpu_worker.py:258] Explicitly set (0.25/23.42) GiB for KV cache on node 0.
(APIServer pid=6) INFO:     Application startup complete.
"""


def test_what_it_says() -> None:
    """The largest of its workers' figures for each GPU; on a processor the cache; nothing where it said nothing."""
    report = read_report(GPUS, ["gpu0", "gpu1"])
    assert dict(report.devices) == {
        "cpu": Parts(),
        "gpu0": Parts(round(7.51 * GIB), round(2.25 * GIB), round(0.5 * GIB)),
        "gpu1": Parts(round(7.51 * GIB), round(2.25 * GIB), round(0.5 * GIB)),
    }
    assert dict(read_report(PROCESSOR, []).devices) == {"cpu": Parts(0, GIB // 4, 0)}
    reserved = "Initial free memory 79.1 GiB, reserved 3.00 GiB memory for KV Cache as specified by …"
    assert read_report(reserved, ["gpu0"]).devices["gpu0"].cache == 3 * GIB
    assert is_whole(GPUS) and is_whole(PROCESSOR) and not is_whole(reserved)


def plan(source: Path, socket: str = "/run/1.sock", generation: int = 1) -> LaunchPlan:
    parts = Parts(100 * MIB, 256 * MIB, 50 * MIB)
    awake = {"cpu": parts.total + 1536 * MIB}
    return LaunchPlan(
        unit=f"m.{generation}", model="m", generation=generation, engine="vllm", engine_version="vLLM 0.32.0 (cpu)",
        argv=("/env/bin/python", "-m", "x", "--model", str(source), "--uds", socket, "--max-model-len", "1024"),
        endpoint=Endpoint(socket=Path(socket)), mounts=(Mount(source, str(source)),), sleep=1,
        footprint=Footprint(awake, parts=MappingProxyType({"cpu": parts}), asleep=MappingProxyType(awake)),
    )  # fmt: skip


def test_what_it_took_is_remembered(tmp_path: Path) -> None:
    """What its processes hold stands for what was expected, sleeping too; each start of the same finds it, and one of
    other files, or with another context, does not."""
    (tmp_path / "model.safetensors").write_bytes(b"1")
    first = plan(tmp_path)
    figures = figures_of(first, read_report(PROCESSOR, []), {"cpu": 900 * MIB}, load_s=23.0, at_wall_s=1.0)
    ledger = Ledger()
    ledger.remember(key_of(first), figures)
    known = ledger.find(key_of(plan(tmp_path, "/run/2.sock", 2)))
    assert known is not None
    found = merged(first.footprint, known)
    assert (found.origin, found.bytes_by_device["cpu"], found.load_s) == ("measured", 900 * MIB, 23.0)
    assert found.asleep == {"cpu": 900 * MIB} and found.parts["cpu"].cache == GIB // 4
    assert ledger.find(key_of(replace(first, context=2048))) is None
    (tmp_path / "model.safetensors").write_bytes(b"12")
    assert ledger.find(key_of(first)) is None


def test_beside_gpus_its_own_memory_is_measured_too(tmp_path: Path) -> None:
    """The machine's memory that was only guessed at."""
    expected = Footprint({"cpu": 3 * GIB, "gpu0": 12 * GIB}, parts=MappingProxyType({"gpu0": Parts(8 * GIB)}))
    one = replace(plan(tmp_path), devices=("gpu0",), footprint=expected)
    held = {"cpu": 2 * GIB, "gpu0": 11 * GIB}
    figures = figures_of(one, read_report(GPUS, ["gpu0"]), held, load_s=None, at_wall_s=0)
    assert merged(expected, figures).bytes_by_device == held
