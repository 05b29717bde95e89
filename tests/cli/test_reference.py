"""The documentation of the command line is what the commands say of themselves."""

from __future__ import annotations

from pathlib import Path

import click
import pytest

from corral.cli.group import COMMANDS, group
from corral.cli.reference import render, updated
from corral.cli.session import HELP, PARAMETERS

PAGE = Path(__file__).parents[2] / "docs" / "cli.md"


def commands() -> dict[str, click.Command]:
    ctx = click.Context(group, info_name="corral")
    found = {name: group.get_command(ctx, name) for name in COMMANDS}
    for name, command in list(found.items()):
        if isinstance(command, click.Group):
            found |= {f"{name} {each}": command.commands[each] for each in command.commands}
    return {name: command for name, command in found.items() if command is not None}


def test_page_is_current() -> None:
    """docs/cli.md is current; `python -m corral.cli.reference docs/cli.md` makes it so."""
    page = PAGE.read_text(encoding="utf-8")
    assert updated(page) == page


@pytest.mark.parametrize("name", commands())
def test_every_command_is_documented(name: str) -> None:
    """Each command is in the page with all its options, and its own help has an example."""
    command, page = commands()[name], render()
    assert f"## `corral {name}`" in page
    section = page.split(f"## `corral {name}`", 1)[1].split("\n## ", 1)[0]
    for param in command.params:
        if isinstance(param, click.Option) and not getattr(param, "corral_global", False):
            assert param.opts[-1] in section
    assert f"corral {name}" in (command.help or "").split("Example", 1)[-1]
    assert {"--json", "--host", "--no-color"} <= {opt for p in command.params for opt in p.opts} or isinstance(
        command, click.Group
    )


def test_chat_commands_are_documented() -> None:
    """The page and the chat's own help name the same commands and parameters."""
    page = PAGE.read_text(encoding="utf-8")
    for parameter in PARAMETERS:
        assert f"`{parameter}`" in page
        assert parameter in HELP
    for word in ("/set system", "/set nothink", "/set format json", "/set verbose", "/show", "/clear", "/bye", "/exit"):
        assert f"`{word}" in page
        assert word in HELP
