"""Kept conversations on disk, with files as an engine would write them."""

from __future__ import annotations

import struct
from array import array
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral.conversations import tokens
from corral.conversations.identity import SAVE_FLAG, Identity, identify, save_dir, stamp
from corral.conversations.shelf import Record, Shelf, Verdict
from corral.engines.plan import LaunchPlan, Mount
from corral.errors import EngineError
from support.engines import plan_of

MOST = 1 << 20


def state(held: Sequence[int], bytes_more: int = 100, *, plain: bool = False) -> bytes:
    """A saved slot: the tokens, `plain` as earlier versions have them, and then the state."""
    numbers = held if plain else [-1, 1, len(held), *held, 0]
    head = struct.pack("<III", 0x67677371, 2 if plain else 4, len(numbers))
    return head + array("i", numbers).tobytes() + bytes(bytes_more)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    (tmp_path / "m.gguf").write_bytes(b"GGUF")
    return tmp_path / "m.gguf"


@pytest.fixture
def identity(model: Path) -> Identity:
    return Identity("build", "key", (stamp(model),))


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    made = Shelf(tmp_path / "kept")
    made.open()
    return made


def keep(
    shelf: Shelf, identity: Identity, held: Sequence[int], size: int = 100, most: int = MOST, model: str = "m"
) -> Record | None:
    part = shelf.home(model) / shelf.part(model).name
    part.write_bytes(state(held, size))
    return shelf.take(part, model, identity, len(held), 0.001, most)


def names(shelf: Shelf) -> set[str]:
    return {file.name for file in files(shelf)}


def files(shelf: Shelf) -> list[Path]:
    return [file for file in shelf.folder.rglob("*") if not file.is_dir()]


def test_what_is_kept_is_found_again(shelf: Shelf, identity: Identity) -> None:
    """The longest beginning of a request is found, by another shelf over the same directory too."""
    long = keep(shelf, identity, range(100, 500))
    keep(shelf, identity, [*range(100, 200), *range(900, 950)])
    assert long is not None
    for each in (shelf, Shelf(shelf.folder)):
        each.open()
        everything = {record.id for record in each.of("key")}
        assert len(everything) == 2
        assert each.best("key", array("i", [*range(100, 300), 7]), everything) == (long, 200)
        assert each.best("key", array("i", range(100, 600)), everything) == (long, 400)
        assert each.best("key", array("i", [5, 6]), everything) is None
        assert each.best("key", array("i", range(100, 300)), set()) is None
        assert each.best("other", array("i", range(100, 300)), everything) is None


def test_nobody_else_can_read_it(shelf: Shelf, identity: Identity) -> None:
    """The directory is its owner's alone, and so is each file, whatever the engine made it."""
    record = keep(shelf, identity, range(300))
    shelf.judge("build", Verdict(1))
    assert shelf.folder.stat().st_mode & 0o777 == 0o700
    assert {file.stat().st_mode & 0o777 for file in files(shelf)} == {0o600}
    assert shelf.home("m").stat().st_mode & 0o777 == 0o700
    assert record is not None
    assert names(shelf) == {f"{record.id}.kv", f"{record.id}.json", "verdicts.json"}


def test_a_record_says_nothing_of_what_was_said(shelf: Shelf, identity: Identity) -> None:
    """Beside its tokens' number nothing of a conversation is in its record."""
    record = keep(shelf, identity, range(70000, 70300))
    assert record is not None
    text = (shelf.folder / f"{record.id}.json").read_text()
    assert "70001" not in text
    assert '"tokens": 300' in text


def test_a_conversation_that_goes_on_takes_the_place_of_its_beginning(shelf: Shelf, identity: Identity) -> None:
    """A longer one replaces those it goes on from, and leaves those that went on otherwise."""
    keep(shelf, identity, range(300))
    other = keep(shelf, identity, [*range(250), 9, 9, 9])
    longer = keep(shelf, identity, range(600))
    assert {record.id for record in shelf.of("key")} == {other.id, longer.id}  # type: ignore[union-attr]


