"""The page about engines says what the code does."""

from __future__ import annotations

from pathlib import Path

import pytest

from corral.engines import exits, flag_page
from corral.engines.flag_table import ABSENT, FLAGS, REFUSED

PAGE = Path(__file__).parents[2] / "docs" / "engines.md"


def test_is_current() -> None:
    """The tables of flags in docs/engines.md are those of the code; `corral.engines.flag_page` writes them."""
    page = PAGE.read_text(encoding="utf-8")
    assert flag_page.rewritten(page) == page


def test_names_everything() -> None:
    """Each flag's every spelling, and each exit code of the embedded engine, is on the page."""
    page = PAGE.read_text(encoding="utf-8")
    spellings = [name for flag in FLAGS for name in (*flag.names, *flag.off)]
    assert [name for name in [*spellings, *ABSENT, *REFUSED] if f"`{name}" not in page] == []
    assert [code for code in exits.IN_WORDS if f"{code} " not in page] == []


def test_needs_its_markers() -> None:
    """A page without the markers is refused rather than written over."""
    with pytest.raises(ValueError, match="lacks"):
        flag_page.rewritten("# Engines\n")
