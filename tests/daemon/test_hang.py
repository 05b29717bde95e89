"""Engines that hang or crash under a real server: seen, ended, replaced, and what becomes of requests."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from corral.api import EventInfo
from corral.client import Finished, Piece
from corral.config.paths import Paths
from corral.errors import CorralError
from support.ggufs import write_chain, write_random
from support.llama import llama_server
from support.server import Server, until

WORDS = ["to", "be", "or", "not"]
LONG = "word " * 700


@pytest.fixture
def quick(short_tmp: Path) -> str:
    write_chain(short_tmp / "a.gguf", WORDS)
    return f"""
        comments_after: never  # a head that goes out early cannot say who answers
        timeouts: {{hang: 1s, stop: 10s}}
        models:
          - {{name: a, source: {short_tmp}/a.gguf, executable: embedded, context: 256, idle_timeout: never}}
    """


@pytest.fixture
def slow(short_tmp: Path) -> str:
    """A model that takes seconds for a long prompt and writes as long as it is let."""
    write_random(short_tmp / "slow.gguf", context=4096, mib=32)
    return f"""
        comments_after: never  # a head that goes out early cannot say who answers
        timeouts: {{hang: 1s, stop: 10s}}
        models:
          - name: slow
            source: {short_tmp}/slow.gguf
            executable: embedded
            context: 4096
            idle_timeout: never
            args: ["--threads", "1", "--threads-batch", "1"]
    """


@pytest.fixture(scope="module")
def server(module_paths: Paths) -> Iterator[Server]:
    """One for those that need nothing else; each has a model of its own. What was cut does not go on."""
    place = module_paths.state_dir.parent
    write_chain(place / "a.gguf", WORDS)
    write_random(place / "slow.gguf", context=4096, mib=32)
    config = f"""
        comments_after: never
        resume: false
        timeouts: {{hang: 1s, stop: 10s}}
        models:
          - {{name: a, source: {place}/a.gguf, executable: embedded, context: 256, idle_timeout: never}}
          - {{name: pinned, source: {place}/a.gguf, executable: embedded, context: 256, pin: true}}
          - name: slow
            source: {place}/slow.gguf
            executable: embedded
            context: 4096
            idle_timeout: never
            args: ["--threads", "1", "--threads-batch", "1"]
    """
    with Server(module_paths, config) as started:
        yield started


def say(server: Server, model: str, text: str = "go", **options: Any) -> str:
    pieces = server.client.chat_stream(model, [{"role": "user", "content": text}], temperature=0, **options)
    return "".join(piece.text for piece in pieces if isinstance(piece, Piece))


def events(server: Server, kind: str, model: str | None = None) -> list[EventInfo]:
    return [event for event in server.client.events(model=model) if event.kind == kind]


def newest_pid(server: Server, model: str | None = None) -> int:
    found = events(server, "unit.state", model)
    pids = [event.data["pid"] for event in found if event.data.get("event") == "spawned"]
    return int(pids[-1])


class Asking(threading.Thread):
    """One request in the background, and how it ended."""

    def __init__(self, server: Server, model: str, text: str, **options: Any) -> None:
        super().__init__()
        self._server, self._model, self._text, self._options = server, model, text, options
        self.pieces = 0
        self.finished: Finished | None = None
        self.error: CorralError | None = None
        self.start()

    def run(self) -> None:
        try:
            messages = [{"role": "user", "content": self._text}]
            for piece in self._server.client.chat_stream(self._model, messages, **self._options):
                if isinstance(piece, Finished):
                    self.finished = piece
                else:
                    self.pieces += 1
        except CorralError as error:
            self.error = error


def test_one_that_freezes_while_idle_is_replaced(server: Server) -> None:
    """A frozen engine that nobody uses is found, killed at once, and the next request starts another."""
    say(server, "a", max_tokens=9)
    pid = newest_pid(server, "a")
    os.kill(pid, signal.SIGSTOP)
    [hung] = until(lambda: events(server, "unit.hung", "a"), "the hang to be seen")
    assert "no answer" in hung.data["evidence"]
    failed = until(lambda: [e for e in events(server, "unit.state", "a") if e.data["after"] == "backoff"], "its end")
    assert "hung and was killed" in failed[0].data["why"]
    assert failed[0].wall_s - hung.wall_s < 5, "not after the stop timeout: it is killed at once"
    assert say(server, "a", max_tokens=9) == " ".join(WORDS)
    assert newest_pid(server, "a") != pid


@pytest.mark.long
def test_one_that_freezes_over_a_prompt_is_replaced_unseen(paths: Paths, slow: str) -> None:
    """A request of whose answer nothing was sent is answered by the replacement."""
    with Server(paths, slow) as server:
        say(server, "slow", max_tokens=2)
        asking = Asking(server, "slow", LONG, max_tokens=2)
        until(lambda: server.client.status().in_flight, "the request to be at the engine")
        os.kill(newest_pid(server), signal.SIGSTOP)
        asking.join(60)
        assert asking.error is None and asking.finished is not None
        assert asking.finished.headers["x-corral-unit"] == "slow.2"
        assert len(events(server, "unit.hung")) == 1


@pytest.mark.engines
def test_a_llama_server_that_freezes_over_a_prompt_is_replaced_unseen(paths: Paths, slow: str) -> None:
    """The same with a `llama-server` of the user's own, whose counters are those of its slots."""
    test_one_that_freezes_over_a_prompt_is_replaced_unseen(paths, slow.replace("embedded", str(llama_server())))


