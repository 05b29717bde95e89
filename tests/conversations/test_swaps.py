"""Conversations through the whole server: kept when a model goes idle, put back when it is asked again."""

from __future__ import annotations

import json
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from corral.api import EventInfo
from corral.api_store import PruneAsk
from corral.config.paths import Paths
from support import sandboxes
from support.architecture_files import write
from support.architectures import TINY
from support.ggufs import write_random
from support.llama import llama_server
from support.server import Server, until

Messages = list[dict[str, str]]


def executable(kind: str) -> str:
    return str(llama_server()) if kind == "llama-server" else kind


def files_in(folder: Path) -> list[Path]:
    return [each for each in folder.rglob("*") if not each.is_dir()]


def config(folder: Path, kind: str = "embedded", **keys: str) -> str:
    if not (folder / "a.gguf").exists():  # written again it would be another model
        write_random(folder / "a.gguf", context=8192, seed=1)
        write_random(folder / "b.gguf", seed=2)
    lines = "".join(f"        {name}: {value}\n" for name, value in keys.items())
    return f"""
        max_active: 1
{lines}
        models:
          - {{name: a, source: {folder}/a.gguf, executable: {executable(kind)}, context: 8192}}
          - {{name: b, source: {folder}/b.gguf, executable: {executable(kind)}, context: 256}}
    """


def opening(topic: str, times: int = 120) -> Messages:
    """The beginning of a conversation: a token a letter."""
    return [{"role": "system", "content": f"{topic} " * times}, {"role": "user", "content": "hello"}]


def going_on(messages: Messages, answer: str) -> Messages:
    return [*messages, {"role": "assistant", "content": answer}, {"role": "user", "content": "and then?"}]


