"""A stream whose engine is killed under a whole server."""

from __future__ import annotations

import http.client
import json
import os
import signal
from typing import Any

import pytest

from corral.config.paths import Paths
from support.server import Server

CONFIG = "models: [{name: demo, source: 'builtin:demo', context: 1024}]"
BODY = {
    "model": "demo", "stream": True, "temperature": 0, "max_tokens": 200,
    "messages": [{"role": "user", "content": "What is Corral?"}],
}  # fmt: skip
ON_AND_ON = {**BODY, "ignore_eos": True, "max_tokens": 900}
"""Its first sentences are the answer to `BODY`, and then it says what comes to its mind: by then two words are often
as likely as each other, and which is said hangs on how its text was cut into batches."""


def stream(server: Server, body: dict[str, Any], kill: bool = False) -> str:
    """The whole answer; its engine ends by kill -9 once ten events have come."""
    pids = [each.pid for each in server.client.units() if each.state == "ready"]  # known before: it must be quick
    asking = http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=60)
    try:
        asking.request("POST", "/v1/chat/completions", json.dumps(body), {"content-type": "application/json"})
        answer = asking.getresponse()
        got = b""
        while kill and got.count(b"\n\n") < 10:
            got += answer.read1()
        if kill:
            (pid,) = pids
            assert pid is not None
            os.kill(pid, signal.SIGKILL)
        return (got + answer.read()).decode()
    finally:
        asking.close()


def text(answer: str) -> str:
    events = [json.loads(line[6:]) for line in answer.splitlines() if line.startswith("data: {")]
    return "".join(choice["delta"].get("content") or "" for event in events for choice in event["choices"])


def test_a_stream_goes_on_after_kill_nine(paths: Paths) -> None:
    """The engine is started anew and goes on from the text that the client has: the answer is the one it would have
    been, word for word, says where it broke, and is as long as was asked for."""
    with Server(paths, CONFIG) as server:
        whole = text(stream(server, BODY))
        assert len(whole) > 100
        for _ in range(5):  # a kill may come when all of that was said
            cut = stream(server, ON_AND_ON, kill=True)
            before, mark, _ = cut.partition(": corral.resumed unit=demo.")
            assert text(cut).startswith(whole)
            assert cut.endswith("data: [DONE]\n\n")
            assert mark or '"finish_reason":"length"' in cut, cut  # without a mark it had come to its end by itself
            if mark and len(text(before)) < len(whole):
                break
        else:
            pytest.fail("each kill came too late")
