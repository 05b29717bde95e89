"""Which GPUs a model may use, of those that its engine lists: on listings as real builds print them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from corral.config.settings import ModelSettings
from corral.engines import gpu_choice, gpus_for, layout
from corral.engines.executables import Build
from corral.engines.gpus_for import Gpus
from corral.engines.placement import TOP, Room
from corral.engines.rooms import Machine, room_of
from corral.errors import EngineError
from corral.hardware.devices import Device, parse_listing
from corral.models.formats.gguf import Header, read_header
from support.architecture_files import write
from support.architectures import MID

GIB, MIB = 1 << 30, 1 << 20

# As `llama-server --list-devices` prints them: by its CUDA, ROCm, Vulkan, SYCL and Metal builds.
BOTH = """\
Available devices:
  CUDA0: NVIDIA RTX A4000 (16107 MiB, 15808 MiB free)
  CUDA1: NVIDIA RTX A4000 (16107 MiB, 15808 MiB free)
  Vulkan0: NVIDIA RTX A4000 (16376 MiB, 15900 MiB free)
  Vulkan1: AMD Radeon RX 7900 XTX (RADV NAVI31) (24560 MiB, 24100 MiB free)
  ROCm0: AMD Radeon RX 7900 XTX (24560 MiB, 24510 MiB free)
"""
OTHERS = """\
  SYCL0: Intel(R) Arc(TM) A770 Graphics (15473 MiB, 15473 MiB free)
  Metal: Apple M3 Max (98304 MiB, 98303 MiB free)
  MTL0: Apple M3 Max (98304 MiB, 98303 MiB free)
"""
LAVAPIPE = "  Vulkan0: llvmpipe (LLVM 15.0.6, 256 bits) (24030 MiB, 24030 MiB free)\n"

BUILD = Build("llama-server", Path("/opt/llama-server"), "b11434", MappingProxyType({"--device": 1, "--fit": 1}), ())
EMBEDDED = Build("embedded", Path("/opt/x.so"), "xllamacpp 1", MappingProxyType({}), ())


def model(**keys: Any) -> ModelSettings:
    return ModelSettings("m", Path("/m.gguf"), **keys)


def room(*sizes: int) -> Room:
    gpus = {f"gpu{number}": size for number, size in enumerate(sizes)}
    names = tuple(f"CUDA{number}" for number in range(len(sizes)))
    return Room(MappingProxyType({"cpu": 64 * GIB, **gpus}), names)


def gpus(count: int) -> Gpus:
    text = "".join(f"  CUDA{number}: NVIDIA RTX A4000 (16107 MiB, 15808 MiB free)\n" for number in range(count))
    listed = tuple(parse_listing(text))
    return Gpus(listed, every=tuple(one.name for one in listed))


@pytest.fixture(scope="module")
def header(tmp_path_factory: pytest.TempPathFactory) -> Header:
    return read_header(write(tmp_path_factory.mktemp("gguf") / "m.gguf", "llama", MID))


@pytest.mark.parametrize(
    ("backend", "names"),
    [
        ("auto", ["CUDA0", "CUDA1", "Vulkan0", "Vulkan1", "ROCm0"]),
        ("vulkan", ["Vulkan0", "Vulkan1"]),
        ("not-vulkan", ["CUDA0", "CUDA1", "ROCm0"]),
        ("cuda", ["CUDA0", "CUDA1"]),
        ("rocm", ["ROCm0"]),
        ("sycl", []),
        ("metal", []),
    ],
)
def test_a_backend_is_told_by_its_devices_names(backend: Any, names: list[str]) -> None:
    """gpu_backend leaves the devices of one backend, as llama.cpp names them."""
    assert [one.name for one in gpu_choice.of_backend(parse_listing(BOTH), backend)] == names


def test_intels_and_apples_devices_are_known_too() -> None:
    """SYCL's and Metal's lines are read, whether Metal counts its devices or not."""
    listed = parse_listing(OTHERS)
    assert [one.name for one in gpu_choice.of_backend(listed, "sycl")] == ["SYCL0"]
    assert {one.name for one in gpu_choice.of_backend(listed, "metal")} >= {"MTL0"}


@pytest.mark.parametrize(
    ("env", "contained", "cuda"),
    [
        ({}, False, None),
        ({"NVIDIA_VISIBLE_DEVICES": "all"}, False, None),
        ({"NVIDIA_VISIBLE_DEVICES": "1,2"}, False, "1,2"),
        ({"NVIDIA_VISIBLE_DEVICES": "1,2"}, True, None),
        ({"NVIDIA_VISIBLE_DEVICES": "GPU-4cf8db2d"}, True, "GPU-4cf8db2d"),
        ({"NVIDIA_VISIBLE_DEVICES": "none"}, True, "-1"),
        ({"NVIDIA_VISIBLE_DEVICES": "void"}, False, "-1"),
        ({"NVIDIA_VISIBLE_DEVICES": ""}, False, "-1"),
        ({"NVIDIA_VISIBLE_DEVICES": "1", "CUDA_VISIBLE_DEVICES": "0"}, False, None),
    ],
)
def test_what_nvidias_container_runtime_is_told_counts_without_it(
    env: Mapping[str, str], contained: bool, cuda: str | None
) -> None:
    """NVIDIA_VISIBLE_DEVICES becomes CUDA's own variable, but where that is set, and not by numbers in a container."""
    found = gpu_choice.variables(model(env=MappingProxyType(dict(env))), contained=contained)
    assert found.get("CUDA_VISIBLE_DEVICES") == cuda


