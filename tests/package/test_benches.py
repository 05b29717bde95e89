"""Every benchmark runs, at the least there is of it, and writes the figures that pages and goals name."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from corral.config.paths import find_paths
from support.llama import llama_server
from support.pages import ROOT

TRACES = ("alternating", "hog", "contended", "bursty", "crowded")
CORE = {
    "scheduler_sim": {
        f"{trace}_{what}" for trace in TRACES for what in ("p95_vs_fifo", "worst_vs_lru", "corral_swaps")
    },
    "footprint": {"median_error", "worst_error", "worst_under", "phantoms", "cases"},
    "record": {"record_us", "made_us", "request_us"},
}
REAL = {
    "first_token": {"cold_ratio", "ready_added_p50_ms", "cold_ratio_llama_server", "serve_accept_ms",
                    "serve_rss_mb", "ps_ms"},
    "swap": {"vs_ideal_warm", "vs_ideal_cold", "vs_llama_router", "vs_llama_router_warm", "vs_llama_router_cold",
             "vs_ideal_warm_llama_server", "born_nursery_ms"},
    "gateway": {"added_unary_p50_ms", "added_stream_p50_ms", "cpu_us_per_request", "cpu_us_per_chunk",
                "throughput_ratio_256", "added_gap_p99_ms", "idle_streams_mb_1000"},
    "scrape": {"scrape_p50_ms", "scrape_p99_ms", "cpu_percent_at_5s", "live_cpu_percent_at_1s", "added_gap_p99_ms"},
    "detect": {"tiny_vs_bare", "tiny_vs_model_only", "tiny_corral_per_s"},
}  # fmt: skip
PULL = {"vs_limit", "peak_rss_mb", "corral_s", "sha256_s", "write_s"}


def measured(name: str, tmp_path: Path) -> dict[str, Any]:
    """The JSON of a run as `make bench` makes it."""
    file = tmp_path / "figures.json"
    words = [sys.executable, "-m", f"bench.{name}", "--least", "--json", str(file)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    found: dict[str, Any] = json.loads(file.read_text())
    assert all(isinstance(value, int | float) for value in found.values()), "one flat object of figures"
    return found


def test_each_benchmark_is_run_here() -> None:
    """A benchmark that is added is run by a test, so that it cannot break unseen."""
    programs = {
        path.stem for path in (ROOT / "bench").glob("*.py") if "main(" in path.read_text().partition("__main__")[2]
    }
    assert programs == {*CORE, *REAL, "pull"}


@pytest.mark.parametrize("name", CORE)
def test_those_that_need_only_packages(name: str, tmp_path: Path) -> None:
    """The whole program, with the names of its figures."""
    assert measured(name, tmp_path).keys() >= CORE[name]


@pytest.mark.engines
@pytest.mark.parametrize("name", REAL)
def test_those_with_servers_and_engines(name: str, tmp_path: Path) -> None:
    """The same, beside a llama-server that is found as `make engines` leaves it."""
    built = llama_server().resolve().parent.parent
    shelf = find_paths().cache_dir / "engines" / "llama.cpp"
    shelf.mkdir(parents=True)
    (shelf / "built").symlink_to(built)
    assert measured(name, tmp_path).keys() >= REAL[name]


@pytest.mark.registry
def test_pulls(tmp_path: Path) -> None:
    """The same, with a registry."""
    assert measured("pull", tmp_path).keys() >= PULL


def test_what_means_nothing_is_not_recorded() -> None:
    """`--least --record` is refused: it would replace a real run's figures."""
    words = [sys.executable, "-m", "bench.record", "--least", "--record"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2 and "not recorded" in done.stderr
