"""`sandbox: bubblewrap` and `limits: true` in a real server: engines answer, end as they should, are adopted, and leave
nothing behind."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from corral.client import Finished
from corral.config.paths import Paths
from corral.runners import memory
from support import sandboxes
from support.engines import lives
from support.ggufs import write_chain
from support.llama import llama_server
from support.server import Server, until

WORDS = ["safe", "and", "sound"]
EMBEDDED = "embedded"


def executable(kind: str) -> str:
    return EMBEDDED if kind == EMBEDDED else str(llama_server())


both = pytest.mark.parametrize("kind", [EMBEDDED, pytest.param("llama-server", marks=pytest.mark.engines)])


def config(short_tmp: Path, kind: str, more: str) -> str:
    write_chain(short_tmp / "m.gguf", WORDS)
    return f"""
        models:
          - name: m
            source: {short_tmp / "m.gguf"}
            executable: {executable(kind)}
            {more}
    """


def say(server: Server) -> str:
    asked = [{"role": "user", "content": "go"}]
    pieces = server.client.chat_stream("m", asked, temperature=0, max_tokens=9)
    return "".join(each.text for each in pieces if not isinstance(each, Finished))


def engine(server: Server) -> int:
    """The pid that the server knows: bubblewrap's own."""
    [row] = [row for row in server.client.units() if row.pid is not None]
    assert row.pid is not None
    return row.pid


@both
def test_a_sandboxed_engine_answers(paths: Paths, short_tmp: Path, kind: str) -> None:
    """It runs in namespaces of its own, without capabilities; its memory counts bwrap's children; TERM ends it in
    order, and its folder is gone then. One that is killed inside counts as killed by that signal, and is started again;
    bubblewrap's end takes the engine with it."""
    sandboxes.bubblewrap()
    with Server(paths, config(short_tmp, kind, "sandbox: bubblewrap\n            preload: true")) as server:
        assert say(server) == " ".join(WORDS)
        pid = engine(server)
        inside = memory.family(pid)[-1]
        for space in ("net", "pid", "mnt", "ipc", "uts"):
            assert Path(f"/proc/{inside}/ns/{space}").readlink() != Path(f"/proc/self/ns/{space}").readlink(), space
        status = dict(line.split(":", 1) for line in Path(f"/proc/{inside}/status").read_text().splitlines())
        assert int(status["CapEff"], 16) == 0
        seen = Path(f"/proc/{inside}/root")
        assert Path(f"{seen}{short_tmp}/m.gguf").exists()
        assert not Path(f"{seen}{paths.config_dir}").exists() and not Path(f"{seen}{paths.warden_socket}").exists()
        row = next(row for row in server.client.units() if row.pid == pid)
        assert row.memory_bytes is not None and row.memory_bytes > 8 << 20
        [folder] = paths.units_dir.iterdir()
        assert [each.name for each in folder.iterdir()] == ["s.sock"]
        server.client.stop("m")
        until(lambda: not lives(pid) and not lives(inside), "bubblewrap and the engine have ended")
        until(lambda: not list(paths.units_dir.iterdir()), "the socket's folder is gone")
        assert say(server) == " ".join(WORDS)

        inside = memory.family(engine(server))[-1]
        os.kill(inside, signal.SIGSEGV)
        until(lambda: any("SIGSEGV" in each.text for each in server.client.events()), "the signal is told")
        assert say(server) == " ".join(WORDS)
        outside = engine(server)
        inside = memory.family(outside)[-1]
        os.kill(outside, signal.SIGKILL)
        until(lambda: not lives(inside), "the engine ended with bubblewrap")
        assert say(server) == " ".join(WORDS)


def test_a_sandboxed_engine_is_adopted(paths: Paths, short_tmp: Path) -> None:
    """After kill -9 of the server the next one takes it over; with another sandbox it is another launch."""
    sandboxes.bubblewrap()
    text = config(short_tmp, EMBEDDED, "sandbox: bubblewrap")
    with Server(paths, text) as server:
        assert say(server) == " ".join(WORDS)
        pid = engine(server)
        server.kill()
        server.start()
        assert engine(server) == pid
        assert say(server) == " ".join(WORDS)
        [folder] = paths.units_dir.iterdir()
        assert folder.is_dir()
        server.kill()
        server.write(text.replace("bubblewrap", "off"))
        server.start()
        until(lambda: not lives(pid), "the sandboxed engine is ended")
        assert say(server) == " ".join(WORDS)
        until(lambda: not folder.exists(), "its folder is gone")


def test_what_cannot_be_sandboxed_is_refused_or_told(paths: Paths, short_tmp: Path) -> None:
    """Without bwrap on PATH, `bubblewrap` is an error with what to install, and `auto` a warning in `ps`."""
    empty = short_tmp / "bin"
    empty.mkdir()
    text = config(short_tmp, EMBEDDED, "sandbox: bubblewrap")
    with Server(paths, text, env={"PATH": str(empty)}) as server:
        with pytest.raises(Exception, match="bwrap is not on PATH"):
            say(server)
        server.write(text.replace("bubblewrap", "auto"))
        server.client.reload()
        assert say(server) == " ".join(WORDS)
        [row] = [row for row in server.client.units() if row.pid is not None]
        assert any("not sandboxed: bwrap is not on PATH" in each for each in row.warnings)


@pytest.fixture(scope="module")
def limited(module_paths: Paths) -> Iterator[Server]:
    with Server(module_paths, "models: []") as started:
        yield started


@pytest.mark.parametrize("sandbox", ["off", "bubblewrap"])
def test_limits_hold_for_everything_an_engine_runs(limited: Server, sandbox: str) -> None:
    """Every process of it is in one group, whose limits are the plan's; with its end the group is gone."""
    tree = sandboxes.limits()
    if sandbox != "off":
        sandboxes.bubblewrap()
    server, place = limited, limited.paths.state_dir.parent
    server.write(config(place, EMBEDDED, f"limits: true\n            sandbox: {sandbox}"))
    server.client.reload()
    assert say(server) == " ".join(WORDS)
    pid = engine(server)
    [folder] = [each for each in tree.folders["memory"].glob("corral-m.*-*") if _members(each)]
    assert _members(folder) == set(memory.family(pid))
    name = "memory.max" if tree.version == 2 else "memory.limit_in_bytes"
    assert 512 << 20 < int((folder / name).read_text()) < 8 << 30
    processes = tree.folders["pids"] / folder.name
    assert (processes / "pids.max").read_text().strip() == "1024"
    server.client.stop("m")
    until(lambda: not folder.exists() and not processes.exists(), "the group is gone")


def _members(folder: Path) -> set[int]:
    return {int(each) for each in (folder / "cgroup.procs").read_text().split()}
