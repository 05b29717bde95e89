"""The commands' part of docs/cli.md, made from the commands themselves.

`python -m corral.cli.reference docs/cli.md` writes it anew between the two marks; a test checks that it is current.
"""

from __future__ import annotations

import sys
from pathlib import Path

import click

from corral.cli.exits import MEANINGS
from corral.cli.group import COMMANDS, Commands, group

BEGIN, END = "<!-- generated: commands -->", "<!-- end of generated -->"


def render() -> str:
    """Markdown: the exit codes, the global options, then each command with its arguments, options and examples."""
    ctx = click.Context(group, info_name="corral")
    parts = [
        "## Exit codes",
        "| code | meaning |\n| ---: | --- |\n" + "\n".join(f"| {c} | {t} |" for c, t in MEANINGS.items()),
    ]
    parts += [
        "## Options of every command",
        "They may stand before or after the command.",
        _options(group, ctx, shared=True),
    ]
    for name in COMMANDS:
        command = group.get_command(ctx, name)
        assert command is not None
        parts += _command(command, click.Context(command, ctx, info_name=name), "##")
    return "\n\n".join(part for part in parts if part) + "\n"


def updated(page: str) -> str:
    """`page` with what stands between the marks made anew. Raises ValueError when the marks are missing."""
    head, begin, rest = page.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the page has no {BEGIN} … {END}")
    return f"{head}{BEGIN}\n\n{render()}\n{END}{tail}"


def _command(command: click.Command, ctx: click.Context, level: str) -> list[str]:
    usage = " ".join([ctx.command_path, *(p.make_metavar(ctx) for p in _arguments(command))])
    own = [p for p in _listed(command) if not getattr(p, "corral_global", False)]
    heading = f"{level} `{ctx.command_path}`"
    parts = [heading, *_prose(command.help or "")]
    if not isinstance(command, click.Group):
        parts.insert(1, f"    {usage}{' [OPTIONS]' if own else ''}")
    parts.append(_options(command, ctx, shared=False))
    if isinstance(command, click.Group) and not isinstance(command, Commands):
        for name in command.list_commands(ctx):
            each = command.get_command(ctx, name)
            assert each is not None
            parts += _command(each, click.Context(each, ctx, info_name=name), level + "#")
    return parts


def _prose(text: str) -> list[str]:
    """A help text's paragraphs; one marked as laid out by hand becomes a sentence and a block."""
    parts = []
    for paragraph in text.replace("\r", "").split("\n\n"):
        lines = paragraph.strip("\n").split("\n")
        if lines[0].strip() == "\b":
            parts.append(lines[1].strip())
            parts.append("```sh\n" + "\n".join(line.strip() for line in lines[2:]).strip() + "\n```")
        elif paragraph.strip():
            parts.append(" ".join(line.strip() for line in lines))
    return parts


def _options(command: click.Command, ctx: click.Context, *, shared: bool) -> str:
    rows = []
    for option in _listed(command):
        if getattr(option, "corral_global", False) and not shared:
            continue
        record = option.get_help_record(ctx)
        if record is not None:
            names, text = (" ".join(each.split()).replace("|", "\\|") for each in record)
            rows.append(f"| `{names}` | {text} |")
    return "| option | meaning |\n| --- | --- |\n" + "\n".join(rows) if rows else ""


def _listed(command: click.Command) -> list[click.Option]:
    return [p for p in command.params if isinstance(p, click.Option) and not p.hidden]


def _arguments(command: click.Command) -> list[click.Argument]:
    return [p for p in command.params if isinstance(p, click.Argument)]


if __name__ == "__main__":
    file = Path(sys.argv[1])
    file.write_text(updated(file.read_text(encoding="utf-8")), encoding="utf-8")
