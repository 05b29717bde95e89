"""The lock of the detector's image: of requirements/vision.txt, what the detector itself imports."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TARGET = ROOT / "src" / "corral" / "images" / "files" / "detector" / "requirements.txt"
DETECTOR = ("flatbuffers", "httptools", "numpy", "onnxruntime", "packaging", "pillow", "protobuf")
"""What `corral.detector` imports, and what that asks for. Corral itself needs more, but not in there."""


def write_detector_lock() -> None:
    """Raises KeyError for a name that the lock does not have."""
    text = (ROOT / "requirements" / "vision.txt").read_text()
    parts = ["# Of requirements/vision.txt, what the detector itself imports. Made by `make lock`; do not edit.\n"]
    for name in DETECTOR:
        found = re.search(rf"^{name}==(?:.*\\\n)+.*\n", text, re.MULTILINE)
        if found is None:
            raise KeyError(f"requirements/vision.txt does not have {name}")
        parts.append(found[0])
    TARGET.write_text("".join(parts))
