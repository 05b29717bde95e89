"""What of the image catalogue is here, and how an entry is built or fetched. Blocks; needs no server."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.resources import as_file, files
from pathlib import Path

from corral import __version__
from corral.config.paths import Paths
from corral.errors import CallerError, ConfigError
from corral.hardware.gpus import read_gpus
from corral.images import recipe
from corral.images.program import Program
from corral.images.recipe import Order, Recipe
from corral.lazy_dataclass import dataclass
from corral.runners.containers import catalogue
from corral.runners.containers.catalogue import Entry
from corral.runners.containers.host import Image
from corral.runners.containers.naming import is_reference

LOCAL = "localhost/"


@dataclass(frozen=True, slots=True)
class Standing:
    """One reference of the catalogue and what there is of it."""

    engine: str
    variant: str
    reference: str
    origin: str  # "built" here, or "fetched"
    here: bool
    locked: str  # "yes", "no", or "other": what is here is not what was locked
    bytes: int | None = None
    id: str | None = None
    digest: str | None = None  # the locked one


def origin(reference: str) -> str:
    return "built" if reference.startswith(LOCAL) else "fetched"


def standings(paths: Paths, program: Program) -> list[Standing]:
    """Every entry of the catalogue, each of its references a line."""
    known, locks = catalogue.load(paths), catalogue.locked(paths)
    held = program.held(reference for entry in known.entries.values() for reference in entry.references)
    return [
        standing(entry, reference, held.get(reference), locks.get(reference))
        for entry in known.entries.values()
        for reference in entry.references
    ]


def standing(entry: Entry, reference: str, image: Image | None, digest: str | None) -> Standing:
    """Pure."""
    locked = "no" if digest is None else "yes" if image is None or answers_to(image, digest) else "other"
    size, known = (None, None) if image is None else (image.bytes, image.id)
    made = origin(reference)
    return Standing(entry.engine, entry.variant, reference, made, image is not None, locked, size, known, digest)


def answers_to(image: Image, digest: str) -> bool:
    """Whether an image is the one with that digest, be it a registry's or, of one built here, its own. Pure."""
    return digest.removeprefix("sha256:") == image.id or any(each.endswith(f"@{digest}") for each in image.digests)


def named(paths: Paths, name: str, variant: str | None) -> Entry:
    """The entry of an engine, for the GPUs of this machine unless `variant` says otherwise. Raises ConfigError."""
    known = catalogue.load(paths)
    engine, _, inner = name.partition(":")
    if (entry := known.of_reference(name)) is not None:
        return entry
    wanted = variant or inner or None
    return known.chosen(engine, "auto", "auto", read_gpus()) if wanted is None else known.get(engine, wanted)


def recipe_of(entry: Entry) -> Recipe:
    """Raises CallerError where Corral has no Containerfile for it."""
    found = recipe.recipe_for(entry.engine, entry.variant)
    if found is None:
        known = ", ".join(f"{each.engine} {each.variant}" for each in recipe.RECIPES)
        fetched = f"corral image pull {entry.engine} --variant {entry.variant}"
        own = "name one of your own for it in images.yaml, or run it with `runner: process`"
        raise CallerError(
            f"{entry.engine} for {entry.variant} cannot be built here (what can: {known})",
            hint=own if entry.image.startswith(LOCAL) else fetched,
        )
    return found


@dataclass(frozen=True, slots=True)
class Wish:
    """What the caller of a build may say."""

    base: str | None = None
    build_base: str | None = None
    jobs: int | None = None
    network: str = ""
    certificates: Path | None = None
    name: str | None = None
    pip_config: Path | None = None


