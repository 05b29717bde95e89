"""The nursery as a program: the embedded engine's library is loaded here once, and each engine is a fork.

Run by the warden as `python -I nursery_program.py FD`. An engine born here runs `embedded_host.serve`, as the one that
is spawned plainly does.
"""

from __future__ import annotations

import os
import sys

if __name__ == "__main__":  # -I leaves out this file's folder and PYTHONPATH, so Corral need not even be installed
    _file = os.path.abspath(__file__)  # noqa: PTH100
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(_file))))  # noqa: PTH120

from corral.engines import embedded_host
from corral.warden.birth import serve_births


def main(arguments: list[str]) -> None:
    """Serves births on the socket with the given number until the warden is gone."""
    import xllamacpp  # noqa: F401 - what all this is for: forks have it loaded

    serve_births(int(arguments[0]), _engine)


def _engine(argv: list[str]) -> None:
    sys.argv[:] = argv[2:]  # as after `python -I embedded_host.py …`
    embedded_host.serve(argv[3:])


if __name__ == "__main__":
    main(sys.argv[1:])
