"""Pulling a model of one large layer from a registry on loopback: Corral, skopeo, oras, and what no pull can beat."""

from __future__ import annotations

import hashlib
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from bench.frame import Figure, main, median, sized
from bench.registries import REPOSITORY, Offered, offer, registry
from bench.serving import START_S, corral, scratch

WHAT = (
    "A model with one layer of random bytes (1 GB; quick: 256 MB) is pulled from a docker-registry on loopback into an "
    "OCI layout that is on the disk when the clock stops: Corral and skopeo fsync their files themselves, after oras "
    "the files are fsynced within its time. Each is a whole command, start included; Corral's is `corral pull` with a "
    "server that runs already, its store empty. Ratios are the other's time by Corral's, so larger is better. The "
    "limit is the slower of one sha256 pass over the layer and one fsynced write of it, against the server's own time "
    "for the download. Memory is the server's highest. `curl` reads the layer to nowhere; it is there to compare. "
    "What Corral pulls this fast goes past the page cache: unlike the others' files, its first reader has it from the "
    "disk."
)
WRITE_BYTES = 1 << 20


@dataclass
class Side:
    """One of those compared."""

    run: Callable[[], float]  # the seconds it took
    times: list[float] = field(default_factory=list)


class Pulls:
    """The ways to fetch one offered model, each into a fresh directory under `place`."""

    def __init__(self, offered: Offered, place: Path) -> None:
        self._offered = offered
        self._place = place
        self.pull_s: list[float] = []
        self.peak_rss_mb: list[float] = []

    def corral(self) -> float:
        reference = f"{self._offered.host}/{REPOSITORY}:latest"
        place = self._fresh()
        with corral(place, "models: []\n") as server:
            _until_taken(place / "runtime" / "corral.sock")
            took_s = server.cli_s("--json", "pull", reference)
            (job,) = server.control("GET", "downloads")
            self.pull_s.append(job["finished_wall_s"] - job["started_wall_s"])
            self.peak_rss_mb.append(server.peak_rss_mb)
        return took_s

    def skopeo(self) -> float:
        source = f"docker://{self._offered.host}/{REPOSITORY}:latest"
        return self._timed("skopeo", "copy", "-q", "--src-tls-verify=false", source, f"oci:{self._fresh()}:latest")

    def oras(self) -> float:
        place = self._fresh()
        source = f"{self._offered.host}/{REPOSITORY}:latest"
        words = ["oras", "copy", "--from-plain-http", source, "--to-oci-layout", f"{place}:latest"]
        return self._timed(*words, then=lambda: _sync_all(place))

    def curl(self) -> float:
        url = f"http://{self._offered.host}/v2/{REPOSITORY}/blobs/{self._offered.digest}"
        return self._timed("curl", "-sf", "-o", "/dev/null", url)

    def sha256(self) -> float:
        began = time.perf_counter()
        with self._offered.file.open("rb") as file:
            hashlib.file_digest(file, "sha256")
        return time.perf_counter() - began

    def write(self) -> float:
        piece, left = os.urandom(WRITE_BYTES), self._offered.file.stat().st_size
        place = self._fresh()
        place.mkdir()
        began = time.perf_counter()
        with (place / "written").open("wb", buffering=0) as file:
            while left > 0:
                left -= file.write(piece[: min(left, WRITE_BYTES)]) or 0
            os.fsync(file.fileno())
        return time.perf_counter() - began

    def _fresh(self) -> Path:
        """A directory that is not there, on a disk that has nothing left to write."""
        place = self._place / "into"
        shutil.rmtree(place, ignore_errors=True)
        os.sync()
        return place

    def _timed(self, *words: str, then: Callable[[], None] = lambda: None) -> float:
        began = time.perf_counter()
        subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
        then()
        return time.perf_counter() - began


def _until_taken(control: Path) -> None:
    """Waits for the server's own socket: a command that does not find it starts a server of its own."""
    deadline = time.monotonic() + START_S
    while True:
        with socket.socket(socket.AF_UNIX) as probe:
            if not probe.connect_ex(str(control)):
                return
        if time.monotonic() > deadline:
            raise SystemExit(f"nothing listens at {control}")
        time.sleep(0.01)


def _sync_all(place: Path) -> None:
    for each in place.rglob("*"):
        fd = os.open(each, os.O_RDONLY)
        os.fsync(fd)
        os.close(fd)


def measure(quick: bool) -> list[Figure]:
    size, rounds = sized(quick, 1_000_000_000, 256_000_000, 1_000_000), sized(quick, 7, 3)
    with scratch() as place, registry(place / "registry") as host:
        offered = offer(host, place, size)
        pulls = Pulls(offered, place)
        sides = {"corral": Side(pulls.corral), "sha256": Side(pulls.sha256), "write": Side(pulls.write)}
        for program, run in (("skopeo", pulls.skopeo), ("oras", pulls.oras), ("curl", pulls.curl)):
            if shutil.which(program):
                sides[program] = Side(run)
            else:
                print(f"without {program}: it is not installed", file=sys.stderr)
        for number in range(rounds):
            order = list(sides.values())
            for side in order if number % 2 else reversed(order):
                side.times.append(side.run())
    took = {name: median(side.times) for name, side in sides.items()}
    limit_s = max(took["sha256"], took["write"])
    pull_s = median(pulls.pull_s)
    figures = [
        Figure("vs_limit", limit_s / pull_s, "≥ 0.8", "the slower of sha256 and an fsynced write"),
        Figure("peak_rss_mb", max(pulls.peak_rss_mb), "≤ 150"),
        Figure("pull_mb_per_s", size / 1e6 / pull_s, "", f"medians of {rounds} rounds"),
        Figure("corral_s", took["corral"]),
        Figure("sha256_s", took["sha256"]),
        Figure("write_s", took["write"]),
    ]
    for name, goal in (("skopeo", "≥ 1.5"), ("oras", "≥ 1"), ("curl", "")):
        if name in took:
            figures += [Figure(f"vs_{name}", took[name] / took["corral"], goal), Figure(f"{name}_s", took[name])]
    return figures


if __name__ == "__main__":
    sys.exit(main("pull", WHAT, measure))
