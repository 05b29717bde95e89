"""Bringing models that other tools hold into the store, without copying them where that can be avoided.

Each file is hashed once whatever its name says. Ways are tried in this order: a reflink (shares the disk's blocks, and
later changes touch nobody else), a hard link (one file, two names), a reference (the file stays the other tool's, and
is compared with its record before each use), a copy.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Final, Literal, get_args

from corral.artifact import Facts, File, build_docker
from corral.descriptors import Descriptor, digest_of
from corral.errors import CallerError, CorralError, DigestMismatch, ModelFileError, NotFound, RegistryError, StoreError
from corral.lazy_dataclass import dataclass
from corral.models import import_words
from corral.models.fetching.pull import SOURCE
from corral.models.formats.gguf import read_header
from corral.models.formats.safetensors import read_safetensors
from corral.models.import_words import Done
from corral.models.peers.docker_api import base_of, list_api, take_export
from corral.models.peers.known import PEERS, existing_places, find_peer
from corral.models.peers.outside import OutsideFile, OutsideModel, Peer
from corral.refs import Ref
from corral.refs_parse import parse_ref
from corral.registry.egress import Egress
from corral.registry.quants import quant_of
from corral.store.adding import CannotShare
from corral.store.store import Store

Way = Literal["auto", "reflink", "hardlink", "reference", "copy"]
Verify = Callable[[Ref, str], object]
"""`verify(ref, manifest digest)` raises when a policy forbids the model under that name."""

_LINK = Literal["reflink", "hardlink", "reference", "copy"]
_ORDER: Final[tuple[_LINK, ...]] = ("reflink", "hardlink", "reference", "copy")
SMALL_BYTES: Final = 1 << 20
"""Files up to this size are copied rather than referred to: they cost nothing, and the model keeps its description."""


@dataclass(frozen=True, slots=True)
class Imported:
    """A model that is in the store now. `how` is what was done with its largest file."""

    name: str
    digest: str  # of its manifest
    how: Done
    bytes_added: int  # written to the disk; links and what was there already cost nothing
    size_bytes: int
    note: str  # how it was done and why, and what happens when the other tool deletes its own, for people


@dataclass(frozen=True, slots=True)
class NotImported:
    """A model that could not be imported, and why."""

    name: str
    label: str
    error: CorralError


@dataclass(frozen=True, slots=True)
class FoundPeer:
    """A peer of which something is on this machine."""

    key: str
    title: str
    places: tuple[Path, ...]


def find_peers(env: Mapping[str, str] | None = None) -> list[FoundPeer]:
    """The peers that have a place here, in the order in which they are documented."""
    found = [(peer, existing_places(peer, env)) for peer in PEERS.values()]
    return [FoundPeer(peer.key, peer.title, tuple(places)) for peer, places in found if places]


def list_models(
    key: str, *, place: Path | None = None, env: Mapping[str, str] | None = None, egress: Egress | None = None
) -> list[OutsideModel]:
    """What the peer `key` holds, by name; what cannot be imported is in the list, with its problem.

    `place` takes the place of the directories that the peer uses by itself. With `egress`, Docker's API is asked where
    no directory of it can be read: its store is often a volume of root's. Blocks.

    Raises NotFound when there is no such peer, or nothing of it here; ModelFileError when its index cannot be read.
    """
    peer = find_peer(key)
    env = os.environ if env is None else env
    places = [place] if place is not None else existing_places(peer, env)
    readable = [each for each in places if os.access(each, os.R_OK | os.X_OK)]
    if not readable and place is None and key == "docker" and egress is not None:
        with suppress(RegistryError):
            return list_api(egress, base_of(env))
    if not places:
        looked = ", ".join(str(each) for each in peer.places(env))
        hint = f"looked in {looked}; give its directory instead if it is elsewhere"
        raise NotFound(f"there is nothing of {peer.title} here", hint=hint)
    if not readable:
        raise ModelFileError(f"{places[0]} may not be read", hint=import_words.access_hint(peer, places[0]))
    found: dict[str, OutsideModel] = {}
    for each in readable:
        for model in peer.read(each):
            known = found.get(model.name)
            if known is None or (known.problem and not model.problem):
                found[model.name] = model
    return [found[name] for name in sorted(found)]


def find_model(models: list[OutsideModel], wanted: str) -> OutsideModel:
    """The one of `models` that `wanted` means: its name here, what its holder calls it, or what would be pulled.

    Raises NotFound, or CallerError when several fit.
    """
    exact = [model for model in models if wanted in (model.name, model.label)]
    try:
        ref = parse_ref(wanted).name
    except CorralError:
        ref = wanted
    fitting = exact or [model for model in models if model.name == ref or model.label == f"{wanted}:latest"]
    fitting = fitting or [model for model in models if wanted.lower() in model.label.lower()]
    if not fitting:
        shown = ", ".join(model.label for model in models[:12]) or "nothing"
        raise NotFound(f"there is no {wanted} to import", hint=f"there is: {shown}")
    if len(fitting) > 1:
        raise CallerError(
            f"{wanted} fits several models", hint=f"name one of: {', '.join(model.label for model in fitting[:12])}"
        )
    return fitting[0]


def import_model(
    store: Store,
    model: OutsideModel,
    *,
    name: str | None = None,
    way: Way = "auto",
    verify: Verify | None = None,
    egress: Egress | None = None,
) -> Imported:
    """Brings `model` into the store under `name`, by default its own. Blocks for as long as hashing it takes.

    What its holder gives out by its API comes through `egress`, as a copy.

    Raises ModelFileError when it is damaged or incomplete, DigestMismatch when a file is not what its holder says,
    StoreError when `way` is impossible here, DiskFull, and what `verify` raises.
    """
    if model.problem:
        raise ModelFileError(f"{model.label} cannot be imported: {model.problem}", hint=import_words.again(model))
    if way not in get_args(Way):
        raise CallerError(f"{way!r} is no way to import", hint=f"known are: {', '.join(get_args(Way))}")
    ref = parse_ref(name) if name is not None else model.ref
    if model.api:
        return _exported(store, model, ref, verify, egress)
    if model.manifest is not None and verify is not None:  # before hours of hashing
        verify(ref, digest_of(model.manifest))
    quantization = _checked(model)
    peer = PEERS.get(model.holder)
    with ExitStack() as held:
        taken = [_take(store, file, way, held, peer) for file in model.files]
        manifest, descriptor, added = _manifest(store, model, taken, quantization, held)
        if model.manifest is None and verify is not None:
            verify(ref, descriptor.digest)
        store.add_bytes(manifest)
        store.set_name(ref.name, descriptor, _origin(model), why="import")
    largest = max(taken, key=lambda each: (each.size, each.how != "present"))
    added += sum(each.size for each in taken if each.how == "copy")
    note = import_words.note(largest.how, largest.size, largest.file.path, largest.refused, peer)
    return Imported(ref.name, descriptor.digest, largest.how, added, sum(each.size for each in taken), note)


def import_all(
    store: Store,
    models: list[OutsideModel],
    *,
    way: Way = "auto",
    verify: Verify | None = None,
    egress: Egress | None = None,
) -> Iterator[Imported | NotImported]:
    """Imports each of `models`, and goes on after one that fails; the reason is in the result. Blocks between results.

    Raises StoreError for what would fail for the next one too, such as a full disk.
    """
    for model in models:
        try:
            yield import_model(store, model, way=way, verify=verify, egress=egress)
        except (ModelFileError, CallerError) as error:
            yield NotImported(model.name, model.label, error)
        except CorralError as error:
            if isinstance(error, StoreError) and error.code == "disk_full":
                raise
            yield NotImported(model.name, model.label, error)


def _exported(store: Store, model: OutsideModel, ref: Ref, verify: Verify | None, egress: Egress | None) -> Imported:
    if egress is None:
        raise CallerError(f"{model.label} is only given out by {model.api}", hint="this is a bug; please report it")
    if verify is not None:
        verify(ref, model.digest)
    with ExitStack() as held:
        descriptor, size, added = take_export(store, egress, model, held)
        store.set_name(ref.name, descriptor, _origin(model), why="import")
    how: Done = "copy" if added > size // 2 else "present"
    note = import_words.note(how, added, Path(model.api), {}, PEERS.get(model.holder))
    return Imported(ref.name, model.digest, how, added, size, note)


# Files ---------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Taken:
    file: OutsideFile
    digest: str
    size: int
    how: Done
    refused: Mapping[str, str]  # the ways that were not possible, and why


def _take(store: Store, file: OutsideFile, way: Way, held: ExitStack, peer: Peer | None) -> _Taken:
    if file.digest is not None:
        held.enter_context(store.hold(file.digest, absent_ok=True))
        if (blob := store.find(file.digest)) is not None:
            return _Taken(file, file.digest, blob.size, "present", {})
    ways: tuple[_LINK, ...] = _ORDER if way == "auto" else (way,)
    if file.size <= SMALL_BYTES and way in ("auto", "reference"):
        ways = ("reflink", "hardlink", "copy") if way == "auto" else ("copy",)
    refused: dict[str, str] = {}
    for each in ways:
        try:
            added = store.add_file(file.path, how=each, digest=file.digest)
        except DigestMismatch as error:
            raise DigestMismatch(
                f"{file.path} is not what its owner's records say",
                hint="it is damaged there: fetch it again",
                **error.details,
            ) from error
        except StoreError as error:
            if isinstance(error.__cause__, PermissionError):
                raise ModelFileError(
                    f"{file.path} may not be read", hint=import_words.access_hint(peer, file.path)
                ) from error
            if not isinstance(error.__cause__, CannotShare) or each == ways[-1]:
                raise
            refused[each] = str(error.__cause__)
            continue
        held.enter_context(store.hold(added.digest, absent_ok=True))
        how: Done = "copy" if added.how == "move" else added.how
        return _Taken(file, added.digest, added.size, how, refused)
    raise AssertionError("the last way returns or raises")


def _checked(model: OutsideModel) -> str:
    """The quantization of a model of plain files. Raises ModelFileError for files that are cut short or something else.

    What has a manifest is told by its digests; here the headers are all there is.
    """
    if model.manifest is not None:
        return ""
    if model.format != "gguf":
        for file in model.files:
            if file.role == "weights":
                read_safetensors(file.path)
        return ""
    headers = [read_header(file.path) for file in model.files if file.role in ("weights", "shard", "mmproj")]
    by_name = quant_of(next(file.title for file in model.files if file.role == "weights"))
    # Where a pull names it by its file, so does an import: the same files come to the same digest.
    return by_name if model.ref.kind == "hf" else by_name or headers[0].quantization


def _manifest(
    store: Store, model: OutsideModel, taken: list[_Taken], quantization: str, held: ExitStack
) -> tuple[bytes, Descriptor, int]:
    """The manifest, its descriptor, and the bytes that making it has added."""
    if model.manifest is not None:
        return model.manifest, Descriptor(model.manifest_type, digest_of(model.manifest), len(model.manifest)), 0
    files = [File(each.file.role, each.file.title, Descriptor("", each.digest, each.size)) for each in taken]
    size = sum(each.size for each in taken if each.file.role in ("weights", "shard"))
    built = build_docker(files, Facts(model.format, quantization=quantization, size=size))
    held.enter_context(store.hold(built.config_descriptor.digest, built.digest, absent_ok=True))
    store.add_bytes(built.config)
    return built.manifest, built.descriptor, len(built.config) + len(built.manifest)


def _origin(model: OutsideModel) -> dict[str, str]:
    """What the index remembers: where it is from, and where a newer one may be looked for."""
    known = {"corral.imported-from": model.holder, "corral.imported-as": model.label[:200]}
    return known if model.ref.host == "localhost" else {**known, SOURCE: str(model.ref)}
