"""Peeking at bodies and splicing names into them."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral.errors import CallerError, NotJson
from corral.gateway.path.peek import QUICK_BYTES, peek, splice

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
spaces = st.text(alphabet=" \t\r\n", max_size=3)


@st.composite
def bodies(draw: st.DrawFn) -> tuple[bytes, dict[str, object]]:
    """A JSON object written with free spacing and escaping, and what it means."""
    members = draw(st.dictionaries(st.text().filter(lambda key: key != "model"), json_values, max_size=5))
    items: list[tuple[str, object]] = list(members.items())
    if draw(st.booleans()):
        items.insert(draw(st.integers(0, len(items))), ("model", draw(st.text() | st.none())))
    written = []
    for key, value in items:
        escape = draw(st.booleans())
        parts = (
            draw(spaces), json.dumps(key, ensure_ascii=escape), draw(spaces), ":", draw(spaces),
            json.dumps(value, ensure_ascii=draw(st.booleans())), draw(spaces),
        )  # fmt: skip
        written.append("".join(parts))
    text = draw(spaces) + "{" + (",".join(written) or draw(spaces)) + "}" + draw(spaces)
    return text.encode(), dict(items)


@given(bodies(), st.text())
def test_splicing_changes_the_model_and_nothing_else(drawn: tuple[bytes, dict[str, object]], name: str) -> None:
    """Whatever the body, after splicing it reads as before but for the model, and all other bytes are the same."""
    body, meant = drawn
    seen = peek(body)
    assert seen.model == meant.get("model")
    assert seen.stream is (meant.get("stream") is True)
    spliced = splice(body, seen, name)
    assert json.loads(spliced) == {**meant, "model": name}
    if seen.span is not None:
        start, end = seen.span
        assert json.loads(body[start:end]) == meant["model"]
        assert spliced.startswith(body[:start]) and spliced.endswith(body[end:])
        if name != seen.model:
            assert spliced == body[:start] + json.dumps(name).encode() + body[end:]
    else:
        added = b'"model":' + json.dumps(name).encode() + (b"" if not meant else b",")
        assert spliced == body[: seen.inside] + added + body[seen.inside :]


@given(st.binary(max_size=60) | st.text(alphabet='{}[]":,\\ utrnlfase0123456789.eE+-modl', max_size=60).map(str.encode))
def test_what_peek_takes_is_what_a_strict_parser_takes(body: bytes) -> None:
    """Anything is either an object that a strict JSON parser reads the same way, or one clear error with a hint."""
    try:
        seen = peek(body)
    except CallerError as exc:
        assert exc.hint
        return
    pairs: list[tuple[str, object]] = json.loads(body, object_pairs_hook=lambda found: found)
    read = dict(pairs)
    assert len(read) == len(pairs)
    assert seen.model == read.get("model")


@given(
    bodies().map(lambda drawn: drawn[0])
    | st.text(alphabet='{}[]":,\\ utrnlfase0129.-modl', max_size=40).map(str.encode)
    | st.sampled_from(
        [b'{"x\\"model": 1, "model": "a"}', b'{"\\u006dodel": "a", "x": {"model": "b"}}', b'{"a": {"model": "b"}}',
         b'{"model": null}', b'{"model":"\\""}', b'{"model": 3}', b'{"model": "a", "a": [{"model": "b"}]}',
         b'{"a":1,"a":2}']
    )
)  # fmt: skip
def test_a_body_is_read_the_same_whatever_its_size(body: bytes) -> None:
    """Small bodies are read in one go, large ones member by member; both see the same and refuse the same."""

    def seen(data: bytes) -> object:
        try:
            return peek(data)
        except CallerError as exc:
            return type(exc), exc.details.get("position") if exc.details.get("position") != len(data) else "end"

    padded = body + b" " * QUICK_BYTES
    small, large = seen(body), seen(padded)
    if isinstance(small, tuple) and "end" in small:
        assert isinstance(large, tuple)
        assert small[0] == large[0]
    else:
        assert small == large


@pytest.mark.parametrize(
    ("body", "words", "position"),
    [
        (b"", "empty", 0),
        (b"  ", "empty", 2),
        (b"hello", "none", 0),
        (b'{"model": "x"', "comma", 13),
        (b'{"model": "x",}', "key", 14),
        (b'{"model" "x"}', "colon", 9),
        (b'{"model": }', "none", 10),
        (b'{"a": 1} x', "more", 9),
        (b'{"\xc3\xa9": 1} x', "more", 10),
        (b"{'model': 1}", "key", 1),
        (b'{"a": "\n"}', "control", 7),
        (b'\xef\xbb\xbf{"model": "x"}', "byte order mark", 0),
        (b'{"model": "\xff"}', "UTF-8", 11),
        (b'{"model": "\xed\xa0\x80"}', "UTF-8", 11),
    ],
)
def test_a_body_that_is_no_json_is_refused_with_the_byte(body: bytes, words: str, position: int) -> None:
    """What is wrong is said in words, and where it is as an offset in bytes."""
    with pytest.raises(NotJson) as caught:
        peek(body)
    assert words.lower() in caught.value.message.lower()
    assert caught.value.details["position"] == position
    assert caught.value.hint


@pytest.mark.parametrize("value", [b"NaN", b"Infinity", b"-Infinity", b"[NaN]"])
def test_python_numbers_that_are_no_json_are_refused(value: bytes) -> None:
    """NaN and the infinities are not JSON, at any depth."""
    with pytest.raises(NotJson):
        peek(b'{"temperature": ' + value + b"}")


@pytest.mark.parametrize("body", [b"[]", b'"model"', b"12", b"null", b"[1, 2] "])
def test_json_that_is_no_object_is_refused(body: bytes) -> None:
    """A list, a string or a number is JSON but no request."""
    with pytest.raises(CallerError, match="must be a JSON object"):
        peek(body)


@pytest.mark.parametrize(
    "body",
    [
        b'{"model": "a", "model": "b"}',
        b'{"model": "a", "\\u006dodel": "b"}',
        b'{"x": {"model": 1}, "y": 1, "x": 2}',
    ],
)
def test_a_key_given_twice_is_refused_by_name(body: bytes) -> None:
    """Duplicate keys, however they are spelled, are refused, and the error says which."""
    with pytest.raises(CallerError, match="twice") as caught:
        peek(body)
    assert caught.value.details["key"] in ("model", "x")


@pytest.mark.parametrize("value", [b"1", b"true", b'["a"]', b"{}"])
def test_a_model_that_is_no_string_is_refused(value: bytes) -> None:
    """`model` is a name; null counts as not given."""
    with pytest.raises(CallerError, match="must be a string"):
        peek(b'{"model": ' + value + b"}")
    assert peek(b'{"model": null}').model is None


def test_a_nested_model_is_not_the_model() -> None:
    """Only the top level counts."""
    body = b'{"x": {"model": "inner"}, "messages": [{"model": "other"}]}'
    seen = peek(body)
    assert seen.model is None
    assert splice(body, seen, "m") == b'{"model":"m",' + body[1:]


def test_an_escaped_lone_surrogate_is_read_and_left_alone() -> None:
    """JSON's grammar allows it, so it passes to whoever is asked, and an unknown name stays printable."""
    body = b'{"model": "a\\ud800", "x": "\\udfff"}'
    assert peek(body).model == "a\ud800"
    assert splice(body, peek(body), "b") == b'{"model": "b", "x": "\\udfff"}'


def test_absurd_nesting_is_refused() -> None:
    """Depth is bounded; the process survives it."""
    with pytest.raises(NotJson, match="deep"):
        peek(b'{"a":' + b"[" * 200_000 + b"]" * 200_000 + b"}")


def test_numbers_of_any_length_pass() -> None:
    """A number too long for Python's int is the engine's business."""
    assert peek(b'{"seed": ' + b"9" * 10_000 + b', "model": "m"}').model == "m"
