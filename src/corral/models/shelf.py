"""The stored models as the control routes show them, and what is done to their names. Everything blocks."""

from __future__ import annotations

import fnmatch
import threading
from collections.abc import Collection
from pathlib import Path
from typing import Any

from corral import clock
from corral.api_store import (
    FileInfo,
    FitInfo,
    Inspected,
    ModelCard,
    PastInfo,
    PruneAsk,
    Removed,
    RollbackAsk,
    StoredModel,
    TagAsk,
    Tagged,
    UsageInfo,
    UsageModel,
)
from corral.artifact import Artifact
from corral.descriptors import decode_json, digest_of
from corral.errors import CallerError, CorralError, InUse, ManifestError
from corral.hardware.probe import probe
from corral.models.card import card
from corral.models.content import read_content
from corral.models.library import Library, Stored
from corral.models.peers.outside import OutsideModel
from corral.models.roots import list_roots
from corral.store.index import Named

MAX_REMEMBERED = 20_000


class Shelf:
    """What is on the library's shelf. Thread-safe; what a digest's manifest says is read once."""

    def __init__(self, library: Library) -> None:
        self._library = library
        self._artifacts: dict[str, Artifact | str] = {}
        self._lock = threading.Lock()

    # Looking

    def stored(self, used: Collection[str]) -> list[StoredModel]:
        """Every name, then the models of read-only roots. `used` are the digests that engines have open."""
        found = [self._row(named, used) for named in self._library.store.names()]
        names = {each.name for each in found}
        roots = [_root_row(model) for model in list_roots(self._library.settings.model_roots)]
        return found + [row for row in roots if row.name not in names]

    def _row(self, named: Named, used: Collection[str]) -> StoredModel:
        digest = named.descriptor.digest
        artifact = self._artifact(digest)
        problem = artifact if isinstance(artifact, str) else None
        known = artifact if isinstance(artifact, Artifact) else None
        return StoredModel(
            name=named.name,
            digest=digest,
            size_bytes=named.bytes if named.bytes is not None else known.size if known is not None else None,
            format=known.format if known is not None else "",
            architecture=known.architecture if known is not None else "",
            parameters=known.parameters if known is not None else "",
            quantization=known.quantization if known is not None else "",
            context=known.context_size if known is not None else None,
            at_wall_s=named.at_wall_s or None,
            used_wall_s=self._library.used_wall_s(digest),
            in_use=digest in used,
            problem=problem,
        )

    def _artifact(self, digest: str) -> Artifact | str:
        """What the manifest says, or why it cannot be read; a digest's content never changes."""
        with self._lock:
            if (known := self._artifacts.get(digest)) is not None:
                return known
        try:
            found: Artifact | str = read_content(self._library.store, digest).artifact
        except CorralError as error:
            return error.message  # not remembered: a repair may come
        with self._lock:
            if len(self._artifacts) >= MAX_REMEMBERED:
                self._artifacts.clear()
            self._artifacts[digest] = found
        return found

    def show(self, text: str) -> ModelCard:
        stored = self._library.find(text)
        hardware = probe()
        found = card(self._library.store, stored.digest, hardware)
        return ModelCard(
            name=stored.name,
            names=list(found.names),
            digest=found.digest,
            title=found.title,
            flavour=found.flavour,
            format=found.format,
            architecture=found.architecture,
            parameters=found.parameters,
            quantization=found.quantization,
            size_bytes=found.bytes,
            context_length=found.context_length,
            context_size=found.context_size,
            files=[FileInfo(role, path, size) for role, path, size in found.files],
            licenses=list(found.licenses),
            capabilities=list(found.capabilities),
            template=found.template,
            system=found.system,
            params=dict(found.params),
            footprint=[FitInfo(each.context, each.bytes, each.fit, each.fits_gpu) for each in found.footprints],
            memory_bytes=hardware.memory.available_bytes if hardware.memory is not None else None,
            template_text=found.texts.get("template"),
            license_text=found.texts.get("license"),
            metadata=dict(found.metadata),
            notes=list(found.notes),
            lineage=found.lineage,
        )

    def inspect(self, text: str, *, remote: bool) -> Inspected:
        """The manifest and the config, from the store or, without fetching the rest, from the registry."""
        if remote:
            return self._inspect_remote(text)
        stored, store = self._library.find(text), self._library.store
        manifest = store.manifest(stored.digest)
        config = manifest.get("config")
        kind = str(manifest.get("mediaType") or (stored.named.descriptor.media_type if stored.named else ""))
        notes = dict(stored.named.descriptor.annotations) if stored.named is not None else {}
        return Inspected(
            stored.name,
            stored.digest,
            kind,
            stored.named.bytes if stored.named is not None else None,
            manifest,
            _json_or_none(store.read_bytes(config["digest"])) if isinstance(config, dict) else None,
            [f"{key}: {value}" for key, value in notes.items()],
        )

    def _inspect_remote(self, text: str) -> Inspected:
        ref = self._library.ref(text)
        source = self._library.reach.sources.get(ref.kind)
        if source is None:
            raise CallerError(f"{text} is in no registry", hint="leave --remote out for models of the store")
        found = source.resolve(ref)
        if found.manifest is None:
            notes = ("its manifest is made when the file's SHA-256 is known, so after the download",)
            return Inspected(str(ref), "", found.manifest_type, None, {}, None, [*found.notes, *notes])
        manifest = decode_json(found.manifest, "the manifest")
        config_digest = (manifest.get("config") or {}).get("digest")
        config = None
        for blob in found.blobs:
            if blob.digest == config_digest and config_digest is not None:
                config = _json_or_none(blob.data if blob.data is not None else _read(blob.open(0, None)))
        sizes = [blob.size for blob in found.blobs]
        size = sum(each for each in sizes if each is not None) if None not in sizes else None
        return Inspected(
            str(ref), digest_of(found.manifest), found.manifest_type, size, manifest, config, list(found.notes)
        )

    def history(self, text: str) -> list[PastInfo]:
        """Newest first."""
        store = self._library.store
        named = store.lookup(text)
        name = text if named is not None else self._known_name(text)
        named = store.lookup(name)
        current = named.descriptor.digest if named is not None else None
        past = store.history(name)
        past = sorted(past, key=lambda each: -each.at_wall_s)
        marked = False
        found = []
        for each in past:
            is_current = not marked and each.digest == current and each.why != "removed"
            marked = marked or is_current
            here = store.find(each.digest) is not None
            found.append(PastInfo(each.digest, each.at_wall_s, each.why, is_current, here))
        return found

    def _known_name(self, text: str) -> str:
        """As `find`, for names that are gone too: their history stays."""
        try:
            return self._library.find(text).name
        except CorralError:
            return self._library.ref(text).name

    def usage(self, conversations_bytes: int = 0) -> UsageInfo:
        found = self._library.store.usage()
        return UsageInfo(
            path=str(self._library.store.root),
            models=[UsageModel(e.name, e.bytes, e.own_bytes, e.external_bytes) for e in found.names],
            named_bytes=found.named_bytes,
            shared_bytes=found.shared_bytes,
            kept_bytes=found.kept_bytes,
            unreferenced_bytes=found.unreferenced_bytes,
            partial_bytes=found.partial_bytes,
            placed_bytes=found.placed_bytes,
            other_bytes=found.other_bytes,
            total_bytes=found.total_bytes,
            linked_bytes=found.linked_bytes,
            external_bytes=found.external_bytes,
            free_bytes=found.room_bytes,
            conversations_bytes=conversations_bytes,
        )

    # Changing

    def tag(self, ask: TagAsk) -> Tagged:
        stored = self._library.find(ask.source)
        target = self._library.ref(ask.target)
        if target.kind == "file" or target.digest is not None:
            raise CallerError(f"{ask.target} is no name to give", hint="give one such as me/coder:v2")
        before = self._library.store.lookup(target.name)
        descriptor = self._descriptor(stored)
        self._library.store.set_name(target.name, descriptor, dict(descriptor.annotations), why="tag")
        return Tagged(target.name, stored.digest, before.descriptor.digest if before is not None else None)

    def _descriptor(self, stored: Stored) -> Any:
        named = stored.named or self._library.store.lookup(stored.name)
        if named is not None and named.descriptor.digest == stored.digest:
            return named.descriptor
        for each in self._library.store.history(stored.name):
            if each.digest == stored.digest:
                return each.descriptor
        raise CallerError(f"{stored.digest} has no name to go by", hint="tag a model by its name")

    def rollback(self, ask: RollbackAsk) -> Tagged:
        name = self._known_name(ask.name)
        before = self._library.store.lookup(name)
        digest = None if ask.digest is None else self._earlier(name, ask.digest)
        found = self._library.store.rollback(name, digest)
        return Tagged(name, found.digest, before.descriptor.digest if before is not None else None)

    def _earlier(self, name: str, text: str) -> str:
        """The digest in the name's history that begins with `text`."""
        wanted = text if text.startswith("sha256:") else f"sha256:{text}"
        found = {each.digest for each in self._library.store.history(name) if each.digest.startswith(wanted)}
        if len(found) != 1:
            raise CallerError(
                f"{text} is {'several' if found else 'none'} of the digests that {name} has had",
                hint=f"see them with: corral history {name}",
            )
        return found.pop()

    def remove(self, names: list[str], used: Collection[str], serving: Collection[str]) -> Removed:
        """Takes the names away, all or none, and then what only they needed. `used` are digests engines have open, and
        `serving` the names under which they do, where nothing else is configured to."""
        store = self._library.store
        if not names:
            raise CallerError("no model is named", hint="name one or several")
        found = [self._library.find(each) for each in names]
        for each in found:
            others = set(store.names_of(each.digest)) - {other.name for other in found}
            if each.name in serving or (each.digest in used and not others):
                raise InUse(f"{each.name} is being served", hint=f"stop it first: corral stop {each.name}")
        gone = []
        for each in found:
            store.remove_name(each.name)
            gone.append(each.name)
        collected = store.collect()
        return Removed(gone, len(collected.blobs), collected.bytes)

    def prune(self, ask: PruneAsk, used: Collection[str], configured: Collection[str]) -> Removed:
        """Takes away names that nobody served for long, or that nothing configured names, then what nothing needs."""
        store = self._library.store
        doomed, kept = [], []
        chosen = ask.older_than_s is not None or ask.unused
        for named in store.names() if chosen else []:
            digest = named.descriptor.digest
            last = max(named.at_wall_s, self._library.used_wall_s(digest) or 0.0)
            if ask.older_than_s is not None and clock.wall() - last < ask.older_than_s:
                continue
            if ask.unused and named.name in configured:
                continue
            if any(fnmatch.fnmatchcase(named.name, f"*{pattern}*") for pattern in ask.keep):
                kept.append(f"{named.name}: --keep")
            elif digest in used:
                kept.append(f"{named.name}: it is being served")
            elif named.name in configured:
                kept.append(f"{named.name}: models.yaml names it")
            else:
                doomed.append(named.name)
        if ask.dry_run:
            collected = store.collect(dry_run=True)
            own = {each.name: each.own_bytes for each in store.usage().names} if doomed else {}
            size = collected.bytes + sum(own.get(name, 0) for name in doomed)
            return Removed(doomed, len(collected.blobs), size, kept, dry_run=True)
        for name in list(doomed):
            try:
                store.remove_name(name)
            except InUse as error:
                doomed.remove(name)
                kept.append(f"{name}: {error.message}")
        collected = store.collect(keep=0 if chosen else 1)
        return Removed(doomed, len(collected.blobs), collected.bytes, kept)


def _root_row(model: OutsideModel) -> StoredModel:
    main = model.main
    return StoredModel(
        name=model.name,
        digest="",
        size_bytes=model.size_bytes,
        format=model.format,
        architecture="",
        parameters="",
        quantization="",
        context=None,
        at_wall_s=None,
        place=str(main if main is not None else Path(model.label)),
        problem=model.problem or None,
    )


def _json_or_none(data: bytes) -> dict[str, Any] | None:
    try:
        return decode_json(data, "the config")
    except ManifestError:
        return None


def _read(body: Any, limit: int = 4 << 20) -> bytes:
    buffer, found = memoryview(bytearray(1 << 16)), bytearray()
    try:
        while (count := body.readinto(buffer)) and len(found) <= limit:
            found += buffer[:count]
    finally:
        body.close()
    return bytes(found[:limit])
