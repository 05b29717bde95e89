"""`make fuzz`: every target of tests/fuzz under atheris, guided by coverage: RUNS= executions in all, within SECONDS=.

atheris is kept out of the checkout's environment: it is for Linux on x86-64 alone. What the fuzzer found worth keeping
is kept in the user's cache directory, too, so that the next run goes on from there; tests/fuzz/corpus has the seeds,
and the inputs that once broke something.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOCK = ROOT / "requirements" / "fuzz.txt"
CORPUS = ROOT / "tests" / "fuzz" / "corpus"
ONE_INPUT_S = 20
"""An input that takes longer counts as a crash."""

_COUNT = re.compile(r"stat::number_of_executed_units:\s+(\d+)")
_PROGRESS = re.compile(r"^(?:INFO: |#\d+\s).*\n", re.MULTILINE)
_COVERED = re.compile(r"cov: (\d+)")


@dataclass(frozen=True)
class Found:
    """What came of one target."""

    name: str
    executions: int
    took_s: float
    covered: int
    crash: str = ""  # what it said last, when it stopped before its time


def cache() -> Path:
    home = os.environ.get("CORRAL_CACHE_DIR") or os.environ.get("XDG_CACHE_HOME", "~/.cache") + "/corral"
    return Path(home).expanduser() / "fuzz"


def installed() -> Path:
    """The folder with atheris in it, filled once for each lock and Python."""
    made = hashlib.sha256(LOCK.read_bytes() + platform.python_version().encode()).hexdigest()[:12]
    place = cache() / f"atheris-{made}"
    if not place.exists():
        place.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=place.parent) as scratch:
            fresh = Path(scratch) / "packages"
            command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input"]
            command += ["--require-hashes", "--only-binary", ":all:", "--no-deps", "--target", str(fresh)]
            subprocess.run([*command, "-r", str(LOCK)], check=True)
            fresh.rename(place)
    return place


def fuzz(name: str, runs: int, seconds: int, packages: Path) -> Found:
    kept, crashes = cache() / "corpus" / name, cache() / "crashes" / name
    for folder in (kept, crashes):
        folder.mkdir(parents=True, exist_ok=True)
    paths = os.pathsep.join(str(each) for each in (packages, ROOT / "src", ROOT / "tests"))
    flags = [f"-runs={runs}", f"-max_total_time={seconds}", f"-timeout={ONE_INPUT_S}", "-print_final_stats=1"]
    folders = [str(kept), *([str(CORPUS / name)] if (CORPUS / name).is_dir() else [])]
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "fuzz", name, *flags, f"-artifact_prefix={crashes}/", *folders],
        env={**os.environ, "PYTHONPATH": paths}, cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, check=False,
    )  # fmt: skip
    said = done.stderr.decode("utf-8", "replace") + done.stdout.decode("utf-8", "replace")
    executions = int(found[1]) if (found := _COUNT.search(said)) is not None else 0
    covered = max((int(each) for each in _COVERED.findall(said)), default=0)
    crash = _PROGRESS.sub("", said)[-6000:] if done.returncode or not executions else ""
    return Found(name, executions, time.monotonic() - began, covered, crash)


def shares() -> dict[str, int]:
    sys.path[:0] = [str(ROOT / "src"), str(ROOT / "tests")]
    from fuzz.targets import TARGETS

    return {name: target.share for name, target in TARGETS.items()}


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="make fuzz", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--runs", type=int, default=1_000_000, help="executions in all")
    parser.add_argument("--seconds", type=int, default=1800, help="for all of it; what was not tried then is not")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("targets", nargs="*", help="all of them when none is named")
    asked = parser.parse_args(argv)
    if not (sys.platform == "linux" and platform.machine() == "x86_64"):
        print(f"make fuzz: skipped: atheris has no package for {sys.platform} on {platform.machine()}")
        return 0
    parts = {name: share for name, share in shares().items() if not asked.targets or name in asked.targets}
    if unknown := set(asked.targets) - parts.keys():
        print(f"error: no target is called {', '.join(sorted(unknown))}", file=sys.stderr)
        return 2
    packages = installed()
    slowest_first = sorted(parts, key=lambda name: parts[name])
    total = sum(parts.values())

    def run(name: str) -> Found:
        seconds = max(1, asked.seconds * asked.jobs * parts[name] // total)
        found = fuzz(name, -(-asked.runs * parts[name] // total), seconds, packages)
        rate = found.executions / max(found.took_s, 0.001)
        end = "CRASHED" if found.crash else "ok"
        print(f"{name:<14}{found.executions:>10,}{rate:>10,.0f}{found.covered:>9,}  {end}", flush=True)
        return found

    print(f"{'target':<14}{'runs':>10}{'each s':>10}{'covered':>9}", flush=True)
    with ThreadPoolExecutor(asked.jobs) as pool:
        results = list(pool.map(run, slowest_first))
    crashed = [found for found in results if found.crash]
    print(f"{'in all':<14}{sum(found.executions for found in results):>10,}")
    for found in crashed:
        print(f"\n=== {found.name}: the inputs are in {cache() / 'crashes' / found.name}\n{found.crash}")
    return 1 if crashed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
