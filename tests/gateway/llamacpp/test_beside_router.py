"""llama.cpp's own router and Corral side by side: the same questions, answers of the same shape."""

from __future__ import annotations

import http.client
import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from corral.config.paths import Paths
from corral.demo.where import demo_model
from gateway.llamacpp.test_router import LISTEN, send
from gateway.llamacpp.test_shapes import shape
from gateway.test_listen import free_port
from support.llama import llama_server
from support.server import Server, until

pytestmark = pytest.mark.engines


@pytest.fixture
def router(short_tmp: Path) -> Iterator[int]:
    """The port of a router over one model, `demo`."""
    folder = short_tmp / "models"
    folder.mkdir()
    shutil.copy(str(demo_model()), folder / "demo.gguf")
    port = free_port()
    argv = [str(llama_server()), "--models-dir", str(folder), "--host", "127.0.0.1", "--port", str(port), "--offline"]
    env = {"LLAMA_CACHE": str(short_tmp / "cache"), "HOME": str(short_tmp), "PATH": ""}
    with subprocess.Popen(argv, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            until(lambda: _ask(port, "GET", "/health") is not None, "the router to listen")
            yield port
        finally:
            process.terminate()


def _ask(port: int, method: str, path: str, body: Any = None) -> tuple[int, Any] | None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request(method, path, None if body is None else json.dumps(body))
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
    except OSError:
        return None
    finally:
        connection.close()


def test_answers_have_its_shape(paths: Paths, router: int) -> None:
    """Every field of the router's that Corral leaves out, and every status that differs, is named here."""
    config = f"{LISTEN}models: [{{name: demo, source: 'builtin:demo', executable: '{llama_server()}', context: 2048}}]"
    with Server(paths, config, listen="") as server:

        def both(method: str, path: str, body: Any = None) -> tuple[tuple[int, Any], tuple[int, Any]]:
            theirs = _ask(router, method, path, body)
            assert theirs is not None
            return theirs, send(server, method, path, body)

        def loaded() -> bool:
            return all(each[1]["data"][0]["status"]["value"] == "loaded" for each in both("GET", "/models"))

        theirs, ours = both("GET", "/props")
        assert shape(theirs[1]) == shape(ours[1])
        theirs, ours = both("GET", "/models")
        entry, own = theirs[1]["data"][0], ours[1]["data"][0]
        del entry["status"]["preset"], entry["status"]["args"], own["status"]["args"]
        assert shape(entry) == shape(own)
        for method, path, body in (
            ("GET", "/props?model=demo&autoload=false", None),
            ("POST", "/models/unload", {"model": "demo"}),
            ("POST", "/tokenize", {"content": "x"}),
            ("GET", "/slots", None),
        ):
            theirs, ours = both(method, path, body)
            assert theirs[0] == ours[0] == 400
            assert theirs[1]["error"].items() - {("message", theirs[1]["error"]["message"])} <= ours[1]["error"].items()
        theirs, ours = both("POST", "/models/load", {"model": "demo"})
        assert theirs == ours == (200, {"success": True})
        until(loaded, "both to be loaded")
        theirs, ours = both("POST", "/models/load", {"model": "demo"})
        assert (theirs[0], theirs[1]["error"]["message"]) == (ours[0], ours[1]["error"]["message"])
        theirs, ours = both("GET", "/v1/models")
        known = shape(theirs[1]["data"][0]["meta"])
        assert known.items() - shape(ours[1]["data"][0]["meta"]).items() == {("n_vocab", int), ("vocab_type", int)}
        for key in ("n_ctx", "n_ctx_train", "n_embd", "n_params", "ftype"):
            assert theirs[1]["data"][0]["meta"][key] == ours[1]["data"][0]["meta"][key], key
        said = {"model": "demo", "prompt": "Once", "n_predict": 8, "temperature": 0}
        theirs, ours = both("POST", "/completion", said)
        assert theirs[1]["content"] == ours[1]["content"]
        assert set(theirs[1]) == set(ours[1])
        theirs, ours = both("GET", "/props?model=demo")
        assert shape(theirs[1]) == shape(ours[1])
        theirs, ours = both("GET", "/slots?model=demo")
        assert set(theirs[1][0]) <= set(ours[1][0])  # one that was used tells more
        theirs, ours = both("POST", "/models/unload", {"model": "demo"})
        assert theirs == ours == (200, {"success": True})
