"""Whether engines may be born in a nursery, and what the warden is told to start for one."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

from corral.config.settings import ModelSettings
from corral.engines import embedded_host, executables
from corral.errors import EngineError


def wanted(models: Iterable[ModelSettings]) -> bool:
    """Whether one of `models` will run on the embedded engine. Looks at PATH."""
    kinds = {model.executable for model in models if model.sandbox == "off" and model.runner == "process"}
    return "embedded" in kinds or ("auto" in kinds and executables.on_path() is None)


def why_not() -> str:
    """Why there can be no nursery here, in words; empty when there can. Blocks: the engine may have to be asked."""
    if not sys.platform.startswith("linux"):
        return "only Linux hands orphans to the warden"
    try:
        found = executables.devices(executables.embedded())
    except EngineError as error:
        return error.message
    return f"the embedded engine uses a GPU ({found[0]}), which does not survive a fork" if found else ""


def command() -> list[str]:
    """The argv of a nursery, but for the descriptor that the warden adds."""
    return [sys.executable, "-I", str(Path(__file__).with_name("nursery_program.py").resolve())]


def stands_for() -> list[str]:
    """How the argv of each engine begins that can be born in it."""
    return list(embedded_host.command())
