"""Fixtures for the tests of a store: one server for a file's tests, empty before each, and a registry with a model.

A file that uses them has `registry, shared, server = shared_store.registry, …` at its top: linters take imported
fixtures for unused.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from corral.config.paths import Paths
from support.faulty_registry import FaultyRegistry, serving
from support.ggufs import write_chain
from support.server import Server

WORDS = ["to", "be", "or", "not"]


@pytest.fixture
def registry(short_tmp: Path) -> Iterator[FaultyRegistry]:
    """A registry with the model me/a:latest, which says WORDS."""
    with serving() as found:
        found.model("me/a", write_chain(short_tmp / "a.gguf", WORDS).read_bytes())
        yield found


@pytest.fixture(scope="module")
def shared(module_paths: Paths) -> Iterator[Server]:
    with Server(module_paths) as started:
        yield started


@pytest.fixture
def server(shared: Server) -> Server:
    """One for all that need no configuration of their own, with nothing in it."""
    shared.empty()
    return shared
