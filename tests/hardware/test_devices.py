"""What drivers say of GPUs: asked by real children, of files of other machines and a library made for these tests."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
import threading
from pathlib import Path

import pytest

from corral.hardware.asking import Asker, ask_once, command, worth_asking
from corral.hardware.devices import Answer, Device, Listed, assemble, complete, match, parse_listing
from corral.hardware.gpus import Gpu, read_gpus
from corral.hardware.memory import Memory
from corral.hardware.probe import probe
from corral.hardware.watch import Own, Watcher
from support.gpus import write_library, write_machine

GIB = 1 << 30
RAM = Memory(64 * GIB, 32 * GIB)


@pytest.fixture
def library(tmp_path: Path) -> Path:
    return write_library(tmp_path / "library")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_machine(tmp_path / "root")


def test_mixed(root: Path, library: Path) -> None:
    """Cards of several makers come in the order of their addresses, then what shares the machine's memory."""
    answer = ask_once(command(root, library), [77])
    cpu, first, second, third, fourth = assemble(RAM, read_gpus(root), answer)
    assert (cpu.name, cpu.total_bytes, cpu.free_bytes) == ("cpu", 64 * GIB, 32 * GIB)
    assert (first.name, first.words, first.source, first.total_bytes, first.free_bytes) == (
        "gpu0", "NVIDIA B", "NVML", 16 * GIB, 8 * GIB,
    )  # fmt: skip
    assert (second.name, second.address, second.words) == ("gpu1", "0000:02:00.0", "NVIDIA A")  # the kernel hid it
    assert (third.vendor, third.source, third.total_bytes, third.free_bytes) == ("amd", "amdgpu", 24 * GIB, 20 * GIB)
    assert (fourth.name, fourth.shared) == ("gpu3", True)
    assert (fourth.total_bytes, fourth.free_bytes) == (49 * GIB, 32 * GIB)  # no more than the machine has left
    assert first.held == {4242: 3 * GIB}
    assert third.held == {77: 2 * GIB}  # each client once, and the resident figure rather than the total


def test_no_nvidia(root: Path, library: Path) -> None:
    """Where NVIDIA's driver is not, its library is neither loaded nor missed."""
    shutil.rmtree(root / "proc/driver")
    answer = ask_once(command(root, library))
    assert [each["vendor"] for each in answer.gpus] == ["amd", "amd"]
    assert answer.notes == ()
    assert not (library / "asked").exists()


def test_unified(root: Path, library: Path) -> None:
    """An NVIDIA GPU without memory of its own has the machine's."""
    (library / "mood").write_text("unified")
    devices = assemble(RAM, read_gpus(root), ask_once(command(root, library)))
    (unified,) = [each for each in devices if each.words == "NVIDIA A"]
    assert (unified.shared, unified.total_bytes, unified.free_bytes) == (True, 64 * GIB, 32 * GIB)
    assert devices[-1] == unified or devices[-1].shared


def test_lost(root: Path, library: Path) -> None:
    """A GPU that its driver lost is there with the reason, beside those that work."""
    (library / "mood").write_text("lost")
    devices = assemble(RAM, read_gpus(root), ask_once(command(root, library)))
    by_words = {each.words: each for each in devices}
    assert "error 15" in (by_words["NVIDIA A"].problem or "")
    assert not by_words["NVIDIA A"].known
    assert by_words["NVIDIA B"].known


@pytest.mark.parametrize(("mood", "words"), [("hang", "did not answer within 0.5 s"), ("crash", "ended by signal 6")])
def test_once_costs_nothing(root: Path, library: Path, mood: str, words: str) -> None:
    """A driver that hangs or takes its process down becomes a note, and the machine's own memory is still told."""
    (library / "mood").write_text(mood)
    answer = ask_once(command(root, library), within_s=0.5)
    assert answer.gpus == ()
    assert words in answer.notes[0]
    assert probe(root, argv=[sys.executable, "-c", "import os; os.abort()"]).memory is not None


