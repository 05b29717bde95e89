"""The nearest valid word to a misspelt one."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest(word: str, valid: Iterable[str], *, cutoff: float = 0.5) -> str | None:
    """The one of `valid` that looks most like `word`, case ignored; None when nothing comes near."""
    folded = {each.casefold(): each for each in valid}
    found = difflib.get_close_matches(word[:200].casefold(), folded, n=1, cutoff=cutoff)
    return folded[found[0]] if found else None


def did_you_mean(word: str, valid: Iterable[str], otherwise: str = "") -> str:
    """A hint that names the nearest valid word, or `otherwise`."""
    near = nearest(word, valid)
    return f"did you mean `{near}`?" if near else otherwise
