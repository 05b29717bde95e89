"""What every command gets: the global options, and from them the client, the paths and the ways to print."""

from __future__ import annotations

import json as jsonlib
import sys
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from corral.cli import terminal
from corral.config.paths import Paths, find_paths
from corral.lazy_dataclass import dataclass

if TYPE_CHECKING:
    from corral.api import ErrorInfo
    from corral.cli.table import Cell, Column
    from corral.client import Client
    from corral.errors import CorralError


@dataclass(eq=False)
class App:
    """One run of the program. Options given after the command win over those before it."""

    host: str | None = None
    json: bool = False
    color: bool | None = None  # None = as the terminal allows

    @cached_property
    def paths(self) -> Paths:
        return find_paths()

    def client(self) -> Client:
        """The server to talk to. Raises Unreachable when none is running."""
        from corral.client import Client

        return Client.find(self.paths, self.host)

    @property
    def out_color(self) -> bool:
        return terminal.colored(sys.stdout, self.color)

    @property
    def err_color(self) -> bool:
        return terminal.colored(sys.stderr, self.color)

    def say(self, text: str = "") -> None:
        """One line on standard output."""
        sys.stdout.write(terminal.printable(text) + "\n" if sys.stdout.isatty() else text + "\n")

    def write(self, text: str) -> None:
        """One line on standard output that may hold styles of our own."""
        sys.stdout.write(text + "\n")

    def say_now(self, text: str) -> None:
        """The same, written at once: for streams."""
        self.say(text)
        sys.stdout.flush()

    def note(self, text: str) -> None:
        """One line on standard error: what a reader should know but a program that reads the output must not get."""
        sys.stdout.flush()
        sys.stderr.write(terminal.style(terminal.printable(text), "dim", on=self.err_color) + "\n")
        sys.stderr.flush()

    def warn(self, text: str) -> None:
        sys.stdout.flush()
        label = terminal.style("warning:", "yellow", on=self.err_color)
        sys.stderr.write(f"{label} {terminal.printable(text)}\n")

    def error(self, error: CorralError) -> None:
        """An error on standard error, as `fail` says it."""
        from corral.api import ErrorInfo

        self.fail(ErrorInfo(error.code, error.message, error.hint, error.status, dict(error.details)))

    def fail(self, info: ErrorInfo) -> None:
        """An error on standard error: in words with its hint, or with `--json` as one line `{"error": …}`."""
        sys.stdout.flush()
        if self.json:
            from corral.api import dump

            sys.stderr.write(jsonlib.dumps({"error": dump(info)}, ensure_ascii=False, default=str) + "\n")
            return
        color = self.err_color
        label = terminal.style("error:", "red", "bold", on=color)
        sys.stderr.write(f"{label} {terminal.printable(info.message)}\n")
        for line in _more(info.details):
            sys.stderr.write(f"  {terminal.printable(line)}\n")
        if info.hint:
            sys.stderr.write(f"{terminal.style('hint:', 'cyan', on=color)} {terminal.printable(info.hint)}\n")

    def print_json(self, value: Any) -> None:
        """A wire type, or lists and dicts of them, as one JSON document."""
        from corral.api import dump

        sys.stdout.write(jsonlib.dumps(dump(value), indent=2, ensure_ascii=False) + "\n")

    def print_json_line(self, value: Any) -> None:
        """The same on one line, written at once: for streams."""
        from corral.api import dump

        sys.stdout.write(jsonlib.dumps(dump(value), ensure_ascii=False) + "\n")
        sys.stdout.flush()

    def print_table(self, columns: Sequence[Column], rows: Sequence[Sequence[Cell | str]]) -> None:
        """Fits the terminal; what had no room is named below it."""
        from corral.cli.table import lay_out

        color = self.out_color
        laid = lay_out(columns, rows, width=terminal.width(), color=color)
        sys.stdout.write("\n".join(laid.lines) + "\n")
        if laid.left_out:
            self.note(f"no room for {', '.join(reversed(laid.left_out))}: use a wider terminal or --json")

    def print_pairs(self, pairs: Sequence[tuple[str, str]]) -> None:
        """Names and values in two columns, values whole."""
        wide = max(len(name) for name, _ in pairs)
        for name, value in pairs:
            self.say(f"{name:<{wide}}  {value}")


def _more(details: dict[str, Any]) -> list[str]:
    """The lines below an error's message: every problem of a configuration, an engine's last words."""
    lines: list[str] = []
    problems = details.get("problems")
    # One problem alone is the message itself.
    for each in problems if isinstance(problems, list) and len(problems) != 1 else ():
        if isinstance(each, dict):
            where = ":".join(str(each[key]) for key in ("file", "line", "column") if each.get(key) is not None)
            hint = f" ({each['hint']})" if each.get("hint") else ""
            lines.append(f"{where}: {each.get('message')}{hint}" if where else f"{each.get('message')}{hint}")
        else:
            lines.append(str(each))
    tail = details.get("log_tail")
    tail = tail.splitlines() if isinstance(tail, str) else tail
    if isinstance(tail, list):
        lines += [f"| {line}" for line in tail[-12:]]
    return lines
