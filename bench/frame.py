"""What every benchmark shares: arguments, figures, the table, the JSON file and the section in RESULTS.md."""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "bench" / "RESULTS.md"


@dataclass(frozen=True)
class Figure:
    """One number. `goal` is the bound it should keep, such as `"≤ 1.25"`; nothing fails when it does not."""

    name: str
    value: float
    goal: str = ""
    note: str = ""

    def kept(self) -> bool | None:
        """Whether the goal is kept; None without one."""
        match = re.fullmatch(r"([≤≥]) ([0-9.]+)", self.goal)
        if match is None:
            return None
        return self.value <= float(match[2]) if match[1] == "≤" else self.value >= float(match[2])


_least = False


def sized(quick: bool, full: int, fewer: int, least: int = 1) -> int:
    """How much of something: in a full run, in a quick one, and where it is only to be seen that the benchmark runs."""
    return least if _least else fewer if quick else full


def median(values: Sequence[float]) -> float:
    return statistics.median(values)


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest of `values` that at least `percent` of them do not exceed."""
    ordered = sorted(values)
    rank = max(1, -(-len(ordered) * percent // 100))
    return ordered[int(rank) - 1]


def main(name: str, what: str, measure: Callable[[bool], list[Figure]], argv: Sequence[str] | None = None) -> int:
    """Runs `measure(quick)` and shows its figures as the arguments say."""
    parser = argparse.ArgumentParser(prog=f"make bench NAME={name}", description=what)
    parser.add_argument("--quick", action="store_true", help="fewer rounds: ends within a minute")
    parser.add_argument("--least", action="store_true", help="only to see that it runs: the figures mean nothing")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures as one flat object")
    parser.add_argument("--record", action="store_true", help="make this run the one that bench/RESULTS.md shows")
    arguments = parser.parse_args(argv)
    if arguments.least and arguments.record:
        parser.error("what means nothing is not recorded")
    global _least
    _least = arguments.least
    began = time.monotonic()
    load = os.getloadavg()[0]
    figures = measure(arguments.quick or arguments.least)
    how = "least" if _least else "quick" if arguments.quick else "full"
    took = f"{time.monotonic() - began:.0f} s, {how}, load {load:.1f} at the start"
    print(f"{name}: {machine()} ({took})\n")
    print(table(figures))
    if arguments.json is not None:
        values = {figure.name: round(figure.value, 4) for figure in figures}
        arguments.json.write_text(json.dumps(values, indent=1) + "\n")
    if arguments.record:
        record(name, what, figures, took)
        print(f"\nrecorded in {RESULTS.relative_to(ROOT)}")
    return 0


def table(figures: Sequence[Figure]) -> str:
    """The figures for a terminal."""
    rows = [("figure", "value", "goal", ""), *map(_row, figures)]
    widths = [max(len(row[i]) for row in rows) for i in range(3)]
    lines = [f"{row[0]:{widths[0]}}  {row[1]:>{widths[1]}}  {row[2]:{widths[2]}}  {row[3]}".rstrip() for row in rows]
    return "\n".join(lines)


def _row(figure: Figure) -> tuple[str, str, str, str]:
    kept = figure.kept()
    words = "" if kept is None else ("kept" if kept else "MISSED")
    digits = 1 if abs(figure.value) >= 100 else 2
    note = ", ".join(part for part in (words, figure.note) if part)
    return figure.name, f"{figure.value:.{digits}f}", figure.goal, note


def record(name: str, what: str, figures: Sequence[Figure], took: str) -> None:
    """Replaces this benchmark's section of RESULTS.md."""
    lines = [f"## {name}", "", what, "", f"{machine()}; {took}; {time.strftime('%Y-%m-%d')}, commit {commit()}.", ""]
    lines += ["| figure | value | goal | |", "| --- | ---: | --- | --- |"]
    lines += [f"| `{row[0]}` | {row[1]} | {row[2]} | {row[3]} |" for row in map(_row, figures)]
    section = "\n".join(lines) + "\n"
    text = RESULTS.read_text(encoding="utf-8")
    old = re.compile(rf"^## {re.escape(name)}\n.*?(?=^## |\Z)", re.MULTILINE | re.DOTALL)
    if old.search(text):
        text = old.sub(lambda found: section + ("\n" if found.end() < len(text) else ""), text, count=1)
    else:
        text = text.rstrip("\n") + "\n\n" + section
    RESULTS.write_text(text, encoding="utf-8")


def machine() -> str:
    """The machine in one line: what someone else needs to know to compare."""
    model = platform.processor() or platform.machine()
    if sys.platform.startswith("linux"):
        found = re.search(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(errors="replace"), re.MULTILINE)
        model = found[1] if found else platform.machine()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory = psutil.virtual_memory().total / 2**30
    system = f"{platform.system()} {platform.machine()}, Python {platform.python_version()}"
    return f"{model}, {cores} cores, {memory:.0f} GiB, {system}"


def commit() -> str:
    """The commit that was measured, with a `+` when the tree had changes of its own."""

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()

    changed = git("status", "--porcelain", "--untracked-files=no", "--", "src", "bench", "requirements")
    return (git("rev-parse", "--short", "HEAD") or "unknown") + ("+" if changed else "")
