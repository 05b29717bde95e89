"""What runs come to as figures: each with its value in every run, so that noise can be told from change. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, Literal

from corral.lazy_dataclass import dataclass
from corral.measure.answer import Shot
from corral.measure.curve import Run
from corral.measure.stats import mean, median, quantile

Better = Literal["more", "less", ""]


@dataclass(frozen=True, slots=True)
class Kind:
    """What a figure's name stands for."""

    words: str
    unit: str
    better: Better


_TIMES: Final = {
    "ttft": "time to first token",
    "tpot": "time per output token",
    "itl": "inter-token latency",
    "e2e": "time to the last token",
}
_PARTS: Final = {"p50": 0.5, "p95": 0.95, "p99": 0.99}

KINDS: Final[Mapping[str, Kind]] = {
    "output_tokens_per_s": Kind("output tokens a second", "tokens/s", "more"),
    "total_tokens_per_s": Kind("tokens a second, prompts included", "tokens/s", "more"),
    "requests_per_s": Kind("requests a second", "requests/s", "more"),
    **{
        f"{time}_{part}_ms": Kind(f"{words}, {part if part != 'mean' else 'mean'}", "ms", "less")
        for time, words in _TIMES.items()
        for part in ("mean", *_PARTS)
    },
    "text_p50_ms": Kind("time to the first text, p50", "ms", "less"),
    "connect_p50_ms": Kind("time to connect, p50", "ms", "less"),
    "failed": Kind("failed requests", "", "less"),
    "short": Kind("answers shorter than asked", "", "less"),
    "prompt_tokens": Kind("tokens of a prompt", "tokens", ""),
    "cached_tokens": Kind("of those, already known", "tokens", ""),
    "peak_requests": Kind("requests open at once, most", "", ""),
    "late_p95_ms": Kind("lateness of the generator, p95", "ms", "less"),
    "late_busy": Kind("processor taken by the generator", "", "less"),
    "sent_late_p95_ms": Kind("sent later than planned, p95", "ms", "less"),
    "prompt_per_s": Kind("prompt processing", "tokens/s", "more"),
    "generation_per_s": Kind("generation", "tokens/s", "more"),
    "engine_prompt_per_s": Kind("prompt processing, by the engine's clock", "tokens/s", "more"),
    "engine_generation_per_s": Kind("generation, by the engine's clock", "tokens/s", "more"),
    "cold_first_token_ms": Kind("cold start: request to first token", "ms", "less"),
    "load_ms": Kind("of that, loading", "ms", "less"),
    "swap_first_token_ms": Kind("swap: request to first token", "ms", "less"),
    "swap_ms": Kind("of that, making room", "ms", "less"),
    "memory_bytes": Kind("memory of the engine", "bytes", "less"),
    "gpu_bytes": Kind("predicted memory on GPUs", "bytes", "less"),
    "power_w": Kind("power", "W", "less"),
    "joules_per_token": Kind("energy for each output token", "J", "less"),
}
"""Every name that a figure may have. What is better "more" or "less" can be judged; the others only differ."""

REQUESTS, RATE, DEPTH, COLD, SWAP, MEMORY, ENERGY = "at once", "a second", "depth", "cold", "swap", "memory", "energy"
"""Parts: what was varied (`at` is its value), or what was looked at."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One thing measured of one subject. `values` has one for each run; without any, nothing told."""

    subject: str
    part: str
    at: float | None
    name: str  # one of KINDS
    values: tuple[float, ...]

    @property
    def key(self) -> tuple[str, str, float | None, str]:
        return self.subject, self.part, self.at, self.name

    @property
    def median(self) -> float:
        return median(self.values)

    @property
    def kind(self) -> Kind:
        return KINDS.get(self.name, Kind(self.name, "", ""))


def figure(subject: str, part: str, at: float | None, name: str, values: Iterable[float | None]) -> Figure:
    """With the values that are numbers."""
    return Figure(subject, part, at, name, tuple(v for v in values if v is not None and math.isfinite(v)))


def of_runs(subject: str, runs: Sequence[Run], *, tokens: int | None = None) -> list[Figure]:
    """Every figure of one load's runs. `tokens` is how many each answer should have had."""
    first = runs[0]
    part, at = (REQUESTS, float(first.level)) if first.rate is None else (RATE, first.rate)
    found: list[Figure] = []

    def add(name: str, of: Callable[[Run], float | None]) -> None:
        made = figure(subject, part, at, name, (of(run) for run in runs))
        if made.values:
            found.append(made)

    add("output_tokens_per_s", lambda run: run.tokens_per_s)
    add("total_tokens_per_s", _total)
    add("requests_per_s", lambda run: len(run.good) / run.took if run.took > 0 else None)
    for time in _TIMES:
        add(f"{time}_mean_ms", lambda run, time=time: mean(_ms(run, time)))  # type: ignore[misc]
        for part_, share in _PARTS.items():
            add(f"{time}_{part_}_ms", lambda run, time=time, share=share: quantile(_ms(run, time), share))  # type: ignore[misc]
    add("text_p50_ms", lambda run: median([(s.text - s.began) * 1000 for s in run.good if s.text is not None]))
    add("connect_p50_ms", lambda run: median([shot.connect * 1000 for shot in run.good]))
    add("failed", lambda run: float(len(run.shots) - len(run.good)))
    if tokens is not None:
        add("short", lambda run: float(sum(shot.tokens < tokens for shot in run.good)))
    add("prompt_tokens", lambda run: median([float(s.prompt) for s in run.good if s.prompt is not None]))
    add("cached_tokens", lambda run: median([float(s.cached) for s in run.good if s.cached is not None]))
    add("peak_requests", lambda run: float(run.peak))
    add("late_p95_ms", lambda run: None if run.late is None else run.late.p95_ms)
    add("late_busy", lambda run: None if run.late is None else run.late.busy)
    add("sent_late_p95_ms", lambda run: None if run.late is None else run.late.sent_p95_ms)
    return found


def _total(run: Run) -> float | None:
    if run.took <= 0 or any(shot.prompt is None for shot in run.good):
        return None
    return sum(shot.tokens + (shot.prompt or 0) for shot in run.good) / run.took


def _ms(run: Run, time: str) -> list[float]:
    """The times of one name, over all that went well."""
    if time == "itl":
        return [gap * 1000 for shot in run.good for gap in shot.gaps]
    return [value * 1000 for shot in run.good if (value := _time(shot, time)) is not None]


def _time(shot: Shot, time: str) -> float | None:
    return shot.ttft if time == "ttft" else shot.tpot if time == "tpot" else shot.latency
