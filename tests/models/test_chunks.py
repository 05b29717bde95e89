"""The record of which chunks are there."""

from __future__ import annotations

from pathlib import Path

import pytest

from corral.models.fetching import chunks
from corral.models.fetching.chunks import MISSING, SYNCED, WRITTEN, Chunks, Content

CHUNK = 100
CONTENT = Content("sha256:" + "a" * 64, None, 950)


@pytest.fixture
def files(short_tmp: Path) -> tuple[Path, Path]:
    record, data = short_tmp / "x.state", short_tmp / "x"
    data.write_bytes(bytes(950))
    return record, data


def opened(files: tuple[Path, Path], content: Content = CONTENT, chunk: int = CHUNK) -> list[int]:
    found = Chunks.open(*files, content, chunk_bytes=chunk)
    found.close()
    return list(found.states)


def mark(files: tuple[Path, Path], written: list[int], synced: list[int], content: Content = CONTENT) -> None:
    """A record with these chunks, and no data lost by making it."""
    record = Chunks.open(*files, content, chunk_bytes=CHUNK)
    files[1].write_bytes(bytes(950))
    for index in (*written, *synced):
        record.mark(index)
    record.mark_synced(synced)
    record.close()


def test_marked_chunks_are_found_again(files: tuple[Path, Path]) -> None:
    """A chunk that was recorded is there for the next owner, as long as the kernel runs."""
    mark(files, [0, 3], [7, 8])
    assert opened(files) == [1, 0, 0, 1, 0, 0, 0, 2, 2, 0]


def test_after_a_reboot_only_synced_chunks_count(files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """What was only in memory when the machine went down is fetched again."""
    mark(files, [0, 3], [7, 8])
    monkeypatch.setattr(chunks, "boot_id", lambda: "another")
    assert opened(files) == [0, 0, 0, 0, 0, 0, 0, 2, 2, 0]


def test_where_reboots_cannot_be_seen_only_synced_chunks_count(
    files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a way to tell one boot from the next, nothing that is perhaps lost is trusted."""
    monkeypatch.setattr(chunks, "boot_id", lambda: None)
    mark(files, [0], [1])
    assert opened(files) == [0, 2, 0, 0, 0, 0, 0, 0, 0, 0]


def test_chunks_beyond_the_end_of_the_file_do_not_count(files: tuple[Path, Path]) -> None:
    """A file that is shorter than its record says has lost what is not in it."""
    mark(files, [0, 8, 9], [])
    files[1].write_bytes(bytes(905))
    assert opened(files) == [1, 0, 0, 0, 0, 0, 0, 0, 1, 0]


@pytest.mark.parametrize(
    "other",
    [
        Content("sha256:" + "b" * 64, None, 950),
        Content("sha256:" + "a" * 64, None, 951),
        Content(None, '"e"', 950),
    ],
)
def test_other_content_starts_from_nothing(files: tuple[Path, Path], other: Content) -> None:
    """A record of other content is of no use, and neither is the file."""
    mark(files, [0, 3], [7])
    assert not any(opened(files, other))
    assert files[1].stat().st_size == 0


def test_an_etag_names_content_only_when_there_is_one() -> None:
    """Two files without digest and ETag are never known to be the same."""
    assert Content(None, '"e"', 5).same(Content(None, '"e"', 5))
    assert not Content(None, None, 5).same(Content(None, None, 5))
    assert not Content(None, '"e"', 5).same(Content(None, '"f"', 5))


@pytest.mark.parametrize(
    "damage", [b"", b"{", b"[]\n", b'{"version": 2}\n', b"\xff" * 9000, b'{"version":1}\n\x01\x01']
)
def test_a_damaged_record_counts_for_nothing(files: tuple[Path, Path], damage: bytes) -> None:
    """A record torn by a power loss, or from another version, is begun anew."""
    files[0].write_bytes(damage)
    assert opened(files) == [MISSING] * 10


def test_a_record_with_odd_states_keeps_the_sound_ones(files: tuple[Path, Path]) -> None:
    """A byte that means nothing is a missing chunk."""
    mark(files, [0, 1], [])
    text = files[0].read_bytes()
    files[0].write_bytes(text[:-9] + b"\x77" + text[-8:])
    assert opened(files)[:2] == [WRITTEN, MISSING]
    assert SYNCED not in opened(files)
