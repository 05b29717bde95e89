"""How busy, how hot, what it draws: of the processor and of GPUs, of written machines and of this one."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from corral.hardware.asking import Asker, ask_once, command
from corral.hardware.devices import Answer, Work, assemble
from corral.hardware.gpus import read_gpus
from corral.hardware.memory import Memory
from corral.hardware.watch import Watcher
from corral.hardware.work import WorkMeter, parse_stat
from support.gpus import GIB, write_library, write_machine

RAM = Memory(64 * GIB, 32 * GIB)
PCI = "sys/bus/pci/devices"


def write(root: Path, files: dict[str, object]) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    times = [100.0]
    monkeypatch.setattr("corral.hardware.work.clock.monotonic", lambda: times[0])
    return times


def stat(busy: int, idle: int) -> str:
    return f"cpu  {busy} 0 0 {idle} 0 0 0 0 0 0\ncpu0 1 2 3 4"


def test_stat() -> None:
    """Time spent waiting for a disk is idle, a guest's time is in its host's, and stolen time is somebody's work."""
    assert parse_stat("cpu  10 20 30 400 50 6 7 8 9 1\n") == (81, 531)
    assert parse_stat("cpu  10 20 30 400\n") == (60, 460)  # an old kernel
    assert parse_stat("intr 1\n") == parse_stat("") == parse_stat("cpu x\n") == (0, 0)


def test_busy(tmp_path: Path, now: list[float]) -> None:
    """How busy the processor is, is known from the second reading on, and of the time since the one before."""
    meter = WorkMeter(tmp_path)
    write(tmp_path, {"proc/stat": stat(1000, 1000)})
    assert meter.read().utilisation is None
    now[0] += 2
    write(tmp_path, {"proc/stat": stat(1300, 1100)})
    assert meter.read().utilisation == 0.75
    now[0] += 0.01
    write(tmp_path, {"proc/stat": stat(1301, 1100)})
    assert meter.read().utilisation == 0.75  # a hundredth of a second says nothing
    now[0] += 2
    write(tmp_path, {"proc/stat": stat(1301, 1300)})
    assert meter.read().utilisation == 0.005


INTEL = {
    "sys/class/hwmon/hwmon0/name": "nvme",
    "sys/class/hwmon/hwmon0/temp1_input": 99000,
    "sys/class/hwmon/hwmon1/name": "coretemp",
    "sys/class/hwmon/hwmon1/temp1_label": "Package id 0",
    "sys/class/hwmon/hwmon1/temp1_input": 61000,
    "sys/class/hwmon/hwmon1/temp2_label": "Core 0",
    "sys/class/hwmon/hwmon1/temp2_input": 67000,
}
AMD = {
    "sys/class/hwmon/hwmon3/name": "k10temp",
    "sys/class/hwmon/hwmon3/temp1_label": "Tctl",
    "sys/class/hwmon/hwmon3/temp1_input": 80125,
    "sys/class/hwmon/hwmon3/temp2_label": "Tdie",
    "sys/class/hwmon/hwmon3/temp2_input": 53125,
}
ARM = {
    "sys/class/thermal/thermal_zone0/type": "gpu-thermal",
    "sys/class/thermal/thermal_zone0/temp": 70000,
    "sys/class/thermal/thermal_zone1/type": "cpu-thermal",
    "sys/class/thermal/thermal_zone1/temp": 48312,
}
CORES = {"sys/class/hwmon/hwmon0/name": "coretemp", "sys/class/hwmon/hwmon0/temp2_input": 41000,
         "sys/class/hwmon/hwmon0/temp3_input": 44000}  # fmt: skip


@pytest.mark.parametrize(
    ("files", "celsius"), [(INTEL, 61.0), (AMD, 53.1), (ARM, 48.3), (CORES, 44.0), ({}, None), (INTEL | ARM, 61.0)]
)
def test_heat(tmp_path: Path, files: dict[str, object], celsius: float | None) -> None:
    """The processor's temperature is that of its package by its own sensor, else by a thermal zone of its own."""
    write(tmp_path, files)
    meter = WorkMeter(tmp_path)
    meter.find()
    assert meter.read().temperature_c == celsius


def packages(*energy: int, limit: int = 125_000_000) -> dict[str, object]:
    found: dict[str, object] = {
        "sys/class/powercap/intel-rapl:9/name": "psys",
        "sys/class/powercap/intel-rapl:9/energy_uj": 1,
        "sys/class/powercap/intel-rapl:0:0/name": "core",
        "sys/class/powercap/intel-rapl:0:0/energy_uj": 1,
    }
    for number, value in enumerate(energy):
        here = f"sys/class/powercap/intel-rapl:{number}"
        found |= {
            f"{here}/name": f"package-{number}", f"{here}/energy_uj": value,
            f"{here}/max_energy_range_uj": 1000_000_000, f"{here}/constraint_0_power_limit_uw": limit,
        }  # fmt: skip
    return found


