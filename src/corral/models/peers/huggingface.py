"""The Hugging Face cache: `models--org--repo/{refs,snapshots/<commit>,blobs}`.

Source: huggingface_hub's documentation of its cache system; llama.cpp (since 2026) keeps its downloads there too.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

from corral.errors import CorralError
from corral.models.peers.folders import Group
from corral.models.peers.following import files_under, followed, read_small
from corral.models.peers.naming import local_ref, pulled_as
from corral.models.peers.outside import OutsideModel, Peer
from corral.models.peers.plain import plain_models
from corral.refs import Ref

_FOLDER = re.compile(r"models--(?P<org>[A-Za-z0-9][\w.-]*?)--(?P<repo>[A-Za-z0-9][\w.-]*)")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_SHA256 = re.compile(r"[0-9a-f]{64}")  # the name of a blob that git-lfs holds; others are named by git's own hash


def places(env: Mapping[str, str]) -> list[Path]:
    """HF_HUB_CACHE, HUGGINGFACE_HUB_CACHE, HF_HOME, XDG_CACHE_HOME, else the home directory's cache: one of them."""
    for variable, below in (
        ("HF_HUB_CACHE", ""),
        ("HUGGINGFACE_HUB_CACHE", ""),
        ("HF_HOME", "hub"),
        ("XDG_CACHE_HOME", "huggingface/hub"),
        ("HOME", ".cache/huggingface/hub"),
    ):
        if base := env.get(variable):
            return [Path(base) / below]
    return []


def read(place: Path) -> Iterator[OutsideModel]:
    """Every GGUF and safetensors model of every snapshot; what two snapshots share is given once, as main's."""
    return read_as("hf", place)


def read_as(holder: str, place: Path) -> Iterator[OutsideModel]:
    """The same under another peer's name."""
    try:
        folders = sorted(place.iterdir())
    except OSError:
        return
    for folder in folders:
        match = _FOLDER.fullmatch(folder.name)
        if match and (folder / "snapshots").is_dir():
            yield from _repository(holder, place, folder, f"{match['org']}/{match['repo']}")


def _repository(holder: str, place: Path, folder: Path, repository: str) -> Iterator[OutsideModel]:
    seen: set[tuple[Path, ...]] = set()
    for revision, snapshot in _snapshots(place, folder):

        def name(group: Group, alone: bool, revision: str = revision) -> tuple[Ref, str]:
            ref = _ref(group, alone, repository, revision)
            return ref, f"{repository}/{group.weights[0]}" + (f" at {revision[:12]}" if revision else "")

        for model in plain_models(holder, place, files_under(snapshot), name, digest_of_file=_digest, folder=snapshot):
            weights = tuple(file.path for file in model.files if file.role == "weights")
            if not weights or weights not in seen:
                seen.add(weights)
                yield model


def _ref(group: Group, alone: bool, repository: str, revision: str) -> Ref:
    """As `corral pull` would name it: by its quantization where that says which file, else by the file."""
    at = f"@{revision}" if revision else ""
    if group.format == "safetensors":
        whole = group.folder.as_posix() == "."
        text = f"hf.co/{repository}" if whole else f"hf.co/{repository}/{group.weights[0]}"
    elif group.quantization and alone:
        text = f"hf.co/{repository}:{group.quantization}"
    else:
        text = f"hf.co/{repository}/{group.weights[0]}"
    parts = [*repository.split("/"), *group.weights[0].parts, *([revision[:12]] if revision else [])]
    return pulled_as(text + at, local_ref("hf", parts))


def _snapshots(place: Path, folder: Path) -> list[tuple[str, Path]]:
    """`(revision, folder)` of each snapshot: main's first, with "" for its revision, then those without a ref."""
    main = ""
    with suppress(CorralError):
        main = read_small(followed(folder / "refs" / "main", place)[0], 200).decode("ascii", "replace").strip()
    try:
        names = sorted(each.name for each in (folder / "snapshots").iterdir() if _COMMIT.fullmatch(each.name))
    except OSError:
        return []
    names.sort(key=lambda name: name != main)
    return [("" if name == main else name, folder / "snapshots" / name) for name in names]


def _digest(path: Path) -> str | None:
    """What the cache says a file's hash is: the name of the blob that a snapshot's link leads to."""
    try:
        name = path.readlink().name if path.is_symlink() else ""
    except OSError:
        return None
    return f"sha256:{name}" if _SHA256.fullmatch(name) else None


PEER: Final = Peer(
    "hf",
    "the Hugging Face cache",
    places,
    read,
    "the cache is emptied by `hf cache rm` and `hf cache prune`, or by deleting its folder",
)
