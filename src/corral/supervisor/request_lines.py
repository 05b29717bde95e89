"""One request in its engine's log: Corral's own line about it, and which of the engine's lines are its. Pure.

vLLM takes a request's id for its own, so that its lines have it. llama.cpp numbers its tasks itself and tells nobody:
its lines "print_timing" have the figures that its answer ends with, to the hundredth of a millisecond, and by these a
task is known again. A request whose answer was cut has none; it is known by its place among those that have.

Source: llama.cpp, tools/server/server-context.cpp (print_timings, release) and server-queue.cpp (cancel task);
vLLM, entrypoints/openai (X-Request-Id).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final, NamedTuple

from corral.lazy_dataclass import dataclass

MARK: Final = "[corral] request "
"""How Corral's own lines in an engine's log begin."""


class Timings(NamedTuple):
    """What llama.cpp says of an answer at its end."""

    prompt_ms: str  # as its log has them, with two decimals
    prompt: int
    answer_ms: str
    answer: int


@dataclass(frozen=True, slots=True)
class Noted:
    """One request that an engine had."""

    request_id: str
    ended_wall_s: float
    text: str  # how it went, in a line
    timings: Timings | None = None


_COUNT: Final = rb'"%b_n":([0-9]{1,9})[,}]'
_MS: Final = rb'"%b_ms":([0-9]{1,12}(?:\.[0-9]{1,20})?(?:e[+-]?[0-9]{1,3})?)[,}]'
_FIELDS: Final = tuple(
    re.compile(form % name) for name in (b"prompt", b"predicted") for form in (_MS, _COUNT)
)  # fmt: skip
_NOTE: Final = re.compile(
    r"^\[corral\] request (\S+) (.*?)(?: \[([0-9.]+) ms / ([0-9]+), ([0-9.]+) ms / ([0-9]+)\])? @([0-9.]+)$"
)
_TASK: Final = re.compile(r"\| task (\d+) \||\bid_task = (\d+)\b")
_PROMPT: Final = re.compile(r"\| task (\d+) \| prompt eval time = +([0-9.]+) ms / +(\d+) tokens")
_ANSWER: Final = re.compile(r"\| task (\d+) \| +eval time = +([0-9.]+) ms / +(\d+) tokens")
_OVER: Final = re.compile(r"\brelease: id +\d+ \| task (\d+) \|")
_CANCELLED: Final = re.compile(r"\bcancel task, id_task = (\d+)\b")


def timings_of(end: bytes) -> Timings | None:
    """What the last bytes of llama.cpp's answer tell; None where they do not."""
    at = end.rfind(b'"timings"')
    if at < 0:
        return None
    found = [field.search(end, at) for field in _FIELDS]
    if None in found:
        return None
    prompt_ms, prompt, answer_ms, answer = (each[1] for each in found if each is not None)
    return Timings(f"{float(prompt_ms):.2f}", int(prompt), f"{float(answer_ms):.2f}", int(answer))


def note(noted: Noted) -> str:
    """The line for the engine's log, with its end."""
    figures = "" if noted.timings is None else " [{} ms / {}, {} ms / {}]".format(*noted.timings)
    return f"{MARK}{noted.request_id} {noted.text}{figures} @{noted.ended_wall_s:.3f}\n"


def without_notes(log: str) -> str:
    """What the engine itself wrote."""
    if MARK not in log:
        return log
    return "".join(line for line in log.splitlines(keepends=True) if not line.startswith(MARK))


def noted_in(log: str) -> list[Noted]:
    """The requests that Corral noted there."""
    found = []
    for line in log.splitlines():
        if line.startswith(MARK) and (match := _NOTE.match(line)) is not None:
            name, text, *figures, ended = match.groups()
            timings = None
            if figures[0] is not None:
                timings = Timings(figures[0], int(figures[1]), figures[2], int(figures[3]))
            found.append(Noted(name, float(ended), text, timings))
    return found


def lines_of(log: str, wanted: Noted, others: Sequence[Noted], *, engine: str) -> list[str]:
    """What the engine wrote of `wanted`; `others` are requests that it had too. Empty where nothing can be said for
    certain."""
    lines = [line for line in log.splitlines() if not line.startswith(MARK)]
    if engine == "vllm":
        name = re.compile(rf"(?<![A-Za-z0-9]){re.escape(wanted.request_id)}(?![A-Za-z0-9])")
        return [line for line in lines if name.search(line)]
    tasks = _tasks(lines)
    task = tasks.of(wanted.timings) if wanted.timings is not None else _by_place(tasks, wanted, others)
    return [] if task is None else [line for line in lines if _named(line) == task]


@dataclass(frozen=True, slots=True)
class _Tasks:
    """llama.cpp's tasks: those that a slot worked on, in the order in which they ended, and the figures they ended
    with."""

    ended: tuple[int, ...]
    figures: dict[int, Timings]

    def of(self, timings: Timings) -> int | None:
        found = [task for task, figures in self.figures.items() if figures == timings]
        return found[0] if len(found) == 1 else None


def _tasks(lines: Sequence[str]) -> _Tasks:
    ended: list[int] = []
    prompts: dict[int, tuple[str, int]] = {}
    figures: dict[int, Timings] = {}
    for line in lines:
        if match := _PROMPT.search(line):
            prompts[int(match[1])] = (match[2], int(match[3]))
        elif (match := _ANSWER.search(line)) and int(match[1]) in prompts:
            figures[int(match[1])] = Timings(*prompts[int(match[1])], match[2], int(match[3]))
        elif (match := _OVER.search(line) or _CANCELLED.search(line)) and int(match[1]) not in ended:
            ended.append(int(match[1]))
    return _Tasks(tuple(ended), figures)


def _by_place(tasks: _Tasks, wanted: Noted, others: Sequence[Noted]) -> int | None:
    """The task of a request without figures: between the same two that have them stand as many requests as tasks, in
    the same order."""
    everyone = sorted([*(each for each in others if each != wanted), wanted], key=lambda each: each.ended_wall_s)
    at = everyone.index(wanted)
    known = [None if each.timings is None else tasks.of(each.timings) for each in everyone]
    first = next((number + 1 for number in range(at - 1, -1, -1) if known[number] is not None), 0)
    last = next((number for number in range(at + 1, len(known)) if known[number] is not None), len(known))
    taken = {task for task in known if task is not None}
    order = list(tasks.ended)
    before, after = known[first - 1] if first else None, known[last] if last < len(known) else None
    lower = order.index(before) + 1 if before in order else 0
    upper = order.index(after) if after in order else len(order)
    free = [task for task in order[lower:upper] if task not in taken]
    return free[at - first] if len(free) == last - first else None


def _named(line: str) -> int | None:
    match = _TASK.search(line)
    return None if match is None else int(match[1] or match[2])