def test_power(tmp_path: Path, now: list[float]) -> None:
    """What all packages draw together; a counter that went round is no fall, one that may not be read is no zero."""
    write(tmp_path, packages(100_000_000, 999_000_000))
    meter = WorkMeter(tmp_path)
    meter.find()
    assert meter.read() == Work(power_limit_w=250.0)
    now[0] += 2
    write(tmp_path, packages(160_000_000, 19_000_000))
    assert meter.read().power_w == 40.0  # 60 J and 20 J in two seconds
    now[0] += 2
    (tmp_path / "sys/class/powercap/intel-rapl:1/energy_uj").unlink()
    assert meter.read() == Work(power_limit_w=250.0)
    meter.find()
    now[0] += 2
    assert meter.read().power_w is None


def test_this_machine() -> None:
    """The real /proc tells that this very loop keeps a core busy."""
    meter = WorkMeter()
    meter.find()
    meter.read()
    ticks = parse_stat(Path("/proc/stat").read_text())[1]
    while parse_stat(Path("/proc/stat").read_text())[1] < ticks + 40:
        sum(range(1000))
    work = meter.read()
    assert work.utilisation is not None
    assert 0 < work.utilisation <= 1
    assert work.temperature_c is None or -40 < work.temperature_c < 130
    assert work.power_w is None or work.power_w >= 0


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_machine(tmp_path / "root")


