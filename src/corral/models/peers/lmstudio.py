"""LM Studio's models: `<publisher>/<repository>/<files>` below one folder, which its settings may move.

Source: LM Studio's documentation (importing models), and the paths that its open-source `lms` command uses.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from corral.errors import CorralError
from corral.models.peers.folders import Group
from corral.models.peers.following import files_under, read_small
from corral.models.peers.naming import local_ref
from corral.models.peers.outside import OutsideModel, Peer
from corral.models.peers.plain import distinct, plain_models
from corral.refs import Ref


def places(env: Mapping[str, str]) -> list[Path]:
    """The folder that LM Studio's settings name, and the two it has used by default."""
    if not (home := env.get("HOME")):
        return []
    homes = [Path(home) / ".lmstudio", Path(home) / ".cache" / "lm-studio"]
    if pointed := _text(Path(home) / ".lmstudio-home-pointer").strip():
        homes.insert(0, Path(pointed))
    found = [Path(moved) for each in homes if (moved := _setting(each / "settings.json"))]
    return list(dict.fromkeys([*found, *(each / "models" for each in homes)]))


def _text(path: Path) -> str:
    try:
        return read_small(path, 1 << 20).decode("utf-8", "replace")
    except CorralError:
        return ""


def _setting(path: Path) -> str:
    try:
        data = json.loads(_text(path) or "{}")
    except (ValueError, RecursionError):
        return ""
    value = data.get("downloadsFolder") if isinstance(data, dict) else None
    return value if isinstance(value, str) and Path(value).is_absolute() else ""


def read(place: Path) -> Iterator[OutsideModel]:
    """Every model below `place`. Named `localhost/lmstudio/…`: where the files came from is not recorded there."""

    def name(group: Group, alone: bool) -> tuple[Ref, str]:
        parts = list(group.folder.parts)
        if group.format == "gguf" and not (group.quantization and alone and len(parts) >= 2):
            parts.append(group.stem)
        label = group.folder.as_posix() if group.format == "safetensors" else group.weights[0].as_posix()
        return local_ref("lmstudio", parts, group.quantization if alone else ""), label

    yield from distinct(plain_models("lmstudio", place, files_under(place), name, scope=lambda group: group.folder))


PEER: Final = Peer(
    "lmstudio", "LM Studio", places, read, "LM Studio deletes a model's files when it is deleted under My Models"
)