async def test_asker_stays(root: Path, library: Path) -> None:
    """One child answers one question after another."""
    asker = Asker(command(root, library))
    try:
        first = await asker.ask()
        pid = asker.pid
        (library / "mood").write_text("lost")
        second = await asker.ask()
        assert pid == asker.pid
        assert [each["problem"] for each in first.gpus][:2] == [None, None]
        assert second.gpus[1]["problem"]
    finally:
        await asker.aclose()
    assert len((library / "asked").read_text().split()) == 1


async def test_asker_lets_go(root: Path, library: Path) -> None:
    """A child that nobody asks any more ends, so that GPUs may sleep; the next question has another."""
    asker = Asker(command(root, library), unused_s=0.01)
    try:
        assert len((await asker.ask()).gpus) == 4
        deadline = asyncio.get_running_loop().time() + 20
        while asker.pid is not None:
            assert asyncio.get_running_loop().time() < deadline
            await asyncio.sleep(0.01)
        assert len((await asker.ask()).gpus) == 4
    finally:
        await asker.aclose()
    assert len((library / "asked").read_text().split()) == 2


@pytest.mark.parametrize("mood", ["hang", "crash"])
async def test_asker_recovers(root: Path, library: Path, mood: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A child that hangs or crashes is ended and replaced, not at once, and then answers again."""
    now = [1000.0]
    monkeypatch.setattr("corral.hardware.asking.clock.monotonic", lambda: now[0])
    asker = Asker(command(root, library), first_within_s=20, within_s=0.3)
    try:
        assert len((await asker.ask()).gpus) == 4
        pid = asker.pid
        assert pid is not None
        (library / "mood").write_text(mood)
        failed = await asker.ask()
        assert failed.gpus == ()
        assert failed.notes
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
        (library / "mood").write_text("")
        assert (await asker.ask()).notes == failed.notes  # not yet: nothing is started for this
        assert asker.pid is None
        now[0] += 60
        assert len((await asker.ask()).gpus) == 4
    finally:
        await asker.aclose()


async def test_asker_ends_with_its_owner(root: Path, library: Path) -> None:
    """A child whose input ends is gone, even when nobody ended it."""
    child = await asyncio.create_subprocess_exec(
        *command(root, library), stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.DEVNULL
    )
    assert child.stdin is not None
    child.stdin.close()
    assert await asyncio.wait_for(child.wait(), 20) == 0


async def test_child_gives_up_by_itself(root: Path, library: Path) -> None:
    """A child that nobody is left to end does not outlive its patience."""
    (library / "mood").write_text("hang")
    child = await asyncio.create_subprocess_exec(
        *command(root, library, patience_s=0.2), stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.DEVNULL
    )
    assert child.stdin is not None
    child.stdin.write(b'{"pids": []}\n')
    assert await asyncio.wait_for(child.wait(), 20) == -14
    child.stdin.close()


async def test_watcher(root: Path, library: Path) -> None:
    """A look has every device; two at once share it; figures of a driver that fell silent are not passed for fresh."""
    watcher = Watcher(root=root, asker=Asker(command(root, library), within_s=0.3), own=lambda: Own([77]))
    try:
        one, two = await asyncio.gather(watcher.look(), watcher.look())
        assert one is two
        assert one.free == {
            "cpu": 32 * GIB, "gpu0": 8 * GIB, "gpu1": 16 * GIB, "gpu2": 20 * GIB, "gpu3": 32 * GIB,
        }  # fmt: skip
        (library / "mood").write_text("crash")
        after = await watcher.look()
        assert after.notes
        assert set(after.free) == {"cpu"}
        gpu = after.device("gpu0")
        assert gpu is not None
        assert (gpu.total_bytes, gpu.problem) == (16 * GIB, "its driver does not answer")
    finally:
        await watcher.aclose()


async def test_listed_by_an_engine(root: Path) -> None:
    """What only an engine tells of a GPU is there once it has said it; no look waits for that."""
    (root / "sys/bus/pci/devices/0000:03:00.0/mem_info_vram_total").unlink()
    asked, go = threading.Event(), threading.Event()

    def listed() -> list[Listed]:
        asked.set()
        assert go.wait(20)
        return [Listed("Vulkan0", "AMD Radeon", 24 * GIB, 20 * GIB)]

    watcher = Watcher(root=root, asker=Asker(["/nonexistent"]), listed=listed, own=lambda: Own([], {"gpu1": GIB}))
    try:
        before = await watcher.look()
        assert before.device("gpu1") is not None
        assert "gpu1" not in before.free
        assert await asyncio.to_thread(asked.wait, 20)
        go.set()
        deadline = asyncio.get_running_loop().time() + 20
        while "gpu1" not in (after := await watcher.look()).free:
            assert asyncio.get_running_loop().time() < deadline
        assert after.free["gpu1"] == 19 * GIB  # less what our own units took since
        assert after.totals["gpu1"] == 24 * GIB
    finally:
        go.set()
        await watcher.aclose()


async def test_no_gpu_no_child(tmp_path: Path) -> None:
    """Where no GPU is, no child is started."""
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/meminfo").write_text("MemTotal: 2048 kB\nMemAvailable: 1024 kB\n")
    asker = Asker(["/nonexistent"])
    watcher = Watcher(root=tmp_path, asker=asker)
    look = await watcher.look()
    await watcher.aclose()
    assert (look.free, look.notes, asker.pid) == ({"cpu": 1 << 20}, (), None)
    assert not worth_asking([Gpu("nvidia", "x", None, None, problem="no driver")], tmp_path)


LISTING = """Available devices:
  Vulkan0: AMD Radeon RX 7900 XTX (RADV NAVI31) (24560 MiB, 24000 MiB free)
  Vulkan1: Intel(R) Arc(tm) A770 Graphics (DG2) (16288 MiB, 15000 MiB free)
  CUDA0: NVIDIA B
"""


def test_listing() -> None:
    """What an engine lists is read with its figures, where it gives any."""
    assert parse_listing(LISTING) == [
        Listed("Vulkan0", "AMD Radeon RX 7900 XTX (RADV NAVI31)", 24560 << 20, 24000 << 20),
        Listed("Vulkan1", "Intel(R) Arc(tm) A770 Graphics (DG2)", 16288 << 20, 15000 << 20),
        Listed("CUDA0", "NVIDIA B"),
    ]


def test_match() -> None:
    """An engine's GPUs are the machine's by name and size, then by maker, whatever order each has."""
    devices = [
        Device("gpu0", "nvidia", "NVIDIA B", 16 * GIB, 8 * GIB, "NVML"),
        Device("gpu1", "amd", "AMD 0x744c at 0000:03:00.0", 24 * GIB, 20 * GIB, "amdgpu"),
        Device("gpu2", "intel", "INTEL 0x56a0 at 0000:07:00.0", None, None, "sysfs"),
        Device("gpu3", "nvidia", "NVIDIA C", 1, 1, "NVML", problem="lost"),
    ]
    listed = parse_listing(LISTING)
    assert {name: device.name for name, device in match(listed, devices).items()} == {
        "CUDA0": "gpu0", "Vulkan0": "gpu1", "Vulkan1": "gpu2",
    }  # fmt: skip
    found = {each.name: each for each in complete(devices, listed, {"gpu2": 1 << 30})}
    assert (found["gpu2"].total_bytes, found["gpu2"].source) == (16288 << 20, "the engine")
    assert found["gpu2"].free_bytes == (15000 << 20) - (1 << 30)  # less what our own units took since
    assert found["gpu1"].free_bytes == 20 * GIB  # its driver knows better


def test_no_answer() -> None:
    """Without an answer the kernel's list stands, with nothing known of its memory."""
    cpu, gpu = assemble(RAM, [Gpu("nvidia", "NVIDIA B", "nvidia", "/dev/nvidia0", address="0000:01:00.0")], Answer())
    assert cpu.known
    assert (gpu.name, gpu.known, gpu.problem) == ("gpu0", False, None)