def order(paths: Paths, entry: Entry, wish: Wish) -> tuple[Order, tuple[str, ...]]:
    """What to build, and what the user should know of it: bases that are not locked to a digest.

    With a base of their own, users compile on it too. Raises CallerError, ConfigError.
    """
    found = recipe_of(entry)
    locks = catalogue.locked(paths)
    base = wish.base or found.base
    build_base = wish.build_base or (wish.base or found.build_base or base)
    pinned = {each: _pinned(each, locks) for each in (base, build_base)}
    notes = tuple(
        f"the base {each} is not locked to a digest: corral lock --all"
        for each, full in pinned.items()
        if "@" not in full and not each.startswith(LOCAL)
    )
    name = wish.name or entry.built or entry.image
    if not name.startswith(LOCAL):
        raise ConfigError(
            f"what is built here must not be called like something of a registry: {name}",
            hint=f"give the catalogue's entry a `built` name that begins with {LOCAL}",
        )
    for given in (pinned[base], pinned[build_base], name):
        if not is_reference(given):
            raise CallerError(f"{given!r} is no image's reference", hint=f"such as {found.base}")
    jobs = wish.jobs or len(os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1))
    certificates = wish.certificates or _own_certificates()
    labels = {"io.corral.version": __version__}
    pip_config = wish.pip_config or _existing("PIP_CONFIG_FILE")
    made = Order(found, name, pinned[base], pinned[build_base], jobs, wish.network, certificates, labels, pip_config)
    return made, notes


def _pinned(reference: str, locks: Mapping[str, str]) -> str:
    digest = locks.get(reference)
    if digest is None or reference.startswith(LOCAL):
        return reference
    head, slash, last = reference.rpartition("/")
    return f"{head}{slash}{last.partition(':')[0]}@{digest}"


def _own_certificates() -> Path | None:
    """Where this machine was given certificates of its own, a build reaches the network with them too."""
    return _existing("SSL_CERT_FILE") or _existing("CURL_CA_BUNDLE")


def _existing(variable: str) -> Path | None:
    """The file that a variable names, where it is there and has anything in it."""
    named = os.environ.get(variable)
    return Path(named) if named and Path(named).is_file() else None


def build(program: Program, wanted: Order, say: Callable[[str], None]) -> tuple[Image, tuple[str, ...]]:
    """Builds an image and gives it with the warnings of its build. Raises EngineError."""
    with context(wanted.recipe) as folder:
        lines = program.build(recipe.command(program.path, program.kind, wanted, folder), say)
    image = program.held([wanted.name])[wanted.name]
    return image, tuple(recipe.warnings_in(list(lines)))


@contextmanager
def context(wanted: Recipe) -> Iterator[Path]:
    """A folder with the Containerfile and what it copies: for llama.cpp and vLLM the lock that `corral engine install`
    goes by too, for the detector Corral itself as it is installed."""
    with tempfile.TemporaryDirectory(prefix="corral-build-") as made, as_file(files("corral")) as package:
        target = Path(made) / "context"
        compiled = shutil.ignore_patterns("__pycache__")
        shutil.copytree(package / "images" / "files" / wanted.engine, target, ignore=compiled)
        if wanted.engine == "llama.cpp":
            shutil.copy(package / "environments" / "locks" / "llama.cpp.txt", target / "requirements.txt")
        if wanted.engine == "vllm":
            shutil.copy(package / "environments" / "locks" / f"vllm-{wanted.variant}.txt", target / "requirements.txt")
        if wanted.engine == "detector":
            shutil.copytree(package, target / "corral", ignore=shutil.ignore_patterns("__pycache__", "files"))
        yield target


def fetch(paths: Paths, program: Program, reference: str, say: Callable[[str], None] | None) -> Image:
    """Fetches an image: the very one that is locked, where one is. Raises EngineError, CallerError."""
    if reference.startswith(LOCAL):
        raise CallerError(
            f"{reference} is not to be had from anywhere", hint="corral image build makes such images here"
        )
    locks = catalogue.locked(paths)
    full = _pinned(reference, locks)
    program.pull(full, say)
    if full != reference:
        program.tag(full, reference)
    return program.held([reference])[reference]