def ask(server: Server, model: str, messages: Messages, *, stream: bool = False) -> tuple[str, dict[str, Any]]:
    """The answer and the engine's timings of it."""
    body = {"model": model, "messages": messages, "max_tokens": 16, "temperature": 0, "stream": stream}
    request = urllib.request.Request(
        f"{server.url}/v1/chat/completions", json.dumps(body).encode(), {"content-type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        if not stream:
            found = json.load(answer)
            return found["choices"][0]["message"]["content"], found["timings"]
        chunks = [json.loads(line[6:]) for line in answer if line.startswith(b"data: {")]
    text = "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks if chunk["choices"])
    return text, next(chunk["timings"] for chunk in chunks if "timings" in chunk)


def said(server: Server, kind: str) -> list[EventInfo]:
    """What this server has said so far; events of earlier ones are told too."""
    began = server.greeting["started_wall_s"]
    return [each for each in server.client.events() if each.kind == f"conversation.{kind}" and each.wall_s >= began]


def kept(server: Server, count: int) -> None:
    until(lambda: len(said(server, "kept")) >= count, f"{count} conversations to be kept")


def restored(server: Server, count: int) -> list[EventInfo]:
    """The verdicts, once there are so many."""
    found = said(server, "restored")
    return found if len(found) == count else []


def swap(server: Server) -> None:
    ask(server, "b", [{"role": "user", "content": "x"}])


@pytest.mark.parametrize("kind", ["embedded", pytest.param("llama-server", marks=pytest.mark.engines)])
def test_a_conversation_survives_a_swap(paths: Paths, short_tmp: Path, kind: str) -> None:
    """After a swap to another model and back the next turn's prompt is not read again, plain or streamed."""
    with Server(paths, config(short_tmp, kind)) as server:
        messages = opening("be kind")
        answer, first = ask(server, "a", messages)
        assert first["cache_n"] == 0
        kept(server, 1)
        swap(server)
        messages = going_on(messages, answer)
        answer, second = ask(server, "a", messages)
        assert second["cache_n"] >= first["prompt_n"]
        kept(server, 2)
        swap(server)
        _, third = ask(server, "a", going_on(messages, answer), stream=True)
        assert third["cache_n"] >= first["prompt_n"] + second["prompt_n"]
        verdicts = until(partial(restored, server, 2), "two verdicts")
        assert [event.data["cached"] for event in verdicts] == [second["cache_n"], third["cache_n"]]
        files = list(paths.conversations_dir.rglob("*.kv"))
        assert len(files) == 1  # each turn takes the place of the one before
        assert files[0].stat().st_mode & 0o777 == 0o600
        assert "be kind" not in server.said()


def test_a_sandbox_has_its_own_conversations_only(paths: Paths, short_tmp: Path) -> None:
    """An engine in bubblewrap saves its conversations and has them put back, sees no other model's, and no record."""
    sandboxes.bubblewrap()
    with Server(paths, config(short_tmp, sandbox="bubblewrap")) as server:
        topics = {"a": opening("be kind", 60)}
        answer, _ = ask(server, "a", topics["a"])
        kept(server, 1)
        swap(server)
        _, timings = ask(server, "a", going_on(topics["a"], answer))
        assert timings["cache_n"] > 400
        until(partial(restored, server, 1), "the verdict")
        pid = server.client.units()[0].pid
        assert pid is not None
        command = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
        pairs = list(pairwise(command))
        bound = {path for word, path in pairs if word.endswith(("bind", "bind-try"))}
        own = next(path for word, path in pairs if word == "--slot-save-path")
        beside = {path for path in bound if Path(path).is_relative_to(paths.cache_dir)}
        assert beside == {own} and Path(own).parent == paths.conversations_dir
        plans = {name: server.client.plan(name).argv for name in ("a", "b")}
        places = [argv[argv.index("--slot-save-path") + 1] for argv in plans.values()]
        assert own == places[0] != places[1]
        inside = [Path(f"/proc/{each}/root{paths.conversations_dir}") for each in below(pid)]
        seen = [sorted(each.name for each in place.iterdir()) for place in inside if place != inside[0]]
        assert seen and all(names == [Path(own).name] for names in seen)


def below(pid: int) -> list[int]:
    """A process and all that it started."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(each for child in children for each in below(int(child)))]


@pytest.mark.long
def test_more_conversations_than_slots(paths: Paths, short_tmp: Path) -> None:
    """Each of three conversations over one slot is found again after a swap, and so they are by the next server."""
    topics = {topic: opening(topic) for topic in ("be kind", "be brief", "be true")}
    with Server(paths, config(short_tmp)) as server:
        for number, (topic, messages) in enumerate(topics.items()):
            answer, _ = ask(server, "a", messages)
            topics[topic] = going_on(messages, answer)
            kept(server, number + 1)
        swap(server)
        for topic in ("be true", "be kind"):
            _, timings = ask(server, "a", topics[topic])
            assert timings["cache_n"] > 700, topic
            swap(server)
    with Server(paths, config(short_tmp)) as server:
        _, timings = ask(server, "a", topics["be brief"])
        assert timings["cache_n"] > 700


def test_two_at_once(paths: Paths, short_tmp: Path) -> None:
    """Two conversations over two slots, asked at the same time, are both put back, each for its own request."""
    text = config(short_tmp).replace("context: 8192}", "context: 4096, parallel: 2}")
    topics = [opening("be kind"), opening("go and be brief")]
    with Server(paths, text) as server, ThreadPoolExecutor(2) as pool:

        def ask_both(asked: list[Messages]) -> list[tuple[str, dict[str, Any]]]:
            return list(pool.map(lambda messages: ask(server, "a", messages), asked))

        answers = ask_both(topics)
        kept(server, 2)
        swap(server)
        asked = [going_on(messages, answer[0]) for messages, answer in zip(topics, answers, strict=True)]
        for first, second in zip(answers, ask_both(asked), strict=True):
            assert second[1]["cache_n"] >= first[1]["prompt_n"]
        until(partial(restored, server, 2), "two verdicts")


@pytest.mark.parametrize("damage", ["flipped", pytest.param("shorter", marks=pytest.mark.long)])
def test_a_damaged_file_harms_nobody(paths: Paths, short_tmp: Path, damage: str) -> None:
    """A damaged file is dropped with an event; the request is answered by the same start of the engine."""
    with Server(paths, config(short_tmp)) as server:
        messages = opening("be kind")
        answer, _ = ask(server, "a", messages)
        kept(server, 1)
        swap(server)
        (file,) = paths.conversations_dir.rglob("*.kv")
        data = bytearray(file.read_bytes())
        data[len(data) // 2] ^= 0xFF
        file.write_bytes(data if damage == "flipped" else data[:-100])
        _, timings = ask(server, "a", going_on(messages, answer))
        assert timings["cache_n"] == 0
        assert [event.unit for event in said(server, "dropped")] == ["a.2"]
        assert not file.exists()
        assert not said(server, "restored")


@pytest.mark.long
def test_the_bound_holds(paths: Paths, short_tmp: Path) -> None:
    """With room for one conversation the one used longest ago goes."""
    with Server(paths, config(short_tmp, conversations="800KiB")) as server:
        topics = {topic: opening(topic) for topic in ("be kind", "be brief")}
        for number, (topic, messages) in enumerate(topics.items()):
            answer, _ = ask(server, "a", messages)
            topics[topic] = going_on(messages, answer)
            kept(server, number + 1)
        assert len(list(paths.conversations_dir.rglob("*.kv"))) == 1
        swap(server)
        assert ask(server, "a", topics["be kind"])[1]["cache_n"] < 100
        swap(server)


@pytest.mark.long
def test_off_means_off(paths: Paths, short_tmp: Path) -> None:
    """Turned off in the running server, what was kept is removed and nothing more is kept; so it is after a restart."""
    with Server(paths, config(short_tmp)) as server:
        ask(server, "a", opening("be kind"))
        kept(server, 1)
        server.write(config(short_tmp, conversations="off"))
        server.client.reload()
        assert files_in(paths.conversations_dir) == []
    server = Server(paths, config(short_tmp, conversations="off"))
    with server:
        answer, _ = ask(server, "a", opening("be kind"))
        swap(server)
        assert ask(server, "a", going_on(opening("be kind"), answer))[1]["cache_n"] == 0
        assert not said(server, "kept")
        assert files_in(paths.conversations_dir) == []


@pytest.mark.long
def test_conversations_can_be_removed(paths: Paths, short_tmp: Path) -> None:
    """They go when asked to, and with their model's file."""
    with Server(paths, config(short_tmp)) as server:
        ask(server, "a", opening("be kind"))
        kept(server, 1)
        there = server.client.prune(PruneAsk(conversations=True, dry_run=True))
        assert there.blobs == 1 and server.client.usage().conversations_bytes == there.bytes > 0
        done = server.client.prune(PruneAsk(conversations=True))
        assert done.blobs == 1
        assert done.bytes > 300_000
        assert files_in(paths.conversations_dir) == []
        ask(server, "a", opening("be brief"))
        kept(server, 2)
        server.client.stop("a")
        (short_tmp / "a.gguf").unlink()
        server.client.prune(PruneAsk())
        assert files_in(paths.conversations_dir) == []


@pytest.mark.long
def test_what_gives_nothing_is_switched_off(paths: Paths, short_tmp: Path) -> None:
    """A recurrent model without checkpoints reads everything again: after the second time nothing is kept for it, which
    ps says, and the next server knows."""
    config = f"""
        max_active: 1
        models:
          - {{name: a, source: {short_tmp}/a.gguf, executable: embedded, context: 4096, args: [--ctx-checkpoints, 0]}}
          - {{name: b, source: {short_tmp}/b.gguf, executable: embedded, context: 256}}
    """
    write(short_tmp / "a.gguf", "mamba2", TINY)
    write_random(short_tmp / "b.gguf")
    with Server(paths, config) as server:
        for number in (1, 2):
            messages = opening(f"be kind {number}")
            ask(server, "a", messages)
            kept(server, number)
            swap(server)
            _, timings = ask(server, "a", going_on(messages, "not what was said"))
            assert timings["cache_n"] == 0
            until(partial(restored, server, number), "the verdict")
            swap(server)
        (off,) = until(lambda: said(server, "off"), "it to be switched off")
        assert "conversations are not kept: those put back were read again" in off.text
        assert list(paths.conversations_dir.rglob("*.kv")) == []
    with Server(paths, config) as server:
        messages = opening("be kind again")
        ask(server, "a", messages)
        until(
            lambda: any("not kept" in note for unit in server.client.units() for note in unit.warnings),
            "the note in ps",
        )
        assert not said(server, "kept")