def test_not_vulkan_hides_vulkan_from_the_engine() -> None:
    """The drivers are not even loaded."""
    assert gpu_choice.variables(model(gpu_backend="not-vulkan"), contained=False) == gpu_choice.WITHOUT_VULKAN
    assert dict(gpu_choice.WITHOUT_VULKAN).items() <= dict(gpu_choice.HIDDEN).items()


def test_a_room_is_narrowed_to_devices_in_their_order() -> None:
    """Corral's names and the engine's both do; what is nobody's is told."""
    narrowed, missing = gpu_choice.chosen(room(8 * GIB, 16 * GIB, 24 * GIB), ["CUDA2", "gpu0", "gpu7"])
    assert (narrowed.gpus, narrowed.engine_names, missing) == (("gpu2", "gpu0"), ("CUDA2", "CUDA0"), ("gpu7",))
    assert gpu_choice.chosen(narrowed, ["CUDA2", "gpu0"])[0] == narrowed
    assert gpu_choice.alone(narrowed).gpus == ("gpu2",)
    assert gpu_choice.processor(narrowed).bytes_by_device == {"cpu": 64 * GIB}


def test_devices_that_are_not_there_leave_the_processor() -> None:
    """None of them: the processor, marked with what there is instead; or an error where that must not be."""
    found, narrowed, _ = gpus_for.chosen(model(devices=("gpu3",)), BUILD, gpus(1), room(8 * GIB))
    assert (found.listed, narrowed.gpus, found.awaited) == ((), (), True)
    assert found.degraded == f"cpu (devices is gpu3, but {BUILD} finds gpu0 (CUDA0))"
    with pytest.raises(EngineError, match="must not run without a GPU: devices is gpu3"):
        gpus_for.chosen(model(devices=("gpu3",), cpu_fallback=False), BUILD, gpus(1), room(8 * GIB))
    found, narrowed, said = gpus_for.chosen(model(devices=("gpu3", "gpu0")), BUILD, gpus(1), room(8 * GIB))
    assert (narrowed.gpus, found.degraded) == (("gpu0",), "")
    assert said == (f"there is no gpu3 for it: {BUILD} finds gpu0 (CUDA0)",)


FLAGS = ("--fit", "off")


@pytest.mark.parametrize(
    ("keys", "sizes", "words", "expected"),
    [
        ({}, (8, 8), "whole on gpu0", "--gpu-layers 999 --device CUDA0 --fit off"),
        ({"devices": ("gpu1",)}, (8, 8), "whole on gpu1", "--gpu-layers 999 --device CUDA1 --fit off"),
        ({"devices": ("CUDA1", "gpu0"), "split": "layer"}, (8, 4), "split over gpu1, gpu0",
         "--gpu-layers 999 --device CUDA1,CUDA0 --tensor-split 4096,8192 --fit off"),
        ({"split": "row"}, (8, 8), "split over gpu0, gpu1",
         "--gpu-layers 999 --device CUDA0,CUDA1 --split-mode row --tensor-split 8192,8192 --fit off"),
        ({"tensor_split": (3.0, 1.0)}, (8, 8), "split over gpu0, gpu1",
         "--gpu-layers 999 --device CUDA0,CUDA1 --tensor-split 3,1 --fit off"),
        ({"split": "none", "gpu_layers": 3}, (4, 8), "3 of 7 layers on gpu1",
         "--gpu-layers 3 --device CUDA1 --fit off"),
        ({"split": "row"}, (8,), "whole on gpu0", "--gpu-layers 999 --device CUDA0 --fit off"),
    ],
)  # fmt: skip
def test_the_plan_reaches_the_engine(
    header: Header, keys: dict[str, Any], sizes: tuple[int, ...], words: str, expected: str
) -> None:
    """devices, split and tensor_split decide the layout, and the engine is told by the names it listed."""
    wanted = model(context=512, **keys)
    found, narrowed, _ = gpus_for.chosen(wanted, BUILD, gpus(len(sizes)), room(*(size * GIB for size in sizes)))
    laid = layout.lay_out(wanted, header, narrowed, TOP)
    assert laid.words == words
    assert " ".join(gpus_for.arguments(wanted, BUILD, laid, narrowed, TOP, found)) == expected


