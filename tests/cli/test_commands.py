"""The commands against a server: what they print, for people and for programs."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from dataclasses import replace

import pytest

from corral.api import dump
from corral.cli.main import run
from support.small_server import DEVICES, SmallServer, unit_info

Corral = Callable[..., "subprocess.CompletedProcess[str]"]


def test_list_piped(corral: Corral, server: SmallServer) -> None:
    """`list` in a pipe prints plain columns, whole values and no escape sequences, with warnings on standard error."""
    long = "a-very-long-name/" + "x" * 120
    server.models[1] = replace(server.models[1], name=long, size_bytes=None, problem="its file is missing")
    run = corral("list")
    assert run.returncode == 0, run.stderr
    lines = run.stdout.splitlines()
    assert lines[0].split() == ["NAME", "STATE", "ENGINE", "SIZE", "CONTEXT", "PORT", "ALIASES"]
    assert lines[1].split() == ["demo", "*", "ready", "llama.cpp", "3.0", "MiB", "1024", "-", "demo-alias"]
    assert long in lines[2]
    assert "\x1b" not in run.stdout + run.stderr
    assert f"warning: {long}: its file is missing" in run.stderr


def test_ps(corral: Corral, server: SmallServer) -> None:
    """`ps` shows what runs with its warnings, leaves out what is stopped, and marks predicted memory."""
    server.units = [
        unit_info("demo", busy=1, queued=3, warnings=["on the CPU: no GPU was found"]),
        unit_info("b", held_bytes=None, state="loading", idle_stop_in_s=None),
        unit_info("c", state="failed", reason="killed by signal 9: out of memory", idle_stop_in_s=None),
        unit_info("d", degraded="cpu (no driver)", warnings=["degraded: cpu (no driver)"], memory_bytes=99 << 20),
        unit_info("gone", state="stopped"),
    ]
    run = corral("ps")
    rows = [" ".join(line.split()) for line in run.stdout.splitlines()]
    assert rows[0] == "MODEL ENGINE RUNNER STATE MEMORY DEVICE CONTEXT PORT BUSY/QUEUED UNTIL"
    assert rows[1] == "demo llama.cpp process ready 34.0 MiB cpu 1024 8001 1/3 busy"
    assert rows[2] == "b llama.cpp process loading ~30.0 MiB cpu 1024 8001 0/0 -"
    assert rows[4] == "d llama.cpp process ready 34.0 MiB degraded: cpu 1024 8001 0/0 4 min 50 s"
    assert len(rows) == 5
    assert "warning: d: degraded: cpu (no driver)" in run.stderr
    assert "warning: demo: on the CPU" in run.stderr
    assert "warning: c is failed: killed by signal 9" in run.stderr


@pytest.mark.parametrize("args", [("--json", "ps"), ("ps", "--json")])
def test_json_anywhere(corral: Corral, server: SmallServer, args: tuple[str, ...]) -> None:
    """`--json` before or after the command prints the wire types."""
    run = corral(*args)
    assert json.loads(run.stdout) == dump(server.units)


def test_devices(corral: Corral, server: SmallServer) -> None:
    """`devices` shows whose each device's memory is, and what is wrong with one that cannot be used; `status` has it
    in a line each."""
    run = corral("devices")
    rows = [" ".join(line.split()) for line in run.stdout.splitlines()]
    assert rows[0] == "DEVICE TOTAL FREE ENGINES OTHERS BUDGET LEFT FREE BUSY HEAT POWER SOURCE WHAT"
    assert rows[1] == "cpu 64.0 GiB 32.0 GiB 8.0 GiB 24.0 GiB 48.0 GiB 512 MiB - - - cgroup the processor"
    assert rows[2] == "gpu0 16.0 GiB - 0 B - - 512 MiB - - - NVML NVIDIA B"
    assert "gpu0 cannot be used: it was lost" in run.stderr
    assert json.loads(corral("devices", "--json").stdout) == dump(DEVICES)
    said = corral("status").stdout
    assert "cpu       32.0 GiB of 64.0 GiB free, 8.0 GiB held by engines, budget 48.0 GiB" in said
    assert "gpu0      NVIDIA B: it was lost" in said


def test_status_and_version(corral: Corral, server: SmallServer) -> None:
    """`status` shows the server, and `version` warns when it is of another version than the command."""
    assert "version   9.9" in corral("status").stdout
    assert json.loads(corral("status", "--json").stdout)["pid"] == 77
    run = corral("version")
    assert "server 9.9" in run.stdout
    assert "another version" in run.stderr


def test_actions(corral: Corral, server: SmallServer) -> None:
    """`start`, `stop`, `restart` and `reload` send what was asked for and print what the server did."""
    server.units.append(unit_info("thinker"))
    assert corral("start", "demo", "--no-wait").stdout == "start: demo done\n"
    assert corral("restart", "org/model:7b").stdout == "restart: org/model:7b done\n"
    assert json.loads(corral("stop", "demo", "--json").stdout)["model"] == "demo"
    assert corral("stop", "--all").stdout == "stop: demo done\nstop: thinker done\n"
    run = corral("reload")
    assert run.stdout == "Read /m.yaml again.\n  added: new\n"
    assert "only a restart of the server takes up: listen" in run.stderr
    assert [(path, body) for path, body in server.asked if path.startswith("/control/") and body] == [
        ("/control/start", {"model": "demo", "wait": False}),
        ("/control/restart", {"model": "org/model:7b", "wait": True}),
        ("/control/stop", {"model": "demo", "wait": True}),
        ("/control/stop", {"model": "demo", "wait": True}),
        ("/control/stop", {"model": "thinker", "wait": True}),
    ]


def test_logs_and_events(corral: Corral, server: SmallServer) -> None:
    """`logs` and `events` print the last entries, as many as asked for."""
    assert corral("logs", "org/model:7b", "-n", "2").stdout == "line 4\nline 5\n"
    assert json.loads(corral("logs", "demo", "--json").stdout) == {"model": "demo", "lines": server.logs}
    assert [line.split()[-1] for line in corral("events", "-n", "2").stdout.splitlines()] == ["2", "3"]
    assert [e["seq"] for e in json.loads(corral("events", "--since", "1", "--json").stdout)] == [2, 3]


def test_run_once(corral: Corral, server: SmallServer) -> None:
    """`run MODEL PROMPT` prints the answer alone on standard output, and its rates with --verbose on standard error."""
    run = corral("run", "demo", "what", "is it?", "--verbose", "--system", "Be brief.", "--temperature", "0")
    assert run.stdout == "Corral runs models.\n"
    assert "answer       3 tokens, 100.0 tokens/s" in run.stderr
    assert "load         18 ms" in run.stderr
    (sent,) = server.chats()
    assert sent["messages"] == [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "what is it?"}]
    assert (sent["temperature"], sent["stream"]) == (0.0, True)


def test_run_json(corral: Corral, server: SmallServer) -> None:
    """`run --json` prints one object with the answer, the thoughts and the figures."""
    told = json.loads(corral("run", "thinker", "hi", "--json", "--format", "json", "--no-think").stdout)
    assert (told["text"], told["reasoning"]) == ("Corral runs models.", "Hm, a question.")
    assert (told["finish_reason"], told["completion_tokens"], told["load_ms"]) == ("stop", 3, 18.5)
    (sent,) = server.chats()
    assert sent["response_format"] == {"type": "json_object"}
    assert sent["chat_template_kwargs"] == {"enable_thinking": False}


def test_run_reads_standard_input(corral: Corral, server: SmallServer) -> None:
    """What is piped in is the question, or follows the prompt; thoughts never reach a pipe; a cut answer is noted."""
    run = corral("run", "thinker", input="piped\n")
    assert run.stdout == "Corral runs models.\n"
    assert "token" in corral("run", "demo", "Review:", "--max-tokens", "3", input="a diff\n").stderr
    assert [chat["messages"][-1]["content"] for chat in server.chats()] == ["piped", "Review:\n\na diff"]


def test_host(corral: Corral, server: SmallServer, paths: object) -> None:
    """`--host` and CORRAL_HOST name the server, wherever on the command line."""
    socket = getattr(paths, "control_socket")  # noqa: B009
    elsewhere = {"CORRAL_RUNTIME_DIR": "/nonexistent"}
    assert corral("ps", "--host", f"unix:{socket}", env=elsewhere).returncode == 0
    assert corral("--host", str(socket), "ps", env=elsewhere).returncode == 0
    assert corral("ps", env=elsewhere | {"CORRAL_HOST": str(socket)}).returncode == 0
    assert corral("ps", env=elsewhere).returncode == 3


def test_light(corral: Corral, server: SmallServer, corral_env: dict[str, str]) -> None:
    """`ps` imports neither the server's libraries nor those of other commands."""
    run = corral("ps", env={"PYTHONPROFILEIMPORTTIME": "1"})
    assert run.returncode == 0
    imported = {line.rpartition("|")[2].strip() for line in run.stderr.splitlines() if line.startswith("import time:")}
    heavy = {"asyncio", "pydantic", "rich", "yaml", "uvicorn", "starlette", "subprocess", "corral.config.load"}
    assert not imported & heavy


@pytest.mark.parametrize("words", [("logs", "demo", "-n", "banana"), ("fit", "demo", "--context", "banana")])
def test_what_is_no_number_is_said_to_be_none(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    """Not "is not a valid integer range", as click has it."""
    assert run(list(words)) == 2
    assert "'banana' is not a number" in capsys.readouterr().err
