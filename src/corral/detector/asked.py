"""What a request asks for, from its body and query: a form, JSON with base64, or the bytes of one picture."""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, Literal
from urllib.parse import parse_qsl

from corral.errors import BadImage, CallerError, NotAnImage, NotJson
from corral.lazy_dataclass import dataclass

MOST_PICTURES: Final = 64
MOST_DETECTIONS: Final = 10_000
_MOST_FIELDS: Final = 32
_MOST_FIELD_BYTES: Final = 64 << 10
_BOUNDARY: Final = re.compile(rb'boundary=(?:"([^"]{1,70})"|([^\s;"]{1,70}))', re.IGNORECASE)
_NAME: Final = re.compile(rb'[;\s]name="([^"]*)"', re.IGNORECASE)
_DATA_URL: Final = re.compile(r"data:[\w.+/-]*(?:;[\w=.+-]+)*;base64,", re.ASCII)
_PICTURES: Final = ("image", "images", "image[]", "images[]", "file", "files")
_OPTIONS: Final = ("confidence", "classes", "max_detections", "model", "draw")
_SHAPE: Final = '{"image": "<base64>", "confidence": 0.5}, or a form with a file `image`'
_HINT: Final = f"send {_SHAPE}"

Bytes = bytes | memoryview
Drawing = Literal["", "any", "png", "jpeg"]
"""Whether and as what the picture is wanted with its findings."""


@dataclass(frozen=True, slots=True)
class Asked:
    """The pictures as they came, and what is wanted of them."""

    pictures: tuple[Bytes, ...]
    confidence: float | None = None
    classes: frozenset[int] | None = None
    most: int | None = None
    draw: Drawing = ""


def read(kind: str, query: str, body: bytes, labels: Sequence[str]) -> Asked:
    """The request with the content type `kind`. Blocks for as long as a large body takes. Raises CallerError, NotJson,
    NotAnImage, BadImage."""
    said: dict[str, Any] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name not in _OPTIONS:
            raise CallerError(f"unknown query parameter {name[:80]!r}", hint=f"known: {', '.join(_OPTIONS)}")
        said[name] = value
    essence = kind.partition(";")[0].strip().lower()
    pictures: list[Bytes]
    if essence == "multipart/form-data":
        pictures = _from_form(kind, body, said)
    elif essence in ("application/json", "text/json", ""):
        pictures = _from_json(body, said)
    elif essence.startswith("image/") or essence == "application/octet-stream":
        pictures = [body]
    else:
        raise NotAnImage(f"the body's type {essence[:80]!r} is none that is taken here", hint=_HINT)
    if not pictures:
        raise CallerError("the request has no picture", hint=_HINT, param="image")
    if len(pictures) > MOST_PICTURES:
        raise CallerError(f"{len(pictures)} pictures in one request, and {MOST_PICTURES} are the most", hint="send two")
    return Asked(
        tuple(pictures),
        _confidence(said.get("confidence")),
        _classes(said.get("classes"), labels),
        _most(said.get("max_detections")),
        _drawing(said.get("draw")),
    )


def _from_json(body: bytes, said: dict[str, Any]) -> list[Bytes]:
    try:
        data = json.loads(body)
    except (ValueError, RecursionError) as exc:
        raise NotJson(f"the body is not JSON: {exc}"[:300], hint=_HINT) from exc
    if not isinstance(data, dict):
        raise CallerError("the body must be a JSON object", hint=_HINT)
    for name in data:
        if name not in (*_OPTIONS, "image", "images"):
            known = ", ".join(("image", "images", *_OPTIONS))
            raise CallerError(f"unknown field {name[:80]!r}", hint=f"known: {known}", param=name[:80])
    said.update({name: data[name] for name in _OPTIONS if data.get(name) is not None})
    texts = data.get("images", [])
    if not isinstance(texts, list):
        raise CallerError('"images" must be a list of texts', hint=_HINT, param="images")
    return [_decoded(each) for each in ([data["image"]] if data.get("image") is not None else []) + texts]


def _decoded(text: Any) -> bytes:
    if not isinstance(text, str):
        raise CallerError("a picture must be a text in base64", hint=_HINT, param="image")
    if text[:8].lower().startswith(("http:", "https:", "file:")):
        raise CallerError("addresses are not fetched", hint="send the picture itself, in base64", param="image")
    if (match := _DATA_URL.match(text)) is not None:
        text = text[match.end() :]
    try:
        return base64.b64decode(text.encode("ascii"), validate=True)
    except (binascii.Error, ValueError) as exc:
        raise BadImage(f"a picture is no base64: {exc}"[:200], hint=_HINT, param="image") from exc


