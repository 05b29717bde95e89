"""`corral story` over a real server, a real engine and a real crash."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

from corral.config.paths import Paths
from support.ggufs import write_chain
from support.server import Server, until

Corral = Callable[..., "subprocess.CompletedProcess[str]"]


def config(folder: Path) -> str:
    write_chain(folder / "a.gguf", ["to", "be"])
    write_chain(folder / "b.gguf", ["or", "not"])
    return f"""
        max_active: 1
        models:
          - {{name: a, aliases: [first], source: {folder}/a.gguf, executable: embedded, context: 256}}
          - {{name: b, source: {folder}/b.gguf, executable: embedded, context: 256}}
    """


def ask(server: Server, model: str) -> None:
    list(server.client.chat_stream(model, [{"role": "user", "content": "go"}], max_tokens=4))


def crash(server: Server, model: str) -> None:
    [pid] = [unit.pid for unit in server.client.units() if unit.model == model]
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    until(lambda: server.states(model)[-1][1] == "backoff", "the crash to be seen")


def plain(text: str) -> str:
    """Without what differs from run to run."""
    text = re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d, [^,\n]+ ago", "NOW", text)
    text = re.sub(r"^(  )\+\S+(?: ms| s| min)? +", r"\1", text, flags=re.MULTILINE)
    return re.sub(r"\d+(?:\.\d+)? (?:ms|s)\b", "TIME", text)


def test_a_swap_a_crash_and_an_end(corral: Corral, paths: Paths, short_tmp: Path) -> None:
    """The story has what happened, start by start; it is the same with and without a server, and goes on after one."""
    with Server(paths, config(short_tmp)) as server:
        ask(server, "b")
        ask(server, "a")
        crash(server, "a")
        ask(server, "a")
        told = corral("story", "first")
        assert told.returncode == 0, told.stderr
        kept = [line for line in plain(told.stdout).splitlines() if "MiB" not in line and "conversation" not in line]
        assert kept == [
            "Start 1, NOW",
            "  asked for by a request, which waits",
            "  b was stopped to make room",
            "  started",
            "  ready, loaded in TIME",
            "  crashed: something outside Corral killed it (SIGKILL) (seen after TIME)",
            "",
            "Start 2, NOW",
            "  started: a request asked for it",
            "  ready, loaded in TIME",
        ]
        assert server.end() == 0
        without = corral("story", "a")
        assert without.returncode == 0, without.stderr
        assert plain(without.stdout).startswith(plain(told.stdout))
        assert "Corral is ending: SIGTERM" in without.stdout
        server.start()
        ask(server, "a")
        again = corral("story", "a")
        assert again.stdout.count("Start ") == 3 and "Start 3" in again.stdout
        [last] = json.loads(corral("story", "a", "-n", "1", "--json").stdout)["chapters"]
        assert len(last["lines"]) == 1 and last["lines"][0]["text"]
        assert corral("story", "a", "--since", "1h").stdout.count("Start ") == 3
        numbers = [event.seq for event in server.client.events()]
        assert numbers == sorted(set(numbers)), "numbers go on over a restart"


def test_nothing_to_tell(corral: Corral, paths: Paths, short_tmp: Path) -> None:
    """A model that never ran has no story, an unknown one is an error, and so is a time that is none."""
    none = corral("story", "a")
    assert none.returncode != 0 and "no Corral server is running" in none.stderr
    with Server(paths, config(short_tmp)) as server:
        assert "Nothing happened to a yet" in corral("story", "first").stderr
        assert "model_not_found" in corral("story", "nobody", "--json").stderr
        assert "is not a duration" in corral("story", "a", "--since", "soon").stderr
        assert json.loads(corral("story", "a", "--json").stdout) == {"model": "a", "chapters": [], "left_out": 0}
        assert server.client.story("b").chapters == []


def test_a_killed_server_leaves_its_story(corral: Corral, paths: Paths, short_tmp: Path) -> None:
    """After kill -9 of the server the story is there but for the last second, and what came of the engine is told."""
    with Server(paths, config(short_tmp)) as server:
        ask(server, "a")
        crash(server, "a")
        until(lambda: "crashed" in corral("story", "a").stdout, "the crash in the story")
        server.kill()
        assert "crashed: something outside Corral killed it" in corral("story", "a").stdout
        server.start()
        assert "crashed: something outside Corral killed it" in corral("story", "a").stdout
