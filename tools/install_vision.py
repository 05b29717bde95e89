"""`make vision`: torch and transformers in an environment of their own, in the user's cache directory, once.

The tests of the tier `vision` compare the detector with them; tools/train_detector trains with them. Beside it stand
what `corral engine install detector-export` makes, for the tests' servers to export with, and what bench/detect.py
measures: an RT-DETRv2 of the usual size with fresh weights, as ONNX.
"""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from pathlib import Path

from corral.config.paths import find_paths

WANTED = (
    "torch==2.13.0", "transformers==5.23.0", "onnx==1.23.2", "scipy==1.17.1", "onnxruntime==1.31.1", "pillow==13.0.0",
    "numpy==2.4.6", "httptools>=0.6.4",
)  # fmt: skip
FRESH = Path(__file__).parent / "train_detector" / "fresh.py"


def main() -> int:
    cache = find_paths().cache_dir
    target, model = cache / "vision" / "py", cache / "vision" / "r18"
    mark = target / "whole"
    # Not in the user's own data directory: which environment is current for their models is theirs to say.
    install = (sys.executable, "-P", "-m", "corral", "engine", "install", "detector-export")
    if not _run(*install, CORRAL_DATA_DIR=str(cache / "tests")):
        return 1
    if not (mark.is_file() and mark.read_text() == "\n".join(WANTED)):
        venv.create(target, clear=True, with_pip=True)
        if not _run(target / "bin" / "python", "-m", "pip", "install", "--quiet", *WANTED):
            return 1
        mark.write_text("\n".join(WANTED))
    if not (model / "model.onnx").is_file():
        export = Path(__file__).parents[1] / "src" / "corral" / "detector" / "export.py"
        if not _run(target / "bin" / "python", "-W", "ignore", FRESH, model):
            return 1
        if not _run(target / "bin" / "python", "-I", export, model, model / "model.onnx"):
            return 1
    print(f"torch and transformers are at {target}, a detector of the usual size at {model}")
    return 0


def _run(*command: str | Path, **more: str) -> bool:
    done = subprocess.run(command, env={**os.environ, **more}, stdin=subprocess.DEVNULL, check=False)
    if done.returncode:
        words = " ".join(str(each) for each in command[:4])
        print(f"error: {words}: exit code {done.returncode}\nhint: its words are above", file=sys.stderr)
    return done.returncode == 0


if __name__ == "__main__":
    sys.exit(main())
