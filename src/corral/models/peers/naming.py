"""What a model found outside is called in the store: as it would be pulled, where that is known."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace

from corral.errors import BadReference
from corral.refs import Ref
from corral.refs_parse import parse_ref

_NOT_IN_NAMES = re.compile(r"[^a-z0-9._-]+")
_RUNS = re.compile(r"[._-]{2,}")


def pulled_as(text: str, otherwise: Ref) -> Ref:
    """The reference that `text` is; `otherwise` when it is none that could be pulled."""
    try:
        ref = parse_ref(text)
    except BadReference:
        return otherwise
    if ref.kind == "hf" and ref.tag.lower() == "latest":  # others' word for "whatever is the default there"
        return replace(ref, tag="")
    return ref if ref.kind in ("oci", "ollama", "hf") else otherwise


def local_ref(holder: str, parts: Iterable[str], tag: str = "") -> Ref:
    """A name for what has none of its own: `localhost/<holder>/<parts>:<tag>`, in the letters that registries allow."""
    kept = [word for part in parts if (word := plain_word(part))]
    return Ref("oci", "localhost", "/".join([holder, *kept])[:200].strip("/._-"), plain_word(tag)[:128] or "latest")


def plain_word(text: str) -> str:
    """`text` in the letters that a registry's names may have; "" when nothing is left of it."""
    word = _NOT_IN_NAMES.sub("-", text.lower())
    return _RUNS.sub(lambda match: match[0][0], word).strip("._-")
