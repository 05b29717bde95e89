"""`Fold`: records of requests in, sums and what the last minutes were like out. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Protocol

from corral.lazy_dataclass import dataclass
from corral.metrics.catalogue import REASONS, STATUSES
from corral.metrics.recent import Recent
from corral.metrics.record import Record
from corral.metrics.sums import OTHER, Few, Sums

MOST_MODELS: Final = 1000
MOST_KEYS: Final = 100
MOST_CODES: Final = 100
MOST_BEGUN: Final = 200
"""Models of which every reason is shown before anything happened: of thousands it would be much text about nothing."""
NO_KEY: Final = "none"
"""What requests that needed no key are counted under."""
LEFT: Final = "left"
"""The outcome of a request whose client went."""

_DIALECTS: Final = frozenset(("openai", "anthropic", "ollama", "docker", "llamacpp", "control"))


class Counted(Protocol):
    """What an engine said that an answer took, in tokens."""

    @property
    def prompt(self) -> int: ...

    @property
    def completion(self) -> int: ...

    @property
    def cached(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Knows:
    """What whoever folds knows of names, and of the ends of answers."""

    model: Callable[[str], bool]  # whether it is configured or stored
    key: Callable[[str], str]  # the name of the key with this id; the id where there is none
    usage: Callable[[bytes], Counted | None]  # what the last bytes of an answer say


class Fold:
    """Adds up. Whatever a client sends, there are never more than so many series: see `Few`."""

    def __init__(self, knows: Knows, sums: Sums) -> None:
        self._knows, self._sums = knows, sums
        self._models, self._codes = Few(MOST_MODELS, (OTHER,)), Few(MOST_CODES, (OTHER,))
        self._keys = Few(MOST_KEYS, (OTHER, NO_KEY))
        self._begun: set[str] = set()
        self._asked: set[tuple[str, str, str]] = set()
        self.all = Recent()
        self.by_unit: dict[str, Recent] = {}
        self.ended = 0  # requests so far
        self.whole_tokens: dict[str, int] = {}  # by unit, of answers that came in one piece, since they were last taken

    def model(self, name: str) -> str:
        """The value of the label for a model or one of its units."""
        name = name.partition("~")[0]
        return self._models(name) if self._knows.model(name) else OTHER

    def key(self, key_id: str) -> str:
        """The value of the label for a key."""
        return self._keys(self._knows.key(key_id)) if key_id else NO_KEY

    def of_unit(self, unit: str) -> Recent:
        """The last minutes of a unit, by its own name."""
        found = self.by_unit.get(unit)
        if found is None:
            if len(self.by_unit) >= 2 * MOST_MODELS:  # guests that came and went
                self.by_unit.clear()
            found = self.by_unit[unit] = Recent()
        return found

    def take(self, records: Sequence[Record]) -> None:
        for record in records:
            self._take(record)

    def begin(self, model: str) -> None:
        """Has the counters of a configured model be there, at nothing, before its first request."""
        if (label := self.model(model)) in self._begun:
            return
        self._begun.add(label)
        for name in (
            "corral_prompt_tokens_total", "corral_completion_tokens_total", "corral_cached_tokens_total",
            "corral_requests_left_total", "corral_engine_scrape_errors_total",
        ):  # fmt: skip
            self._sums.count(name, (label,), 0)
        if len(self._begun) > MOST_BEGUN:
            return
        for name, reasons in REASONS.items():
            for reason in reasons:
                self._sums.count(name, (label, reason), 0)

    def _take(self, record: Record) -> None:
        sums, model = self._sums, self.model(record.model)
        of_model = (model,)
        dialect = record.dialect if record.dialect in _DIALECTS else OTHER
        status = str(record.status) if 100 <= record.status <= 599 else OTHER
        asked = (model, dialect, key := self.key(record.key))
        if asked not in self._asked:
            self._asked.add(asked)
            for each in STATUSES:
                sums.count("corral_requests_total", (model, dialect, each, key), 0)
        sums.count("corral_requests_total", (model, dialect, status, key))
        failed = record.outcome not in ("", LEFT)
        if failed:
            sums.count("corral_request_errors_total", (model, self._codes(record.outcome)))
        elif record.outcome == LEFT:
            sums.count("corral_requests_left_total", of_model)
        for number, why in enumerate(record.lost):
            name = "corral_retries_total" if number < record.retries else "corral_resumes_total"
            sums.count(name, (model, why))
        self.ended += 1
        if record.granted is None:
            return
        sums.observe("corral_queue_seconds", of_model, max(0.0, record.granted - record.began))
        sums.observe("corral_request_seconds", of_model, max(0.0, record.ended - record.began))
        self._answered(record, of_model, failed)

    def _answered(self, record: Record, of_model: tuple[str], failed: bool) -> None:
        """What is to be said of an answer that an engine gave, or began to give."""
        sums, usage = self._sums, self._knows.usage(record.end)
        unit = record.unit.rpartition(".")[0] or record.unit
        recents = (self.all, self.of_unit(unit)) if unit else (self.all,)
        tokens = record.chunks
        if usage is not None:
            tokens = usage.completion
            sums.count("corral_prompt_tokens_total", of_model, usage.prompt)
            sums.count("corral_completion_tokens_total", of_model, usage.completion)
            sums.count("corral_cached_tokens_total", of_model, usage.cached)
        for recent in recents:
            recent.requests += 1
            recent.errors += failed
            if usage is not None:
                recent.fills.add(record.ended, usage.prompt + usage.completion)
        if not record.stream:
            if usage is not None and unit:
                self.whole_tokens[unit] = self.whole_tokens.get(unit, 0) + usage.completion
            return
        if record.first is None:
            return
        first_s = max(0.0, record.first - record.began)
        sums.observe("corral_time_to_first_token_seconds", of_model, first_s)
        for recent in recents:
            recent.first_tokens.add(record.ended, first_s)
        if tokens > 1:
            gap_s = max(0.0, record.ended - record.first) / (tokens - 1)
            sums.observe("corral_inter_token_seconds", of_model, gap_s, tokens - 1)
