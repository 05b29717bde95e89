"""What containers are called, and how they are known to be ours. Pure."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

STATE: Final = "io.corral.state"
UNIT: Final = "io.corral.unit"
VERSION: Final = "io.corral.version"

_PLAIN = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*")
_REFERENCE = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9._:/@-]{0,254}")


def state_id(state_dir: bytes) -> str:
    """Which Corral a container belongs to: one for each state directory."""
    return hashlib.sha256(state_dir).hexdigest()[:8]


def container_name(state: str, unit: str) -> str:
    """`corral-<state id>-<unit>`, where a unit's name can be one; else readable, and distinct by its hash."""
    if len(unit) <= 60 and _PLAIN.fullmatch(unit):
        return f"corral-{state}-{unit}"
    model, _, generation = unit.rpartition(".")
    plain = re.sub(r"[^a-zA-Z0-9_-]+", "-", model)[:24].strip("-")
    return f"corral-{state}-{plain or 'unit'}-{hashlib.sha256(model.encode()).hexdigest()[:8]}.{generation}"


def labels(state: str, unit: str, version: str) -> Mapping[str, str]:
    return MappingProxyType({STATE: state, UNIT: unit, VERSION: version})


def is_reference(text: str) -> bool:
    """Whether `text` can name an image: nothing that a command line would take for an option."""
    return _REFERENCE.fullmatch(text) is not None
