"""The folder of saved reports: writing one, finding one, the one before."""

from __future__ import annotations

import json
import re
import time
from dataclasses import replace
from pathlib import Path
from typing import Final

from corral.errors import CallerError
from corral.lazy_dataclass import dataclass
from corral.measure.report import Report, parse, plain

_NAME: Final = re.compile(r"[^A-Za-z0-9._-]+")


@dataclass(frozen=True, slots=True)
class Shelf:
    """The folder of saved reports."""

    folder: Path

    def save(self, report: Report) -> tuple[Report, Path]:
        """Writes it under a new id made of its title and time. Raises CallerError where that cannot be."""
        stamp = time.strftime("%Y%m%d-%H%M%S", time.localtime(report.began_wall_s))
        base = f"{_NAME.sub('-', report.title).strip('-.')[:60] or report.kind}-{stamp}"
        for number in range(1000):
            name = base if number == 0 else f"{base}-{number + 1}"
            named = replace(report, id=name)
            text = json.dumps(plain(named), indent=1, ensure_ascii=False, allow_nan=False) + "\n"
            path = self.folder / f"{name}.json"
            try:
                self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                with path.open("x", encoding="utf-8") as file:
                    file.write(text)
            except FileExistsError:
                continue
            except OSError as error:
                raise CallerError(
                    f"the benchmark cannot be saved at {path}: {error.strerror}", hint="make room there"
                ) from error
            return named, path
        raise CallerError(f"there are a thousand benchmarks called {base}", hint=f"remove some in {self.folder}")

    def all(self) -> list[Report]:
        """Oldest first; what cannot be read is left out."""
        found = []
        for path in sorted(self.folder.glob("*.json")):
            try:
                found.append(parse(json.loads(path.read_bytes()), path.name))
            except (OSError, ValueError, CallerError):
                continue
        return sorted(found, key=lambda each: (each.began_wall_s, each.id))

    def find(self, name: str) -> Report:
        """By its id, a unique beginning of it, a file's path, or `latest`. Raises CallerError."""
        file = Path(name)
        if name.endswith(".json") and file.is_file():
            try:
                return parse(json.loads(file.read_bytes()), name)
            except (OSError, ValueError) as error:
                raise CallerError(
                    f"{name} cannot be read: {error}", hint="name a file that `corral bench` saved"
                ) from error
        every = self.all()
        if name == "latest" and every:
            return every[-1]
        found = [each for each in every if each.id == name] or [each for each in every if each.id.startswith(name)]
        if len(found) != 1:
            several = (
                f"{len(found)} saved benchmarks begin with {name!r}" if found else f"no saved benchmark is {name!r}"
            )
            raise CallerError(several, hint="list those there are: corral bench list")
        return found[0]

    def before(self, report: Report) -> Report | None:
        """The newest earlier one that was asked the same of the same."""
        same = [
            each
            for each in self.all()
            if (each.kind, each.title, dict(each.settings)) == (report.kind, report.title, dict(report.settings))
            and each.id != report.id
            and each.began_wall_s <= report.began_wall_s
        ]
        return same[-1] if same else None