class Child:
    """The child program, asked again and again."""

    def __init__(self, root: Path, library: Path | None = None) -> None:
        argv = command(root, library)
        self.process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self) -> dict[str, dict[str, Any]]:
        """What it says of each GPU, by its address."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write('{"pids": []}\n')
        self.process.stdin.flush()
        return {each["address"]: each for each in json.loads(self.process.stdout.readline())["gpus"]}


@pytest.fixture
def child(root: Path) -> Iterator[Callable[[], Child]]:
    started: list[Child] = []

    def start(library: Path | None = None) -> Child:
        started.append(Child(root, library))
        return started[-1]

    yield start
    for each in started:
        each.process.communicate(timeout=20)


def no_nvidia(root: Path) -> None:
    for path in sorted((root / "proc/driver").rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    (root / "proc/driver").rmdir()


def figures(gpu: dict[str, Any]) -> tuple[Any, ...]:
    return gpu["utilisation"], gpu["temperature"], gpu["power"], gpu["power_limit"]


def test_nvidia(root: Path, tmp_path: Path) -> None:
    """NVML's figures become a device's, in watts and as a share; what one card does not tell is missing of it alone."""
    library = write_library(tmp_path / "library")
    devices = {each.words: each for each in assemble(RAM, read_gpus(root), ask_once(command(root, library)))}
    one, two = devices["NVIDIA B"], devices["NVIDIA A"]
    assert (one.utilisation, one.temperature_c, one.power_w, one.power_limit_w) == (0.37, 61.0, 187.25, 300.0)
    assert (two.utilisation, two.temperature_c, two.power_w, two.power_limit_w) == (0.37, 62.0, None, 300.0)
    assert two.known


def test_amd(root: Path) -> None:
    """An AMD card's figures are those of amdgpu's files, of its edge rather than of its hottest spot."""
    no_nvidia(root)
    here = f"{PCI}/0000:03:00.0"
    write(root, {
        f"{here}/gpu_busy_percent": 83,
        f"{here}/hwmon/hwmon5/name": "amdgpu",
        f"{here}/hwmon/hwmon5/temp1_label": "edge",
        f"{here}/hwmon/hwmon5/temp1_input": 55000,
        f"{here}/hwmon/hwmon5/temp2_label": "junction",
        f"{here}/hwmon/hwmon5/temp2_input": 71000,
        f"{here}/hwmon/hwmon5/power1_average": 212_000_000,
        f"{here}/hwmon/hwmon5/power1_cap": 303_000_000,
        f"{PCI}/0000:c1:00.0/gpu_busy_percent": 4,
        f"{PCI}/0000:c1:00.0/hwmon/hwmon6/power1_input": 9_500_000,
    })  # fmt: skip
    _, card, own = assemble(RAM, read_gpus(root), ask_once(command(root)))
    assert (card.utilisation, card.temperature_c, card.power_w, card.power_limit_w) == (0.83, 55.0, 212.0, 303.0)
    assert (own.utilisation, own.temperature_c, own.power_w, own.power_limit_w) == (0.04, None, 9.5, None)


def test_asleep(root: Path, child: Callable[[], Child]) -> None:
    """A card that sleeps does nothing, and is asked nothing that would wake it."""
    no_nvidia(root)
    here = f"{PCI}/0000:03:00.0"
    write(root, {f"{here}/gpu_busy_percent": 83, f"{here}/power/runtime_status": "suspended"})
    assert figures(child().ask()["0000:03:00.0"]) == (0.0, None, None, None)


def intel(root: Path, address: str, files: dict[str, object]) -> None:
    here = f"{PCI}/{address}"
    base = {"vendor": "0x8086", "class": "0x030000", "device": "0x56a0", "drm/renderD140/dev": ""}
    write(root, {f"{here}/{name}": text for name, text in (base | files).items()})


def test_intel(root: Path, child: Callable[[], Child]) -> None:
    """An Intel GPU tells what it used and for how long it was idle; both become rates from the second look on."""
    no_nvidia(root)
    card, xe, own = "0000:07:00.0", "0000:08:00.0", "0000:00:02.0"
    intel(root, card, {
        "hwmon/hwmon1/name": "i915_gt0", "hwmon/hwmon1/energy1_input": 5,
        "hwmon/hwmon2/name": "i915", "hwmon/hwmon2/energy1_input": 1_000_000, "hwmon/hwmon2/power1_max": 190_000_000,
        "drm/card1/gt/gt0/rc6_residency_ms": 5000, "drm/card1/gt/gt1/rc6_residency_ms": 5000,
    })  # fmt: skip
    intel(root, xe, {
        "hwmon/hwmon3/name": "xe", "hwmon/hwmon3/energy2_input": 1_000_000, "hwmon/hwmon3/power2_max": 0,
        "hwmon/hwmon3/temp2_label": "pkg", "hwmon/hwmon3/temp2_input": 47000,
        "hwmon/hwmon3/temp3_label": "vram", "hwmon/hwmon3/temp3_input": 52000,
        "tile0/gt0/gtidle/idle_residency_ms": 100, "tile0/physical_vram_size_bytes": 12 * GIB,
    })  # fmt: skip
    intel(root, own, {"drm/card0/power/rc6_residency_ms": 0})
    asked = child()
    first = asked.ask()
    assert figures(first[card]) == (None, None, None, 190.0)
    assert figures(first[xe]) == (None, 47.0, None, None)
    assert (first[own]["utilisation"], first[own]["shared"]) == (None, True)

    # A year's worth of energy and no idleness at all, however long this machine takes between two looks.
    write(root, {
        f"{PCI}/{card}/hwmon/hwmon2/energy1_input": 10**15,
        f"{PCI}/{xe}/hwmon/hwmon3/energy2_input": 10**15,
        f"{PCI}/{card}/drm/card1/gt/gt1/rc6_residency_ms": 10**12,  # the media engine slept, the other did not
        f"{PCI}/{own}/drm/card0/power/rc6_residency_ms": 10**12,
    })  # fmt: skip
    second = asked.ask()
    while second[card]["power"] is None or second[xe]["power"] is None:  # two looks too close together say nothing new
        second = asked.ask()
    assert second[card]["power"] > 190
    assert second[xe]["power"] > 190
    assert second[card]["utilisation"] == 1.0
    assert second[xe]["utilisation"] == 1.0
    assert second[own]["utilisation"] == 0.0


async def test_hangs(root: Path, tmp_path: Path) -> None:
    """A driver that hangs over its telemetry costs the GPU's figures; the processor's are there at once."""
    library = write_library(tmp_path / "library")
    write(root, {"proc/stat": stat(10, 10)})
    watcher = Watcher(root=root, asker=Asker(command(root, library), first_within_s=90, within_s=0.3))
    try:
        look = await watcher.look()
        gpu = look.device("gpu0")
        assert gpu is not None and gpu.utilisation == 0.37
        (library / "mood").write_text("busy hangs")
        write(root, {"proc/stat": stat(40, 20)})
        while look.devices[0].utilisation is None:
            look = await watcher.look()
            await asyncio.sleep(0.02)
        assert look.devices[0].utilisation == 0.75
        gpu = look.device("gpu0")
        assert gpu is not None
        assert (gpu.utilisation, gpu.problem) == (None, "its driver does not answer")
    finally:
        await watcher.aclose()


def test_nothing_told() -> None:
    """Where nothing tells of a device's work, it has none: not zero."""
    (cpu,) = assemble(RAM, [], Answer())
    assert (cpu.utilisation, cpu.temperature_c, cpu.power_w, cpu.power_limit_w) == (None, None, None, None)
