"""How much counters grew, in PromQL, without losing what a series is born with. Pure.

Prometheus's `increase` of a series whose first sample is 200 is 0: it does not know that there was nothing before. That
is known where the server was scraped then and told of no such series: so the whole value of a series that was not
there counts as grown.
"""

from __future__ import annotations

from typing import Final

JOB: Final = "corral"


def grown(series: str, window: str, before: str | None = None) -> str:
    """By how much each of the counters `series` grew in `window`. `before`: how long ago a new one must not have been
    there; `window` unless given."""
    before = before or window
    return (
        f'(({series} unless {series} offset {before}) and on (instance) (up{{job="{JOB}"}} offset {before} == 1)\n'
        f"    or increase({series}[{window}]))"
    )


def grown_in(series: str, minutes: int) -> str:
    """The same for rules. A new series counts for a minute longer: a burst must not fall between the last look at it
    as new and the first that has an increase."""
    return grown(series, f"{minutes}m", f"{minutes + 1}m")
