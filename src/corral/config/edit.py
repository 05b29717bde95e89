"""Writing one key into a models.yaml as people wrote it: every other line stays, comments too. Pure."""

from __future__ import annotations

from typing import Any

import yaml

from corral.config.document import Document, parse_document

_TOO_CLEVER = "write it into the file yourself"


def with_key(text: str, name: str, value: Any) -> str:
    """`text` with the global key `name` set to `value`, a list of texts and mappings. Raises ValueError when the file
    is written in a way in which that cannot be done line by line."""
    before = parse_document(text, "models.yaml")
    if before.problems or not isinstance(before.data, dict | None):
        raise ValueError("the file has problems of its own: see `corral config check`")
    lines = text.splitlines(keepends=True)
    if lines and not lines[-1].endswith("\n"):
        lines[-1] += "\n"
    block = _block(name, value)
    at, end = _span(before, lines, name)
    made = "".join([*lines[:at], *block, *lines[end:]])
    after = parse_document(made, "models.yaml")
    if after.problems or after.data != {**(before.data or {}), name: value}:
        raise ValueError(f"`{name}` cannot be set in this file line by line: {_TOO_CLEVER}")
    return made


def _block(name: str, value: Any) -> list[str]:
    lines = [f"{name}:\n"]
    for each in value:
        flow = yaml.safe_dump(each, default_flow_style=True, width=1 << 30, allow_unicode=True, sort_keys=False)
        lines.append(f"  - {flow.removesuffix(chr(10)).removesuffix('...').rstrip()}\n")
    return lines


def _span(document: Document, lines: list[str], name: str) -> tuple[int, int]:
    """Lines of the key as it stands, or the place for it: before the first key."""
    place = document.places.get((name,))
    if place is None or place.line is None:
        first = min((each.line for key, each in document.places.items() if len(key) == 1 and each.line), default=None)
        at = len(lines) if first is None else first - 1
        return at, at
    end = place.line  # the line after the key's own
    while end < len(lines) and (not lines[end].strip() or lines[end][0] in " \t#" or lines[end].startswith("- ")):
        end += 1
    while end > place.line and (not lines[end - 1].strip() or lines[end - 1].lstrip().startswith("#")):
        end -= 1  # what stands before the next key belongs to that
    return place.line - 1, end
