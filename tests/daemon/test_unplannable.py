"""Models that cannot be started, beside one that runs in the only place there is."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from corral.config.paths import Paths
from corral.errors import CorralError
from support.ggufs import write_chain, write_random
from support.server import Server, until

WORDS = ["to", "be", "or", "not"]
WRONG = {
    "gone": "source: {place}/gone.gguf",
    "cut": "source: {place}/cut.gguf",
    "flagged": 'source: {place}/a.gguf, args: ["--flash-atn"]',
    "valued": 'source: {place}/a.gguf, args: ["--temp", "hot"]',
    "built": "source: {place}/a.gguf, executable: {place}/no-such-server",
    "seeing": 'source: {place}/a.gguf, args: ["--mmproj", "{place}/gone.gguf"]',
}


@pytest.fixture(scope="module")
def server(module_paths: Paths) -> Iterator[Server]:
    place = module_paths.state_dir.parent
    write_chain(place / "a.gguf", WORDS)
    write_random(place / "slow.gguf", context=4096, mib=32)
    (place / "cut.gguf").write_bytes((place / "a.gguf").read_bytes()[:999])
    wrong = "\n".join(
        f"          - {{name: {name}, context: 256, {keys.format(place=place)}}}" for name, keys in WRONG.items()
    )
    config = f"""
        max_active: 1
        models:
          - {{name: a, source: {place}/a.gguf, executable: embedded, context: 256, idle_timeout: never}}
          - {{name: slow, source: {place}/slow.gguf, executable: embedded, context: 4096, idle_timeout: never}}
          - {{name: other, source: {place}/a.gguf, executable: embedded, context: 256, idle_timeout: never}}
{wrong}
    """
    with Server(module_paths, config) as started:
        yield started


def say(server: Server, model: str, **options: object) -> str:
    answer = server.client.chat_stream(model, [{"role": "user", "content": "go"}], temperature=0, **options)
    return "".join(getattr(piece, "text", "") for piece in answer)


@pytest.mark.parametrize("name", WRONG)
def test_nobody_goes_for_it(server: Server, name: str) -> None:
    """A request for one that cannot be started is told why, each time, and the one that runs goes on running."""
    say(server, "a", max_tokens=9)
    before = server.states("a")
    for _ in range(2):
        with pytest.raises(CorralError) as caught:
            say(server, name)
        assert caught.value.hint
    assert server.states("a") == before
    assert say(server, "a", max_tokens=9) == " ".join(WORDS)
    assert server.states("a") == before


def test_nobody_waits_for_it(server: Server) -> None:
    """Where the one that runs is busy, a request for one that cannot be started is told so before that has ended."""
    pieces = server.client.chat_stream(
        "slow", [{"role": "user", "content": "go"}], temperature=0, max_tokens=3000, ignore_eos=True
    )
    next(pieces)
    server.client.stop("gone")  # what is known of it already would be told at once
    with pytest.raises(CorralError, match=r"gone\.gguf"):
        say(server, "gone")
    assert server.client.status().in_flight == 1
    pieces.close()


def test_others_go_when_it_can_be_started(server: Server) -> None:
    """One that can be started has its place made, as ever."""
    say(server, "a", max_tokens=9)
    said: list[str] = []
    asking = threading.Thread(target=lambda: said.append(say(server, "other", max_tokens=9)))
    asking.start()
    until(lambda: server.states("other")[-1:] and server.states("other")[-1][1] == "ready", "the other")
    asking.join(30)
    assert said == [" ".join(WORDS)]
    assert server.states("a")[-1][1] == "stopped"


def test_one_that_is_mended_is_started(server: Server, module_paths: Paths) -> None:
    """Once its file is there it is planned anew, and others go for it."""
    say(server, "a", max_tokens=9)
    with pytest.raises(CorralError):
        say(server, "gone")
    path = Path(module_paths.state_dir.parent) / "gone.gguf"
    write_chain(path, WORDS)
    try:
        assert say(server, "gone", max_tokens=9) == " ".join(WORDS)
        assert server.states("a")[-1][1] == "stopped"
    finally:
        path.unlink()
