"""`Problem`: one thing that is wrong with a configuration, and the place it was found at."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from corral import hidden
from corral.errors import ConfigError
from corral.lazy_dataclass import dataclass

Key = tuple[str, ...]
"""The way from the top of the document to a value: `("models", "0", "context")`; list positions are decimal."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a value was written: a file with line and column (from 1), or the name of a variable or a flag."""

    file: str = ""
    line: int | None = None
    column: int | None = None

    def __str__(self) -> str:
        return ":".join(str(part) for part in (self.file, self.line, self.column) if part not in (None, ""))


NOWHERE = Place()


@dataclass(frozen=True, slots=True)
class Problem:
    """One sentence about what is wrong, and a hint about what to do."""

    message: str
    hint: str = ""
    place: Place = NOWHERE
    key: Key = ()
    level: Literal["error", "warning"] = "error"

    def __post_init__(self) -> None:
        # What is wrong is quoted, and may be an address with a password. A problem is told to anybody.
        object.__setattr__(self, "message", hidden.quoted(self.message))

    def __str__(self) -> str:
        where = f"{self.place}: " if str(self.place) else ""
        return f"{where}{self.message}" + (f": {self.hint}" if self.hint else "")

    def as_data(self) -> dict[str, Any]:
        """The same for programs."""
        return {
            "level": self.level,
            "file": self.place.file or None,
            "line": self.place.line,
            "column": self.place.column,
            "path": hidden.address(".".join(hidden.proxy(part) for part in self.key)),
            "message": self.message,
            "hint": self.hint,
        }


def config_error(problems: Sequence[Problem]) -> ConfigError:
    """The one error for `problems` (at least one): it says the first and counts the others, its details have all."""
    first = problems[0]
    where = f"{first.place}: " if str(first.place) else ""
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    return ConfigError(
        where + first.message + more,
        hint=first.hint if first.hint and not more else "`corral config check` shows all that is wrong",
        problems=[problem.as_data() for problem in problems],
    )
