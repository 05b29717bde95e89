"""Models among plain files: which GGUF files belong together, and which folders are safetensors models. Pure.

Source: the names that llama.cpp's `gguf-split` and its conversion scripts give, and Hugging Face's habits.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Final, Literal

Format = Literal["gguf", "safetensors"]
MAX_SHARDS: Final = 1000
_SHARD = re.compile(r"(?P<stem>.+)-(?P<number>[0-9]{5})-of-(?P<count>[0-9]{5})", re.IGNORECASE)
_QUANTIZATION = re.compile(
    r"(?:^|[-._])((?:UD[-_])?(?:I?Q[1-8](?:_[A-Z0-9]+)*|TQ[12]_0|B?F16|FP16|F32|FP32|MXFP4(?:_MOE)?|NVFP4))$",
    re.IGNORECASE,
)
_NO_MODEL = re.compile(r"(?:^|[-._])imatrix(?:$|[-._])", re.IGNORECASE)  # statistics in GGUF's clothes
_PROJECTOR_ORDER = (r"(?<![a-z])f16", r"bf16", r"f32")


@dataclass(frozen=True, slots=True)
class Group:
    """The files of one model, by their names relative to the folder that was searched."""

    stem: str  # without shard number and ending: "Qwen3-8B-Q4_K_M"
    weights: tuple[PurePosixPath, ...]
    projector: PurePosixPath | None = None
    others: tuple[PurePosixPath, ...] = ()  # a safetensors model's configuration, tokenizer and so on
    format: Format = "gguf"
    problem: str = ""

    @property
    def folder(self) -> PurePosixPath:
        return self.weights[0].parent

    @property
    def quantization(self) -> str:
        """As it stands in the name, in capitals: `"Q4_K_M"`; "" when it does not."""
        return quantization_in(self.stem)


def quantization_in(stem: str) -> str:
    """The quantization that a file's name without `.gguf` ends with: `"Q8_0"` of `"model.Q8_0"`; "" without one."""
    match = _QUANTIZATION.search(stem)
    return match[1].upper().replace("UD_", "UD-") if match else ""


def groups(names: Iterable[PurePosixPath]) -> list[Group]:
    """The models among `names`, sorted. A projector goes with the models of its folder and of folders below it."""
    every = sorted(set(names))
    ggufs = [name for name in every if name.suffix.lower() == ".gguf" and not _NO_MODEL.search(name.stem)]
    projectors = [name for name in ggufs if "mmproj" in name.name.lower()]
    found: list[Group] = []
    shards: dict[tuple[PurePosixPath, str, int], dict[int, PurePosixPath]] = {}
    for name in ggufs:
        if name in projectors:
            continue
        match = _SHARD.fullmatch(name.stem)
        if match and 1 <= int(match["count"]) <= MAX_SHARDS:
            shards.setdefault((name.parent, match["stem"], int(match["count"])), {})[int(match["number"])] = name
        else:
            found.append(Group(name.stem, (name,), _projector(name, projectors)))
    for (_, stem, count), by_number in shards.items():
        weights = tuple(by_number[number] for number in sorted(by_number))
        missing = [number for number in range(1, count + 1) if number not in by_number]
        problem = f"{len(missing)} of its {count} files are missing" if missing else ""
        found.append(Group(stem, weights, _projector(weights[0], projectors), problem=problem))
    found += _safetensors(every)
    return sorted(found, key=lambda group: group.weights[0])


def _projector(model: PurePosixPath, projectors: list[PurePosixPath]) -> PurePosixPath | None:
    near = [each for each in projectors if model.parent.is_relative_to(each.parent)]
    if not near:
        return None
    deepest = max(len(each.parts) for each in near)
    near = [each for each in near if len(each.parts) == deepest]
    for pattern in _PROJECTOR_ORDER:
        for each in near:
            if re.search(pattern, each.stem, re.IGNORECASE):
                return each
    return near[0]


def _safetensors(every: list[PurePosixPath]) -> list[Group]:
    folders = {name.parent for name in every if name.name == "config.json"}
    found = []
    for folder in sorted(folders):
        inside = [name for name in every if name.parent == folder]
        weights = tuple(name for name in inside if name.suffix == ".safetensors")
        if weights:
            kept = tuple(name for name in inside if name not in weights and name.suffix.lower() in _KEPT)
            found.append(Group(folder.name, weights, None, kept, "safetensors", _missing(weights)))
    return found


_KEPT: Final = frozenset({".json", ".jinja", ".model", ".txt", ".py", ".md", ".tiktoken"})


def _missing(weights: tuple[PurePosixPath, ...]) -> str:
    for name in weights:
        match = _SHARD.fullmatch(name.stem)
        if match and 1 <= int(match["count"]) <= MAX_SHARDS:
            count = sum(1 for each in weights if each.stem.startswith(f"{match['stem']}-"))
            if count < int(match["count"]):
                return f"{int(match['count']) - count} of its {int(match['count'])} files are missing"
    return ""