def test_the_bound_holds(shelf: Shelf, identity: Identity) -> None:
    """Those used longest ago go until the new one fits; one that never fits is not kept, and nothing goes for it."""
    first, _ = (keep(shelf, identity, [n] * 300, 10_000, 30_000) for n in (1, 2))
    assert first is not None
    shelf.used(first)
    third = keep(shelf, identity, [3] * 300, 10_000, 30_000)
    assert {record.id for record in shelf.of("key")} == {first.id, third.id}  # type: ignore[union-attr]
    assert shelf.bytes <= 30_000
    assert keep(shelf, identity, [4] * 300, 40_000, 30_000) is None
    assert len(shelf) == 2
    shelf.trim(15_000)
    assert len(shelf) == 1
    assert len(names(shelf)) == 2


@pytest.mark.parametrize("damage", ["shorter", "flipped", "gone"])
def test_a_damaged_file_is_noticed(shelf: Shelf, identity: Identity, damage: str) -> None:
    """A file that is not what was saved is dropped before an engine sees it."""
    record = keep(shelf, identity, range(300), 5000)
    assert record is not None
    assert shelf.whole(record)
    file = shelf.file(record)
    data = bytearray(file.read_bytes())
    data[-10] ^= 1
    if damage == "gone":
        file.unlink()
    else:
        file.write_bytes(data if damage == "flipped" else data[:-1])
    assert not shelf.whole(record)
    assert names(shelf) == set()


def test_each_model_has_a_folder_of_its_own(shelf: Shelf, identity: Identity) -> None:
    """The states of one model lie in a folder that has nothing of another, nor a record; the same file under two names
    counts as two models, since neither engine sees what the other has saved."""
    one, other = keep(shelf, identity, range(300), model="one"), keep(shelf, identity, range(400), model="other")
    assert one is not None and other is not None
    assert [file.name for file in shelf.home("one").iterdir()] == [f"{one.id}.kv"]
    assert [file.name for file in shelf.home("other").iterdir()] == [f"{other.id}.kv"]
    assert shelf.of("key", "one") == [one] and shelf.of("key", "other") == [other] and len(shelf.of("key")) == 2
    assert shelf.bytes == one.bytes + other.bytes == sum(path.stat().st_size for path in shelf.folder.rglob("*.kv"))
    assert shelf.home("../x/" + "y" * 300).parent == shelf.folder


def test_what_lay_in_one_folder_is_moved(shelf: Shelf, identity: Identity) -> None:
    """Of an earlier Corral, all files lay beside each other: they go into their models' folders, or go."""
    records = [keep(shelf, identity, [n] * 300, model=f"m{n}") for n in range(3)]
    for record in records:
        assert record is not None
        shelf.file(record).rename(shelf.folder / f"{record.id}.kv")
        shelf.file(record).parent.rmdir()
        path = shelf.folder / f"{record.id}.json"
        path.write_text(path.read_text().replace('"layout": 2', '"layout": 1'))
    first, second, third = (record for record in records if record is not None)
    (shelf.folder / f"{second.id}.kv").unlink()
    (shelf.folder / f"{third.id}.kv").write_bytes(b"short")
    (shelf.folder / "x.part").write_bytes(b"half")
    for _ in range(2):
        again = Shelf(shelf.folder)
        again.open()
        assert again.of("key") == [first] and again.whole(first)
        assert names(again) == {f"{first.id}.kv", f"{first.id}.json"}
        assert again.file(first).parent == again.home("m0") != again.folder


def test_only_a_file_is_taken(shelf: Shelf, identity: Identity, model: Path) -> None:
    """A link in place of what was saved is neither followed nor kept: an engine may have been turned against us."""
    mode = model.stat().st_mode
    part = shelf.home("m") / shelf.part("m").name
    part.symlink_to(model)
    with pytest.raises(EngineError, match="no file"):
        shelf.take(part, "m", identity, 5, 0.001, MOST)
    assert names(shelf) == set() and model.exists() and model.stat().st_mode == mode


def test_what_is_not_whole_is_removed_at_the_start(shelf: Shelf, identity: Identity) -> None:
    """Half-written files, records without a file, files without a record and nonsense go when a shelf is opened."""
    records = [keep(shelf, identity, [n] * 300) for n in range(3)]
    assert all(records)
    good, short, lone = (record.id for record in records if record is not None)
    (shelf.home("m") / f"{short}.kv").write_bytes(b"short")
    (shelf.folder / f"{lone}.json").unlink()
    shelf.part("m").write_bytes(b"half")
    (shelf.home("m") / "link.kv").symlink_to(shelf.home("m"))
    (shelf.folder / "x.json").write_text('{"id": 3}')
    (shelf.folder / "verdicts.json").write_text('{"build": {"strikes": 1, "off": null}, "b": 3, "c": {"d": 1}}')
    again = Shelf(shelf.folder)
    again.open()
    assert names(again) == {f"{good}.kv", f"{good}.json", "verdicts.json"}
    assert again.verdict("build") == Verdict(1)


