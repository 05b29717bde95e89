"""The page about sources says what the code does."""

from __future__ import annotations

import re
from pathlib import Path

from corral.registry.quants import DEFAULT_ORDER

PAGE = Path(__file__).resolve().parents[2] / "docs" / "sources.md"


def test_order_of_defaults_on_the_page_is_the_one_in_the_code() -> None:
    """docs/sources.md lists the quantizations in the order in which they are taken."""
    match = re.search(r"<!-- quants -->(.*)<!-- /quants -->", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert match is not None
    assert tuple(re.findall(r"[A-Z0-9_]+", match[1])) == DEFAULT_ORDER
