"""Vulkan's loader and its drivers' manifests, as files tell of them."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from corral.cli import check_gpus
from corral.hardware.backends import backends_in
from corral.hardware.vulkan import manifests, nodes, read_icd, read_vulkan, signs


def manifest(path: Path, library: object = "libvulkan_lvp.so") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"file_format_version": "1.0.0", "ICD": {"library_path": library}}))
    return path


def machine(root: Path) -> Path:
    """A root with Vulkan's loader and two drivers."""
    (root / "usr/lib/x86_64-linux-gnu").mkdir(parents=True)
    (root / "usr/lib/x86_64-linux-gnu/libvulkan.so.1").touch()
    manifest(root / "usr/share/vulkan/icd.d/radeon_icd.x86_64.json")
    manifest(root / "usr/share/vulkan/icd.d/lvp_icd.x86_64.json")
    return root


def test_manifests_are_found_where_the_loader_looks(tmp_path: Path) -> None:
    """Configuration directories come before data directories, the user's before the machine's; others do not count."""
    root = machine(tmp_path)
    own = manifest(root / "home/me/.local/share/vulkan/icd.d/own.json")
    etc = manifest(root / "etc/vulkan/icd.d/nvidia_icd.json")
    (root / "etc/vulkan/icd.d/notes.txt").touch()
    added = manifest(root / "opt/added.json")
    share = root / "usr/share/vulkan/icd.d"
    found = manifests({"HOME": "/home/me", "VK_ADD_DRIVER_FILES": "/opt/added.json"}, root)
    assert found == [added, etc, own, share / "lvp_icd.x86_64.json", share / "radeon_icd.x86_64.json"]
    assert manifests({"XDG_DATA_DIRS": "/nowhere", "HOME": ""}, root) == [etc]
    vulkan = read_vulkan({}, root)
    assert (vulkan.chosen_by, [icd.name for icd in vulkan.icds]) == ("", ["nvidia", "lvp", "radeon"])
    assert vulkan.loader == root / "usr/lib/x86_64-linux-gnu/libvulkan.so.1"
    assert vulkan.why_none is None


@pytest.mark.parametrize(
    ("env", "why"),
    [
        ({"VK_ICD_FILENAMES": "/nowhere.json"}, "/nowhere.json, which VK_ICD_FILENAMES names, is not there"),
        (
            {"VK_DRIVER_FILES": "/bad.json", "VK_ICD_FILENAMES": "/usr/share/vulkan/icd.d/lvp_icd.x86_64.json"},
            "/bad.json, which VK_DRIVER_FILES names, is no driver's manifest: it names no library",
        ),
        (
            {"VK_DRIVER_FILES": "/gone.json"},
            "which VK_DRIVER_FILES names, names a library that is not there: /lib/gone.so",
        ),
        ({"VK_DRIVER_FILES": "/empty"}, "VK_DRIVER_FILES names no driver"),
        ({"VK_DRIVER_FILES": "/gone.json:/usr/share/vulkan/icd.d"}, None),
        ({"VK_DRIVER_FILES": ""}, None),
    ],
)
def test_variables_choose_manifests(tmp_path: Path, env: Mapping[str, str], why: str | None) -> None:
    """VK_DRIVER_FILES, or else VK_ICD_FILENAMES, names files and folders that alone count; what is wrong is said."""
    root = machine(tmp_path)
    (root / "bad.json").write_text("{}")
    (root / "empty").mkdir()
    manifest(root / "gone.json", "/lib/gone.so")
    told = read_vulkan(env, root).why_none
    assert told == why if why is None else told is not None and why in told.replace(str(root), "")


@pytest.mark.parametrize("text", ["", "[]", "{", '{"ICD": {"library_path": 7}}', '{"ICD": []}', "\0" * 100_000])
def test_nonsense_is_no_manifest(tmp_path: Path, text: str) -> None:
    """Whatever a file holds, reading it says what is wrong and nothing more."""
    path = tmp_path / "x.json"
    path.write_text(text)
    assert read_icd(path).problem == "is no driver's manifest: it names no library"
    assert "cannot be read" in (read_icd(tmp_path).problem or "")


def test_without_loader_or_drivers_the_reason_is_told(tmp_path: Path) -> None:
    """No loader, and no driver, are two things."""
    assert read_vulkan({}, tmp_path).why_none == "Vulkan's loader, libvulkan.so.1, is not there"
    (tmp_path / "opt").mkdir()
    (tmp_path / "opt/libvulkan.so.1").touch()
    assert read_vulkan({"LD_LIBRARY_PATH": "/opt"}, tmp_path).why_none == "no Vulkan driver (ICD file) is there"


def test_signs_change_with_what_comes_and_goes(tmp_path: Path) -> None:
    """A device node or manifest that comes, goes or is written anew is noticed; nothing else is."""
    root = machine(tmp_path)
    first = signs({}, root)
    assert signs({}, root) == first
    (root / "dev/dri").mkdir(parents=True)
    (root / "dev/dri/renderD128").touch()
    second = signs({}, root)
    assert second != first
    lvp = root / "usr/share/vulkan/icd.d/lvp_icd.x86_64.json"
    os.utime(lvp, (1, 1))
    third = signs({}, root)
    assert third != second
    lvp.unlink()
    assert signs({}, root) not in (first, second, third)
    assert signs({"VK_DRIVER_FILES": "/nowhere"}, root) != signs({}, root)


def test_the_doctor_tells_loader_drivers_and_nodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each driver has a line, each node says who may open it, and what is wrong comes with what mends it."""
    root = machine(tmp_path)
    manifest(root / "usr/share/vulkan/icd.d/gone.json", "../gone.so")
    (root / "dev/dri").mkdir(parents=True)
    for name in ("dev/dri/renderD128", "dev/kfd"):
        (root / name).touch()
        (root / name).chmod(0o660)
    assert [path.name for path in nodes(root)] == ["renderD128", "kfd"]
    monkeypatch.setattr(os, "access", lambda path, mode: not str(path).endswith("kfd"))
    monkeypatch.setattr(check_gpus, "_group", lambda number: "render")
    found = check_gpus.drivers({}, root)
    assert [(each.name, each.level) for each in found] == [
        ("device", "ok"), ("device", "warn"), ("vulkan", "ok"), ("vulkan driver", "warn"), ("vulkan driver", "ok"),
        ("vulkan driver", "ok"),
    ]  # fmt: skip
    assert found[1].fix.startswith("sudo usermod -aG render $USER")
    assert "/dev/kfd, -rw-rw----, group render: this user may not open it" in found[1].text
    assert "drivers: lvp, radeon" in found[2].text
    assert "names a library that is not there" in found[3].text
    (one,) = check_gpus.vulkan({}, tmp_path / "nothing")
    assert (one.level, one.name) == ("missing", "vulkan")
    wrong = check_gpus.vulkan({"VK_DRIVER_FILES": "/nowhere.json"}, root)
    assert [each.level for each in wrong] == ["warn", "warn"]
    assert wrong[0].fix == "correct VK_DRIVER_FILES, or unset it"


def test_a_builds_backends_are_told_by_its_libraries(tmp_path: Path) -> None:
    """What lies beside the program says through what it reaches GPUs; the processor's libraries do not count."""
    for name in ("libggml-cpu.so", "libggml-vulkan.so", "libggml-cuda.so.0", "libggml-hip.so", "libggml-base.so"):
        (tmp_path / name).touch()
    assert backends_in([tmp_path, tmp_path / "nowhere"]) == ("hip", "vulkan")
