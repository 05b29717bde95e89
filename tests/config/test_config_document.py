"""YAML with positions: what is read, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from corral.config.document import MAX_BYTES, MAX_VALUES, Document, parse_document, read_document


def parse(text: str) -> Document:
    return parse_document(text, "models.yaml")


def only_problem(document: Document) -> str:
    assert len(document.problems) == 1, document.problems
    return str(document.problems[0])


def test_every_key_has_its_line_and_column() -> None:
    """Keys and list items know the line and column they were written at, both from 1."""
    document = parse("max_active: 1\nmodels:\n  - name: a\n    context: 5\n")
    assert document.data == {"max_active": 1, "models": [{"name": "a", "context": 5}]}
    assert str(document.place(("models", "0", "context"))) == "models.yaml:4:5"
    assert str(document.place(("models", "0", "not", "there"))) == "models.yaml:3:5"
    assert str(document.place(("nowhere",))) == "models.yaml"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("no", "no"),
        ("on", "on"),
        ("12:30", "12:30"),
        ("2026-01-01", "2026-01-01"),
        ("1_000", "1_000"),
        ("0x10", 16),
        ("0o17", 15),
        ("017", 17),
        ("-3", -3),
        ("1.5", 1.5),
        ("1e3", 1000.0),
        (".inf", ".inf"),
        ("true", True),
        ("~", None),
        ("", None),
        ("'5'", "5"),
        ('"true"', "true"),
        ("9" * 31, "9" * 31),
    ],
)
def test_scalars_are_those_of_yaml_1_2(text: str, value: object) -> None:
    """Plain words are read by YAML 1.2's core schema; quoted ones are texts."""
    data = parse(f"key: {text}").data
    assert data == {"key": value}
    assert type(data["key"]) is type(value)


def test_the_spelling_of_scalars_is_kept() -> None:
    """How a number was written is not lost, for flags and variables."""
    assert parse("args: [0.70]").texts[("args", "0")] == "0.70"


def test_a_duplicate_key_names_both_lines() -> None:
    """A key that is given twice is a problem with the second's place and the first's line."""
    text = only_problem(parse("a: 1\nb: 2\na: 3\n"))
    assert text == "models.yaml:3:1: `a` is given twice: the first is in line 1"


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        ("models:\n\t- name: a\n", 2, "a tab stands where YAML wants spaces"),
        ("a: [1, 2\n", 2, "this is not YAML"),
        ("a: b: c\n", 1, "mapping values are not allowed"),
        ("a: *nobody\n", 1, "undefined alias"),
        ("a: 1\n---\nb: 2\n", 2, "this is not YAML"),
        ("a: 1\nb: \x01\n", 2, "control character"),
        ("a: !!python/object:os.system x\n", 1, "the tag 'tag:yaml.org,2002:python/object:os.system' means nothing"),
        ("a: !secret x\n", 1, "the tag '!secret' means nothing"),
        ("[a, b]: 1\n", 1, "a key must be a plain word"),
        ('a: "\\uD800"\n', 1, "half a surrogate pair"),
    ],
)
def test_bad_yaml_names_its_line(text: str, line: int, says: str) -> None:
    """What is not YAML, or means nothing here, is one problem with its line."""
    found = parse(text).problems
    assert len(found) == 1
    assert found[0].place.line == line
    assert says in found[0].message
    assert found[0].hint


def test_escapes_beyond_unicode_are_refused() -> None:
    """An escape that is no character is a problem, not a crash."""
    assert "not YAML" in only_problem(parse('a: "\\UFFFFFFFF"'))


def test_a_yaml_bomb_is_refused() -> None:
    """Aliases are expanded up to a limit only, however few bytes they take."""
    levels = ["l0: &l0 [x, x, x, x, x, x, x, x, x]"]
    levels += [f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 9)}]" for n in range(1, 10)]
    assert f"more than {MAX_VALUES} values" in only_problem(parse("\n".join(levels)))


def test_an_alias_to_itself_is_refused() -> None:
    """A cycle ends at the depth limit."""
    assert "nested too deeply" in only_problem(parse("a: &a [*a]"))


@pytest.mark.parametrize("depth", [30, 600])
def test_deep_nesting_is_refused(depth: int) -> None:
    """Depth is limited, before and after it exhausts the parser."""
    assert "nested too deeply" in only_problem(parse("[" * depth + "]" * depth))


def test_a_small_alias_works() -> None:
    """An anchor may be used again: both places have the value."""
    assert parse("a: &x {k: 1}\nb: *x\n").data == {"a": {"k": 1}, "b": {"k": 1}}


def test_an_empty_document_is_nothing() -> None:
    """An empty file, or one of comments, holds no data and has no problem."""
    for text in ("", "# only a comment\n", "---\n"):
        assert parse(text).data is None
        assert not parse(text).problems


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda f: None, "there is no such file"),
        (lambda f: f.mkdir(), "is a directory"),
        (lambda f: f.write_bytes(b"a: 1\nb: \xff\n"), "is not UTF-8 text"),
        (lambda f: f.write_bytes(b"#" * (MAX_BYTES + 1)), "is larger than"),
    ],
)
def test_an_unreadable_file_is_a_problem_with_its_name(tmp_path: Path, make: object, says: str) -> None:
    """A file that cannot be taken says why, with its path and a hint."""
    file = tmp_path / "models.yaml"
    make(file)  # type: ignore[operator]
    text = only_problem(read_document(file))
    assert str(file) in text
    assert says in text


def test_a_byte_order_mark_is_no_problem(tmp_path: Path) -> None:
    """Files that an editor saved with a byte order mark are read."""
    file = tmp_path / "models.yaml"
    file.write_bytes(b"\xef\xbb\xbfmax_active: 1\n")
    assert read_document(file).data == {"max_active": 1}


def test_a_fifo_is_not_waited_for(tmp_path: Path) -> None:
    """What is no plain file is refused, not opened."""
    import os

    os.mkfifo(tmp_path / "models.yaml")
    assert "is not a plain file" in only_problem(read_document(tmp_path / "models.yaml"))
