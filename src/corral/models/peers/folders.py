"""Models among plain files: which GGUF files belong together, and which folders are safetensors models. Pure.

Source: the names that llama.cpp's `gguf-split` and its conversion scripts give, and Hugging Face's habits.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import PurePosixPath
from typing import Final, Literal

from corral.artifact import Role
from corral.lazy_dataclass import dataclass
from corral.registry.quants import quant_of

MAX_SHARDS: Final = 1000
_SHARD = re.compile(r"(?P<stem>.+)-(?P<number>[0-9]{5})-of-(?P<count>[0-9]{5})", re.IGNORECASE)
_STATISTICS = re.compile(r"(?:^|[-._])imatrix(?:$|[-._])", re.IGNORECASE)  # GGUF files that hold no model
_LICENSES: Final = frozenset({"license", "license.txt", "license.md", "licence", "licence.txt", "licence.md"})
_CONFIGS: Final = frozenset({".json", ".txt", ".model", ".jinja", ".tiktoken", ".vocab", ".yaml"})
_PROJECTORS: Final = {"F16": 0, "BF16": 1, "Q8_0": 2, "F32": 3}  # f16: every engine reads it, and projectors are small


@dataclass(frozen=True, slots=True)
class Group:
    """The files of one model, by their names relative to the folder that was searched."""

    stem: str  # without shard number and ending: "Qwen3-8B-Q4_K_M"
    weights: tuple[PurePosixPath, ...]
    others: tuple[tuple[Role, PurePosixPath], ...] = ()
    format: Literal["gguf", "safetensors"] = "gguf"
    problem: str = ""

    @property
    def folder(self) -> PurePosixPath:
        return self.weights[0].parent

    @property
    def quantization(self) -> str:
        """As it stands in the name: `"Q4_K_M"`; "" when it does not."""
        return quant_of(self.weights[0].as_posix()) if self.format == "gguf" else ""

    @property
    def members(self) -> tuple[tuple[Role, PurePosixPath], ...]:
        """Every file with its role; of a split GGUF the first is opened and the others are found beside it."""
        later: Role = "shard" if self.format == "gguf" else "weights"
        first: tuple[Role, PurePosixPath] = ("weights", self.weights[0])
        return (first, *((later, name) for name in self.weights[1:]), *self.others)


def groups(names: Iterable[PurePosixPath]) -> list[Group]:
    """The models among `names`, sorted. A projector goes with the models of its folder and of folders below it."""
    every = sorted(set(names))
    ggufs = [name for name in every if name.suffix.lower() == ".gguf" and not _STATISTICS.search(name.stem)]
    projectors = [name for name in ggufs if "mmproj" in name.name.lower()]
    found: list[Group] = []
    shards: dict[tuple[PurePosixPath, str, int], dict[int, PurePosixPath]] = {}
    for name in ggufs:
        if name in projectors:
            continue
        match = _SHARD.fullmatch(name.stem)
        if match and 1 <= int(match["number"]) <= int(match["count"]) <= MAX_SHARDS:
            shards.setdefault((name.parent, match["stem"], int(match["count"])), {})[int(match["number"])] = name
        else:
            found.append(Group(name.stem, (name,), _companions(name, projectors, every)))
    for (_, stem, count), by_number in shards.items():
        weights = tuple(by_number[number] for number in sorted(by_number))
        lost = count - len(weights)
        problem = f"{lost} of its {count} files are missing" if lost else ""
        found.append(Group(stem, weights, _companions(weights[0], projectors, every), problem=problem))
    return sorted([*found, *_safetensors(every)], key=lambda group: group.weights[0])


def _companions(
    model: PurePosixPath, projectors: list[PurePosixPath], every: list[PurePosixPath]
) -> tuple[tuple[Role, PurePosixPath], ...]:
    found: list[tuple[Role, PurePosixPath]] = []
    near = [each for each in projectors if model.is_relative_to(each.parent)]
    if near:
        best = min(near, key=lambda each: (-len(each.parts), _PROJECTORS.get(quant_of(each.name), 9), each))
        found.append(("mmproj", best))
    for each in every:
        if model.is_relative_to(each.parent) and len(model.parts) <= 3:
            if each.name.lower() == "chat_template.jinja":
                found.append(("template", each))
            elif each.name.lower() in _LICENSES:
                found.append(("license", each))
    by_role = {role: (role, each) for role, each in found}  # the nearest of each: sorting puts it last
    return tuple(by_role.values())


def _safetensors(every: list[PurePosixPath]) -> list[Group]:
    found = []
    for folder in sorted({name.parent for name in every if name.name == "config.json"}):
        inside = [name for name in every if name.parent == folder]
        weights = [name for name in inside if name.suffix == ".safetensors"]
        if len(weights) > 1:  # some repositories hold the same weights twice, in their maker's own layout too
            weights = [name for name in weights if not name.name.startswith("consolidated")] or weights
        if weights:
            others: list[tuple[Role, PurePosixPath]] = []
            for name in inside:
                if name.name.lower() in _LICENSES:
                    others.append(("license", name))
                elif name.name.lower().endswith(tuple(_CONFIGS)):
                    others.append(("config", name))
            found.append(Group(folder.name, tuple(weights), tuple(others), "safetensors", _missing(weights)))
    return found


def _missing(weights: list[PurePosixPath]) -> str:
    for name in weights:
        match = _SHARD.fullmatch(name.stem)
        if match and 1 <= int(match["count"]) <= MAX_SHARDS:
            there = sum(1 for each in weights if _SHARD.fullmatch(each.stem) and each.stem.startswith(match["stem"]))
            if there < int(match["count"]):
                return f"{int(match['count']) - there} of its {match['count'].lstrip('0')} files are missing"
    return ""
