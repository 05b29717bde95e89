"""Writes the tables of docs/dialects.md, from the dialects' own lists of routes: `python tools/dialects.py`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from corral.config.settings import Listen
from corral.errors import MethodNotAllowed, NotFound
from corral.gateway.app import build
from corral.gateway.dialects import openai_table
from corral.gateway.dialects.anthropic import table as anthropic_table
from corral.gateway.dialects.dialect import Said
from corral.gateway.dialects.docker import table as docker_table
from corral.gateway.dialects.docker.shapes import BACKENDS
from corral.gateway.dialects.llamacpp import table as llamacpp_table
from corral.gateway.dialects.ollama import table as ollama_table
from corral.gateway.routes import Route, Table

ROOT: Final = Path(__file__).parents[1]
PAGE: Final = ROOT / "docs" / "dialects.md"
ROWS: Final[Mapping[str, tuple[Said, ...]]] = {
    "openai": openai_table.ROUTES,
    "anthropic": anthropic_table.ROUTES,
    "ollama": ollama_table.ROUTES,
    "docker": docker_table.ROUTES,
    "llamacpp": llamacpp_table.ROUTES,
}
TITLES: Final = {
    "openai": "OpenAI",
    "anthropic": "Anthropic",
    "ollama": "Ollama",
    "docker": "Docker Model Runner",
    "llamacpp": "llama.cpp and llama-swap",
}
_METHODS: Final = ("POST", "GET", "DELETE", "PUT", "HEAD")
_VARIABLE: Final = re.compile(r"\{\w+\}|…")


class _Nobody:
    """Stands for everything that routes are made of and none of which is asked here."""

    def __getattr__(self, name: str) -> Any:
        return _Nobody()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return _Nobody()

    def __fspath__(self) -> str:
        return "."


def table(dialect: str | None = None) -> Table:
    """The routes of a listener that speaks `dialect`; nothing can be asked of them."""
    nobody: Any = _Nobody()
    routes = build(nobody, nobody, models=nobody, access=nobody)(where=Listen(dialect=dialect)).routes
    return Table(routes)


def samples(row: Said) -> Iterator[tuple[str, str]]:
    """Requests that `row` is about."""
    path = row.path.partition("?")[0]
    for method in _METHODS if row.method == "*" else (row.method,):
        for backend in BACKENDS if "{backend}" in path else ("",):
            yield method, _VARIABLE.sub("x", path.replace("{backend}", backend))


def found(routes: Table, method: str, path: str) -> Route | None:
    try:
        return routes.match(method, path).route
    except (NotFound, MethodNotAllowed):
        return None


def mounted(routes: Table, name: str, method: str, path: str) -> Route | None:
    """Who answers under the prefix of the dialect `name`."""
    route = found(routes, method, f"/{name}" if path == "/" else f"/{name}{path}")
    return route if route is not None and route.mount == f"/{name}" else None


def at_root(routes: Table, name: str, row: Said) -> bool:
    """Whether the same answers at the root of `routes`; another dialect's prefix is that dialect's own there."""
    for method, path in samples(row):
        if (own := mounted(routes, name, method, path)) is not None:
            root = found(routes, method, path)
            return root is not None and (_who(own) == _who(root) or root.mount.removeprefix("/") in ROWS)
    return any(found(routes, method, path) is not None for method, path in samples(row))


def _who(route: Route) -> object:
    """The same for all of one handler's, however often its object was made."""
    return getattr(route.handler, "__func__", None) or route.handler


def control() -> list[Route]:
    """Corral's own routes."""
    return [route for route in table().routes if route.doc is not None and not route.mount]


def tables() -> str:
    """All of them, in Markdown."""
    plain = table()
    parts = []
    for name, rows in ROWS.items():
        parts += [f"## {TITLES[name]}", "", f"Under `/{name}`, and at the root of an address with `dialect: {name}`."]
        parts += ["", "| route | how | to know | at any root | shown by |", "| --- | --- | --- | --- | --- |"]
        parts += [_line(row, at_root(plain, name, row)) for row in rows]
        parts.append("")
    parts += ["## Corral's own", "", "The same at the root of every address; [more of them](api.md#control).", ""]
    parts += ["| route | what it is |", "| --- | --- |"]
    parts += [f"| `{each.method} {each.path}` | {_cell(each.doc.summary)} |" for each in control() if each.doc]
    return "\n".join(parts)


def _line(row: Said, rooted: bool) -> str:
    method = "any" if row.method == "*" else row.method
    file = row.shown_by.partition("::")[0]
    link = f"[{Path(file).stem.removeprefix('test_')}](../{file})" if file else ""
    return f"| `{method} {row.path}` | {row.how} | {_cell(row.words)} | {'yes' if rooted else ''} | {link} |"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def updated(page: str) -> str:
    """`page` with its tables made anew."""
    block = f"<!-- routes -->\n{tables()}\n<!-- /routes -->"
    return re.sub(r"<!-- routes -->.*?<!-- /routes -->", lambda _: block, page, flags=re.DOTALL)


def main() -> None:
    PAGE.write_text(updated(PAGE.read_text(encoding="utf-8")), "utf-8")


if __name__ == "__main__":
    main()
