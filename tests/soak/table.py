"""What a soak comes to, for the terminal and for docs/soak.md."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from soak.traffic import BEHAVIOURS, Traffic

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from bench.frame import commit, machine

if TYPE_CHECKING:
    from soak.test_soak import Seen

PAGE = Path(__file__).resolve().parents[2] / "docs" / "soak.md"
MIB = 1 << 20
HEAD = ("dialect", *BEHAVIOURS, "in all")


def rows(done: Mapping[tuple[str, str], int], dialects: Sequence[str]) -> list[tuple[str, ...]]:
    found = []
    for name in dialects:
        counts = [done.get((name, behaviour), 0) for behaviour in BEHAVIOURS]
        found.append((name, *(f"{count:,}" for count in (*counts, sum(counts)))))
    counts = [sum(count for (_, each), count in done.items() if each == behaviour) for behaviour in BEHAVIOURS]
    return [*found, ("in all", *(f"{count:,}" for count in (*counts, sum(counts))))]


def facts(
    took_s: float, seed: int, traffic: Traffic, loads: int, seen: Seen, before: Mapping[str, Any],
    after: Mapping[str, Any],
) -> str:  # fmt: skip
    tasks = [sum(each["tasks"].values()) for each in (before, after)]
    return (
        f"{took_s / 60:.1f} minutes, seed {seed}, {traffic.count} clients: {sum(traffic.done.values()):,} requests,"
        f" {loads} loads of models, {len(traffic.amiss)} lost or wrong. Memory of the daemon: {before['rss'] / MIB:.1f}"
        f" MiB at rest before, {after['rss'] / MIB:.1f} after; a line through it rises by"
        f" {seen.slope_bytes_per_hour / MIB:+.2f} MiB an hour, and its last fifth lies"
        f" {seen.growth_bytes / MIB:+.2f} MiB above its first."
        f" Descriptors {len(before['fds'])} before and {len(after['fds'])} after (at most {max(seen.fds)}), tasks"
        f" {tasks[0]} and {tasks[1]}, threads {before['threads']} and {after['threads']}, Python objects"
        f" {before['objects']:,} and {after['objects']:,}, blocks of Python's allocator {before['blocks']:,} and"
        f" {after['blocks']:,}{_malloc(before, after)}. {machine()}, commit {commit()}"
    )


def _malloc(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    if before["malloc"] is None:
        return ""
    held, spare = ([each["malloc"][of] / MIB for each in (before, after)] for of in ("held", "spare"))
    return (
        f"; malloc has handed out {held[0]:.2f} and {held[1]:.2f} MiB, and keeps {spare[0]:.2f} and"
        f" {spare[1]:.2f} for later"
    )


def plain(found: Sequence[tuple[str, ...]]) -> str:
    widths = [max(len(row[at]) for row in (HEAD, *found)) for at in range(len(HEAD))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in (HEAD, *found)
    )


def record(found: Sequence[tuple[str, ...]], words: str) -> None:
    """Puts the run in the place of the one before on the page."""
    made = ["| " + " | ".join(row) + " |" for row in (HEAD, tuple("---" for _ in HEAD), *found)]
    text = PAGE.read_text(encoding="utf-8")
    top, mark, _ = text.partition("<!-- recorded -->\n")
    assert mark, "the page has no place for it"
    PAGE.write_text(f"{top}{mark}\n{words}.\n\n" + "\n".join(made) + "\n", encoding="utf-8")
