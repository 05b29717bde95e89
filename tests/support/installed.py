"""What `make engines`, `make clients` and the like put into the user's cache directory, looked up before the tests hide
that from themselves."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path

from corral.config.paths import find_paths

ROOT = Path(__file__).resolve().parents[2]


def look_up() -> None:
    """Names each thing that is there in its variable, where the caller has not said another."""
    for variable, find in PLACES.items():
        if variable not in os.environ and (found := find()) is not None and found.exists():
            os.environ[variable] = str(found)


def _server(variant: str = "") -> Path | None:
    built = sorted((find_paths().cache_dir / "engines" / "llama.cpp").glob(f"*[0-9]{variant}/bin/llama-server"))
    return built[-1] if built else None


def _by_lock(folder: str, prefix: str, lock: str) -> Path | None:
    """What was made of the present lock file."""
    file = ROOT / lock
    if not file.exists():
        return None
    return find_paths().cache_dir / folder / f"{prefix}{hashlib.sha256(file.read_bytes()).hexdigest()[:16]}"


def _python(place: Path | None) -> Path | None:
    """The Python of an environment, where all of it is there."""
    return place / "bin" / "python" if place is not None and (place / "whole").is_file() else None


def _page() -> Path:
    """Of the llama.cpp that is pinned, and no other."""
    from corral.environments.llama_server import version

    return find_paths().cache_dir / "browser" / f"llama-page-{version()}"


PLACES: Mapping[str, Callable[[], Path | None]] = {
    "CORRAL_TEST_LLAMA_SERVER": _server,
    "CORRAL_TEST_VULKAN_SERVER": lambda: _server("-vulkan"),
    "CORRAL_TEST_NODE_CLIENTS": lambda: _by_lock("clients", "", "tests/clients/npm/package-lock.json"),
    "CORRAL_TEST_CLIENTS_PYTHON": lambda: _python(_by_lock("clients", "py-", "requirements/clients.txt")),
    "CORRAL_TEST_VISION_PYTHON": lambda: _python(find_paths().cache_dir / "vision" / "py"),
    "CORRAL_TEST_PROMETHEUS": lambda: find_paths().cache_dir / "prometheus" / "bin",
    "CORRAL_TEST_PLAYWRIGHT": lambda: _python(_by_lock("browser", "py-", "requirements/browser.txt")),
    "CORRAL_TEST_LLAMA_PAGE": _page,
}
"""Each variable, and what finds its value."""
