"""Every target over the seeds, and over what once broke something; `make fuzz` goes on from there."""

from __future__ import annotations

from pathlib import Path

import pytest

from fuzz import http
from fuzz.targets import TARGETS

CORPUS = Path(__file__).parent / "corpus"
FILES = sorted(CORPUS.glob("*/*"))


@pytest.fixture(autouse=True)
def _closed() -> object:
    yield
    http.loop().close()


@pytest.mark.parametrize("file", FILES, ids=lambda file: f"{file.parent.name}-{file.name}")
def test_a_known_input(file: Path) -> None:
    """What each target demands holds for this input, as it is and cut short anywhere."""
    data, run = file.read_bytes(), TARGETS[file.parent.name].run
    for size in {len(data), *range(0, len(data), 1 + len(data) // 20)}:
        run(data[:size])


def test_every_target_has_seeds() -> None:
    """No folder without a target, no target without a folder."""
    assert {file.parent.name for file in FILES} == set(TARGETS)
