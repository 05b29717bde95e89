"""docs/api.md says what the server does."""

from __future__ import annotations

from pathlib import Path

import corral.errors
from corral.gateway.api.inference import INFERENCE_PATHS
from corral.gateway.app import build
from gateway.stable import Stable

PAGE = Path(__file__).parents[2] / "docs" / "api.md"


async def test_every_route_is_in_the_page(stable: Stable) -> None:
    """Each of Corral's and OpenAI's routes, by its path; docs/dialects.md has the other dialects'."""
    text = PAGE.read_text()
    table = build(stable, stable)(None).routes
    routes = [each for each in table if not each.mount and each.dialect.name in ("control", "openai")]
    assert len(routes) > len(INFERENCE_PATHS)
    missing = [route.path for route in routes if f"{route.path.removesuffix('{model}')}" not in text]
    assert missing == []


def test_every_error_of_a_request_is_in_the_page() -> None:
    """Each code that a route can answer with."""
    text = PAGE.read_text()
    not_answered = {"internal", "state_in_use", "unreachable", "registry", "config", "port_in_use"}
    codes = {
        kind.code
        for kind in vars(corral.errors).values()
        if isinstance(kind, type) and issubclass(kind, corral.errors.CorralError)
    }
    assert {code for code in codes - not_answered if f"`{code}`" not in text} == set()
