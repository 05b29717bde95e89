"""A machine with GPUs made of files, and a library by the name of NVIDIA's, for the child that asks drivers."""

from __future__ import annotations

from pathlib import Path

GIB = 1 << 30

LIBRARY = """
import os, pathlib, time
HERE = pathlib.Path(__file__).parent
(HERE / "asked").open("a").write(f"{os.getpid()}\\n")
NVML_ERROR_UNINITIALIZED, NVML_ERROR_NOT_SUPPORTED, NVML_ERROR_DRIVER_NOT_LOADED = 1, 3, 9
NVML_ERROR_LIBRARY_NOT_FOUND, NVML_ERROR_GPU_IS_LOST = 12, 15
class NVMLError(Exception):
    def __init__(self, value):
        super().__init__(f"error {value}")
        self.value = value
class Row:
    def __init__(self, **fields): self.__dict__.update(fields)
def mood(): return (HERE / "mood").read_text() if (HERE / "mood").exists() else ""
def nvmlInit(): pass
def nvmlDeviceGetCount(): return 2
def nvmlDeviceGetHandleByIndex(number): return number
def nvmlDeviceGetPciInfo(handle): return Row(busId=f"00000000:0{handle + 1}:00.0")
def nvmlDeviceGetName(handle): return b"NVIDIA A" if handle else "NVIDIA B"
def nvmlDeviceGetMemoryInfo(handle):
    if mood() == "hang": time.sleep(600)
    if mood() == "crash": os.abort()
    if mood() == "lost" and handle == 1: raise NVMLError(15)
    if mood() == "unified" and handle == 1: raise NVMLError(3)
    return Row(total=(handle + 1) << 34, free=(handle + 1) << 33)
def nvmlDeviceGetComputeRunningProcesses(handle):
    return [Row(pid=4242, usedGpuMemory=3 << 30), Row(pid=1, usedGpuMemory=None)]
def nvmlDeviceGetGraphicsRunningProcesses(handle): raise NVMLError(3)
def nvmlDeviceGetUtilizationRates(handle):
    if mood() == "busy hangs": time.sleep(600)
    return Row(gpu=37, memory=12)
def nvmlDeviceGetTemperature(handle, sensor): return 61 + handle + 100 * sensor
def nvmlDeviceGetPowerUsage(handle):
    if handle == 1: raise NVMLError(3)
    return 187250
def nvmlDeviceGetEnforcedPowerLimit(handle): return 300000
"""


def write_library(folder: Path) -> Path:
    """A folder with that library; the file `mood` in it makes it hang, crash or fail."""
    folder.mkdir()
    (folder / "pynvml.py").write_text(LIBRARY)
    return folder


def write_machine(root: Path) -> Path:
    """A machine's files: one NVIDIA card, one of AMD's, and a processor of AMD's with graphics."""
    for name, text in {
        "proc/meminfo": f"MemTotal: {64 * GIB // 1024} kB\nMemAvailable: {32 * GIB // 1024} kB\n",
        "proc/cpuinfo": "processor: 0\n",
        "dev/kfd": "",
        "dev/nvidia0": "",
        "dev/dri/renderD128": "",
        "dev/dri/renderD129": "",
        "proc/driver/nvidia/gpus/0000:01:00.0/information": "Model: NVIDIA B\nDevice Minor: 0\n",
        **_amd("0000:03:00.0", "renderD128", vram=(24 * GIB, 4 * GIB), gtt=(31 * GIB, 0)),
        **_amd("0000:c1:00.0", "renderD129", vram=(GIB, GIB // 2), gtt=(48 * GIB, 8 * GIB)),
        "sys/bus/pci/devices/0000:c1:00.2/vendor": "0x1022\n",
        "sys/bus/pci/devices/0000:c1:00.2/class": "0x108000\n",
        "proc/77/fdinfo/5": _FDINFO.format(pdev="0000:03:00.0", client=9, vram=GIB >> 10),
        "proc/77/fdinfo/6": _FDINFO.format(pdev="0000:03:00.0", client=9, vram=GIB >> 10),
        "proc/77/fdinfo/7": _FDINFO.format(pdev="0000:03:00.0", client=10, vram=GIB >> 10),
        "proc/77/fdinfo/8": "pos:\t0\nflags:\t02\n",
    }.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    drivers = root / "sys/bus/pci/drivers/amdgpu"
    drivers.mkdir(parents=True)
    for address in ("0000:03:00.0", "0000:c1:00.0"):
        (root / "sys/bus/pci/devices" / address / "driver").symlink_to(drivers)
    return root


_FDINFO = (
    "pos:\t0\ndrm-driver:\tamdgpu\ndrm-client-id:\t{client}\ndrm-pdev:\t{pdev}\ndrm-total-vram:\t999 GiB\n"
    "drm-memory-vram:\t{vram} KiB\ndrm-memory-gtt: \t4096 KiB\ndrm-engine-gfx:\t12 ns\n"
)


def _amd(address: str, node: str, *, vram: tuple[int, int], gtt: tuple[int, int]) -> dict[str, str]:
    here = f"sys/bus/pci/devices/{address}"
    figures = zip(("vram_total", "vram_used", "gtt_total", "gtt_used"), (*vram, *gtt), strict=True)
    return {
        f"{here}/vendor": "0x1002\n",
        f"{here}/class": "0x030000\n",
        f"{here}/device": "0x744c\n",
        f"{here}/drm/{node}/dev": "",
        **{f"{here}/mem_info_{name}": f"{size}\n" for name, size in figures},
    }
