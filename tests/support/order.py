"""The order in which tests that last run beside each other. Pure.

pytest-xdist (`--dist worksteal`) gives each worker a stretch of the list, and what one has left over when others are
done is taken from its end. Tests of a minute that stand side by side are all one worker's until then, and wait for each
other.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence


def spread(lasts_s: Sequence[float], groups: Sequence[Hashable], workers: int) -> list[int]:
    """Places in a new order: those that last (by their seconds; 0 = the others) are at the front of each worker's
    stretch, the longest first, dealt out so that all workers have about as much. Those of one group stay together."""
    piles: list[list[int]] = [[] for _ in range(workers)]
    loads = [0.0] * workers
    together: dict[Hashable, list[int]] = {}
    for place, seconds in enumerate(lasts_s):
        if seconds > 0:
            together.setdefault(groups[place], []).append(place)
    for members in sorted(together.values(), key=lambda each: -sum(lasts_s[place] for place in each)):
        least = loads.index(min(loads))
        piles[least] += members
        loads[least] += sum(lasts_s[place] for place in members)
    others = [place for place, seconds in enumerate(lasts_s) if seconds <= 0]
    order: list[int] = []
    left = len(lasts_s)
    for number, pile in enumerate(piles):
        size = max(len(pile), left // (workers - number))
        taken = size - len(pile)
        order += [*pile, *others[:taken]]
        others, left = others[taken:], left - size
    return order
