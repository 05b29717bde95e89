"""What every test gets: a home of its own, a check that it left nothing behind, and a summary of what did not run."""

from __future__ import annotations

import asyncio
import gc
import inspect
import os
import shutil
import socket
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import cast

import hypothesis
import pytest
import uvloop

from corral.config.paths import Paths
from support import failed, installed, leftovers, notrun
from support.forks import Forks
from support.order import spread

TIERS = {
    "engines": "a llama-server built from source: `make engines` makes it",
    "registry": "docker-registry and openssl, for some tests skopeo (Debian packages): `make registry` installs them",
    "prometheus": "Prometheus and promtool: `make prometheus` unpacks them",
    "podman": "rootless Podman, a user for it and images made here: `make podman` makes them",
    "vulkan": "a llama-server with a Vulkan backend, and Mesa's lavapipe: `make vulkan` makes them",
    "vllm": "vLLM for the processor, in an environment of its own: `make vllm` installs it",
    "long": 'a few minutes more, for real hangs, full caches, very long lives: `make test ARGS="-m long"` runs it',
    "vision": "torch and transformers, and the environment that exports: `make vision` installs them",
    "browser": "Chromium, Playwright and llama.cpp's web page: `make browser` makes them",
    "chaos": "minutes: `make chaos` runs them",
}
"""Markers of tests that need more than Python packages, and what each needs. `make test-all` makes all that and runs
them too, but for chaos."""

KEPT_VARIABLES = {*installed.PLACES, "CORRAL_TEST_VLLM", "CORRAL_TEST_CHARTS", "CORRAL_TEST_PICTURES"}
"""CORRAL_* variables that are about the tests themselves."""

TERMINAL_VARIABLES = {"COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR", "CLICOLOR", "CLICOLOR_FORCE"}
"""Of the caller's terminal (xdist sets some too); a test that wants one sets it."""

hypothesis.settings.register_profile("dev", deadline=None)
hypothesis.settings.register_profile("ci", deadline=None, derandomize=True, database=None, print_blob=True)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "dev")


def pytest_configure(config: pytest.Config) -> None:
    gc.disable()  # until all is collected: looking through what stays anyway is a quarter of what collecting takes
    for tier, needs in TIERS.items():
        config.addinivalue_line("markers", f"{tier}: needs {needs}")
    config.addinivalue_line("markers", "lasts(seconds): about what it takes, of one that takes long; for the order")
    config.addinivalue_line("markers", "leaves(reason): the test may leave tasks, descriptors or children behind")
    config.pluginmanager.register(notrun.NotRun(config, TIERS), "corral-not-run")
    if (path := os.environ.get("CORRAL_TEST_FAILED")) and not hasattr(config, "workerinput"):
        config.pluginmanager.register(failed.Failed(Path(path)), "corral-failed")
    installed.look_up()  # before HOME is hidden from the tests


