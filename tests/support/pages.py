"""The documentation's pages: their links, headings, and the console blocks that are marked to be run."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

_FENCE = re.compile(r"^(```+|~~~+).*?^\1\s*$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"(?<!\\)\[[^\]]*\]\(([^()\s]+)\)")
_HEADING = re.compile(r"^#{1,6}\s+(.+?)\s*#*$", re.MULTILINE)
_RUN = re.compile(r"^<!-- run(?:: exit (\d+))? -->\n```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Command:
    """One command of a console block, the exit code it must have, and the lines it must print, `…` being anything."""

    page: Path
    line: int
    text: str
    exit_code: int
    prints: tuple[str, ...]

    def mismatch(self, output: str) -> str | None:
        """The first expected line that `output` does not have after the ones before it; None when all are there."""
        rest = iter(output.splitlines())
        for wanted in self.prints:
            pattern = ".*".join(re.escape(part) for part in wanted.strip().split("…"))
            if not any(re.fullmatch(pattern, line.strip()) for line in rest):
                return wanted
        return None


def pages() -> list[Path]:
    """Every page people read, in a fixed order."""
    return sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "bench").glob("*.md")])


def links(page: Path) -> Iterator[tuple[Path, str]]:
    """The files, with their fragments, that a page's relative links point at."""
    for target in _LINK.findall(_FENCE.sub("", page.read_text(encoding="utf-8"))):
        if "://" in target or target.startswith("mailto:"):
            continue
        name, _, fragment = target.partition("#")
        yield (page.parent / name).resolve() if name else page, fragment


def anchors(page: Path) -> set[str]:
    """The fragments a page's headings can be linked by, as GitHub makes them."""
    found: set[str] = set()
    for heading in _HEADING.findall(_FENCE.sub("", page.read_text(encoding="utf-8"))):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "").lower()
        slug = re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")
        unique, count = slug, 0
        while unique in found:
            count += 1
            unique = f"{slug}-{count}"
        found.add(unique)
    return found


def commands(page: Path) -> list[Command]:
    """What the marked blocks of a page run, in order. A line `> …` continues a command, as a shell shows it."""
    text = page.read_text(encoding="utf-8")
    found: list[Command] = []
    for block in _RUN.finditer(text):
        exit_code = int(block[1] or 0)
        first_line = text[: block.start(2)].count("\n") + 1
        parts: list[tuple[int, list[str], list[str]]] = []
        for offset, line in enumerate(block[2].splitlines()):
            if line.startswith("$ "):
                parts.append((first_line + offset, [line[2:]], []))
            elif line.startswith("> ") and parts and not parts[-1][2]:
                parts[-1][1].append(line[2:])
            elif line.strip() and parts:
                parts[-1][2].append(line)
        for number, typed, prints in parts:
            found.append(Command(page, number, "\n".join(typed), exit_code, tuple(prints)))
    return found