def test_a_model_that_goes_takes_its_conversations_along(shelf: Shelf, identity: Identity, model: Path) -> None:
    """A model file that is gone, or another, leaves nothing kept."""
    keep(shelf, identity, range(300))
    assert shelf.sweep() == 0
    model.write_bytes(b"GGUF2")
    assert shelf.sweep() == 1
    assert len(shelf) == 0


def test_everything_can_be_removed(shelf: Shelf, identity: Identity) -> None:
    """Clearing says how much went, and leaves an empty directory. Forgetting one build leaves the others."""
    kept = keep(shelf, identity, range(300))
    shelf.judge("build", Verdict(2, "why"))
    assert kept is not None
    assert shelf.clear() == (1, kept.bytes)
    assert names(shelf) == set()
    assert shelf.verdict("build") == Verdict()
    keep(shelf, identity, range(300))
    assert (shelf.forget("other"), shelf.forget("build")) == (0, 1)


def test_a_foreign_form_is_refused(shelf: Shelf, identity: Identity) -> None:
    """A file that is no llama.cpp state is not kept, in words, and nothing of it stays."""
    part = shelf.home("m") / shelf.part("m").name
    part.write_bytes(b"something else entirely")
    with pytest.raises(EngineError, match="a form that is not known"):
        shelf.take(part, "m", identity, 5, 0.001, MOST)
    assert names(shelf) == set()


@pytest.mark.parametrize("plain", [False, True])
def test_tokens_of_both_forms_are_read(tmp_path: Path, plain: bool) -> None:
    """The tokens are found in files of older and newer engines; with another count the file is none of them."""
    file = tmp_path / "slot"
    file.write_bytes(state([5, 6, 7], plain=plain))
    assert tokens.read(file, 3) == array("i", [5, 6, 7])
    with pytest.raises(EngineError):
        tokens.read(file, 4)


@given(st.lists(st.integers(0, 2), max_size=40), st.lists(st.integers(0, 2), max_size=40))
def test_shared_tokens_are_counted(one: list[int], other: list[int]) -> None:
    """The common beginning is found to the token."""
    common = next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
    assert tokens.shared(array("i", one), array("i", other)) == common


def plan(model: Path, *flags: str, version: str = "1") -> LaunchPlan:
    made = plan_of("engine", "--model", str(model), "--host", "/a.sock", "--alias", "m", *flags)
    return replace(made, mounts=(Mount(model, str(model)),), engine_version=version)


def test_what_shapes_the_state_is_in_the_key(model: Path, tmp_path: Path) -> None:
    """Context, cache types and adapters make another key, so do the model and the engine; where it runs does not."""
    adapter = tmp_path / "lora.gguf"
    adapter.write_bytes(b"1")
    flags = ("--ctx-size", "4096", "--lora", str(adapter))
    base = identify(plan(model, *flags))
    assert (
        identify(plan(model, *flags, "--gpu-layers", "7", "--metrics", SAVE_FLAG, "/x", "-t", "3", "-lv", "4")) == base
    )
    for other in (("--ctx-size", "8192", *flags[2:]), (*flags, "--cache-type-k", "q8_0")):
        found = identify(plan(model, *other))
        assert (found.build, found.key == base.key) == (base.build, False)
    assert identify(plan(model, *flags, version="2")).build != base.build
    adapter.write_bytes(b"22")
    assert identify(plan(model, *flags)).key != base.key
    model.write_bytes(b"GGUF-other")
    assert identify(plan(model, *flags)).build != base.build


def test_the_last_directory_counts(model: Path) -> None:
    """A directory that the model's own flags give wins, so that nothing of ours is looked for there."""
    assert save_dir(plan(model)) is None
    assert save_dir(plan(model, SAVE_FLAG, "/a", SAVE_FLAG, "/b")) == Path("/b")
