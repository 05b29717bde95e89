"""Writes the lock of an engine that Corral installs: `python -m tools.engine_lock detector-export cpu`.

pip is asked what it would install, by the configuration of whoever runs this, as `corral engine install` asks it where
no lock ships; nothing is installed. Such a lock is for one Python and platform, so it is made with that one.
"""

from __future__ import annotations

import os
import platform
import sys
import tempfile
from pathlib import Path

from corral.environments.child import Children, Step
from corral.environments.resolve import ask_index
from corral.environments.variants import LOCKS, variant_of
from corral.errors import CorralError


def main(argv: list[str]) -> int:
    if len(argv) != 2:
        print("usage: python -m tools.engine_lock ENGINE VARIANT", file=sys.stderr)
        return 64
    try:
        variant = variant_of(*argv)
        ours = f"{sys.implementation.name}-{sys.version_info[0]}.{sys.version_info[1]}-{sys.platform}"
        if (ours := f"{ours}-{platform.machine()}") != variant.locked_for:
            print(f"error: the lock is for {variant.locked_for or 'nothing'}, and this is {ours}", file=sys.stderr)
            return 1
        with tempfile.TemporaryDirectory() as folder:
            scratch = Path(folder)
            with (scratch / "lock").open("w") as held:
                children = Children(scratch / "log", held.fileno(), scratch / "tmp")
                lock = ask_index(
                    children, Path(sys.executable), variant.requirements(), variant, scratch / "pip", _tell
                )
    except CorralError as error:
        print(f"error: {error.message}\nhint: {error.hint}", file=sys.stderr)
        return 1
    words = [
        f"# What `corral engine install {variant.engine} --variant {variant.name}` installs: versions and hashes.",
        f"# For {variant.locked_for}. Made by `python -m tools.engine_lock {' '.join(argv)}`; do not edit.",
    ]
    (LOCKS / variant.lock).write_text("\n".join(words) + "\n" + lock.text())
    print(f"{len(lock.pins)} packages: {os.path.relpath(LOCKS / variant.lock)}")
    return 0


def _tell(step: Step) -> None:
    print(f"{step.phase} {step.text}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
