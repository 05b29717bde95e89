"""The embedded host's exit codes: what ended it, for whoever reads its exit status."""

from __future__ import annotations

FLAG = 64
MODEL_FILE = 66
LIBRARY = 69
REFUSED = 70
DEVICE = 71
ADDRESS = 75

IN_WORDS = {
    FLAG: "wrong flag",
    MODEL_FILE: "bad model file",
    LIBRARY: "the embedded engine cannot be loaded",
    DEVICE: "the GPU cannot be used",
    REFUSED: "the engine refused the model or its settings",
    ADDRESS: "address in use or not usable",
}
"""Exit code → reason in words. The numbers are BSD's sysexits where one fits."""
