"""One target under atheris: `python -m fuzz TARGET`, libFuzzer's own flags and folders. See tools/fuzz.py."""

from __future__ import annotations

import sys

import atheris


def main() -> None:
    with atheris.instrument_imports(include=["corral.gateway", "corral.access.origin", "corral.refs_parse"]):
        from fuzz.targets import TARGETS
    target = TARGETS[sys.argv.pop(1)]
    atheris.Setup([*sys.argv, f"-max_len={target.longest}"], target.run)
    atheris.Fuzz()


main()
