"""`images.lock.json`: the digest of each image, as it was resolved. Nothing in it was ever guessed. Blocks."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal

from corral import clock
from corral.config.atomic import replace_file
from corral.config.paths import Paths
from corral.config.settings import ModelSettings, Settings
from corral.descriptors import digest_of
from corral.errors import BadReference, CorralError
from corral.hardware.gpus import Gpu, read_gpus
from corral.images import recipe
from corral.images.shelf import LOCAL
from corral.lazy_dataclass import dataclass
from corral.models.reach import Reach
from corral.refs import Ref
from corral.refs_parse import parse_ref
from corral.runners.containers import catalogue
from corral.runners.containers.catalogue import Catalogue
from corral.runners.containers.host import Image

State = Literal["locked", "new", "changed", "moved", "unlocked", "unknown"]


@dataclass(frozen=True, slots=True)
class Resolved:
    """One reference: its digest now, and how that is known."""

    reference: str
    digest: str | None  # None = it could not be resolved
    how: str = ""  # "registry" or "local"
    problem: str = ""
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Line:
    """One reference beside what the lock file says of it."""

    reference: str
    state: State
    digest: str | None
    was: str | None
    how: str = ""
    problem: str = ""
    hint: str = ""

    @property
    def good(self) -> bool:
        return self.state in ("locked", "new", "changed")


def wanted(paths: Paths, settings: Settings, *, everything: bool) -> list[tuple[str, ...]]:
    """What to resolve, each image as the references it may be here as. Blocks. Raises ConfigError."""
    known = catalogue.load(paths)
    return all_of(known) if everything else in_use(settings, known, read_gpus())


def read(paths: Paths) -> Mapping[str, str]:
    """Digests by reference. Raises ConfigError for a file that is damaged."""
    return catalogue.locked(paths)


def in_use(settings: Settings, known: Catalogue, gpus: Sequence[Gpu]) -> list[tuple[str, ...]]:
    """The images of the models that run in containers. Pure."""
    found = [
        _of_model(model, known, gpus) for model in settings.models.values() if model.runner not in ("process", "server")
    ]
    return list(dict.fromkeys(found))


def _of_model(model: ModelSettings, known: Catalogue, gpus: Sequence[Gpu]) -> tuple[str, ...]:
    if model.image is not None:
        return (model.image,)
    return known.chosen(model.engine, model.gpu_backend, model.gpu_layers, gpus).references


def all_of(known: Catalogue) -> list[tuple[str, ...]]:
    """Every reference of the catalogue, and the bases that builds begin with; each by itself. Pure."""
    entries = [(reference,) for entry in known.entries.values() for reference in entry.references]
    return list(dict.fromkeys([*entries, *((base,) for each in recipe.RECIPES for base in each.bases)]))


def there(wanted: Iterable[tuple[str, ...]], held: Mapping[str, Image]) -> list[tuple[str, ...]]:
    """Without what could have been built here and was not: there is nothing of it to lock. Pure."""
    return [each for each in wanted if not each[0].startswith(LOCAL) or each[0] in held]


def resolve(
    wanted: Iterable[tuple[str, ...]],
    held: Mapping[str, Image],
    registry: Callable[[Ref], tuple[bytes, str]],
) -> list[Resolved]:
    """Each image once: what was built here by its own digest, the others by their registry's.

    `registry` gives a reference's manifest, checked (`OciRegistry.manifest`).
    """
    return [_resolve(references, held, registry) for references in wanted]


def _resolve(
    references: tuple[str, ...], held: Mapping[str, Image], registry: Callable[[Ref], tuple[bytes, str]]
) -> Resolved:
    for reference in references:
        if reference.startswith(LOCAL) and (image := held.get(reference)) is not None:
            return Resolved(reference, own_digest(image), "local")
    reference = next((each for each in references if not each.startswith(LOCAL)), references[0])
    if reference.startswith(LOCAL):
        return Resolved(reference, None, problem="it is not here", hint="corral image build makes it")
    try:
        ref = image_ref(reference)
        if ref.digest is not None:
            return Resolved(reference, ref.digest, "registry")
        data, _ = registry(ref)
    except CorralError as error:
        return Resolved(reference, None, problem=error.message, hint=error.hint)
    return Resolved(reference, digest_of(data), "registry")


def own_digest(image: Image) -> str:
    """Of an image that no registry has: its manifest's where the container engine keeps one, else its id. Pure."""
    digests = [each.partition("@")[2] for each in image.digests if each.startswith(LOCAL)]
    return digests[0] if digests else f"sha256:{image.id}"


def image_ref(reference: str) -> Ref:
    """An image's reference as the registry client wants it: Docker Hub's `library/` and host are added. Pure.

    Raises BadReference.
    """
    first, slash, _ = reference.partition("/")
    if not slash:
        reference = f"docker.io/library/{reference}"
    elif not ("." in first or ":" in first or first == "localhost"):
        reference = f"docker.io/{reference}"
    elif first == "docker.io" and reference.count("/") == 1:
        reference = reference.replace("/", "/library/", 1)
    found = parse_ref(f"oci://{reference}")
    if found.kind != "oci":
        raise BadReference(f"{reference} is no image's reference", hint="such as ghcr.io/ggml-org/llama.cpp:server")
    return found


def beside(resolved: Sequence[Resolved], locks: Mapping[str, str], *, check: bool) -> list[Line]:
    """What is to be said of each; with `check` nothing will be written. Pure."""
    return [_line(each, locks.get(each.reference), check=check) for each in resolved]


def _line(now: Resolved, was: str | None, *, check: bool) -> Line:
    state: State
    if now.digest is None:
        state = "unknown"
    elif was == now.digest:
        state = "locked"
    elif was is None:
        state = "unlocked" if check else "new"
    else:
        state = "moved" if check else "changed"
    return Line(now.reference, state, now.digest, was, now.how, now.problem, now.hint)


def write(paths: Paths, resolved: Sequence[Resolved]) -> None:
    """Puts what was resolved into the lock file; the rest of it stays. With nothing new it is not touched, nor made.

    Raises ConfigError.
    """
    file = paths.config_dir / catalogue.LOCK
    before = catalogue.locked(paths)  # refuses a file that is damaged
    try:
        data = json.loads(file.read_bytes())
    except FileNotFoundError:
        data = {}
    entries = data.get("images")
    images = (
        dict(entries) if isinstance(entries, dict) else {name: {"digest": digest} for name, digest in before.items()}
    )
    now = clock.iso(clock.wall())
    for each in resolved:
        if each.digest is not None and before.get(each.reference) != each.digest:
            images[each.reference] = {"digest": each.digest, "resolved": each.how, "at": now}
    if images == entries or not images:
        return
    text = json.dumps({"version": 1, "images": dict(sorted(images.items()))}, indent=2)
    replace_file(file, text + "\n", mode=0o644)


def registry(settings: Settings, paths: Paths, warn: Callable[[str], None]) -> Callable[[Ref], tuple[bytes, str]]:
    """What asks registries, within what the configuration allows."""
    return Reach(settings, paths.config_dir, warn).oci.manifest
