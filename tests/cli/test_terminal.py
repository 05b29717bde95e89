"""On a real terminal: the chat, the picker, colours, widths, completion."""

from __future__ import annotations

import os
import stat
import subprocess
from collections.abc import Callable

import pytest

from corral.config.paths import Paths
from support.ptys import terminal
from support.small_server import SmallServer, until

Corral = Callable[..., "subprocess.CompletedProcess[str]"]


def test_chat(corral_env: dict[str, str], server: SmallServer, paths: Paths) -> None:
    """The chat remembers its turns, takes messages of several lines and commands, and keeps a private history."""
    with terminal("run", "demo", env=corral_env) as person:
        person.wait_for(">>> ")
        person.type("hello\r")
        person.wait_for("Corral runs models.")
        person.wait_for(">>> ")
        person.type('"""two\r')
        person.wait_for("... ")
        person.type('lines"""\r')
        person.wait_for("Corral runs models.")
        person.wait_for(">>> ")
        person.type("/set system Be kind.\r")
        person.wait_for("The system message is set.")
        person.type("/show info\r")
        person.wait_for("/models/demo.gguf")
        person.type("/set verbose\r")
        person.wait_for("Rates are shown")
        person.wait_for(">>> ")
        person.type("last\r")
        person.wait_for("tokens/s")
        person.wait_for(">>> ")
        person.type("/bye\r")
        assert person.ended() == 0
    said = [[m["content"] for m in chat["messages"]] for chat in server.chats()]
    answer = "Corral runs models."
    assert said == [
        ["hello"],
        ["hello", answer, "two\nlines"],
        ["Be kind.", "hello", answer, "two\nlines", answer, "last"],
    ]
    history = paths.state_dir / "history"
    assert stat.S_IMODE(history.stat().st_mode) == 0o600
    assert "hello" in history.read_text()


def test_interrupt_keeps_the_chat(corral_env: dict[str, str], server: SmallServer) -> None:
    """Ctrl-C stops an answer, at the prompt it says how to leave, and Ctrl-D leaves; no traceback in any case."""
    with terminal("run", "endless", env=corral_env) as person:
        person.wait_for(">>> ")
        person.type("go on\r")
        person.wait_for("again ")
        person.type("\x03")
        person.wait_for("(stopped)")
        until(server.left.is_set)
        person.wait_for(">>> ")
        person.type("half a li\x03")
        person.wait_for("leaves.")
        person.wait_for(">>> ")
        person.type("\x04")
        assert person.ended() == 0
        assert "Traceback" not in person.seen
        assert "\x1b[31m" not in person.seen, "what a model writes must not steer the terminal"


def test_chat_survives_errors(corral_env: dict[str, str], server: SmallServer) -> None:
    """An error in an answer is shown with its hint, and the chat goes on."""
    with terminal("run", "cut", env=corral_env | {"NO_COLOR": "1"}) as person:
        person.wait_for(">>> ")
        person.type("hello\r")
        person.wait_for("error: ")
        person.wait_for("hint: ")
        person.wait_for(">>> ")
        person.type("/exit\r")
        assert person.ended() == 0


def test_unknown_model_before_the_chat(corral_env: dict[str, str], server: SmallServer) -> None:
    """A wrong name ends the command before the first prompt."""
    with terminal("run", "nobody", env=corral_env) as person:
        assert person.ended() == 4
        assert ">>>" not in person.seen


def test_picker(corral_env: dict[str, str], server: SmallServer) -> None:
    """`start` without a name offers the models by number, asks again after nonsense, and Ctrl-C leaves with 130."""
    with terminal("start", env=corral_env) as person:
        person.wait_for(f"[1-{len(server.models)}] ")
        person.type("99\r")
        person.wait_for("or a name, please")
        person.type("2\r")
        person.wait_for("start: endless done")
        assert person.ended() == 0
    with terminal("start", env=corral_env) as person:
        person.wait_for(f"[1-{len(server.models)}] ")
        assert person.interrupted() == 130
        assert "Traceback" not in person.seen


@pytest.mark.parametrize(
    ("env", "args", "colored"),
    [({}, (), True), ({"NO_COLOR": "1"}, (), False), ({}, ("--no-color",), False), ({"TERM": "dumb"}, (), False)],
)
def test_colors(
    corral_env: dict[str, str], server: SmallServer, env: dict[str, str], args: tuple[str, ...], colored: bool
) -> None:
    """A terminal gets colours, but not with NO_COLOR, --no-color or a terminal without them."""
    with terminal("ps", *args, env=corral_env | env) as person:
        assert person.ended() == 0
        assert ("\x1b[32mready" in person.seen) is colored
        assert ("\x1b[" in person.seen) is colored


def test_thoughts(corral_env: dict[str, str], server: SmallServer) -> None:
    """On a terminal what the model thinks is shown dim and apart from the answer."""
    with terminal("run", "thinker", "hi", env=corral_env) as person:
        assert person.ended() == 0
        thought, _, answer = person.seen.partition("done thinking.")
        assert "\x1b[2mHm, a \x1b[0m" in thought
        assert answer.endswith("\x1b[0mCorral runs models.\r\n")


def test_narrow(corral_env: dict[str, str], server: SmallServer) -> None:
    """On a terminal of 40 columns no line of a table is longer, and what was left out is named."""
    with terminal("ps", env=corral_env | {"NO_COLOR": "1"}, columns=40) as person:
        assert person.ended() == 0
    table, _, note = person.seen.partition("no room for")
    assert all(len(line) <= 40 for line in table.splitlines())
    assert "demo" in table
    assert "RUNNER" in note


def test_bash_completion(corral: Corral, corral_env: dict[str, str], server: SmallServer) -> None:
    """Bash takes the script as it is printed, and completes commands, options and models, names with colons too."""
    script = corral("completion", "bash").stdout
    bin_dir = paths_with_corral(corral_env)
    asked = (
        script
        + """
    complete -p corral
    ask() {
      COMP_LINE="$1" COMP_POINT=${#1}; COMP_WORDS=($1); COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
      _corral_completion corral; echo "${COMPREPLY[*]}"
    }
    ask "corral sta"; ask "corral ps --al"; ask "corral logs thinker"
    ask "corral run org/model:7"; ask "corral run zzz"
    """
    )
    run = subprocess.run(
        ["bash", "--norc", "-c", asked], env=corral_env | {"PATH": bin_dir}, capture_output=True, text=True, timeout=30
    )
    assert run.stdout.splitlines()[1:] == ["start status", "--all", "thinker thinker-alias", "7b 7b-alias", ""], (
        run.stderr
    )


def paths_with_corral(env: dict[str, str]) -> str:
    """A PATH on which `corral` is this Python's."""
    import sys
    from pathlib import Path

    bin_dir = Path(env["HOME"]) / "bin"
    bin_dir.mkdir(exist_ok=True)
    program = bin_dir / "corral"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m corral "$@"\n')
    program.chmod(0o755)
    return f"{bin_dir}{os.pathsep}{env['PATH']}"


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells(corral: Corral, shell: str) -> None:
    """The other shells get a script of their own."""
    run = corral("completion", shell)
    assert run.returncode == 0
    assert f"_CORRAL_COMPLETE={shell}_complete" in run.stdout
