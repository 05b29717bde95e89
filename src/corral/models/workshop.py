"""The longer works on stored models: verify and mend, push, package, import, export, load. Everything blocks."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, get_args

from corral.api_store import (
    ConvertAsk,
    CreateAsk,
    Created,
    DamageInfo,
    ExportAsk,
    Exported,
    ImportAsk,
    ImportedInfo,
    LoadAsk,
    LoadedInfo,
    PackageAsk,
    Progress,
    PushAsk,
    Pushed,
    QuantizeAsk,
    QuantizerInfo,
    QuantizeType,
    Remade,
    Tagged,
    Verified,
    VerifyAsk,
)
from corral.artifact.lineage import lineage_of
from corral.errors import CallerError, CorralError, EngineMissing, NotInStore
from corral.models.fetching.control import Control, Stopped
from corral.models.fetching.fetch import fetch_blob
from corral.models.fetching.pull import SOURCE
from corral.models.importing import Imported, find_model, find_peers, import_all, import_model, list_models
from corral.models.library import Library
from corral.models.making.convert import convert
from corral.models.making.derive import derive
from corral.models.making.package import Format, package
from corral.models.making.quantize import Base, How, quantize
from corral.models.making.quantizer import Quantizer, check_spelling, check_type, find
from corral.models.peers.outside import OutsideModel
from corral.models.push import push
from corral.models.roots import list_roots
from corral.refs import Ref
from corral.refs_parse import parse_ref
from corral.store.index import Named
from corral.store.verify import Damage
from corral.units import show_bytes

Say = Callable[[Progress], None]


class Cancel:
    """Ends a work from outside: its next word of progress raises Stopped."""

    def __init__(self, say: Say) -> None:
        self._say = say
        self._set = threading.Event()
        self.control = Control()

    def set(self) -> None:
        self._set.set()
        self.control.stop("cancelled")

    def say(self, text: str, done: int = 0, total: int | None = None) -> None:
        """Raises Stopped once the work is to end."""
        if self._set.is_set():
            raise Stopped("cancelled")
        self._say(Progress(text, done, total))


class Workshop:
    """Works on the library's models; each method is one work."""

    def __init__(self, library: Library) -> None:
        self._library = library

    def verify(self, ask: VerifyAsk, cancel: Cancel) -> Verified:
        """Reads every byte of the named models, or of all; with `repair`, fetches again what is bad."""
        store = self._library.store
        names = [self._library.find(each).name for each in ask.names] or None
        seen = [0, 0]

        def progress(done: int, total: int) -> None:
            seen[:] = [done, total]
            cancel.say("verifying", done, total)

        def repair(damage: Damage) -> bool:
            return self._fetch_again(damage, cancel)

        found = store.verify(names, repair=repair if ask.repair else None, progress=progress)
        damage = [DamageInfo(each.digest, each.what, list(each.names), each.repaired) for each in found]
        count = len({part.digest for name in store.names() for part in _parts(self._library, name.name)})
        return Verified(count if names is None else len(names), seen[1], damage)

    def _fetch_again(self, damage: Damage, cancel: Cancel) -> bool:
        """The blob from where one of the names that need it came from."""
        store = self._library.store
        for name in damage.names:
            named = store.lookup(name)
            source = named.descriptor.annotations.get(SOURCE) if named is not None else None
            if source is None or named is None:
                continue
            ref = parse_ref(source)
            cancel.say(f"fetching {damage.digest[:19]}… again from {ref.host}")
            pinned = Ref(ref.kind, ref.host, ref.repository, ref.tag, named.descriptor.digest, ref.file, ref.revision)
            remote = self._library.reach.sources[ref.kind].resolve(pinned if ref.kind == "oci" else ref)
            if damage.digest == named.descriptor.digest and remote.manifest is not None:
                return store.add_bytes(remote.manifest)[0] == damage.digest
            for blob in remote.blobs:
                if blob.digest == damage.digest:
                    with store.partial(damage.digest, blob.size) as partial:
                        partial.finish(fetch_blob(partial, blob, control=cancel.control))
                    return True
        return False

    def push(self, ask: PushAsk, cancel: Cancel) -> Pushed:
        stored = self._library.find(ask.name)
        target = self._library.ref(ask.target) if ask.target is not None else stored.ref
        sent: dict[str, int] = {}
        total = sum(part.size for part in _parts(self._library, stored.name))

        def progress(digest: str, done: int, size: int) -> None:
            sent[digest] = done
            cancel.say(f"pushing to {target.host}", sum(sent.values()), total)

        done = push(self._library.store, stored.name, self._library.reach.oci, target, progress=progress)
        return Pushed(str(done.ref), done.digest, done.bytes)

    def package(self, ask: PackageAsk, cancel: Cancel) -> Tagged:
        if ask.format not in get_args(Format):
            raise CallerError(f"there is no format {ask.format!r}", hint=f"choose {' or '.join(get_args(Format))}")
        name = self._new_name(ask.name)
        before = self._library.store.lookup(name)
        cancel.say("hashing the files")
        made = package(
            self._library.store,
            Path(ask.path),
            name,
            license=[Path(ask.license)] if ask.license else (),
            template=Path(ask.template) if ask.template else None,
            mmproj=Path(ask.mmproj) if ask.mmproj else None,
            lora=[Path(ask.lora)] if ask.lora else (),
            context_size=ask.context_size,
            format="cncf" if ask.format == "cncf" else "docker",
        )
        return Tagged(made.name, made.digest, before.descriptor.digest if before is not None else None)

    def create(self, ask: CreateAsk, cancel: Cancel) -> Created:
        name = self._new_name(ask.name)
        base = self._library.find(ask.base).digest if ask.base is not None else None
        made = derive(self._library.store, ask, base, name, cancel.say)
        return Created(name, made.digest, list(made.notes))

    def quantize(self, ask: QuantizeAsk, cancel: Cancel) -> Remade:
        base = self._base(ask.base, ask.file)
        try:
            tool = self._quantizer()
        except EngineMissing:
            check_spelling(ask.to)  # what is wrong with what was asked comes before what is missing here
            raise
        to = check_type(tool, ask.to)
        name = self._new_name(ask.name) if ask.name is not None else self._name_after(base, to)
        before = self._library.store.lookup(name)
        imatrix = Path(ask.imatrix) if ask.imatrix is not None else None
        how = How(tool, to, ask.threads, imatrix, ask.requantize)
        done = quantize(self._library.store, base, name, how, cancel.say)
        return self._remade(name, before, done.digest, done.before_bytes, done.after_bytes, done.notes)

    def convert(self, ask: ConvertAsk, cancel: Cancel) -> Remade:
        base, name = self._base(ask.base, ask.file), self._new_name(ask.name)
        before = self._library.store.lookup(name)
        done = convert(self._library.store, base, name, ask.to.upper(), cancel.say)
        return self._remade(name, before, done.digest, done.before_bytes, done.after_bytes, done.notes)

    def quantizer(self) -> QuantizerInfo:
        """The tool that `quantize` would use. Raises EngineMissing."""
        tool = self._quantizer()
        return QuantizerInfo(str(tool.path), tool.version, [QuantizeType(each.name, each.about) for each in tool.types])

    def _quantizer(self) -> Quantizer:
        return find(self._library.settings.executables.get("llama.cpp", "auto"), self._library.engines_dir)

    def _base(self, stored: str | None, file: str | None) -> Base:
        if (stored is None) == (file is None):
            raise CallerError("one model is wanted", hint="name a stored one, or a file")
        if stored is not None:
            found = self._library.find(stored)
            return Base(found.name, found.digest)
        assert file is not None
        path = Path(file)
        if not path.exists():
            raise CallerError(f"there is no file {path}", hint="check the path")
        return Base(path.name, file=path)

    def _new_name(self, text: str) -> str:
        """`text` in full, as a name that a model may get. Raises CallerError."""
        ref = self._library.ref(text)
        if ref.kind == "file" or ref.digest is not None:
            raise CallerError(f"{text} is no name to give", hint="give one such as me/coder:v1")
        return ref.name

    def _name_after(self, base: Base, to: str) -> str:
        """The base's name with its new type as the tag, which must be free."""
        stem = base.name.rpartition("/")[0] + "/" + base.name.rpartition("/")[2].partition(":")[0]
        name = f"{stem}:{to}"
        if base.digest is None or stem.startswith("/") or parse_ref(name).kind == "file":
            raise CallerError("what is the new model to be called?", hint="say it with -t NAME, such as -t me/coder:q4")
        if (full := parse_ref(name).name) and self._library.store.lookup(full) is not None:
            raise CallerError(f"there is a model {full} already", hint="give another name with -t NAME")
        return full

    def _remade(
        self, name: str, before: Named | None, digest: str, base_bytes: int, made_bytes: int, notes: Sequence[str]
    ) -> Remade:
        lineage = lineage_of(self._library.store.manifest(digest))
        words = lineage.words() if lineage is not None else ""
        was = before.descriptor.digest if before is not None else None
        return Remade(name, digest, was, words, base_bytes, made_bytes, list(notes))

    def import_models(self, ask: ImportAsk, cancel: Cancel) -> list[ImportedInfo]:
        """Models of another tool, or of a folder. With `dry_run` they are listed only."""
        models = self._outside(ask.peer)
        if ask.dry_run or not (ask.names or ask.everything):
            return [_listed(each) for each in models]
        chosen = models if ask.everything else [find_model(models, each) for each in ask.names]
        done, store, reach = [], self._library.store, self._library.reach
        for number, model in enumerate(chosen, 1):
            cancel.say(f"importing {model.label} ({show_bytes(model.size_bytes)}), {number} of {len(chosen)}")
            if not ask.everything:
                done.append(_imported(import_model(store, model, verify=reach.verify, egress=reach.egress)))
                continue
            for found in import_all(store, [model], verify=reach.verify, egress=reach.egress):
                if isinstance(found, Imported):
                    done.append(_imported(found))
                else:
                    done.append(ImportedInfo(found.name, "", 0, "", None, found.error.message))
        return done

    def _outside(self, peer: str) -> list[OutsideModel]:
        if "/" in peer:
            return list_roots([Path(peer)])
        try:
            return list_models(peer, egress=self._library.reach.egress)
        except CorralError as error:
            here = ", ".join(f"{each.key} ({each.places[0]})" for each in find_peers()) or "none"
            error.hint = f"{error.hint}; found on this machine: {here}" if error.hint else f"found here: {here}"
            raise

    def export(self, ask: ExportAsk, cancel: Cancel) -> Exported:
        names = [self._library.find(each).name for each in ask.names]
        path = Path(ask.path)
        self._library.store.export(names, path, progress=lambda done, total: cancel.say("exporting", done, total))
        return Exported(str(path), names, path.stat().st_size)

    def load(self, ask: LoadAsk, cancel: Cancel) -> LoadedInfo:
        path = Path(ask.path)
        if not path.is_file():
            raise CallerError(f"there is no file {path}", hint="name a tar file that `corral export` wrote")
        done = self._library.store.load(path, progress=lambda done, total: cancel.say("loading", done, total))
        return LoadedInfo(list(done.names))


def _parts(library: Library, name: str) -> list[Any]:
    named = library.store.lookup(name)
    if named is None:
        return []
    try:
        return list(library.store.whole(named.descriptor))
    except NotInStore:
        return []


def _imported(done: Imported) -> ImportedInfo:
    return ImportedInfo(done.name, done.how, done.bytes_added, done.note, done.size_bytes)


def _listed(model: OutsideModel) -> ImportedInfo:
    return ImportedInfo(model.name, "", 0, model.label, model.size_bytes, model.problem or None)
