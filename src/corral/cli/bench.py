"""`corral bench`: what models and servers do, measured as their clients see it."""

from __future__ import annotations

import importlib
from typing import Any

import click

_COMMANDS = {
    "model": "Measure one model: reading and writing by depth, many at once, cold starts.",
    "concurrency": "Send more and more requests at once and show where a model saturates.",
    "compare": "Set models of Corral and other servers side by side.",
    "devices": "Set the processor against each GPU backend.",
    "diff": "Show what changed between two saved benchmarks.",
    "list": "List the saved benchmarks.",
    "show": "Show a saved benchmark again, or draw it.",
}
_GLOBAL_WITH_VALUE = ("--host",)
_GLOBAL = ("--json", "--no-color")


class _Bench(click.Group):
    """`corral bench MODEL` is `corral bench model MODEL`."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        from corral.cli.group import with_global_options

        if cmd_name not in _COMMANDS:
            return None
        command: click.Command = importlib.import_module(f"corral.cli.bench_{cmd_name}").command
        command.short_help = _COMMANDS[cmd_name]
        return with_global_options(command)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        at = 0
        while at < len(args) and (args[at] in (*_GLOBAL, *_GLOBAL_WITH_VALUE) or args[at].startswith("--host=")):
            at += 2 if args[at] in _GLOBAL_WITH_VALUE else 1
        if at < len(args) and args[at] not in (*_COMMANDS, "-h", "--help"):
            args = [*args[:at], "model", *args[at:]]
        return super().parse_args(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(_COMMANDS.items()))

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[Any]:
        from click.shell_completion import CompletionItem

        from corral.cli.arguments import model_names

        found: list[Any] = super().shell_complete(ctx, incomplete)
        return [*found, *map(CompletionItem, model_names(ctx, None, incomplete))]


@click.command("bench", cls=_Bench)
def command() -> None:
    """Measure models and servers as their clients see them.

    `corral bench MODEL` is short for `corral bench model MODEL`. What is measured is saved in the state directory, and
    can be listed, drawn and compared later.

    \b
    Examples:
      corral bench coder
      corral bench compare coder --target vllm=http://127.0.0.1:8000
    """
