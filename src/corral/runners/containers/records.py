"""What Corral keeps on disk of each container it makes, before it makes it: so none is ever forgotten.

Without a record nothing is asked of a container engine at a start: a server that never used one pays nothing.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from corral.config.paths import Paths
from corral.engines.plan import LaunchPlan
from corral.lazy_dataclass import dataclass
from corral.runners.record import dump_plan, load_plan


@dataclass(frozen=True, slots=True)
class Record:
    """One container."""

    name: str
    log: Path
    started_wall_s: float
    plan: LaunchPlan | None  # None when it cannot be read any more


def folder_of(paths: Paths, kind: str) -> Path:
    """Where the records of one kind lie."""
    return paths.state_dir / "containers" / kind


class Records:
    """The records of one runner, one file each. Everything blocks for a moment."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def write(self, name: str, plan: LaunchPlan, log: Path, started_wall_s: float) -> None:
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = self._path(name)
        new = path.with_name(f"{path.name}.new")
        data = {"name": name, "log": str(log), "started_wall_s": started_wall_s, "plan": dump_plan(plan)}
        new.touch(mode=0o600)
        new.write_text(json.dumps(data))
        new.replace(path)

    def forget(self, name: str) -> None:
        self._path(name).unlink(missing_ok=True)

    def all(self) -> list[Record]:
        found = []
        try:
            paths = sorted(self._directory.glob("*.json"))
        except OSError:
            return []
        for path in paths:
            try:
                data = json.loads(path.read_bytes())
                name, log, started = str(data["name"]), Path(data["log"]), float(data["started_wall_s"])
            except (OSError, ValueError, KeyError, TypeError):
                found.append(Record(path.name.removesuffix(".json"), Path(os.devnull), 0.0, None))
                continue
            try:
                plan: LaunchPlan | None = load_plan(data.get("plan"))
            except ValueError:
                plan = None
            found.append(Record(name, log, started, plan))
        return found

    def _path(self, name: str) -> Path:
        return self._directory / f"{name}.json"
