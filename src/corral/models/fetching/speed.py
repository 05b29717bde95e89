"""How fast something goes on, evened out over the last few seconds."""

from __future__ import annotations

from collections import deque

WINDOW_S = 5.0


class Speed:
    """Bytes per second from looks at a growing count."""

    def __init__(self) -> None:
        self._looks: deque[tuple[float, int]] = deque()

    def look(self, now: float, count: int) -> None:
        """Says that the count is `count` at the monotonic time `now`. A smaller count than before starts anew."""
        if self._looks and count < self._looks[-1][1]:
            self._looks.clear()
        self._looks.append((now, count))
        while len(self._looks) > 2 and now - self._looks[1][0] >= WINDOW_S:
            self._looks.popleft()

    @property
    def bytes_per_s(self) -> float | None:
        """None before there are two looks."""
        if len(self._looks) < 2:
            return None
        (first_s, first), (last_s, last) = self._looks[0], self._looks[-1]
        return (last - first) / (last_s - first_s) if last_s > first_s else None
