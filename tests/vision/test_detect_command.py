"""`corral detect` of several pictures, of which some are none."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest

from corral.cli import own_server
from corral.cli.main import run as corral
from corral.errors import BadImage, UnknownModel


class Client:
    """A server for which a picture is whatever begins with `good`."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    def detect(self, body: dict[str, Any]) -> dict[str, Any]:
        self.asked.append(len(body["images"]))
        if body.get("model") == "none":
            raise UnknownModel("there is no model none", hint="corral list")
        found = []
        for each in body["images"]:
            if not base64.b64decode(each).startswith(b"good"):
                raise BadImage("the picture is broken", hint="send another")
            found.append({"width": 3, "height": 4, "detections": [{"label": "dog", "score": 0.9, "box": [1, 2, 3, 4]}]})
        return {"model": "d", "images": found}


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch, corral_env: dict[str, str]) -> Client:
    made = Client()
    monkeypatch.setattr(own_server, "ensure", lambda app: made)
    return made


def test_the_good_ones_are_shown(client: Client, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Of three pictures the two good ones are shown; the bad one and one that is not there are errors, by name."""
    files = [tmp_path / name for name in ("a.png", "bad.txt", "c.png")]
    for file, data in zip(files, (b"good", b"text", b"good"), strict=True):
        file.write_bytes(data)
    assert corral(["detect", *map(str, files), str(tmp_path / "none.png")]) == 2
    shown = capsys.readouterr()
    assert shown.out.count("dog") == 2 and "a.png" in shown.out and "c.png" in shown.out and "bad" not in shown.out
    assert f"{files[1]}: the picture is broken" in shown.err and "none.png" in shown.err
    assert client.asked == [3, 1, 1, 1]


def test_all_good_are_asked_at_once(client: Client, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """One request where nothing is wrong, and where what is wrong is none of the pictures."""
    (tmp_path / "a.png").write_bytes(b"good")
    two = [str(tmp_path / "a.png")] * 2
    assert corral(["detect", *two]) == 0 and client.asked == [2]
    assert corral(["detect", *two, "--model", "none"]) == 4 and client.asked == [2, 2]
