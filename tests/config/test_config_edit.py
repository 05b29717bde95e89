"""Writing one key into a file that people wrote."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral.config.document import parse_document
from corral.config.edit import with_key

ENTRY: dict[str, Any] = {"address": "0.0.0.0:8643", "tls": {"cert": "/c.pem", "key": "/k.pem"}}
WRITTEN = """\
listen:
  - 127.0.0.1:8642
  - {address: '0.0.0.0:8643', tls: {cert: /c.pem, key: /k.pem}}
"""


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", WRITTEN),
        ("# only words\n", "# only words\n" + WRITTEN),
        ("# mine\nmodels: []\n", "# mine\n" + WRITTEN + "models: []\n"),
        ("listen: 8642", WRITTEN),
        ("listen: 8642  # here\nmodels: []\n", WRITTEN + "models: []\n"),
        ("a: 1\nlisten:\n- 1\n- 2\n\n# next\nmodels: []\n", "a: 1\n" + WRITTEN + "\n# next\nmodels: []\n"),
        ("listen:\n  - 1  # one\n  # two\n  - 2\nmodels: []", WRITTEN + "models: []\n"),
        ("listen: [1,\n  2]\nx: 1\n", WRITTEN + "x: 1\n"),
    ],
)
def test_other_lines_stay(before: str, after: str) -> None:
    """The key's own lines are replaced, or stand before the first key; comments stay with what they are about."""
    assert with_key(before, "listen", ["127.0.0.1:8642", ENTRY]) == after


@pytest.mark.parametrize(
    "text", ["{listen: 1, models: []}", "listen: &a [1]\nx: *a\n", "- 1\n", "listen: 1\nlisten: 2\n", "a: [\n"]
)
def test_what_cannot_be_done_line_by_line_is_not_done(text: str) -> None:
    """It is said instead."""
    with pytest.raises(ValueError, match=r"cannot be set|problems of its own"):
        with_key(text, "listen", ["127.0.0.1:8642"])


keys = st.sampled_from(["a", "listen", "models", "zz"])
values = st.sampled_from(
    [
        "1",
        "'x'",
        "[1, 2]",
        "\n  - 1\n  - 2",
        "\n- 1\n- b: 2\n  c: 3",
        "\n  k: v\n  l:\n    - 1",
        "|\n  text\n  listen: 3",
        "{}",
    ]
)
comments = st.sampled_from(["", "# words\n", "\n", "  # indented\n", "\n# a\n\n"])


@given(st.lists(st.tuples(comments, keys, values), unique_by=lambda each: each[1], max_size=4), comments)
def test_nothing_else_changes(parts: list[tuple[str, str, str]], last: str) -> None:
    """Whatever the file looks like: every other key keeps its value and its lines, or nothing is written at all."""
    text = "".join(f"{comment}{key}: {value}\n" for comment, key, value in parts) + last
    before = parse_document(text, "f")
    assert not before.problems
    try:
        made = with_key(text, "listen", ["127.0.0.1:8642", ENTRY])
    except ValueError:
        return
    assert parse_document(made, "f").data == {**(before.data or {}), "listen": ["127.0.0.1:8642", ENTRY]}
    for comment, key, value in parts:
        if key != "listen":
            assert f"{key}: {value}\n" in made
        assert comment.strip() in made
