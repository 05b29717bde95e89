"""How long a unit that failed is left alone. Pure."""

from __future__ import annotations

FIRST_S = 0.1
"""So short because whoever waits should not notice a want that is over by then; longer ones last anyhow."""

LONGEST_S = 30.0
GIVE_UP_AFTER = 6
"""Failures in a row after which the unit counts as failed rather than backing off."""


def wait_s(failures: int, jitter: float = 0.0) -> float:
    """Seconds before try number `failures` + 1; three times as long each time, up to `LONGEST_S`.

    `jitter` in [0, 1) stretches it by up to a quarter, so that units which failed together do not return together.
    """
    if failures <= 0:
        return 0.0
    return min(LONGEST_S, FIRST_S * 3.0 ** min(failures - 1, 16)) * (1 + jitter / 4)


def gave_up(failures: int) -> bool:
    return failures >= GIVE_UP_AFTER
