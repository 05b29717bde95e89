"""Which model names there can be. Pure."""

from __future__ import annotations

import re

MAX_LENGTH = 200
_ALLOWED = re.compile(r"[A-Za-z0-9._:/@-]+")


def name_fault(name: str) -> str | None:
    """What is wrong with `name` as a model's name or alias, as the rest of a sentence; None when nothing is.

    Names appear in URLs, file names, metrics and terminals, hence ASCII without blanks, and no path that climbs.
    """
    if not name:
        return "is empty"
    if len(name) > MAX_LENGTH:
        return f"is longer than {MAX_LENGTH} characters"
    if not _ALLOWED.fullmatch(name):
        bad = next(char for char in name if not _ALLOWED.fullmatch(char))
        shown = repr(bad) if bad.isprintable() and not bad.isspace() else f"U+{ord(bad):04X}"
        return f"contains {shown}; letters, digits and ._-:/@ are allowed"
    if name[0] in "/-":
        return f"begins with {name[0]!r}"
    segments = name.split("/")
    if "" in segments:
        return "has an empty part between slashes"
    if "." in segments or ".." in segments:
        return "has a part that is only dots"
    return None
