"""Hardware facts, read from the files of machines that are not this one."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral.hardware import cpu, gpus, memory
from corral.hardware.apple import parse_sysctl, parse_vm_stat, working_set_bytes
from corral.hardware.probe import probe

GIB = 1 << 30
MEMINFO = "MemTotal:       16777216 kB\nMemFree:         1048576 kB\nMemAvailable:    8388608 kB\nHugePages_Total:  0\n"


def machine(root: Path, files: dict[str, str]) -> Path:
    for name, text in {"proc/meminfo": MEMINFO, "proc/cpuinfo": CPUINFO, **files}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


CPUINFO = "\n\n".join(
    f"processor\t: {i}\nmodel name\t: Some CPU @ 3 GHz\nphysical id\t: 0\ncore id\t\t: {i // 2}\nflags\t\t: fpu avx2"
    for i in range(4)
)
V2 = "31 23 0:28 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n"
V1 = (
    "35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n"
    "36 31 0:33 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
)


def test_no_limit(tmp_path: Path) -> None:
    """Without control groups the machine's own figures count."""
    found = memory.read_memory(machine(tmp_path, {}))
    assert (found.total_bytes, found.available_bytes, found.limit_bytes) == (16 * GIB, 8 * GIB, None)
    assert found.usable_bytes == 16 * GIB


def test_limit_v2(tmp_path: Path) -> None:
    """In version 2 the smallest limit from the own group up to the top binds; the page cache does not count as used."""
    top = "sys/fs/cgroup"
    root = machine(
        tmp_path,
        {
            "proc/self/cgroup": "0::/a.slice/b.scope\n",
            "proc/self/mountinfo": V2,
            f"{top}/a.slice/b.scope/memory.max": "max\n",
            f"{top}/a.slice/memory.max": f"{2 * GIB}\n",
            f"{top}/a.slice/memory.current": f"{GIB}\n",
            f"{top}/a.slice/memory.stat": f"anon 1\ninactive_file {GIB // 2}\n",
            f"{top}/a.slice/cpu.max": "150000 100000\n",
        },
    )
    found = memory.read_memory(root)
    assert (found.limit_bytes, found.limit_from) == (2 * GIB, "/sys/fs/cgroup/a.slice/memory.max")
    assert found.available_bytes == 2 * GIB - GIB // 2
    assert cpu.read_cpu(root).usable == 1.5


def test_limit_v1_in_a_container(tmp_path: Path) -> None:
    """In version 1, where the group's path is the host's, the limit at the top of the mount binds."""
    root = machine(
        tmp_path,
        {
            "proc/self/cgroup": "4:memory:/docker/abc\n3:cpu,cpuacct:/docker/abc\n0::/\n",
            "proc/self/mountinfo": V1.replace("/ /sys", "/docker/abc /sys"),
            "sys/fs/cgroup/memory/memory.limit_in_bytes": f"{4 * GIB}\n",
            "sys/fs/cgroup/memory/memory.usage_in_bytes": f"{GIB}\n",
            "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "-1\n",
            "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000\n",
        },
    )
    found = memory.read_memory(root)
    assert (found.limit_bytes, found.available_bytes) == (4 * GIB, 3 * GIB)
    assert cpu.read_cpu(root).usable == 4


def test_no_limit_in_words_of_v1(tmp_path: Path) -> None:
    """Version 1's enormous number is no limit."""
    assert memory.parse_limit("9223372036854771712\n") is None
    assert memory.parse_limit("max\n") is None
    assert memory.parse_limit("4096") == 4096


def test_cpu(tmp_path: Path) -> None:
    """Two threads of one core are one core."""
    found = cpu.read_cpu(machine(tmp_path, {}))
    assert (found.model, found.physical, found.logical) == ("Some CPU @ 3 GHz", 2, 4)
    assert "avx2" in found.features


def test_arm_cpu() -> None:
    """An Arm kernel names neither model nor cores; its features are still known."""
    found = cpu.parse_cpuinfo("processor\t: 0\nFeatures\t: fp asimd\n\nprocessor\t: 1\nFeatures\t: fp asimd\n")
    assert (found.model, found.physical, found.logical, found.features) == ("", 0, 2, frozenset({"fp", "asimd"}))


