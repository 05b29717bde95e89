"""Making a model of another one, or of blobs that are here: `derive(store, recipe, say)`."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from corral.api_store import CreateAsk
from corral.artifact import Facts, File, Role, build_docker, safe_path
from corral.artifact.files import Artifact
from corral.descriptors import Descriptor
from corral.errors import CallerError, ModelFileError
from corral.lazy_dataclass import dataclass
from corral.models.content import Content, read_content, read_stored_header
from corral.models.formats.gguf import Header, read_header
from corral.models.making.package import gguf_facts, store_built
from corral.store.store import Store

_KINDS: Final[dict[str, Role]] = {"mmproj": "mmproj", "adapter": "adapter", "model": "weights"}
_TEXTS: Final[dict[Role, str]] = {
    "template": "template.jinja", "system": "system.txt", "params": "params.json", "messages": "messages.json",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Derived:
    """What was made, and what its maker should know."""

    digest: str
    notes: tuple[str, ...] = ()


def derive(store: Store, ask: CreateAsk, base: str | None, name: str, say: Callable[[str], None]) -> Derived:
    """Names the model that `ask` describes `name`. `base` is the digest of the model it is made of, if of one. Blocks.

    What `ask` says takes the place of what the base has: its template, system prompt, licences and first messages as a
    whole, parameters one by one, adapters in addition. `say` is told each step.

    Raises NotInStore, CallerError, ModelFileError, ManifestError, DiskFull.
    """
    before = read_content(store, base) if base is not None else None
    if before is not None and before.artifact.packed:
        raise CallerError("a model in archives cannot be built on", hint="build on one whose files are single layers")
    with contextlib.ExitStack() as held:  # until the name points to them
        files = _inherited(store, before, ask, held)
        for path, digest in {**ask.files, **ask.adapters}.items():
            held.enter_context(store.hold(digest))
            files.append(_given(store, path, digest, adapter=path in ask.adapters))
            say(f"using existing layer {digest}")
        if ask.file is not None:
            added = store.add_file(Path(ask.file))
            held.enter_context(store.hold(added.digest))
            files.append(File("weights", _named(Path(ask.file).name), Descriptor("", added.digest, added.size)))
            say(f"using existing layer {added.digest}")
        texts, notes = _texts(before, ask)
        for role, path, text in texts:
            digest, size = store.add_bytes(text.encode())
            held.enter_context(store.hold(digest))
            files.append(File(role, path, Descriptor("", digest, size)))
            say(f"creating new layer {digest}")
        say("parsing GGUF")
        header = _header(store, files)
        built = build_docker(_apart(files), _facts(header, before, files))
        say("writing manifest")
        store_built(store, built, name)
    return Derived(built.digest, tuple(notes))


def _inherited(store: Store, before: Content | None, ask: CreateAsk, held: contextlib.ExitStack) -> list[File]:
    """The base's files, without those that are made anew."""
    if before is None:
        return []
    anew: set[Role] = {"params", "system", "messages"}
    if ask.licenses:
        anew.add("license")
    if ask.template is not None or before.go_template is not None:
        anew.add("template")
    held.enter_context(store.hold(before.digest))
    return [file for file in before.artifact.files if file.role not in anew]


def _given(store: Store, path: str, digest: str, *, adapter: bool) -> File:
    """A blob that its sender calls `path`. Raises NotInStore, CallerError, ModelFileError."""
    blob = store.blob(digest)
    if not path.lower().endswith(".gguf"):
        raise CallerError(
            f"{path[:80]} is no GGUF file",
            hint="convert it with llama.cpp's convert_hf_to_gguf.py: Corral converts nothing",
        )
    header = read_header(blob.path)
    kind = header.text("general.type") or ("mmproj" if header.architecture == "clip" else "model")
    role = "shard" if header.integer("split.no") else _KINDS.get(kind)
    if role is None or adapter != (role == "adapter"):
        raise ModelFileError(
            f"{path[:80]} is a {kind} and no {'adapter' if adapter else 'model'}",
            hint='models and projectors go into "files", adapters into "adapters"',
        )
    return File(role, _named(path), Descriptor("", digest, blob.path.stat().st_size))


def _named(path: str) -> str:
    plain = path.replace("\\", "/").rpartition("/")[2]
    return safe_path(plain if plain.lower().endswith(".gguf") else f"{plain}.gguf")


def _texts(before: Content | None, ask: CreateAsk) -> tuple[list[tuple[Role, str, str]], list[str]]:
    """The small files that are made anew, and what is to be said of them."""
    made: list[tuple[Role, str, str]] = []
    notes = []
    template = ask.template
    if template and "{%" not in template:
        notes.append("the template is no Jinja, which is all that engines here read: the one in the weights is used")
        template = None
    if template:
        made.append(("template", _TEXTS["template"], template))
    system = ask.system if ask.system is not None else (before.system if before is not None else None)
    if system:
        made.append(("system", _TEXTS["system"], system))
    params: dict[str, Any] = {**(before.params if before is not None else {}), **ask.params}
    if params:
        made.append(("params", _TEXTS["params"], json.dumps(params, sort_keys=True)))
    messages = list(ask.messages) or [dict(each) for each in (before.messages if before is not None else ())]
    if messages:
        made.append(("messages", _TEXTS["messages"], json.dumps(messages, ensure_ascii=False)))
    made += [("license", "LICENSE" if at == 0 else f"LICENSE-{at + 1}", text) for at, text in enumerate(ask.licenses)]
    return made, notes


def _header(store: Store, files: list[File]) -> Header | None:
    if not any(file.role == "weights" for file in files):
        raise CallerError("no model is among the files", hint='name one in "from", or a GGUF model in "files"')
    return read_stored_header(store, Artifact("docker", "gguf", tuple(files)))


def _apart(files: list[File]) -> list[File]:
    """`files` with paths that differ."""
    taken: set[str] = set()
    found = []
    for file in files:
        path, number = file.path, 2
        while path in taken:
            path, number = f"{number}-{file.path}", number + 1
        taken.add(path)
        found.append(replace(file, path=path))
    return found


def _facts(header: Header | None, before: Content | None, files: list[File]) -> Facts:
    if header is None:
        known = before.artifact if before is not None else None
        return Facts(known.format if known is not None and known.format else "gguf")
    return gguf_facts(header, seeing=any(file.role == "mmproj" for file in files))
