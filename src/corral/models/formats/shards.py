"""Models that are split over several GGUF files, as llama.cpp's `gguf-split` writes them."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Final

from corral.errors import ModelFileError
from corral.models.formats.gguf import Header, read_header

MAX_SHARDS: Final = 1000
_NAME = re.compile(r"(?P<stem>.+)-(?P<number>[0-9]{5})-of-(?P<count>[0-9]{5})\.gguf", re.IGNORECASE)


def read_model(path: Path) -> Header:
    """The header of the model at `path`, which is one GGUF file or the first of several.

    Of a split model, `tensors` and `file_bytes` are those of all files; the rest is the first one's. Blocks, a few
    milliseconds for each file.

    Raises ModelFileError when any of the files is missing or cannot be used.
    """
    first = read_header(path)
    count = first.integer("split.count") or 1
    if count <= 1:
        return first
    paths = shard_paths(path, count)
    if first.integer("split.no") or paths[0] != path:
        raise ModelFileError(
            f"{path} is not the first file of its model",
            hint=f"Use {paths[0].name} as the source.",
            reason="later shard",
        )
    missing = [shard.name for shard in paths if not shard.exists()]
    if missing:
        hint = f"Put all {count} files in one folder; missing: {', '.join(missing[:8])}"
        raise ModelFileError(f"{path} is split over {count} files and {len(missing)} are not there", hint=hint)
    headers = [first, *(read_header(shard) for shard in paths[1:])]
    tensors = tuple(tensor for header in headers for tensor in header.tensors)
    expected = first.integer("split.tensors.count")
    if expected not in (None, len(tensors)):
        what = f"its {count} files hold {len(tensors):,} tensors together and not {expected:,}"
        raise ModelFileError(f"{path} does not fit its other files: {what}", hint="Download all the files again.")
    return replace(first, tensors=tensors, file_bytes=sum(header.file_bytes for header in headers))


def shard_paths(path: Path, count: int) -> list[Path]:
    """The paths of all `count` files of the split model that `path` is one of.

    Raises ModelFileError when the file's name does not follow the pattern by which an engine finds the others.
    """
    match = _NAME.fullmatch(path.name)
    if match is None or int(match["count"]) != count or count > MAX_SHARDS:
        hint = f"Give the files their names back: model-00001-of-{count:05}.gguf and so on."
        raise ModelFileError(f"{path} is one of {count} files of a model, but is not named like one", hint=hint)
    return [path.with_name(f"{match['stem']}-{number:05}-of-{count:05}.gguf") for number in range(1, count + 1)]


def all_shards(path: Path) -> list[Path]:
    """The files of the model that `path` names, judged by its name alone: itself, or all that it is one of."""
    match = _NAME.fullmatch(path.name)
    count = int(match["count"]) if match is not None else 0
    return shard_paths(path, count) if 0 < count <= MAX_SHARDS else [path]
