"""What the gateway sees of a running request, as plain counters: the supervisor reads them to judge an engine.

One event loop owns it all. A counter costs the gateway some tens of nanoseconds a chunk; no clock is read for it.
"""

from __future__ import annotations

import re
from collections.abc import Collection

from corral import clock

LEARN_EVERY_S = 1.0
"""How often an answer is looked at for the engine's own rates, per unit."""
ENOUGH_TOKENS = 16
"""Fewer say little about a rate."""

_TAIL_BYTES = 2048
_TIMINGS = re.compile(
    rb'(?:"cache_n":\s*(\d+),\s*)?"prompt_n":\s*(\d+),\s*"prompt_ms":\s*([0-9.eE+-]+)'
    rb'(?:[^{}]*?"predicted_n":\s*(\d+),\s*"predicted_ms":\s*([0-9.eE+-]+))?'
)


class Pulse:
    """One request at an engine. Whoever relays counts `chunks`, and says when it is the client that is slow."""

    __slots__ = ("after", "answered", "chunks", "held", "judged", "learns", "prompt_bytes", "stream", "unit")

    def __init__(self, unit: str, prompt_bytes: int, judged: bool, stream: bool) -> None:
        self.unit = unit
        self.prompt_bytes = prompt_bytes
        self.judged = judged  # it should make progress; what goes to an engine's own routes may last as it likes
        self.stream = stream  # each token is a chunk; a plain answer comes in one piece at its end
        self.learns = False  # the end of its answer is wanted for `Pulses.learn`
        self.chunks = 0  # pieces of the answer that came so far
        self.held = False  # the client takes no more for now
        self.answered = False  # the answer has come to its end
        self.after = 0  # requests that the engine had answered when this one was sent


class Rates:
    """How fast one engine reads prompts and writes answers, as it measured itself; None until it said so.

    A slower figure counts at once, a faster one little by little: a bound made of it errs on the patient side.
    """

    __slots__ = ("bytes_per_token", "learned_at", "prompt_per_s", "write_per_s")

    def __init__(self) -> None:
        self.bytes_per_token: float | None = None
        self.prompt_per_s: float | None = None
        self.write_per_s: float | None = None
        self.learned_at = float("-inf")

    def take(self, prompt_per_s: float | None, write_per_s: float | None) -> None:
        self.prompt_per_s = _towards(self.prompt_per_s, prompt_per_s)
        self.write_per_s = _towards(self.write_per_s, write_per_s)


class Traffic:
    """What goes to one unit: its running requests, how many gave an answer, what was streamed by those that are over,
    and the rates they taught."""

    __slots__ = ("answered", "rates", "running", "streamed")

    def __init__(self) -> None:
        self.running: set[Pulse] = set()
        self.answered = 0
        self.streamed = 0  # pieces
        self.rates = Rates()


class Pulses:
    """The traffic of every unit."""

    def __init__(self) -> None:
        self._by_unit: dict[str, Traffic] = {}

    def of(self, unit: str) -> Traffic:
        if (traffic := self._by_unit.get(unit)) is None:
            traffic = self._by_unit[unit] = Traffic()
        return traffic

    def begin(self, unit: str, prompt_bytes: int, *, judged: bool, stream: bool = False) -> Pulse:
        """A request of `prompt_bytes` goes to `unit` now."""
        pulse = Pulse(unit, prompt_bytes, judged, stream)
        self.begins(pulse, clock.monotonic())
        return pulse

    def begins(self, pulse: Pulse, now: float) -> None:
        """As `begin`, for who brings its own."""
        traffic = self._by_unit.get(pulse.unit) or self.of(pulse.unit)
        pulse.learns = pulse.judged and now - traffic.rates.learned_at > LEARN_EVERY_S
        pulse.after = traffic.answered
        traffic.running.add(pulse)

    def end(self, pulse: Pulse) -> None:
        """That request is over, however it ended."""
        if (traffic := self._by_unit.get(pulse.unit)) is not None:
            if pulse.stream and pulse in traffic.running:
                traffic.streamed += pulse.chunks
            traffic.running.discard(pulse)
            traffic.answered += pulse.answered

    def learn(self, pulse: Pulse, answer: bytes) -> None:
        """Takes the engine's own timings from the end of an answer. Nothing where there are none."""
        rates = self.of(pulse.unit).rates
        rates.learned_at = clock.monotonic()
        if (found := _TIMINGS.search(answer[-_TAIL_BYTES:])) is None:
            return
        rates.take(_rate(found[2], found[3]), _rate(found[4], found[5]))
        if (tokens := int(found[1] or 0) + int(found[2])) >= ENOUGH_TOKENS:
            rates.bytes_per_token = _towards(rates.bytes_per_token, pulse.prompt_bytes / tokens)

    def answered(self, unit: str) -> int:
        """How many of its requests have got an answer so far."""
        traffic = self._by_unit.get(unit)
        return 0 if traffic is None else traffic.answered

    def streamed(self) -> dict[str, int]:
        """How many pieces of streamed answers each unit has written so far."""
        return {
            unit: traffic.streamed + sum(pulse.chunks for pulse in traffic.running if pulse.stream)
            for unit, traffic in self._by_unit.items()
        }

    def keep(self, units: Collection[str]) -> None:
        """All others are gone; what still runs of their requests ends in its own time."""
        for unit in [name for name, traffic in self._by_unit.items() if name not in units and not traffic.running]:
            del self._by_unit[unit]


def _rate(tokens: bytes | None, ms: bytes | None) -> float | None:
    if tokens is None or ms is None or (count := int(tokens)) < ENOUGH_TOKENS:
        return None
    try:
        took_ms = float(ms)
    except ValueError:
        return None
    return count / took_ms * 1000 if took_ms > 0 else None


def _towards(old: float | None, new: float | None) -> float | None:
    if new is None or old is None:
        return old if new is None else new
    return new if new < old else old + 0.1 * (new - old)