def _from_form(kind: str, body: bytes, said: dict[str, Any]) -> list[Bytes]:
    pictures: list[Bytes] = []
    for name, is_file, value in _parts(kind, body):
        if is_file or name in _PICTURES:
            if name not in _PICTURES:
                raise CallerError(f"a file in the field {name[:80]!r}", hint="put pictures into the field image")
            pictures.append(value)
        elif name in _OPTIONS:
            if len(value) > _MOST_FIELD_BYTES:
                raise CallerError(f"the field {name} is too long", hint=_HINT, param=name)
            said[name] = bytes(value).decode("utf-8", "replace")
        else:
            raise CallerError(f"unknown field {name[:80]!r}", hint=f"known: image, {', '.join(_OPTIONS)}", param=name)
    return pictures


def _parts(kind: str, body: bytes) -> Iterator[tuple[str, bool, Bytes]]:
    """Name, whether it is a file, and content of each part of a form. Source: RFC 7578, RFC 2046."""
    match = _BOUNDARY.search(kind.encode("latin-1", "replace"))
    broken = CallerError("the form is broken, or cut off", hint="let your HTTP client make the form and its boundary")
    if match is None:
        raise broken
    mark = b"--" + (match[1] or match[2])
    if not body.startswith(mark):
        raise broken
    whole, at = memoryview(body), len(mark)
    for _ in range(MOST_PICTURES + _MOST_FIELDS):
        if body[at : at + 2] == b"--":
            return
        if body[at : at + 2] != b"\r\n":
            raise broken
        head_end, end = body.find(b"\r\n\r\n", at), body.find(b"\r\n" + mark, at)
        if not at <= head_end < end or head_end - at > 8192:
            raise broken
        head = next(
            (line for line in body[at:head_end].split(b"\r\n") if line[:20].lower() == b"content-disposition:"), b""
        )
        named = _NAME.search(head)
        if named is None:
            raise broken
        yield named[1].decode("utf-8", "replace"), b"filename" in head.lower(), whole[head_end + 4 : end]
        at = end + 2 + len(mark)
    raise CallerError("the form has too many fields", hint=f"{MOST_PICTURES} pictures are the most")


def _confidence(said: Any) -> float | None:
    if said is None:
        return None
    try:
        found = float(said) if not isinstance(said, bool) else -1.0
    except (TypeError, ValueError):
        found = -1.0
    if not 0 <= found <= 1:
        raise CallerError(f"confidence must be from 0 to 1, not {str(said)[:40]!r}", hint=_HINT, param="confidence")
    return found


def _most(said: Any) -> int | None:
    if said is None:
        return None
    try:
        found = int(said) if not isinstance(said, (bool, float)) else 0
    except (TypeError, ValueError):
        found = 0
    if not 1 <= found <= MOST_DETECTIONS:
        words = f"max_detections must be from 1 to {MOST_DETECTIONS}, not {str(said)[:40]!r}"
        raise CallerError(words, hint="leave it out for all", param="max_detections")
    return found


def _classes(said: Any, labels: Sequence[str]) -> frozenset[int] | None:
    """Labels by name or number: a list, or one text with commas."""
    if said is None:
        return None
    names = [each.strip() for each in said.split(",")] if isinstance(said, str) else said
    if not isinstance(names, list) or not names or not all(_is_label(each) for each in names):
        raise CallerError('"classes" must be a list of labels', hint=f"such as {labels[0]}", param="classes")
    by_name: Mapping[str, int] = {label.lower(): number for number, label in enumerate(labels)}
    found = set()
    for each in names:
        number = by_name.get(str(each).lower())
        if number is None and str(each).isdecimal() and int(each) < len(labels):
            number = int(each)
        if number is None:
            listed = ", ".join(labels[:20]) + (" …" if len(labels) > 20 else "")
            raise CallerError(
                f"the model knows no class {str(each)[:80]!r}", hint=f"it knows {listed}", param="classes"
            )
        found.add(number)
    return frozenset(found)


def _is_label(each: Any) -> bool:
    return isinstance(each, (str, int)) and not isinstance(each, bool) and str(each) != ""


def _drawing(said: Any) -> Drawing:
    if said in (None, False, "0", "false", "no", 0):
        return ""
    if said in (True, "1", "true", "yes", ""):
        return "any"
    if said in ("png", "jpeg"):
        return "png" if said == "png" else "jpeg"
    raise CallerError(
        f"draw must be 1, 0, png or jpeg, not {str(said)[:40]!r}", hint="draw=1 gives the picture", param="draw"
    )
