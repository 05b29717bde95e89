"""Measured figures: found at once, kept through kills and damage."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral.ledger.book import KEPT, Book, set_aside
from corral.ledger.figures import COMPONENTS, Figures, Key, dump_devices, load_devices
from corral.ledger.ledger import FILE, Ledger, read_ledger

KEY = Key("sha256:aa", "llama.cpp b1", "s")
ONE = Figures({"cpu": {"weights": 100, "cache": 7}}, 1.5, at_wall_s=10.0)


def test_remembered(tmp_path: Path) -> None:
    """What one server measured the next one knows; another key is another figure."""
    ledger = Ledger(tmp_path / FILE)
    ledger.remember(KEY, ONE)
    ledger.close()
    again = Ledger(tmp_path / FILE)
    assert again.find(KEY) == ONE
    assert again.find(Key("sha256:aa", "llama.cpp b2", "s")) is None
    again.close()
    assert read_ledger(tmp_path) == {KEY: ONE}
    assert (tmp_path / FILE).stat().st_mode & 0o777 == 0o600


def test_most_counts() -> None:
    """Of several loads the most that any took counts, component by component, and the newest time."""
    later = Figures({"cpu": {"weights": 90, "cache": 9}, "gpu0": {"other": 5}}, 2.5, at_wall_s=20.0)
    both = later.after(ONE)
    assert both == Figures({"cpu": {"weights": 100, "cache": 9}, "gpu0": {"other": 5}}, 2.5, loads=2, at_wall_s=20.0)
    assert both.bytes_by_device == {"cpu": 109, "gpu0": 5}


def test_without_a_file() -> None:
    """Figures are found again without any file too."""
    ledger = Ledger()
    ledger.remember(KEY, ONE)
    assert ledger.find(KEY) == ONE
    ledger.close()


@pytest.mark.parametrize(
    "damage", [b"this is no database, but long enough to look like one", b"SQLite format 3\x00junk"]
)
def test_damaged(tmp_path: Path, damage: bytes) -> None:
    """A damaged file is set aside with one warning, and a new one takes its place."""
    (tmp_path / FILE).write_bytes(damage * 100)
    said: list[str] = []
    ledger = Ledger(tmp_path / FILE, said.append)
    ledger.remember(KEY, ONE)
    ledger.close()
    assert len(said) == 1
    assert f"kept as {FILE}.broken-1" in said[0]
    assert (tmp_path / f"{FILE}.broken-1").read_bytes() == damage * 100
    assert read_ledger(tmp_path) == {KEY: ONE}


def test_damaged_while_in_use(tmp_path: Path) -> None:
    """A file that breaks while the server runs costs nothing of what is known."""
    said: list[str] = []
    ledger = Ledger(tmp_path / FILE, said.append)
    ledger.remember(KEY, ONE)
    ledger.close()
    ledger = Ledger(tmp_path / FILE, said.append)
    assert ledger.find(KEY) == ONE, "the file has been read"
    other = Key("sha256:bb", "e", "s")
    beside = Book(tmp_path / FILE)  # whose writing makes the other connection read its pages again
    beside.write({other: ONE})
    beside.close()
    with (tmp_path / FILE).open("r+b") as file:
        file.write(b"\xff" * 8192)
    (tmp_path / f"{FILE}-wal").write_bytes(b"")
    ledger.remember(other, ONE)
    ledger.close()
    assert len(said) == 1
    assert read_ledger(tmp_path) == {KEY: ONE, other: ONE}


def test_newer(tmp_path: Path) -> None:
    """A file of a later version is left as it is, and nothing is kept."""
    file = sqlite3.connect(tmp_path / FILE)
    file.execute("PRAGMA user_version = 99")
    file.close()
    before, said = (tmp_path / FILE).read_bytes(), list[str]()
    ledger = Ledger(tmp_path / FILE, said.append)
    ledger.remember(KEY, ONE)
    ledger.close()
    assert ledger.find(KEY) == ONE
    assert "later version" in said[0]
    assert (tmp_path / FILE).read_bytes() == before


def test_no_directory(tmp_path: Path) -> None:
    """Where nothing can be written that is one warning, and figures are known as long as the server runs."""
    said: list[str] = []
    ledger = Ledger(tmp_path / "missing" / FILE, said.append)
    ledger.remember(KEY, ONE)
    ledger.close()
    assert ledger.find(KEY) == ONE
    assert len(said) == 1
    assert read_ledger(tmp_path / "missing") == {}


_WRITER = """
import sys
from pathlib import Path
from corral.ledger.figures import Figures, Key
from corral.ledger.ledger import Ledger
ledger = Ledger(Path(sys.argv[1]))
for number in range(100000):
    ledger.remember(Key(f"m{number % 50}", "e", "s"), Figures({"cpu": {"weights": number}}, 1.0, at_wall_s=number))
    if number == 20:
        print("begun", flush=True)
