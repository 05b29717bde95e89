"""The locks under requirements/ and the project's metadata."""

from __future__ import annotations

import importlib.metadata
import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import corral
from corral.environments.variants import variant_of

ROOT = Path(__file__).resolve().parents[2]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
OF_ENGINES = ROOT / "src" / "corral" / "environments" / "locks"
LOCKS = ("run", "dev", "vision", *sorted(each.stem for each in OF_ENGINES.glob("*.txt")))
PLATFORMS = [
    {"sys_platform": system, "platform_system": name, "platform_machine": machine, "os_name": "posix"}
    for system, name, machine in (
        ("linux", "Linux", "x86_64"),
        ("linux", "Linux", "aarch64"),
        ("darwin", "Darwin", "arm64"),
    )
]
PYTHONS = ("3.11", "3.12", "3.13")


def lock(name: str) -> str:
    own = OF_ENGINES / f"{name}.txt"
    return (own if own.exists() else ROOT / "requirements" / f"{name}.txt").read_text(encoding="utf-8")


def pins(name: str) -> dict[str, str]:
    return {canonicalize_name(k): v for k, v in re.findall(r"^([\w.-]+)==(\S+)", lock(name), re.MULTILINE)}


def wanted(name: str) -> list[Requirement]:
    found = [*PYPROJECT["project"]["dependencies"], *PYPROJECT["build-system"]["requires"]]
    if name == "dev":
        found += PYPROJECT["dependency-groups"]["test"] + PYPROJECT["dependency-groups"]["check"]
    return [Requirement(each) for each in found]


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_names_no_place(name: str) -> None:
    """No lock carries an index, a link, or another address."""
    assert not re.search(r"://|^\s*--(index|extra|find|trusted)|^\s*-[if]\b", lock(name), re.MULTILINE)


@pytest.mark.parametrize("name", LOCKS)
def test_everything_is_pinned_with_hashes(name: str) -> None:
    """Each line of a lock pins one version, with at least one sha256."""
    entries = re.split(r"\n(?=\S)", lock(name).strip())
    for entry in entries:
        if not entry.startswith("#"):
            assert re.match(r"[\w.-]+==\S+( ; [^\\\n]+)? \\\n(    --hash=sha256:[0-9a-f]{64}( \\\n)?)+", entry), entry


@pytest.mark.parametrize("name", ["run", "dev"])
def test_a_lock_holds_what_the_project_asks_for(name: str) -> None:
    """Every direct requirement is in the lock, at a version that satisfies it."""
    pinned = pins(name)
    for requirement in wanted(name):
        version = pinned.get(canonicalize_name(requirement.name))
        assert version is not None, f"{requirement.name} is not in {name}.txt: make lock"
        assert requirement.specifier.contains(version, prereleases=True), f"{requirement} against {version}: make lock"


def test_what_exports_is_what_the_project_asks_for() -> None:
    """`corral engine install detector-export` has all of `corral[vision-export]`, at versions that satisfy it."""
    pinned = pins("detector-export-cpu")
    for requirement in map(Requirement, PYPROJECT["project"]["optional-dependencies"]["vision-export"]):
        assert requirement.specifier.contains(pinned[canonicalize_name(requirement.name)]), requirement
    for text in variant_of("detector-export", "cpu").requirements():
        requirement = Requirement(text)
        if requirement.marker is None or requirement.marker.evaluate(PLATFORMS[0]):
            assert str(requirement.specifier) == f"=={pinned[requirement.name]}"


def test_the_dev_lock_contains_the_run_lock() -> None:
    """What is tested is what users get: the dev lock has everything of the run lock at the same versions."""
    assert pins("run").items() <= pins("dev").items()


@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize("platform", PLATFORMS, ids=lambda each: f"{each['sys_platform']}-{each['platform_machine']}")
def test_a_lock_made_here_serves_elsewhere(platform: dict[str, str], python: str) -> None:
    """No package of the locks needs, on another platform or version, one that the locks lack."""
    environment = platform | {"python_version": python, "python_full_version": f"{python}.0", "extra": ""}
    for name in ("run", "dev"):
        pinned = pins(name)
        for package in pinned:
            for text in importlib.metadata.requires(package) or ():
                requirement = Requirement(text)
                if requirement.marker is None or requirement.marker.evaluate(environment):
                    assert canonicalize_name(requirement.name) in pinned, f"{package} needs {requirement} in {name}.txt"


def test_the_command_says_the_version_of_the_metadata() -> None:
    """The version is written once, in the package, and the metadata has it from there."""
    assert importlib.metadata.version("corral") == corral.__version__
