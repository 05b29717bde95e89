"""Directories of models that are served as they lie: never written to, never copied from, perhaps network mounts.

A root is a tree of plain files, or the store of a tool that keeps its models in files an engine can open as they are.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from corral.models.peers import docker, huggingface, ollama
from corral.models.peers.folders import Group
from corral.models.peers.following import files_under
from corral.models.peers.naming import plain_word
from corral.models.peers.outside import OutsideModel
from corral.models.peers.plain import distinct, plain_models
from corral.refs import Ref

_REPOSITORY = re.compile(r"models--.+--.+")
MAX_NAME: Final = 200


def list_roots(roots: Iterable[Path]) -> list[OutsideModel]:
    """The models in all `roots`, by name; of two with one name, the first root's. Blocks as long as a mount does.

    A root that is not there, such as a share that is not mounted, has no models; that is no error.
    """
    found = distinct(model for root in roots for model in models_in(root))
    return sorted(found, key=lambda model: model.name)


def models_in(root: Path) -> Iterator[OutsideModel]:
    """The models in one root, or the one that a file is of. What cannot be opened in place has that as its problem."""
    if root.is_file():
        beside = _plain(root.parent, files_under(root.parent, depth=0))
        yield from (model for model in beside if any(file.path == root.resolve() for file in model.files))
    elif (root / "manifests").is_dir() and (root / "blobs").is_dir():
        reader = docker.read if (root / "models.json").exists() else ollama.read
        for model in reader(root):
            yield _in_place(model)
    elif any(_REPOSITORY.fullmatch(each.name) for each in _entries(root)):
        yield from huggingface.read_as("root", root)
    else:
        yield from _plain(root, files_under(root))


def _plain(root: Path, files: Iterable[Path]) -> Iterator[OutsideModel]:
    def name(group: Group, alone: bool) -> tuple[Ref, str]:
        label = (group.folder if group.format == "safetensors" else group.folder / group.stem).as_posix()
        label = root.name if label == "." else label
        parts = [word for part in label.split("/") if (word := plain_word(part))]
        return Ref("oci", "localhost", "/".join(parts)[:MAX_NAME] or "model", "latest"), label

    yield from plain_models("root", root, files, name)


def _in_place(model: OutsideModel) -> OutsideModel:
    """`model`, unless its files must have their names to be found: blobs are named by their hashes."""
    split = sum(1 for file in model.files if file.role in ("weights", "shard")) > 1
    if model.problem or not (split or model.format != "gguf"):
        return model
    problem = "its files can only be opened under their own names: import it"
    return OutsideModel("root", model.ref, model.label, model.files, model.format, problem=problem)


def _entries(root: Path) -> list[Path]:
    try:
        return list(root.iterdir())
    except OSError:
        return []
