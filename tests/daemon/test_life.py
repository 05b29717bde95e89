"""The server's own life: starting, being killed, coming back, reloading, ending."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from corral.config.paths import Paths
from corral.errors import CorralError, StartFailed, UnknownModel
from support.ggufs import write_chain, write_random
from support.server import Server, until

WORDS = ["to", "be", "or", "not"]


def two_models(place: Path) -> str:
    write_chain(place / "a.gguf", WORDS)
    write_chain(place / "b.gguf", ["that", "is", "it"])
    return f"""
        models:
          - {{name: a, source: {place}/a.gguf, executable: embedded, context: 256}}
          - {{name: b, source: {place}/b.gguf, executable: embedded, context: 256}}
    """


@pytest.fixture
def config(short_tmp: Path) -> str:
    return two_models(short_tmp)


@pytest.fixture(scope="module")
def server(module_paths: Paths) -> Iterator[Server]:
    """One for all that leave it as it is. Beside `a` and `b` it has a model of its own for each of them."""
    place = module_paths.state_dir.parent
    write_random(place / "r.gguf", seed=1, mib=8)
    config = "resume: false\n" + textwrap.dedent(two_models(place)).strip()
    (place / "junk.gguf").write_bytes(b"<!DOCTYPE html><html>")
    (place / "adapter.gguf").write_bytes(b"GGUF" + bytes(100))
    whole = (place / "a.gguf").read_bytes()
    (place / "cut.gguf").write_bytes(whole[: len(whole) // 2])
    for name, file, more in (
        ("idle", "a", "context: 256, idle_timeout: 0.3"),
        ("flagged", "a", "context: 256, args: [--flash-atn, 'on']"),
        ("adapted", "a", f"context: 256, args: [--lora, {place}/adapter.gguf]"),
        ("r", "r", "context: 8192"),
        ("hurt", "r", "context: 4096"),
        ("junk", "junk", ""),
        ("cut", "cut", ""),
        ("gone", "gone", ""),
    ):
        config += f"\n  - {{name: {name}, source: {place}/{file}.gguf, executable: embedded, {more}}}"
    with Server(module_paths, config) as started:
        yield started


def say(server: Server, model: str) -> str:
    pieces = server.client.chat_stream(model, [{"role": "user", "content": "go"}], temperature=0, max_tokens=20)
    return "".join(piece.text for piece in pieces if hasattr(piece, "text"))


def engine_pid(server: Server, model: str) -> int:
    [pid] = [unit.pid for unit in server.client.units() if unit.model == model]
    assert pid is not None
    return pid


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_killed_server_comes_back_to_its_engines(paths: Paths, config: str) -> None:
    """After kill -9 the engine goes on; the next server adopts it, with the same process and no new load. How an engine
    ended between two servers is known from the warden; one that is no longer wanted, because the configuration changed,
    is ended and not used."""
    with Server(paths, config) as server:
        assert say(server, "a") == " ".join(WORDS)
        pid = engine_pid(server, "a")
        server.kill()
        assert alive(pid)
        server.start()
        [unit] = server.client.units()
        assert (unit.model, unit.pid, unit.state) == ("a", pid, "ready")
        assert say(server, "a") == " ".join(WORDS)

        server.kill()
        os.kill(pid, signal.SIGKILL)
        until(lambda: not alive(pid), "the engine to be gone")
        server.start()
        told = [event.text for event in server.client.events() if event.kind == "unit.ended"]
        assert any("a.1" in text and "SIGKILL" in text for text in told)

        assert say(server, "a") == " ".join(WORDS)
        pid = engine_pid(server, "a")
        server.kill()
        server.write(config.replace("context: 256", "context: 512"))
        server.start()
        until(lambda: not alive(pid), "the old engine to end")
        assert all(unit.pid != pid for unit in server.client.units())
        assert say(server, "a") == " ".join(WORDS)
        pid = engine_pid(server, "a")
        assert server.end() == 0
        assert not alive(pid), "a server that ends in order leaves no engine"


def test_two_servers_on_one_state(server: Server) -> None:
    """A second server on the same state directory is refused in words, and the first is not disturbed."""
    second = subprocess.run(server.command(), env=server.environment, capture_output=True, text=True, timeout=30)
    assert second.returncode != 0
    assert f"process {server.pid}" in second.stderr and "CORRAL_STATE_DIR" in second.stderr
    assert "Traceback" not in second.stderr
    assert server.client.status().pid == server.pid


def test_a_taken_port(server: Server, config: str, short_tmp: Path) -> None:
    """A port in use is one clear error that names it, before anything is served."""
    port = server.url.rsplit(":", 1)[1]
    other = Server(
        Paths(short_tmp / "c2", short_tmp / "s2", short_tmp / "k2", short_tmp / "r2", short_tmp / "d2"),
        config,
        listen=f"127.0.0.1:{port}",
    )
    other.write(config)
    ended = subprocess.run(other.command(), env=other.environment, capture_output=True, text=True, timeout=30)
    assert ended.returncode != 0
    assert port in ended.stderr and '"hint"' in ended.stderr and "Traceback" not in ended.stderr
    assert not (short_tmp / "r2" / "warden.sock").exists(), "nothing is left behind"


class Finding(Server):
    """Finds its file by itself, in the configuration directory, and listens where that says."""

    def command(self) -> list[str]:
        return [sys.executable, "-m", "corral", "--json", "serve", *self.flags]


def test_a_file_in_use_that_is_gone_changes_nothing(paths: Paths, config: str) -> None:
    """A reload while models.yaml is gone, as an editor has it for a moment, is refused whole: the models and the
    address stay, by command and by SIGHUP. Once it is there again it is taken up."""
    with Finding(paths, "listen: '127.0.0.1:0'\n" + textwrap.dedent(config)) as server:
        assert server.client.status().config_file == str(server.file)
        address, text = server.greeting["listen"], server.file.read_text()
        server.file.unlink()
        with pytest.raises(CorralError, match="this file is in use, and is gone") as caught:
            server.client.reload()
        assert "restart Corral" in caught.value.hint
        os.kill(server.pid, signal.SIGHUP)
        until(lambda: [e for e in server.client.events() if e.kind == "config.refused"], "the refusal to be told")
        assert {model.name for model in server.client.models()} == {"a", "b"}
        assert server.client.status().listen == address and server.client.status().config_file == str(server.file)
        assert say(server, "a") == " ".join(WORDS)
        server.write(text.replace("name: b,", "name: c,"))
        assert server.client.reload().added == ["c"]


def test_preload_reload_and_term(paths: Paths, config: str, short_tmp: Path) -> None:
    """A preloaded model is ready without a request; a model's own port answers for it when none is named. A good file
    is taken up at once, by command or SIGHUP; a bad one is refused whole and the old one stays. SIGTERM refuses new
    work and lets a running stream end before the server does, which says that it waits."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    write_chain(short_tmp / "long.gguf", [f"w{i}" for i in range(900)])
    config = config.replace("name: b,", f"name: b, preload: true, port: {port},").rstrip()
    config += f"\n          - {{name: long, source: {short_tmp}/long.gguf, executable: embedded, context: 1024}}\n"
    with Server(paths, config) as server:
        until(lambda: ("b.1", "ready") in server.states("b"), "the preload")
        body = b'{"messages":[{"role":"user","content":"go"}],"temperature":0,"max_tokens":20}'
        url = f"http://127.0.0.1:{port}/v1/chat/completions"
        request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=30) as answer:
            assert b"that is it" in answer.read()

        assert say(server, "b") == "that is it"
        first = engine_pid(server, "b")
        server.write(config.replace("name: a,", "name: c,"))
        result = server.client.reload()
        assert (result.added, result.removed, result.changed) == (["c"], ["a"], [])
        assert say(server, "c") == " ".join(WORDS)
        with pytest.raises(UnknownModel):
            say(server, "a")
        assert engine_pid(server, "b") == first, "what did not change goes on"

        server.write(config.replace("context", "contxt"))
        with pytest.raises(CorralError, match="contxt"):
            server.client.reload()
        assert say(server, "c") == " ".join(WORDS)

        os.kill(server.pid, signal.SIGHUP)
        until(lambda: [e for e in server.client.events() if e.kind == "config.refused"], "the refusal to be told")

        server.write(config.replace("context: 256", "context: 512"))
        os.kill(server.pid, signal.SIGHUP)
        until(lambda: "a" in [m.name for m in server.client.models()], "the reload")
        assert say(server, "b") == "that is it"
        assert engine_pid(server, "b") != first, "a changed model runs with what is configured now"

        pieces = server.client.chat_stream("long", [{"role": "user", "content": "go"}], temperature=0, max_tokens=950)
        said = [next(pieces)]
        ending = threading.Thread(target=server.end)
        ending.start()
        said += list(pieces)
        ending.join()
        text = "".join(piece.text for piece in said if hasattr(piece, "text"))
        assert text == " ".join(f"w{i}" for i in range(900))
        assert server.process is not None and server.process.returncode == 0
        assert "ending: SIGTERM; 1 answer still runs" in server.said()