"""


def test_killed(tmp_path: Path) -> None:
    """A kill in the midst of writing leaves a whole file behind: what it has is what was written, and it can be
    written to."""
    for _ in range(3):
        child = subprocess.Popen([sys.executable, "-c", _WRITER, str(tmp_path / FILE)], stdout=subprocess.PIPE)
        assert child.stdout is not None
        assert child.stdout.readline() == b"begun\n"
        deadline = time.monotonic() + 20
        while not read_ledger(tmp_path):
            assert time.monotonic() < deadline
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
        child.stdout.close()
    said: list[str] = []
    ledger = Ledger(tmp_path / FILE, said.append)
    ledger.remember(KEY, ONE)
    ledger.close()
    assert said == []
    known = read_ledger(tmp_path)
    assert known.pop(KEY) == ONE
    assert known
    assert all(figures.devices["cpu"]["weights"] % 50 == int(key.model[1:]) for key, figures in known.items())


def test_bounded(tmp_path: Path) -> None:
    """Keys that were not loaded for longest are forgotten when there are very many."""
    book = Book(tmp_path / FILE)
    book.write({Key(f"m{n}", "e", "s"): Figures({}, None, at_wall_s=float(n)) for n in range(KEPT + 10)})
    known = book.read()
    book.close()
    assert len(known) == KEPT
    assert Key("m9", "e", "s") not in known
    assert Key("m10", "e", "s") in known


def test_set_aside_again(tmp_path: Path) -> None:
    """No file that was set aside is written over."""
    for number in (1, 2):
        (tmp_path / "a.db").write_text(str(number))
        (tmp_path / "a.db-wal").write_text("wal")
        assert set_aside(tmp_path / "a.db").name == f"a.db.broken-{number}"
    assert (tmp_path / "a.db.broken-1").read_text() == "1"
    assert (tmp_path / "a.db.broken-2-wal").read_text() == "wal"


PARTS = st.dictionaries(st.sampled_from(COMPONENTS), st.integers(0, 1 << 50))
DEVICES = st.dictionaries(st.sampled_from(["cpu", "gpu0", "gpu1"]), PARTS)


@given(one=DEVICES, other=DEVICES)
def test_figures_never_shrink(one: dict[str, dict[str, int]], other: dict[str, dict[str, int]]) -> None:
    """Whatever is measured later, no device's figure becomes smaller; and what is written is what is read."""
    both = Figures(other).after(Figures(one))
    assert load_devices(dump_devices(both.devices)) == both.devices
    for each in (one, other):
        for name, parts in each.items():
            for component, size in parts.items():
                assert both.devices[name][component] >= size


@pytest.mark.parametrize("text", ["[]", "{", '{"cpu": 1}', '{"cpu": {"weights": -1}}', '{"cpu": {"weights": "x"}}'])
def test_nonsense(text: str) -> None:
    """A row that makes no sense is refused."""
    with pytest.raises(ValueError):
        load_devices(text)
