"""The image catalogue: which image serves which engine on what kind of device, as shipped and as the user has it."""

from __future__ import annotations

import json
from collections.abc import Container, Iterable, Mapping
from dataclasses import field
from importlib.resources import files
from types import MappingProxyType
from typing import Any, Final

from corral.config.paths import Paths
from corral.errors import ConfigError
from corral.hardware.gpus import Gpu
from corral.lazy_dataclass import dataclass
from corral.runners.containers.naming import is_reference

SHIPPED: Final = "catalogue.yaml"
OWN: Final = "images.yaml"
LOCK: Final = "images.lock.json"

_DEVICES: Final = ("dri", "kfd", "nvidia")
_BACKENDS: Final = {"vulkan": "vulkan", "cuda": "cuda", "rocm": "rocm", "sycl": "intel"}
_BY_VENDOR: Final = {"nvidia": ("cuda",), "amd": ("vulkan", "rocm"), "intel": ("vulkan", "intel")}
"""Where nothing is said: Vulkan, which every vendor has; but for NVIDIA, whose driver is put into containers, CUDA.
What an engine has no image for is passed over."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One image of the catalogue."""

    engine: str
    variant: str
    image: str  # what is fetched
    program: str  # inside
    built: str = ""  # what is made here instead; "" = nothing
    version: tuple[str, ...] = ("--version",)
    help: tuple[str, ...] = ("--help",)
    env: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    devices: tuple[str, ...] = ()

    @property
    def references(self) -> tuple[str, ...]:
        """What it may be here as, the preferred one first."""
        return (self.built, self.image) if self.built and self.built != self.image else (self.image,)


@dataclass(frozen=True, slots=True)
class Catalogue:
    """Every entry, by engine and variant."""

    entries: Mapping[tuple[str, str], Entry]

    def variants(self, engine: str) -> list[str]:
        return [variant for name, variant in self.entries if name == engine]

    def get(self, engine: str, variant: str) -> Entry:
        """Raises ConfigError where there is none."""
        if (found := self.entries.get((engine, variant))) is not None:
            return found
        known = ", ".join(self.variants(engine)) or "none"
        raise ConfigError(
            f"the catalogue has no image for {engine} on {variant} (for {engine}: {known})",
            hint=f"add one to {OWN} in the configuration directory, or name an `image` for the model",
        )

    def chosen(self, engine: str, backend: str, gpu_layers: int | str, gpus: Iterable[Gpu]) -> Entry:
        """The entry of `engine` for what it is to compute on. Raises ConfigError where there is none."""
        return self.get(engine, variant_for(backend, gpu_layers, gpus, self.variants(engine)))

    def of_reference(self, reference: str) -> Entry | None:
        return next((each for each in self.entries.values() if reference in each.references), None)


def load(paths: Paths) -> Catalogue:
    """The shipped catalogue under the user's own `images.yaml`. Blocks. Raises ConfigError."""
    shipped = _read(files("corral.runners.containers").joinpath(SHIPPED).read_text("utf-8"), SHIPPED)
    own = paths.config_dir / OWN
    try:
        text = own.read_text("utf-8")
    except FileNotFoundError:
        text = ""
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigError(f"{own} cannot be read: {exc}", hint="correct or remove it") from exc
    changed = _read(text, str(own)) if text else {}
    found: dict[tuple[str, str], Entry] = {}
    for engine in dict.fromkeys((*shipped, *changed)):
        variants = dict.fromkeys((*shipped.get(engine, {}), *changed.get(engine, {})))
        for variant in variants:
            base, over = shipped.get(engine, {}).get(variant, {}), changed.get(engine, {}).get(variant, {})
            if "image" in over and "built" not in over:
                base = {key: value for key, value in base.items() if key != "built"}
            found[engine, variant] = _entry(engine, variant, {**base, **over}, str(own) if over else SHIPPED)
    return Catalogue(MappingProxyType(found))


def locked(paths: Paths) -> Mapping[str, str]:
    """Digests by reference, as `corral lock` wrote them; empty where it never did. Blocks. Raises ConfigError."""
    path = paths.config_dir / LOCK
    try:
        data = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as exc:
        raise ConfigError(f"{path} cannot be read: {exc}", hint="write it anew with: corral lock") from exc
    found = data.get("images", data) if isinstance(data, dict) else {}
    pairs = ((name, each.get("digest") if isinstance(each, dict) else each) for name, each in found.items())
    return {name: digest for name, digest in pairs if isinstance(digest, str) and digest.startswith("sha256:")}