def pci(root: Path, address: str, kind: str, vendor: str, **files: str) -> None:
    device = f"sys/bus/pci/devices/{address}"
    named = {f"{device}/{name}": text for name, text in files.items()}
    machine(root, {f"{device}/class": kind, f"{device}/vendor": vendor, f"{device}/device": "0x744c\n", **named})


def test_gpus(tmp_path: Path) -> None:
    """Display controllers are found with their driver, memory and node; screens of virtual machines are not."""
    pci(tmp_path, "0000:01:00.0", "0x030000\n", "0x1002\n", mem_info_vram_total=f"{24 * GIB}", mem_info_vram_used="0")
    pci(tmp_path, "0000:02:00.0", "0x030000\n", "0x10de\n")
    pci(tmp_path, "0000:03:00.0", "0x030000\n", "0x1af4\n")
    pci(tmp_path, "0000:04:00.0", "0x020000\n", "0x8086\n")
    drivers = tmp_path / "sys/bus/pci/drivers/amdgpu"
    drivers.mkdir(parents=True)
    device = tmp_path / "sys/bus/pci/devices/0000:01:00.0"
    (device / "driver").symlink_to(drivers)
    (device / "drm/renderD128").mkdir(parents=True)
    machine(tmp_path, {"dev/dri/renderD128": "", "dev/kfd": ""})
    amd, nvidia = gpus.read_gpus(tmp_path)
    assert (amd.vendor, amd.driver, amd.node, amd.problem) == (
        "amd", "amdgpu", "/dev/dri/renderD128", None,
    )  # fmt: skip
    assert (nvidia.vendor, nvidia.problem) == ("nvidia", "no driver for it is loaded")
    (tmp_path / "dev/kfd").unlink()
    assert "ROCm does not" in (gpus.read_gpus(tmp_path)[0].doubt or "")
    found = probe(tmp_path)
    assert [(gpu.memory_bytes, gpu.free_bytes) for gpu in found.gpus] == [(24 * GIB, 24 * GIB), (None, None)]
    assert [device.name for device in found.devices] == ["cpu", "gpu0", "gpu1"]


def test_nvidia(tmp_path: Path) -> None:
    """NVIDIA's driver tells its GPUs by name, once each; in a container without the node that is the problem."""
    pci(tmp_path, "0000:01:00.0", "0x030200\n", "0x10de\n")
    information = "Model: \t\t NVIDIA H100\nIRQ:   \t\t 12\nDevice Minor: \t 0\n"
    files = {"proc/driver/nvidia/gpus/0000:01:00.0/information": information, "sys/module/nvidia/version": "570.1\n"}
    (found,) = gpus.read_gpus(machine(tmp_path, files))
    assert (found.name, found.driver, found.node) == ("NVIDIA H100", "nvidia 570.1", "/dev/nvidia0")
    assert "container" in (found.problem or "")


def test_mac() -> None:
    """A Mac's memory is counted in its own pages."""
    text = "Mach Virtual Memory Statistics: (page size of 16384 bytes)\nPages free:   100.\nPages inactive:  20.\n"
    assert parse_vm_stat(text) == 120 * 16384
    assert working_set_bytes(64 * GIB, "0") == 48 * GIB
    assert working_set_bytes(16 * GIB, "12288") == 12 * GIB
    assert parse_sysctl("hw.memsize: 17179869184\nmachdep.cpu.brand_string: Apple M3\n")["hw.memsize"] == "17179869184"


def test_this_machine() -> None:
    """This machine's own memory and processor are found."""
    found = probe()
    assert found.memory is not None
    assert 0 < found.memory.available_bytes <= found.memory.total_bytes
    assert found.cpu.logical >= 1
    assert found.cpu.usable > 0


def test_no_proc(tmp_path: Path) -> None:
    """Where nothing can be read that is a note, not an error."""
    found = probe(tmp_path)
    assert found.memory is None
    assert found.notes


@pytest.mark.parametrize(
    "parse",
    [
        memory.parse_meminfo, memory.parse_mountinfo, memory.parse_cgroups, memory.parse_limit, memory.parse_stat,
        cpu.parse_cpuinfo, cpu.parse_quota, gpus.parse_nvidia_information, parse_sysctl,
    ],
)  # fmt: skip
@given(text=st.text(alphabet=st.sampled_from("0123456789 :,/-\n\tkBaxm.²"), max_size=80))
def test_parsers_take_anything(parse: object, text: str) -> None:
    """No text makes a parser fail."""
    assert callable(parse)
    parse(text)
