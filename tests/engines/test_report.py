"""What llama.cpp's log says of its buffers, and what becomes of it: figures by device, found again by their key."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import pytest

from corral.config.settings import ModelSettings
from corral.engines.adapter import Start
from corral.engines.from_ledger import FromLedger, key_of, merged
from corral.engines.llamacpp import LlamaCpp
from corral.engines.loaded import MATTERS, figures_of, peak_of
from corral.engines.placement import Room
from corral.engines.plan import Endpoint, Footprint, LaunchPlan, Mount
from corral.engines.report import WORDY, is_whole, plain, read_report
from corral.ledger.figures import Figures
from corral.ledger.ledger import Ledger
from corral.models.memory.predict import Parts
from support.ggufs import write_random

MIB = 1 << 20
LOG = """\
0.01 I load_tensors:   CPU_Mapped model buffer size =    40.25 MiB
0.01 I load_tensors:        CUDA0 model buffer size =   100.00 MiB
0.01 I load_tensors:        CUDA1 model buffer size =    50.00 MiB
0.02 I llama_context: constructing llama_context
0.02 I llama_context:  CUDA_Host  output buffer size =     1.00 MiB
0.02 I llama_kv_cache:      CUDA0 KV buffer size =    10.00 MiB
0.02 I llama_kv_cache:      CUDA1 KV buffer size =     5.00 MiB
0.02 I sched_reserve:      CUDA0 compute buffer size =    20.00 MiB
0.02 I sched_reserve:      CUDA0 compute buffer size =    22.50 MiB
0.02 I sched_reserve:  CUDA_Host compute buffer size =     3.00 MiB
0.03 I llama_context: constructing llama_context
0.03 I sched_reserve:      CUDA0 compute buffer size =     4.00 MiB
0.03 I alloc_compute_meta:      CUDA0 compute buffer size =     8.00 MiB
0.03 I llama_kv_cache: size =   15.00 MiB (  2048 cells,   6 layers,  1/1 seqs)
"""


def test_report() -> None:
    """Buffers are added up by device; one that a context made anew counts once, those of several contexts each."""
    report = read_report(LOG, {"CUDA0": "gpu1", "CUDA1": "gpu0"})
    assert report is not None
    assert report.devices == {
        "cpu": Parts(round(40.25 * MIB), 0, 4 * MIB),
        "gpu1": Parts(100 * MIB, 10 * MIB, round(22.5 * MIB) + 4 * MIB + 8 * MIB),
        "gpu0": Parts(50 * MIB, 5 * MIB, 0),
    }
    assert report.mapped == round(40.25 * MIB)
    by_order = read_report(LOG, ["gpu0", "gpu1"])
    assert by_order is not None
    assert by_order.devices["gpu0"].weights == 100 * MIB
    assert read_report("srv llama_server: model loaded\n") is None
    assert is_whole("0.05 I srv  llama_server: model loaded\n")
    assert not is_whole(LOG)


def plan(**changes: object) -> LaunchPlan:
    made = LaunchPlan(
        unit="m.1", model="m", generation=1, engine="llama.cpp", engine_version="b1",
        argv=("/bin/x", "--model", "/m", "--host", "/run/m.1.sock", "--alias", "m", "--ctx-size", "512"),
        endpoint=Endpoint(socket=Path("/run/m.1.sock")),
        footprint=Footprint(
            MappingProxyType({"cpu": 60 * MIB, "gpu0": 90 * MIB}),
            parts=MappingProxyType({"cpu": Parts(50 * MIB, 0, 10 * MIB), "gpu0": Parts(70 * MIB, 20 * MIB, 0)}),
        ),
        devices=("gpu0", "cpu"), context=512,
    )  # fmt: skip
    return replace(made, **changes)  # type: ignore[arg-type]


def test_figures() -> None:
    """What the engine reports counts, and what it does not stays as predicted; beside it what the driver says that its
    process holds more."""
    report = read_report(
        "a: CPU_Mapped model buffer size = 52.00 MiB\nb: CUDA0 model buffer size = 71.00 MiB\n", ["gpu0"]
    )
    figures = figures_of(plan(), report, {"cpu": 30 * MIB, "gpu0": 400 * MIB}, load_s=1.5, at_wall_s=3.0)
    assert figures.devices == {
        "cpu": {"weights": 52 * MIB, "compute": 10 * MIB},
        "gpu0": {"weights": 71 * MIB, "cache": 20 * MIB, "other": 309 * MIB},
    }
    much = figures_of(plan(), report, {"cpu": 30 * MIB + MATTERS}, load_s=None, at_wall_s=3.0)
    assert much.devices["cpu"]["other"] == 20 * MIB + MATTERS  # 30 private and 52 mapped, where 62 are reported
    later = figures_of(plan(), None, {"cpu": 60 * MIB + MATTERS, "gpu0": 95 * MIB}, load_s=None, at_wall_s=3.0)
    assert later.devices["cpu"] == {"weights": 50 * MIB, "compute": 10 * MIB}
    assert later.devices["gpu0"]["other"] == 5 * MIB
    projector = plan(argv=(*plan().argv, "--mmproj", "/p"))
    less = read_report("b: CUDA0 model buffer size = 1.00 MiB\n", ["gpu0"])
    assert figures_of(projector, less, {}, load_s=None, at_wall_s=0.0).devices["gpu0"]["weights"] == 70 * MIB


def test_peak() -> None:
    """What an engine comes to hold while it runs is added, once it matters, and then known."""
    known = merged(replace(plan().footprint, growth=8 * MIB), Figures({"cpu": {"weights": 60 * MIB}}, 1.0))
    assert known.bytes_by_device == {"cpu": 68 * MIB, "gpu0": 90 * MIB}
    assert peak_of(known, {"cpu": 68 * MIB + MATTERS, "gpu0": 150 * MIB}, at_wall_s=2.0) is None
    held = {"cpu": 69 * MIB + MATTERS, "gpu0": 200 * MIB}
    peak = peak_of(known, held, at_wall_s=2.0)
    assert peak is not None
    both = peak.after(Figures({"cpu": {"weights": 60 * MIB}}, 1.0, loads=3))
    assert (both.loads, both.load_s) == (3, 1.0)
    again = merged(replace(plan().footprint, growth=8 * MIB), both)
    assert again.bytes_by_device == held
    assert peak_of(again, held, at_wall_s=3.0) is None


def test_merged() -> None:
    """A device that was measured has that figure, another keeps its prediction."""
    found = merged(plan().footprint, Figures({"gpu0": {"weights": 5, "other": 2}}))
    assert (found.bytes_by_device, found.origin) == ({"cpu": 60 * MIB, "gpu0": 7}, "measured")
    assert found.parts["gpu0"] == Parts(5, 0, 0)


def test_key(tmp_path: Path) -> None:
    """The key is the same for each start of the same thing, and another as soon as the memory may be."""
    file = tmp_path / "a.gguf"
    file.write_text("one")
    one = plan(mounts=(Mount(file, str(file)),), argv=("/bin/x", "--model", str(file), "--host", "/run/1.sock"))
    again = replace(one, argv=("/other/x", "--model", str(file), "--host", "/run/2.sock", *WORDY), generation=2)
    assert key_of(one) == key_of(again)
    for more in (("--temp", "0.5"), ("--jinja",), ("-lv", "5"), ("--no-ui", "--slots"), ("--cache-ram", "9")):
        assert key_of(replace(one, argv=(*one.argv, *more))) == key_of(one)
    for other in (
        replace(one, engine_version="b2"), replace(one, context=1024), replace(one, devices=("cpu",)),
        replace(one, argv=(*one.argv, "--ubatch-size", "64")), replace(one, env={"A": "b"}),
    ):  # fmt: skip
        assert key_of(other) != key_of(one)
    before = key_of(one)
    file.write_text("three")
    assert key_of(one) != before
    blob = tmp_path / "blobs/sha256" / ("a" * 64)
    blob.parent.mkdir(parents=True)
    blob.write_text("x")
    link = tmp_path / "model.gguf"
    link.symlink_to(blob)
    assert key_of(plan(mounts=(Mount(link, str(link)),))).model == f"sha256:{'a' * 64}"


@pytest.mark.parametrize("argv", [(), ("a",), ("a", *WORDY), (*WORDY, "a")])
def test_plain(argv: tuple[str, ...]) -> None:
    """Only flags that stand last are ours to take away."""
    assert plain(argv) == (argv[:-2] if argv[-2:] == WORDY else argv)


def test_adapter(tmp_path: Path) -> None:
    """The first start has the engine say what it takes; later ones have that figure, and a plain command."""
    ledger = Ledger()
    adapter = FromLedger(LlamaCpp(), ledger)
    model = ModelSettings("m", write_random(tmp_path / "m.gguf"), executable="embedded", context=256)
    end = Endpoint(socket=Path("/run/x.sock"))
    first = adapter.plan(Start(model, generation=1, endpoint=end))
    assert first.argv[-2:] == WORDY
    assert first.footprint.origin == "estimated"
    ledger.remember(key_of(first), Figures({"cpu": {"weights": 7, "cache": 2}}))
    second = adapter.plan(Start(model, generation=2, endpoint=end))
    assert second.argv[-2:] != WORDY
    assert (second.footprint.origin, second.footprint.total_bytes) == ("measured", 9 + first.footprint.growth)
    assert adapter.footprint(model).bytes_by_device == {"cpu": 9 + first.footprint.growth}
    assert adapter.footprint(replace(model, context=512)).origin == "estimated"
    own = adapter.plan(Start(replace(model, context=512, args=("--verbosity", "2")), generation=1, endpoint=end))
    assert own.argv[-2:] != WORDY
    room = Room(MappingProxyType({"cpu": 8 << 30}))
    assert adapter.plan(Start(model, generation=3, endpoint=end, room=room)).room == room