@pytest.hookimpl(trylast=True)  # once those that were not asked for are gone
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Those that last begin first, each worker with some of them, so that none is left alone with them at the end."""
    workers = int(getattr(config, "workerinput", {}).get("workercount", 1))
    lasts = [float(mark.args[0]) if (mark := item.get_closest_marker("lasts")) else 0.0 for item in items]
    items[:] = [items[place] for place in spread(lasts, [_together(item) for item in items], workers)]


def _together(item: pytest.Item) -> str:
    """Those of vLLM share a server of their file, whose start is most of what they take."""
    return str(item.path) if item.get_closest_marker("vllm") else item.nodeid


def pytest_collection_finish(session: pytest.Session) -> None:
    gc.freeze()  # half a million objects that no collection has to look through again
    gc.enable()


LoopFactory = Callable[[], asyncio.AbstractEventLoop]


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> dict[str, LoopFactory]:
    """Every asynchronous test runs on the event loop that Corral itself uses."""
    return {"uvloop": _loop}


def _loop() -> asyncio.AbstractEventLoop:
    loop = uvloop.new_event_loop()
    # libuv opens a spare descriptor with a loop's first stream and keeps it as long as the loop: before anybody counts.
    ours, theirs = socket.socketpair()
    transport, _ = loop.run_until_complete(loop.connect_accepted_socket(asyncio.Protocol, ours))
    cast(asyncio.Transport, transport).close()
    theirs.close()
    loop.run_until_complete(asyncio.sleep(0))
    return loop


def pytest_itemcollected(item: pytest.Item) -> None:
    if isinstance(item, pytest.Function) and inspect.iscoroutinefunction(inspect.unwrap(item.obj)):
        item.fixturenames.insert(0, "_no_tasks_left")


@pytest.fixture(scope="session")
def _short_root() -> Iterator[Path]:
    # Directly under the system's temporary directory: a socket's path may have 103 bytes at most.
    root = Path(tempfile.mkdtemp(prefix="ct-", dir="/tmp" if os.path.isdir("/tmp") else None))  # noqa: PTH112
    yield root
    shutil.rmtree(root, ignore_errors=True)


@pytest.fixture(autouse=True)
def _nothing_left(request: pytest.FixtureRequest) -> Iterator[None]:
    before = leftovers.look()
    yield
    if request.node.get_closest_marker("leaves") is None:
        left = leftovers.since(before)
        assert not left, "the test left behind: " + "; ".join(left)


@pytest.fixture(autouse=True)
def _own_home(
    _nothing_left: None, _short_root: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Iterator[Path]:
    """An empty HOME, and no XDG_* or CORRAL_* variable of whoever runs the tests, nor those about a terminal."""
    home = Path(tempfile.mkdtemp(dir=_short_root))
    _settle(monkeypatch, home)
    newest = leftovers.newest_process()
    yield home
    nothing_began = newest is not None and newest == leftovers.newest_process()
    left = [] if nothing_began else leftovers.processes_naming(home)
    shutil.rmtree(home, ignore_errors=True)
    if request.node.get_closest_marker("leaves") is None:
        assert not left, "the test left processes running: " + "; ".join(left)


def _settle(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    for name in list(os.environ):
        if name in TERMINAL_VARIABLES or (name.startswith(("XDG_", "CORRAL_")) and name not in KEPT_VARIABLES):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(home))


@pytest.fixture
async def _no_tasks_left(request: pytest.FixtureRequest) -> AsyncIterator[None]:
    before = asyncio.all_tasks()
    yield
    if request.node.get_closest_marker("leaves") is None:
        left = await leftovers.tasks_since(before)
        assert not left, "the test left tasks running: " + "; ".join(left)


@pytest.fixture
def short_tmp(_own_home: Path) -> Path:
    """An empty directory with a path short enough for sockets, removed after the test."""
    made = _own_home / "t"
    made.mkdir()
    return made


@pytest.fixture
def paths(short_tmp: Path) -> Paths:
    """Corral's directories, all inside `short_tmp`; the state and runtime ones are made."""
    return _paths_in(short_tmp)


@pytest.fixture(scope="module")
def module_paths(_short_root: Path) -> Iterator[Paths]:
    """The same for what the tests of a file share, as a server that they only ask; removed after the last of them."""
    home = Path(tempfile.mkdtemp(dir=_short_root))
    with pytest.MonkeyPatch.context() as patch:
        _settle(patch, home)
        yield _paths_in(home / "t")
    left = leftovers.processes_naming(home)
    shutil.rmtree(home, ignore_errors=True)
    assert not left, "the file's tests left processes running: " + "; ".join(left)


def _paths_in(place: Path) -> Paths:
    found = Paths(
        config_dir=place / "config",
        state_dir=place / "state",
        cache_dir=place / "cache",
        runtime_dir=place / "r",
        data_dir=place / "data",
    )
    found.make()
    return found


@pytest.fixture
def corral_env(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The environment, this process's included, in which `find_paths()` gives `paths`; for child processes."""
    for name in ("config", "state", "cache", "runtime", "data"):
        monkeypatch.setenv(f"CORRAL_{name.upper()}_DIR", str(getattr(paths, f"{name}_dir")))
    return dict(os.environ)


@pytest.fixture(scope="session")
def forks() -> Iterator[Forks]:
    """Runs `corral …` in processes of their own, which cost little."""
    made = Forks()
    yield made
    made.close()