def test_who_follows_events_is_not_waited_for(paths: Paths) -> None:
    """A screen that follows what happens, as `corral top` does, is no answer: the server ends without a wait for it."""
    with Server(paths) as server:
        events = server.client.follow_events()
        next(events)
        server.end()
        said = server.said()
        assert "ending: SIGTERM" in said and "still run" not in said


def test_idle_models_stop(server: Server) -> None:
    """A model nobody uses is stopped after its idle time, and starts again when asked."""
    say(server, "idle")
    until(lambda: ("idle.1", "stopped") in server.states("idle"), "the idle stop")
    assert say(server, "idle") == " ".join(WORDS)
    assert ("idle.2", "ready") in server.states("idle")


def test_a_bad_file_disturbs_nobody(server: Server) -> None:
    """A model whose file is missing, damaged or of no known kind is one clear error; others go on."""
    assert say(server, "a") == " ".join(WORDS)
    for name in ("junk", "cut", "gone"):
        with pytest.raises(CorralError) as caught:
            say(server, name)
        assert f"{name}.gguf" in caught.value.message
        assert caught.value.hint
    assert say(server, "a") == " ".join(WORDS)


def test_a_wrong_flag_is_caught_before_launch(server: Server) -> None:
    """A flag that the engine does not know is named, with the nearest one, and no process is started for it."""
    with pytest.raises(CorralError, match="--flash-atn") as caught:
        say(server, "flagged")
    assert "--flash-attn" in caught.value.hint + caught.value.message
    assert ("flagged.1", "loading") not in server.states("flagged")
    assert say(server, "b") == "that is it"


