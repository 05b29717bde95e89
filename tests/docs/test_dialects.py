"""docs/dialects.md is what the gateway does, row by row and route by route."""

from __future__ import annotations

import ast
import importlib.util
import re
from collections import Counter
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from support import reference_routes

ROOT = Path(__file__).parents[2]


def _tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("tools_dialects", ROOT / "tools" / "dialects.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


TOOL = _tool()
_VARIABLE = re.compile(r"\{\w+\}")
ROWS = [pytest.param(name, row, id=f"{name} {row.method} {row.path}") for name in TOOL.ROWS for row in TOOL.ROWS[name]]


@cache
def table(dialect: str | None) -> Any:
    return TOOL.table(dialect)


def test_the_page_is_current() -> None:
    """`python tools/dialects.py` makes it so."""
    page = TOOL.PAGE.read_text(encoding="utf-8")
    assert TOOL.updated(page) == page, "run: python tools/dialects.py"


@pytest.mark.parametrize("name", TOOL.ROWS)
def test_every_route_is_a_row(name: str) -> None:
    """Each route of each dialect is in its list, and none is there twice."""
    rows = TOOL.ROWS[name]
    hit = {
        (route.method, route.path)
        for row in rows
        for method, path in TOOL.samples(row)
        if (route := TOOL.mounted(table(None), name, method, path)) is not None
    }
    routes = {(route.method, route.path) for route in table(None).routes if route.mount == f"/{name}"}
    routes -= {("GET", f"/{name}/")}  # the same as without the slash
    assert routes - hit == set()
    assert [key for key, count in Counter((row.method, row.path) for row in rows).items() if count > 1] == []


@pytest.mark.parametrize("name", TOOL.ROWS)
def test_the_routes_of_the_references_are_rows(name: str) -> None:
    """Whatever a peer lists itself has a row, and is answered: a row that is forgotten is missed."""
    rows = [(row.method, re.compile(_pattern(row.path))) for row in TOOL.ROWS[name]]
    listed = {(method, _VARIABLE.sub("x", path)): path for method, path in reference_routes.routes(name)}
    missing = [
        f"{method} {listed[method, path]}"
        for method, path in listed
        if not any(each in ("*", method) and pattern.fullmatch(path) for each, pattern in rows)
    ]
    assert missing == []
    only = {row.path for row in TOOL.ROWS[name] if "at the root only" in row.words}
    unanswered = [
        f"{method} {listed[method, path]}"
        for method, path in listed
        if listed[method, path] not in only and TOOL.mounted(table(None), name, method, path) is None
    ]
    assert unanswered == []


def test_the_lists_of_the_references_are_whole() -> None:
    """Every dialect has one, and it is read as it is meant."""
    assert set(reference_routes.LISTS) == set(TOOL.ROWS)
    ollama = list(reference_routes.routes("ollama"))
    assert {("HEAD", "/"), ("POST", "/api/embed"), ("GET", "/v1/models/{model}")} <= set(ollama)
    assert all(
        path.startswith("/") and "," not in path for name in TOOL.ROWS for _, path in reference_routes.routes(name)
    )


def _pattern(path: str) -> str:
    path = re.escape(path.partition("?")[0]).replace(r"\{backend\}", f"(?:{'|'.join(TOOL.BACKENDS)})")
    return re.sub(r"\\\{\w+\\\}|…", ".+", path)


@pytest.mark.parametrize(("name", "row"), ROWS)
def test_every_row_is_a_route(name: str, row: Any) -> None:
    """Each is answered under the dialect's prefix, by the same at the root of an address that speaks it, and has a test
    that is there."""
    answered = [TOOL.mounted(table(None), name, method, path) for method, path in TOOL.samples(row)]
    assert any(route is not None for route in answered) or "at the root only" in row.words
    assert TOOL.at_root(table(None if name == "openai" else name), name, row)
    file, _, test = row.shown_by.partition("::")
    assert test in _tests(file), f"{row.shown_by or 'no test'} is not there"
    assert row.how != "refused" or row.words


@cache
def _tests(file: str) -> set[str]:
    if not file or not (ROOT / file).is_file():
        return set()
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    return {each.name for each in tree.body if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef)}
