"""`make prometheus`: Prometheus and promtool for the tests, from Debian's package, unpacked into the cache directory.

The package is fetched through apt and unpacked, not installed: installing it would start a service on this machine.
Programs that are on the search path are used as they are.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from corral.config.paths import find_paths

PROGRAMS = ("prometheus", "promtool")


def place() -> Path:
    """Where the programs are, or would be."""
    return find_paths().cache_dir / "prometheus"


def found() -> Path | None:
    """The folder with both programs, ours or on the search path; None where they are not."""
    if all((place() / "bin" / name).is_file() for name in PROGRAMS):
        return place() / "bin"
    paths = [shutil.which(name) for name in PROGRAMS]
    folders = {Path(path).parent for path in paths if path is not None}
    return folders.pop() if None not in paths and len(folders) == 1 else None


def main() -> int:
    if (there := found()) is not None:
        print(f"Prometheus is at {there}")
        return 0
    if not all(map(shutil.which, ("apt-get", "dpkg-deb"))):
        print(
            "error: this is no Debian\nhint: install prometheus with promtool, so that both are on PATH",
            file=sys.stderr,
        )
        return 1
    with tempfile.TemporaryDirectory() as work:
        if not _fetched(Path(work)):
            print(
                "error: apt has no package prometheus for this user\nhint: as root: apt-get install prometheus",
                file=sys.stderr,
            )
            return 1
        (package,) = Path(work).glob("prometheus_*.deb")
        subprocess.run(["dpkg-deb", "-x", package, Path(work) / "whole"], check=True)
        making = place().with_name("prometheus.new")
        shutil.rmtree(making, ignore_errors=True)
        (making / "bin").mkdir(parents=True)
        for name in PROGRAMS:
            shutil.copy(Path(work) / "whole" / "usr" / "bin" / name, making / "bin")
        shutil.rmtree(place(), ignore_errors=True)
        making.rename(place())
    print(f"Prometheus is at {place() / 'bin'}")
    return 0


def _fetched(work: Path) -> bool:
    """The package in `work`; root brings the lists of packages up to date first where that is what is missing."""
    download = ["apt-get", "download", "-qq", "prometheus"]

    def run(command: list[str]) -> bool:
        return subprocess.run(command, cwd=work, stdin=subprocess.DEVNULL, check=False).returncode == 0

    return run(download) or (os.geteuid() == 0 and run(["apt-get", "update", "-qq"]) and run(download))


if __name__ == "__main__":
    sys.exit(main())