def test_an_engine_killed_mid_stream_ends_in_an_error(server: Server) -> None:
    """A stream whose engine dies ends with an error event, never a silent cut, and the next request is served. (Where
    it may, it goes on: see test_resume.)"""
    pieces = server.client.chat_stream("hurt", [{"role": "user", "content": "go"}], max_tokens=4000)
    next(pieces)
    os.kill(engine_pid(server, "hurt"), signal.SIGKILL)
    with pytest.raises(CorralError):
        list(pieces)
    restarted = server.client.chat_stream("hurt", [{"role": "user", "content": "go"}], max_tokens=4)
    assert list(restarted)
    assert ("hurt.2", "ready") in server.states("hurt")


def test_a_client_that_leaves_frees_the_engine(server: Server) -> None:
    """A client that goes in mid-stream ends its lease: the unit is idle soon after."""

    def busy() -> int:
        return next(unit.busy for unit in server.client.units() if unit.model == "r")

    pieces = server.client.chat_stream("r", [{"role": "user", "content": "go"}], max_tokens=8000)
    next(pieces)
    assert busy() == 1
    pieces.close()
    until(lambda: busy() == 0, "the lease to end")


def test_explicit_start_and_stop(server: Server) -> None:
    """`start` waits until the unit is ready, `stop` until it is gone; both say when there was nothing to do."""
    server.client.stop("a")
    assert server.client.start("a").changed
    assert server.client.start("a").changed is False
    assert [unit.state for unit in server.client.units() if unit.model == "a"] == ["ready"]
    assert server.client.restart("a").state == "ready"
    assert server.client.stop("a").state == "stopped"
    assert server.client.stop("a").changed is False
    with pytest.raises(UnknownModel) as caught:
        server.client.start("aa")
    assert "'a'" in caught.value.hint


def test_idle_exit(paths: Paths, config: str) -> None:
    """With --idle-exit the server ends by itself once nothing was asked of it for that long."""
    with Server(paths, config, flags=["--idle-exit", "0.5"]) as server:
        assert server.process is not None and server.process.wait(20) == 0
        server._wait()
        assert not paths.daemon_file.exists()


def test_start_that_fails_says_why(server: Server) -> None:
    """`start` of a model whose engine does not come up raises the reason, as the engine gave it."""
    with pytest.raises(StartFailed) as caught:
        server.client.start("adapted")
    assert "adapter.gguf" in caught.value.message + str(caught.value.details)
