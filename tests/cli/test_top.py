"""`corral top` without a terminal of its own: printed once, refused in words."""

from __future__ import annotations

import json
from typing import Any

from corral.api import ErrorInfo
from corral.api_live import Live
from corral.calls import understood
from support.pictures import at_work, live
from support.ptys import terminal
from support.small_server import SmallServer


def test_once_prints_tables(corral: Any, server: SmallServer) -> None:
    """As other commands print them: whole in a pipe, without an escape code."""
    server.live = at_work()
    done = corral("top", "--once")
    assert done.returncode == 0 and "\x1b" not in done.stdout
    lines = done.stdout.splitlines()
    assert lines[0].startswith("corral 0.7.0, up 2 h 5 min: 4 busy, 3 waiting, 2.2 requests/s, 154.6 tokens/s")
    table = next(line for line in lines if line.startswith("MODEL "))
    assert [name for name in ("STATE", "MEMORY", "TOKENS/S", "RESTARTS", "ERRORS") if name not in table] == []
    busy = next(line for line in lines if line.startswith("qwen3-coder:30b "))
    assert busy.split()[1:] == ["ready", "17.0", "GiB", "143", "3/2", "184", "ms", "911", "ms", "92%", "2", "busy",
                                "gpu0", "1204", "3"]  # fmt: skip
    gpu = next(line for line in lines if line.startswith("gpu0 "))
    assert "97%" in gpu and "388 W" in gpu and "qwen3-coder:30b 17.0 GiB" in gpu
    assert any(line.startswith("ai/gemma3:4b") and "1.0 GiB of 3.0 GiB" in line for line in lines)
    assert "llama-70b is failed: ended while it loaded" in done.stderr
    assert "mistral-small is degraded: cpu (the Vulkan driver hangs)" in done.stderr


def test_a_pipe_gets_it_once(corral: Any, server: SmallServer) -> None:
    """`corral top | less` needs no option."""
    assert corral("top").stdout.startswith("corral 0.7.0, up ")


def test_the_sort_is_that_of_the_screen(corral: Any, server: SmallServer) -> None:
    server.live = at_work()
    lines = corral("top", "--once", "--sort", "memory").stdout.splitlines()
    at = next(number for number, line in enumerate(lines) if line.startswith("MODEL "))
    assert lines[at + 1].startswith("qwen3-coder:30b ")


def test_json_is_the_wire_type(corral: Any, server: SmallServer) -> None:
    server.live = at_work()
    assert understood(Live, json.loads(corral("top", "--json").stdout)) == at_work()


def test_no_server_is_an_error_like_any_other(corral: Any) -> None:
    """Nothing is started, and nothing is drawn."""
    done = corral("top")
    assert done.returncode == 3 and done.stdout == ""
    assert "no Corral server is running" in done.stderr and "corral serve" in done.stderr


def test_a_key_of_too_small_a_scope_is_refused_before_anything_is_drawn(corral: Any, server: SmallServer) -> None:
    server.refusal = ErrorInfo("forbidden", "the key ck_1 is not good for this: it needs the scope admin", "ask", 403)
    done = corral("top")
    assert done.returncode == 2 and "it needs the scope admin" in done.stderr and done.stdout == ""


def test_an_older_server_is_told_from_a_wrong_one(corral: Any, server: SmallServer) -> None:
    server.refusal = ErrorInfo("not_found", "there is no GET /control/live here", "", 404)
    done = corral("top", "--once")
    assert done.returncode == 2 and "older than this command" in done.stderr and "corral version" in done.stderr


def test_a_terminal_that_cannot_place_its_cursor_is_told_what_to_do(
    corral_env: dict[str, str], server: SmallServer
) -> None:
    with terminal("top", env=corral_env | {"TERM": "dumb"}) as screen:
        assert screen.ended() == 2
        assert "corral top --once" in " ".join(screen.seen.split())


def test_it_draws_on_the_alternate_screen_and_leaves_it(corral_env: dict[str, str], server: SmallServer) -> None:
    """So the terminal is as it was before."""
    server.live = live()
    with terminal("top", env=corral_env) as screen:
        screen.wait_for("\x1b[?1049h")
        screen.wait_for("ready")
        screen.type("q")
        assert screen.ended() == 0
        assert screen.seen.rindex("\x1b[?1049l") > screen.seen.rindex("ready")
