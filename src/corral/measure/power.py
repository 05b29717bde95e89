"""What devices draw while something is measured: sampled in a thread, added up over time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Final, Self

EVERY_S: Final = 1.0
Read = Callable[[], Mapping[str, float | None]]
"""Watts by device; none where it does not say."""


class Power:
    """Samples from entering to leaving. Where no device tells its power, nothing runs."""

    def __init__(self, read: Read, every_s: float = EVERY_S) -> None:
        self._read, self._every_s = read, every_s
        self.samples: list[tuple[float, float]] = []  # when, and the sum of what devices told
        self.devices: list[str] = []
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        self._look()
        if self.devices:
            self._thread = threading.Thread(target=self._go_on, name="power", daemon=True)
            self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._over.set()
        if self._thread is not None:
            self._thread.join()
            self._look()

    def _go_on(self) -> None:
        while not self._over.wait(self._every_s):
            self._look()

    def _look(self) -> None:
        told = {name: watts for name, watts in self._read().items() if watts is not None}
        if told:
            self.devices = sorted({*self.devices, *told})
            self.samples.append((time.perf_counter(), sum(told.values())))

    @property
    def joules(self) -> float | None:
        """Of all devices together, what they draw when idle included; None where nobody told."""
        return joules(self.samples)

    @property
    def watts(self) -> float | None:
        """On average."""
        took = self.samples[-1][0] - self.samples[0][0] if self.samples else 0.0
        energy = self.joules
        return None if energy is None or took <= 0 else energy / took


def joules(samples: Sequence[tuple[float, float]]) -> float | None:
    """The area below samples of (seconds, watts), straight lines between them; None with fewer than two."""
    if len(samples) < 2:
        return None
    return sum((then - at) * (watts + later) / 2 for (at, watts), (then, later) in pairwise(samples))
