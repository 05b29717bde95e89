"""`python -I …/corral/detector --model FILE.onnx --folder FOLDER --host PATH.sock …`: loads one detector and serves it.

`--about` says instead, as one line of JSON, which onnxruntime is here and what it can run on. What it cannot do ends
it with a code of `corral.engines.exits` and a last line that says why. SIGTERM lets running requests end first.
"""

from __future__ import annotations

import os
import signal
import sys

if not __package__:  # run by its path: -I leaves out PYTHONPATH, so Corral need not even be installed
    _here = os.path.dirname(os.path.abspath(__file__))  # noqa: PTH100, PTH120 - before anything is imported
    sys.path[:] = [each for each in sys.path if each != _here]
    sys.path.insert(0, os.path.dirname(os.path.dirname(_here)))  # noqa: PTH120

from typing import NoReturn

from corral.engines import exits
from corral.engines.detector_flags import Flags, parse
from corral.errors import CorralError, EngineFlagError


def main(argv: list[str]) -> NoReturn:
    if argv == ["--about"]:
        _about()
    try:
        flags = parse(argv)
    except EngineFlagError as exc:
        end(exits.FLAG, f"{exc.message}; {exc.hint}")
    try:
        from corral.detector import run
    except ImportError as exc:
        end(exits.LIBRARY, f"the detector's libraries do not load: {exc}")
    if flags.export_with and not os.path.exists(flags.model):  # noqa: PTH110
        _export(flags)
    try:
        code, words = run.run(flags, say)
    except CorralError as exc:
        end(exits.MODEL_FILE, exc.message)
    end(code, words)


def _about() -> NoReturn:
    import json

    import httptools  # noqa: F401 - whether it is there
    import numpy
    import onnxruntime
    import PIL

    found = {
        "onnxruntime": onnxruntime.__version__,
        "pillow": PIL.__version__,
        "numpy": numpy.__version__,
        "providers": onnxruntime.get_available_providers(),
    }
    print(json.dumps(found))  # noqa: T201
    sys.exit(0)


def _export(flags: Flags) -> None:
    """Makes the ONNX file with another Python, which may have torch: it needs the memory for a few seconds only."""
    import subprocess

    say(f"exporting {flags.folder} to ONNX, once")
    program = os.path.join(os.path.dirname(os.path.abspath(__file__)), "export.py")  # noqa: PTH100, PTH118, PTH120
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    done = subprocess.run(  # of our own process group, which ends with us
        [flags.export_with, "-I", program, flags.folder, flags.model], stdin=subprocess.DEVNULL, check=False
    )
    if done.returncode:
        end(exits.REFUSED, f"the export of {flags.folder} failed; the lines above say why")


def say(words: str) -> None:
    """One line in the log. Where it takes no more (a full disk), the engine runs without."""
    try:
        sys.stderr.write(f"corral: {words}\n")
        sys.stderr.flush()
    except OSError:
        return


def end(code: int, words: str) -> NoReturn:
    """Writes `words` as the log's last line and ends the process without waiting for threads."""
    say(words)
    os._exit(code)


if __name__ == "__main__":
    main(sys.argv[1:])
