"""Locks: what pins an environment, and what it is called by."""

from __future__ import annotations

import string
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral.environments.lock import Lock, Pin, lock_of, parse
from corral.environments.variants import LOCKS, VARIANTS, shipped
from corral.errors import ConfigError

_HASHES = st.lists(st.text("0123456789abcdef", min_size=64, max_size=64), min_size=1, max_size=3, unique=True)
_NAMES = st.from_regex(r"[a-z][a-z0-9]{0,8}(-[a-z0-9]{1,5})?", fullmatch=True)
_VERSIONS = st.from_regex(r"[0-9]{1,3}(\.[0-9]{1,3}){0,3}(\+[a-z]{2,4})?", fullmatch=True)
_PINS = st.builds(lambda name, version, hashes: Pin(name, version, tuple(sorted(hashes))), _NAMES, _VERSIONS, _HASHES)


@given(st.lists(_PINS, max_size=8))
def test_a_lock_reads_what_it_writes(pins: list[Pin]) -> None:
    """And is the same in whichever order it came, so that its identity is."""
    lock = lock_of(pins)
    assert parse(lock.text()) == lock == lock_of(reversed(pins))


@given(_PINS, _PINS)
def test_an_identity_is_of_everything(one: Pin, other: Pin) -> None:
    """Another version, hash, variant or Python is another environment."""
    ids = {
        Lock((pin,)).identity("vllm", variant, python)
        for pin in {one, other}
        for variant in ("cpu", "cuda")
        for python in ("cpython-3.11-linux-x86_64", "cpython-3.12-linux-x86_64")
    }
    assert len(ids) == len({one, other}) * 4
    assert all(set(each) <= set(string.hexdigits) and len(each) == 64 for each in ids)


@pytest.mark.parametrize(
    "line", ["torch==2.13.0", "torch --hash=sha256:" + "0" * 64, "-r other.txt", "torch==1 --hash=md5:00"]
)
def test_a_line_without_a_hash_is_refused(line: str) -> None:
    """A lock that pins only most of it would be none."""
    with pytest.raises(ConfigError, match="pins nothing"):
        parse(line + "\n")


@pytest.mark.parametrize("file", sorted(LOCKS.glob("*.txt")), ids=lambda file: file.name)
def test_every_lock_that_ships_is_whole(file: Path) -> None:
    """Each line has a hash, and none an address."""
    text = file.read_text()
    assert parse(text).pins
    assert "://" not in text and "--find-links" not in text


def test_what_ships_is_for_one_python_and_version() -> None:
    """Elsewhere nothing is claimed to be locked; and what a variant does without is not in its lock."""
    for variant in VARIANTS:
        lock = shipped(variant, "", variant.locked_for)
        assert (lock is not None) == bool(variant.lock)
        assert shipped(variant, "", "cpython-3.13-linux-x86_64") is None
        assert shipped(variant, "9.9.9", variant.locked_for) is None
        if lock is not None:
            assert lock.version(variant.distribution) == variant.version
            assert not variant.dropped & {pin.name for pin in lock.pins}
