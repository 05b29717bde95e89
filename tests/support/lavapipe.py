"""Mesa's lavapipe as a Vulkan device for tests: its driver's manifest in a folder of the test's own, to be taken away
and put back, and a driver in front of it that hangs, crashes or loses its device when told."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

SOURCE = Path(__file__).with_name("vulkan_driver.c")
MANIFESTS = Path("/usr/share/vulkan/icd.d")


def vulkan_server() -> Path:
    """The `llama-server` with a Vulkan backend; the test is skipped where there is none. Tests that call this are
    marked `vulkan`."""
    found = os.environ.get("CORRAL_TEST_VULKAN_SERVER")
    if found is None or not Path(found).exists():
        pytest.skip("no llama-server with Vulkan here: `make vulkan` builds one")
    return Path(found)


def lavapipe_library() -> Path:
    manifest = next(MANIFESTS.glob("lvp_icd.*.json"), None)
    if manifest is None:
        pytest.skip("Mesa's lavapipe is not installed: `make vulkan` sees to it")
    return Path(json.loads(manifest.read_text())["ICD"]["library_path"])


@dataclass(frozen=True)
class Driver:
    """A driver's manifest, and the folder whose files make it fail (see `vulkan_driver.c`)."""

    manifest: Path
    library: Path
    faults: Path

    @property
    def env(self) -> dict[str, str]:
        """The variables with which engines find this driver, and no other one. llama.cpp takes no device that the
        processor plays, unless it is asked for by its number."""
        return {"VK_DRIVER_FILES": str(self.manifest), "GGML_VK_VISIBLE_DEVICES": "0"}

    def install(self) -> None:
        told = {"file_format_version": "1.0.0", "ICD": {"library_path": str(self.library), "api_version": "1.3.0"}}
        scratch = self.manifest.with_suffix(".new")
        scratch.write_text(json.dumps(told))
        scratch.rename(self.manifest)

    def take_away(self) -> None:
        self.manifest.unlink()

    def fail(self, how: str) -> None:
        (self.faults / how).touch()

    def mend(self) -> None:
        for each in self.faults.iterdir():
            each.unlink()


def lavapipe(folder: Path) -> Driver:
    """lavapipe itself, by a manifest in `folder`."""
    driver = Driver(folder / "lvp_icd.json", lavapipe_library(), folder)
    driver.install()
    return driver


def faulty(folder: Path) -> Driver:
    """lavapipe behind a driver that fails when told."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler here: `make vulkan` sees to it")
    faults, library = folder / "faults", folder / "faulty.so"
    faults.mkdir()
    defined = (f'-DREAL="{lavapipe_library()}"', f'-DFAULTS="{faults}"')
    subprocess.run(
        [compiler, "-Wall", "-shared", "-fPIC", *defined, "-o", str(library), str(SOURCE), "-ldl"], check=True
    )
    driver = Driver(folder / "faulty_icd.json", library, faults)
    driver.install()
    return driver