def test_an_engine_without_names_for_devices_is_told_by_position(header: Header) -> None:
    """The embedded engine counts devices: those that are not to be used get no share."""
    wanted = model(context=512, devices=("gpu2", "gpu0"), split="layer")
    found, narrowed, _ = gpus_for.chosen(wanted, EMBEDDED, gpus(3), room(8 * GIB, 8 * GIB, 4 * GIB))
    laid = layout.lay_out(wanted, header, narrowed, TOP)
    told = gpus_for.arguments(wanted, EMBEDDED, laid, narrowed, TOP, found)
    assert told == ("--gpu-layers", "999", "--tensor-split", "8192,0,4096", *FLAGS)
    wanted = model(context=512, devices=("gpu2",))
    found, narrowed, _ = gpus_for.chosen(wanted, EMBEDDED, gpus(3), room(8 * GIB, 8 * GIB, 4 * GIB))
    laid = layout.lay_out(wanted, header, narrowed, TOP)
    told = gpus_for.arguments(wanted, EMBEDDED, laid, narrowed, TOP, found)
    assert told == ("--gpu-layers", "999", "--split-mode", "none", "--main-gpu", "2", *FLAGS)


def test_rows_are_not_split_where_no_build_can(header: Header) -> None:
    """Over Vulkan an engine told to split by rows would not start: layers are split, and that is said."""
    listed = tuple(parse_listing(LAVAPIPE + LAVAPIPE.replace("Vulkan0", "Vulkan1")))
    two = replace(room(8 * GIB, 8 * GIB), engine_names=("Vulkan0", "Vulkan1"))
    wanted = model(context=512, split="row")
    found, narrowed, said = gpus_for.chosen(wanted, BUILD, Gpus(listed, every=("Vulkan0", "Vulkan1")), two)
    assert said == ("Vulkan0 cannot split by rows: split by layers instead",)
    laid = layout.lay_out(wanted, header, narrowed, TOP)
    told = gpus_for.arguments(wanted, BUILD, laid, narrowed, TOP, found)
    assert laid.words == "split over gpu0, gpu1"
    assert "--split-mode" not in told


def test_a_wrong_number_of_shares_is_told(header: Header) -> None:
    """Shares that do not fit the GPUs are not used, and not in silence."""
    wanted = model(context=512, tensor_split=(1.0, 1.0, 1.0))
    _, narrowed, said = gpus_for.chosen(wanted, BUILD, gpus(2), room(8 * GIB, 8 * GIB))
    assert said == ("tensor_split has 3 shares for 2 GPUs (gpu0, gpu1): split by their room instead",)
    assert layout.lay_out(wanted, header, narrowed, TOP).run.split == (8.0 * GIB, 8.0 * GIB)


def test_a_device_made_of_software_shares_the_machines_memory() -> None:
    """lavapipe's memory is the processor's: what it takes is counted there too."""
    cpu = Device("cpu", "", "the processor", 24 * GIB, 20 * GIB, "test")
    found = room_of(Machine((cpu,)), parse_listing(LAVAPIPE))
    assert (found.gpus, found.engine_names, found.shared) == (("gpu0",), ("Vulkan0",), ("gpu0",))


def test_vulkan_turned_off_is_no_wish_for_its_drivers() -> None:
    """With LLAMA_VULKAN_ENABLE=0 a variable that names Vulkan's drivers asks for nothing, so nothing is degraded."""
    env = {"VK_DRIVER_FILES": "/x.json", "GGML_VK_VISIBLE_DEVICES": "0"}
    assert "VK_DRIVER_FILES" in gpu_choice.wish(model(env=env))
    assert gpu_choice.wish(model(env=env, gpu_backend="not-vulkan")) == ""
    assert gpu_choice.wish(model(env=env, gpu_backend="not-vulkan", gpu_layers=3)) == "gpu_layers is 3"
