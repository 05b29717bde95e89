"""Starts the warden from a plain path: `python -I -S …/warden/__main__.py`, without the rest of Corral on the path."""

import sys

if not __package__:
    # Appended, not prepended: no module of Corral's may ever stand in for one of the standard library's.
    sys.path.append(__file__.rpartition("/")[0].rpartition("/")[0] or "..")
    __package__ = "warden"

from .program import main

sys.exit(main(sys.argv[1:]))
