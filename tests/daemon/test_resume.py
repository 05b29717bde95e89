"""A stream whose engine is killed under a whole server."""

from __future__ import annotations

import http.client
import json
import os
import signal

from corral.config.paths import Paths
from support.server import Server

CONFIG = "models: [{name: demo, source: 'builtin:demo', context: 1024}]"
BODY = {
    "model": "demo", "stream": True, "temperature": 0, "max_tokens": 200, "ignore_eos": True,
    "messages": [{"role": "user", "content": "What is Corral?"}],
}  # fmt: skip


def stream(server: Server, kill: bool) -> str:
    """The whole answer; its engine ends by kill -9 once ten events have come."""
    # Who is to be killed is known before: the answer is cut in its first sentences, whose text is read again as the
    # same tokens. What this small model says long after its end is no such text.
    pids = [each.pid for each in server.client.units() if each.state == "ready"]
    asking = http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=60)
    try:
        asking.request("POST", "/v1/chat/completions", json.dumps(BODY), {"content-type": "application/json"})
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
    been, word for word, and says where it broke."""
    with Server(paths, CONFIG) as server:
        whole = stream(server, kill=False)
        cut = stream(server, kill=True)
        assert ": corral.resumed unit=demo.2\n" in cut
        assert text(cut) == text(whole)
        assert cut.endswith("data: [DONE]\n\n")