def variant_for(backend: str, gpu_layers: int | str, gpus: Iterable[Gpu], variants: Container[str]) -> str:
    """What an engine with images for `variants` computes on: what is asked for, else by the first GPU that works, else
    `cpu`. Pure."""
    if gpu_layers == 0:
        return "cpu"
    if backend in _BACKENDS:
        return _BACKENDS[backend]
    usable = [gpu for gpu in gpus if gpu.problem is None and gpu.vendor in _BY_VENDOR]
    ways = _BY_VENDOR[usable[0].vendor] if usable else ()
    return next((each for each in ways if each in variants), "cpu")


def nodes_for(entry: Entry, gpus: Iterable[Gpu], visible: str = "") -> tuple[str, ...]:
    """The devices of this machine that a container of `entry` is given. `visible` is NVIDIA_VISIBLE_DEVICES. Pure."""
    usable = [gpu for gpu in gpus if gpu.problem is None]
    found: list[str] = []
    if "kfd" in entry.devices and any(gpu.vendor == "amd" for gpu in usable):
        found.append("/dev/kfd")
    if "dri" in entry.devices:
        found += [gpu.node for gpu in usable if gpu.node is not None and gpu.node.startswith("/dev/dri/")]
    if "nvidia" in entry.devices:
        asked = [each.strip() for each in visible.split(",") if each.strip()]
        count = sum(gpu.vendor == "nvidia" for gpu in usable)
        numbers = asked if asked and asked[0] not in ("all", "void", "none") else [str(each) for each in range(count)]
        found += [] if asked[:1] in (["void"], ["none"]) else [f"nvidia.com/gpu={number}" for number in numbers]
    return tuple(dict.fromkeys(found))


def _read(text: str, where: str) -> dict[str, dict[str, dict[str, Any]]]:
    import yaml  # slow to load, and needed by those who have containers

    try:
        data = yaml.safe_load(text) or {}
    except yaml.YAMLError as exc:
        raise ConfigError(f"{where} is no YAML: {' '.join(str(exc).split())}", hint="correct it") from exc
    if not isinstance(data, dict):
        raise ConfigError(f"{where} must hold engines, each with variants", hint="see docs/containers.md")
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for engine, variants in data.items():
        if not isinstance(variants, dict) or not all(isinstance(each, dict) for each in variants.values()):
            raise ConfigError(f"{where}: {engine} must hold variants, each with keys", hint="see docs/containers.md")
        found[str(engine)] = {str(name): dict(each) for name, each in variants.items()}
    return found


def _entry(engine: str, variant: str, keys: Mapping[str, Any], where: str) -> Entry:
    def wrong(what: str) -> ConfigError:
        return ConfigError(f"{where}: {engine} {variant}: {what}", hint="see docs/containers.md")

    def words(name: str, default: tuple[str, ...]) -> tuple[str, ...]:
        value = keys.get(name, list(default))
        value = [value] if isinstance(value, str) else value
        if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
            raise wrong(f"`{name}` must be a list of texts")
        return tuple(value)

    if unknown := set(keys) - {"image", "built", "program", "version", "help", "env", "devices"}:
        raise wrong(f"unknown key {sorted(unknown)[0]!r}")
    for name in ("image", "program"):
        if not isinstance(keys.get(name), str):
            raise wrong(f"`{name}` is missing")
    for name in ("image", "built"):
        if keys.get(name) and not is_reference(str(keys[name])):
            raise wrong(f"{keys[name]!r} is no image's reference")
    env = keys.get("env", {})
    if not isinstance(env, dict):
        raise wrong("`env` must be names with values")
    if odd := set(words("devices", ())) - set(_DEVICES):
        raise wrong(f"no devices are called {sorted(odd)[0]!r} (dri, kfd, nvidia)")
    return Entry(
        engine,
        variant,
        image=keys["image"],
        program=keys["program"],
        built=str(keys.get("built") or ""),
        version=words("version", ("--version",)),
        help=words("help", ("--help",)),
        env=MappingProxyType({str(name): str(value) for name, value in env.items()}),
        devices=words("devices", ()),
    )
