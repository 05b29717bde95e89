"""Where the demo model's file lies."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Final

from corral.errors import ModelFileError

DEMO_SOURCE: Final = "builtin:demo"
DEMO_FILE: Final = "corral-demo.gguf"


def demo_model() -> Path:
    """The path of the demo model. It is read where it was installed and never copied.

    Raises ModelFileError when Corral was installed without it, or inside an archive that an engine cannot read.
    """
    resource = files("corral.demo") / DEMO_FILE
    if isinstance(resource, Path) and resource.is_file():
        return resource
    hint = "Install Corral again, as plain files and not as a zip."
    raise ModelFileError(f"the demo model {DEMO_FILE} is not where it was installed", hint=hint, reason="missing")
