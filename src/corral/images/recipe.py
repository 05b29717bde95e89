"""How Corral's own images are built: Containerfiles with their bases, and the command line for it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from corral.lazy_dataclass import dataclass
from corral.runners.containers.host import Kind


@dataclass(frozen=True, slots=True)
class Recipe:
    """One image that can be built. `base` is what it runs on, `build_base` what it is compiled on ("" = the same)."""

    engine: str
    variant: str
    base: str
    build_base: str = ""
    tried: bool = False  # built for real by the project's tests; the others are written after the vendors' words

    @property
    def bases(self) -> tuple[str, ...]:
        return (self.base, self.build_base) if self.build_base else (self.base,)


_DEBIAN_12 = "docker.io/library/debian:bookworm-slim"
_DEBIAN_13 = "docker.io/library/debian:trixie-slim"
_CUDA = "docker.io/nvidia/cuda:12.8.1"
_ROCM = "docker.io/rocm/dev-ubuntu-24.04:7.1-complete"

RECIPES: Final[tuple[Recipe, ...]] = (
    Recipe("llama.cpp", "cpu", _DEBIAN_12, tried=True),
    Recipe("llama.cpp", "vulkan", _DEBIAN_13),  # Debian 12's Vulkan headers are too old for it
    Recipe("llama.cpp", "cuda", f"{_CUDA}-runtime-ubuntu24.04", f"{_CUDA}-devel-ubuntu24.04"),
    Recipe("llama.cpp", "rocm", _ROCM),
    Recipe("detector", "cpu", _DEBIAN_12, tried=True),
    Recipe("vllm", "cpu", _DEBIAN_12),
)


def recipe_for(engine: str, variant: str) -> Recipe | None:
    return next((each for each in RECIPES if (each.engine, each.variant) == (engine, variant)), None)


@dataclass(frozen=True, slots=True)
class Order:
    """One build: the recipe with everything that the caller may change."""

    recipe: Recipe
    name: str  # what the image will be called
    base: str
    build_base: str
    jobs: int = 2
    network: str = ""  # "" = as the container engine does by itself
    certificates: Path | None = None  # authorities whom the build is to trust, and the image is not
    labels: Mapping[str, str] | None = None
    pip_config: Path | None = None  # by which the build fetches Python packages; it may hold passwords


def command(program: str, kind: Kind, order: Order, context: Path) -> tuple[str, ...]:
    """The command line that builds `order` from the files in `context`.

    Podman makes images of OCI's format, which has no health check, unless it is told otherwise.
    """
    words = [program, "build"]
    if kind == "podman":
        words += ["--format", "docker"]
    if order.network:
        words += ["--network", order.network]
    if order.certificates is not None:
        words += ["--secret", f"id=ca,src={order.certificates}"]
    if order.pip_config is not None:
        words += ["--secret", f"id=pip,src={order.pip_config}"]
    arguments = {"BASE": order.base, "VARIANT": order.recipe.variant, "JOBS": str(order.jobs)}
    if order.build_base and order.build_base != order.base:
        arguments["BUILD_BASE"] = order.build_base
    for name, value in arguments.items():
        words += ["--build-arg", f"{name}={value}"]
    labels = {"io.corral.base": order.base, **(order.labels or {})}
    for name, value in labels.items():
        words += ["--label", f"{name}={value}"]
    return (*words, "--tag", order.name, "--file", str(context / "Containerfile"), str(context))


def warnings_in(lines: list[str]) -> list[str]:
    """What a build's output warns of, without what the program says of its own set-up."""
    found = []
    for line in lines:
        low = line.lower()
        if "warn" in low.replace("no warnings", "") and 'msg="\\"/\\" is not a shared mount' not in line:
            found.append(line.strip())
    return found
