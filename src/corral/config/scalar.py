"""What an unquoted YAML word means, and how to name a value in a sentence.

Source: the core schema of YAML 1.2.2 (section 10.3.2), so that `no` and `on` are words and `12:30` is no number.
"""

from __future__ import annotations

import re
from typing import Any

_INT = re.compile(r"[-+]?[0-9]{1,30}|0o[0-7]{1,30}|0x[0-9a-fA-F]{1,30}")
_FLOAT = re.compile(r"[-+]?(\.[0-9]{1,30}|[0-9]{1,30}(\.[0-9]{0,30})?)([eE][-+]?[0-9]{1,4})?")
_WORDS: dict[str, Any] = {
    "": None, "~": None, "null": None, "Null": None, "NULL": None,
    "true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False,
}  # fmt: skip


def read_scalar(text: str) -> bool | int | float | str | None:
    """The value of the plain (unquoted) scalar `text`."""
    if text in _WORDS:
        value: bool | None = _WORDS[text]
        return value
    if _INT.fullmatch(text):
        return int(text, 0) if text[:2] in ("0o", "0x") else int(text)
    return float(text) if _FLOAT.fullmatch(text) else text


def in_words(value: object) -> str:
    """`value` as it may stand in "…, not X"."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return str(value)
    if isinstance(value, str):
        return f"the text {shorten(value)!r}"
    return "a mapping of keys to values" if isinstance(value, dict) else "a list"


def shorten(text: str, longest: int = 80) -> str:
    """`text`, cut with an ellipsis when it is longer than an error message wants."""
    return text if len(text) <= longest else text[: longest - 1] + "…"
