"""`make browser`: Chromium, Playwright that drives it, and llama.cpp's web page, which is opened in it.

Chromium comes from Debian; any other on the search path will do. The page is built once from the source that the lock
of llama.cpp pins, which `make engines` has the tools for, with the npm packages that its own lock file pins.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from tools.own_python import installed

from corral.config.paths import find_paths
from corral.environments.llama_server import needed, version
from corral.errors import EngineMissing

LOCK = Path(__file__).resolve().parent.parent / "requirements" / "browser.txt"
NAMES = ("chromium", "chromium-browser", "google-chrome")
PAGE = "llama.cpp/tools/ui"
"""Where the page's source is in llama.cpp's package."""


def python_place() -> Path:
    """The environment with Playwright of the present lock file, or where it would be."""
    return find_paths().cache_dir / "browser" / f"py-{hashlib.sha256(LOCK.read_bytes()).hexdigest()[:16]}"


def page_place() -> Path:
    """The folder of the page of the pinned llama.cpp, or where it would be."""
    return find_paths().cache_dir / "browser" / f"llama-page-{version()}"


def main() -> int:
    if not chromium() or not installed(python_place(), LOCK) or not page():
        return 1
    print(f"Playwright is at {python_place()}, llama.cpp's page at {page_place()}")
    return 0


def chromium() -> bool:
    """Whether there is a Chromium now."""
    if any(map(shutil.which, NAMES)):
        return True
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        print("error: there is no Chromium\nhint: as root: apt-get install chromium", file=sys.stderr)
        return False
    more = {"DEBIAN_FRONTEND": "noninteractive"}
    wanted = ("apt-get", "install", "-y", "-qq", "--no-install-recommends", "chromium", "fonts-dejavu-core")
    return _run("apt-get", "update", "-qq", more=more) and _run(*wanted, more=more)


def page() -> bool:
    """Whether the page is there now."""
    target = page_place()
    if (target / "index.html").is_file():
        return True
    npm = shutil.which("npm")
    if npm is None:
        print("error: npm is not here\nhint: install Node.js 20 or later with its npm", file=sys.stderr)
        return False
    try:
        engine = needed(find_paths().cache_dir).parents[1]
    except EngineMissing as error:
        print(f"error: {error}\nhint: make engines", file=sys.stderr)
        return False
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as work:
        # Its metadata is made while it is fetched, by the build's own tools, which the environment has.
        fetch = (engine / "bin" / "python", "-I", "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes")
        how = ("--no-binary", ":all:", "--no-build-isolation", "-d", work, "-r", engine / "source.txt")
        if not _run(*fetch, *how):
            return False
        (archive,) = Path(work).glob("*.tar.gz")
        with tarfile.open(archive) as source:
            source.extractall(work, [each for each in source if f"/{PAGE}/" in each.name], filter="data")
        (folder,) = Path(work).glob(f"*/{PAGE}")
        skip = {"PLAYWRIGHT_SKIP_BROWSER_DOWNLOAD": "1"}
        install = (npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error")
        if not _run(*install, cwd=folder, more=skip) or not _run(npm, "run", "--silent", "build", cwd=folder):
            return False
        (folder / "dist").rename(target)
    return True


def _run(*command: str | Path, cwd: Path | None = None, more: dict[str, str] | None = None) -> bool:
    """Its output is shown only when it failed."""
    done = subprocess.run(
        command, cwd=cwd, env={**os.environ, **(more or {})}, stdin=subprocess.DEVNULL, check=False,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    if done.returncode:
        words = " ".join(Path(each).name for each in map(str, command[:5]))
        print(f"{done.stdout}\nerror: {words}: exit code {done.returncode}\nhint: its words are above", file=sys.stderr)
    return done.returncode == 0


if __name__ == "__main__":
    sys.exit(main())
