"""The detector's own flags: what its plan passes, and what `args` of a model may have."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any, Final

from corral.errors import EngineFlagError
from corral.lazy_dataclass import dataclass

CONFIDENCE_VARIABLE: Final = "RTDETR_CONFIDENCE"
"""The environment variable that people use already for the least score of what is told."""

FREE: Final = ("--threads", "--max-batch", "--window-ms", "--max-pixels", "--device", "--stuck-s")
"""What `args` of a model may set; the rest is the plan's own affair."""


@dataclass(frozen=True, slots=True)
class Flags:
    """Every flag by its name with `_` for `-`."""

    model: str = ""  # the ONNX file
    folder: str = ""  # config.json and preprocessor_config.json
    host: str = ""  # a socket's path, or an address
    port: int = 0
    alias: str = ""  # what it is called in answers
    provider: str = "cpu"
    device: int = 0  # of several GPUs, which one
    threads: int = 0  # 0 = as many as there are processors for this process
    max_batch: int = 8
    window_ms: float = 4.0  # how long the first picture of a batch waits for others
    max_pixels: int = 64_000_000
    max_body: int = 1 << 30  # bytes of a request
    confidence: float = 0.5  # the least score, where a request does not say
    stuck_s: float = 300.0  # a batch that takes longer ends the engine
    export_with: str = ""  # a Python that makes the ONNX file when it is not there


_BOUNDS: Final = {
    "port": (0, 65535),
    "device": (0, 63),
    "threads": (0, 1024),
    "max_batch": (1, 256),
    "window_ms": (0, 1000),
    "max_pixels": (1024, 1_000_000_000),
    "max_body": (1024, 1 << 40),
    "confidence": (0, 1),
    "stuck_s": (0.001, 86400),
}
_KINDS: Final[dict[str, type]] = {each.name: type(each.default) for each in fields(Flags)}


def parse(argv: Sequence[str], allowed: Sequence[str] | None = None) -> Flags:
    """`argv` as flags; the last of two alike counts. With `allowed`, others are refused. Raises EngineFlagError."""
    found: dict[str, Any] = {}
    words = iter(argv)
    for word in words:
        flag, equals, value = word.partition("=")
        name = flag.removeprefix("--").replace("-", "_")
        if not flag.startswith("--") or name not in _KINDS or (allowed is not None and flag not in allowed):
            known = ", ".join(FREE if allowed is None else allowed)
            raise EngineFlagError(f"the detector does not know {word[:80]!r}", hint=f"its flags are {known}", flag=flag)
        if not equals and (value := next(words, "")) == "":
            raise EngineFlagError(f"{flag} needs a value", hint=f"write {flag} VALUE", flag=flag)
        found[name] = _value(flag, name, value)
    return replace(Flags(), **found)


def confidence_in(text: str, where: str) -> float:
    """The least score that `text` says. Raises EngineFlagError, naming `where` it was found."""
    try:
        found = float(text)
    except ValueError:
        found = math.nan
    if not 0 <= found <= 1:
        raise EngineFlagError(f"{where} must be from 0 to 1, not {text[:40]!r}", hint="0.5 is usual", flag=where)
    return found


def _value(flag: str, name: str, text: str) -> Any:
    kind = _KINDS[name]
    if kind is str:
        return text
    try:
        found = kind(text)
    except ValueError:
        found = math.nan
    least, most = _BOUNDS[name]
    if not least <= found <= most:
        hint = f"give it a {'whole ' if kind is int else ''}number from {least} to {most}"
        raise EngineFlagError(f"{flag} cannot be {text[:40]!r}", hint=hint, flag=flag)
    return found