@pytest.mark.engines
def test_a_long_prompt_is_no_hang_for_llama_server(paths: Paths, slow: str) -> None:
    """Nor does it kill a `llama-server` that reads for a while."""
    test_a_long_prompt_is_no_hang(paths, slow.replace("embedded", str(llama_server())))


def test_one_that_freezes_in_a_stream_ends_it_with_an_error(server: Server) -> None:
    """A stream that is cut ends in an error event, where it may not go on; the next request is answered."""
    asking = Asking(server, "slow", "go", max_tokens=3000, ignore_eos=True)
    until(lambda: asking.pieces > 3, "some tokens")
    os.kill(newest_pid(server, "slow"), signal.SIGSTOP)
    asking.join(60)
    assert asking.error is not None and asking.error.code == "engine_gone"
    assert "while 1 request ran" in events(server, "unit.hung", "slow")[0].data["evidence"]
    say(server, "slow", max_tokens=2)


@pytest.mark.long
def test_a_long_prompt_is_no_hang(paths: Paths, slow: str) -> None:
    """A prompt that takes several times the hang timeout is read to its end by the same process."""
    with Server(paths, slow) as server:
        say(server, "slow", "some words, so that the engine measures itself " * 20, max_tokens=2)
        asking = Asking(server, "slow", LONG, max_tokens=2)
        asking.join(60)
        assert asking.finished is not None and asking.finished.prompt_ms is not None
        assert asking.finished.headers["x-corral-unit"] == "slow.1"
        assert not events(server, "unit.hung")


def test_one_that_goes_on_in_time_is_left_alone(paths: Paths, quick: str) -> None:
    """An engine that was frozen for a moment, and answers again, is not touched."""
    with Server(paths, quick.replace("hang: 1s", "hang: 60s")) as server:
        say(server, "a", max_tokens=9)
        pid = newest_pid(server)
        os.kill(pid, signal.SIGSTOP)
        asking = Asking(server, "a", "go", max_tokens=9)
        os.kill(pid, signal.SIGCONT)
        asking.join(30)
        assert asking.finished is not None
        assert newest_pid(server) == pid and not events(server, "unit.hung")


def test_a_pinned_one_that_crashes_comes_back_by_itself(server: Server) -> None:
    """Without any request, a pinned model is started again at once; one that is not waits for somebody to ask."""
    say(server, "pinned", max_tokens=9)
    os.kill(newest_pid(server, "pinned"), signal.SIGKILL)
    until(lambda: ("pinned.2", "ready") in server.states("pinned"), "the second process")
    [wanted] = events(server, "unit.wanted")
    assert wanted.model == "pinned" and "pinned" in wanted.text
    [crash] = [event for event in events(server, "unit.state", "pinned") if event.data["after"] == "backoff"]
    assert "SIGKILL" in crash.data["why"] and crash.data["detected_ms"] >= 0


@pytest.mark.long
def test_a_preloaded_one_that_cannot_stay_up_ends_in_failed(paths: Paths, quick: str, short_tmp: Path) -> None:
    """Crash after crash it is tried less and less often, and then left alone, with the story of it."""
    with Server(paths, quick.replace("idle_timeout: never", "preload: true")) as server:
        killed: set[int] = set()

        def kill_next() -> bool:
            if (pids := {newest_pid(server)} - killed) and ("a", "ready") in _last_states(server):
                killed.update(pids)
                with suppress(ProcessLookupError):
                    os.kill(next(iter(pids)), signal.SIGKILL)
            return ("a", "failed") in _last_states(server)

        until(lambda: ("a", "ready") in _last_states(server), "the first start")
        until(kill_next, "it to give up", within_s=90)
        story = server.client.story("a")
        last = story.chapters[-1].lines[-1].text
        assert last.startswith("crashed: ") and "left alone until somebody asks for it" in last
        with pytest.raises(CorralError, match=r"failed 6 times in a row within .* killed it .*6 times") as refused:
            say(server, "a", max_tokens=9)
        assert refused.value.code == "start_failed"
        server.client.start("a")
        assert say(server, "a", max_tokens=9) == " ".join(WORDS)


def _last_states(server: Server) -> list[tuple[str, str]]:
    found = server.states("a")
    return [("a", found[-1][1])] if found else []
