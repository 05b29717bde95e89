"""What a request asks for is read from forms, JSON and plain pictures; what is wrong in it is said."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral.detector.asked import MOST_PICTURES, Asked, read
from corral.errors import CorralError
from support.detecting import form

LABELS = ("disc", "traffic light", "square")


def of_json(**body: Any) -> Asked:
    return read("application/json", "", json.dumps(body).encode(), LABELS)


def of_form(*fields: tuple[str, str | bytes], query: str = "") -> Asked:
    kind, body = form(fields)
    return read(kind, query, body, LABELS)


def text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def test_json() -> None:
    """One picture or several, in base64, plain or as data: URLs, with what is wanted of them."""
    assert of_json(image=text(b"one")) == Asked((b"one",))
    whole = of_json(
        image="data:image/png;base64," + text(b"one"), images=[text(b"two")], confidence=0.25, draw=True,
        classes=["Square", 0], max_detections=3, model="any",
    )  # fmt: skip
    assert whole == Asked((b"one", b"two"), 0.25, frozenset({0, 2}), 3, "any")


def test_form() -> None:
    """A form has files and fields; a picture's bytes are kept as they are, whatever is in them."""
    odd = b"\r\n--corral-tes\r\n\r\n\0\xff--"
    found = of_form(
        ("image", odd), ("images", b"two"), ("confidence", "0.5"), ("classes", "traffic light, 2"), ("model", "m"),
        ("max_detections", "7"), ("draw", "png"),
    )  # fmt: skip
    assert [bytes(each) for each in found.pictures] == [odd, b"two"]
    assert (found.confidence, found.classes, found.most, found.draw) == (0.5, frozenset({1, 2}), 7, "png")


def test_plain_picture() -> None:
    """The body may be a picture's bytes, and the query says the rest; a field of the body goes before the query."""
    found = read("image/jpeg", "confidence=0.1&draw=1&classes=disc", b"data", LABELS)
    assert found == Asked((b"data",), 0.1, frozenset({0}), None, "any")
    assert of_form(("image", b"x"), ("confidence", "0.9"), query="confidence=0.1").confidence == 0.9


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({}, "no picture"),
        ({"images": []}, "no picture"),
        ({"image": 5}, "base64"),
        ({"image": "?"}, "no base64"),
        ({"image": "é"}, "no base64"),
        ({"image": "https://example.org/x.jpg"}, "not fetched"),
        ({"images": "x"}, "must be a list"),
        ({"image": "AAAA", "confidenec": 1}, "unknown field 'confidenec'"),
        ({"image": "AAAA", "confidence": 1.01}, "from 0 to 1"),
        ({"image": "AAAA", "confidence": "high"}, "from 0 to 1"),
        ({"image": "AAAA", "confidence": True}, "from 0 to 1"),
        ({"image": "AAAA", "classes": ["dog"]}, "no class 'dog'"),
        ({"image": "AAAA", "classes": [3]}, "no class '3'"),
        ({"image": "AAAA", "classes": [True]}, "list of labels"),
        ({"image": "AAAA", "classes": []}, "list of labels"),
        ({"image": "AAAA", "classes": {"disc": 1}}, "list of labels"),
        ({"image": "AAAA", "max_detections": 0}, "from 1 to"),
        ({"image": "AAAA", "max_detections": 1.5}, "from 1 to"),
        ({"image": "AAAA", "draw": "maybe"}, "draw must be"),
        ({"images": ["AAAA"] * (MOST_PICTURES + 1)}, "are the most"),
    ],
)
def test_wrong_json(body: dict[str, Any], words: str) -> None:
    """What is wrong is named, with a hint."""
    with pytest.raises(CorralError, match=words) as error:
        of_json(**body)
    assert error.value.status == 400
    assert error.value.hint


@pytest.mark.parametrize(
    ("kind", "query", "body", "status", "words"),
    [
        ("application/json", "", b"{", 400, "not JSON"),
        ("application/json", "", b"[" * 100_000, 400, "not JSON"),
        ("application/json", "", b"[]", 400, "JSON object"),
        ("text/plain", "", b"x", 415, "'text/plain'"),
        ("image/png", "confidenec=1", b"x", 400, "query parameter"),
        ("multipart/form-data", "", b"x", 400, "broken"),
        ("multipart/form-data; boundary=a", "", b"", 400, "broken"),
        ("multipart/form-data; boundary=a", "", b"--a--", 400, "no picture"),
        ("multipart/form-data; boundary=a", "", b"--a\r\n\r\nx\r\n--a--", 400, "broken"),
    ],
)
def test_wrong_bodies(kind: str, query: str, body: bytes, status: int, words: str) -> None:
    """Bodies that are no such thing are refused as what they are."""
    with pytest.raises(CorralError, match=words) as error:
        read(kind, query, body, LABELS)
    assert error.value.status == status


def test_wrong_forms() -> None:
    """Forms that are cut off, have unknown fields, or too many."""
    kind, body = form([("image", b"picture"), ("confidence", "0.5")])
    for end in (len(body) - 6, len(body) // 2, 40):
        with pytest.raises(CorralError, match="broken, or cut off"):
            read(kind, "", body[:end], LABELS)
    with pytest.raises(CorralError, match="unknown field 'x'"):
        of_form(("x", "1"))
    with pytest.raises(CorralError, match="a file in the field 'x'"):
        of_form(("x", b"1"))
    with pytest.raises(CorralError, match="too many"):
        of_form(*[("image", b"1")] * 200)
    with pytest.raises(CorralError, match="too long"):
        of_form(("classes", "x" * 100_000))


@given(kind=st.sampled_from(["application/json", "multipart/form-data; boundary=b", "image/png"]), body=st.binary())
def test_anything(kind: str, body: bytes) -> None:
    """Whatever comes is read or refused."""
    try:
        read(kind, "", body if not kind.startswith("multi") else b"--b\r\n" + body, LABELS)
    except CorralError as exc:
        assert exc.status in (400, 415)
