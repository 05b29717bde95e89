"""Which routes a listener offers: Corral's own and OpenAI's at once, every other dialect's when first asked for.

A dialect's routes are under their root paths and, always, under its prefix. Where two want the same root path, the
listener's own dialect has it, then Corral itself, then the first in `ORDER`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from corral.gateway.answer import CONTROL
from corral.gateway.routes import Route, Table

ORDER = ("openai", "anthropic", "ollama", "docker", "llamacpp")
"""The dialects; of OpenAI's, what is seldom asked for."""

Groups = Mapping[str, Callable[[], Iterable[Route]]]
"""What makes each dialect's routes; called at most once for each listener's dialect, in any thread."""


def mounted(prefix: str, routes: Iterable[Route]) -> list[Route]:
    """`routes` under `prefix`; their handlers see the paths without it. What is at the root is there with and without
    the last slash."""
    return [
        replace(
            route,
            path=prefix + path,
            mount=prefix + route.mount,
            direct=False,  # an engine does not know the prefix
        )
        for route in routes
        for path in (("", "/") if route.path == "/" else (route.path,))
    ]


def table(
    own: Iterable[Route],
    late: Callable[[], Iterable[Route]],
    groups: Groups,
    dialect: str | None,
    page: Iterable[Route] = (),
) -> Table:
    """The table of a listener that speaks `dialect` at its root (None: OpenAI's). `page` comes before what the dialect
    has at the same paths; a listener without a dialect of its own has none."""
    first = [replace(each, dialect=CONTROL) if each.path.startswith("/control") else each for each in own]

    def further() -> list[Route]:
        made = {name: list(groups[name]()) for name in ORDER if name in groups}
        others = [route for name in made if name != dialect for route in made[name]]
        under = [route for name in made for route in mounted(f"/{name}", made[name])]
        rest = [replace(each, dialect=CONTROL) for each in late()]
        late_ones = [*rest, *others, *under]
        return [*page, *made[dialect], *first, *late_ones] if dialect in made else late_ones

    return Table((), late=further) if dialect in groups else Table(first, late=further)
