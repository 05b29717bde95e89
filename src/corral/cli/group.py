"""The command group: names and one-line helps of all commands, each imported only when it is called."""

from __future__ import annotations

import importlib
import keyword
import os
from collections.abc import Callable
from typing import Any

import click

from corral import __version__
from corral.cli.app import App
from corral.cli.exits import MEANINGS

COMMANDS = {
    "serve": "Run the server in this terminal.",
    "run": "Ask a model one question, or chat with it.",
    "detect": "Find objects in pictures.",
    "pull": "Fetch a model from a registry, Hugging Face, Ollama or a URL.",
    "list": "Show the models there are.",
    "show": "Show what a stored model is, and whether it fits here.",
    "fit": "Say whether a model fits on this machine, where, and why.",
    "rm": "Remove stored models.",
    "ps": "Show the engines that run.",
    "top": "Watch devices, models, rates, queues and events, and act on them with keys.",
    "start": "Start a model's engine now.",
    "stop": "Stop a model's engine.",
    "restart": "Stop a model's engine and start it again.",
    "engine": "Install engines, list them, and go back to an earlier one.",
    "health": "Say by the exit code whether the server, or a model, is well.",
    "keys": "Make keys for those who may use the server, and take them back.",
    "usage": "Show requests and tokens, by key, model and day.",
    "requests": "Show the last requests as they came, secrets masked.",
    "listen": "Let others in the network use this server.",
    "tls": "Make a certificate for the own network.",
    "devices": "Show the memory of each device, and whose it is.",
    "status": "Show the server as a whole.",
    "bench": "Measure what a model does with many requests at once.",
    "logs": "Show what a model's engine wrote.",
    "events": "Show what happened, in order.",
    "story": "Tell what happened to a model's engines, and why.",
    "reload": "Make the server read its configuration again.",
    "downloads": "List downloads; pause, resume or cancel one.",
    "search": "Look for models on Docker Hub and Hugging Face.",
    "import": "Take over models of Ollama, Docker, Hugging Face, LM Studio or llama.cpp.",
    "package": "Make a stored model of files.",
    "convert": "Make a stored GGUF model of a safetensors model.",
    "quantize": "Make a stored model with smaller weights of another one.",
    "push": "Send a stored model to a registry.",
    "tag": "Give a stored model another name.",
    "history": "Show what a stored model's name pointed to.",
    "rollback": "Point a name back to an earlier digest.",
    "inspect": "Show a manifest and its config.",
    "df": "Show what takes how much room.",
    "prune": "Remove what nothing refers to, and old models.",
    "verify": "Check every byte of the store, and mend it.",
    "export": "Write stored models to a tar file.",
    "load": "Read models from a tar file.",
    "login": "Keep a registry's credentials.",
    "logout": "Forget a registry's credentials.",
    "image": "Build, fetch, list and remove the images of engines in containers.",
    "deploy": "Write the files of a Prometheus and a Grafana that look after Corral.",
    "lock": "Record which digest each image of an engine stands for.",
    "config": "Look at the configuration, check it, or write a first one.",
    "trust": "Allow the models.yaml of a directory to be used.",
    "doctor": "Look over this machine: what is here, what is missing, how to mend it.",
    "version": "Show the version of this command and of the server.",
    "compose": "Serve models to a Compose file: a provider of `docker compose`.",
    "install": "Make other programs know Corral: the plugin of `docker model`.",
    "uninstall": "Take back what `corral install` installed.",
    "completion": "Print the completion script of a shell.",
}

_EPILOG = "\b\nExit codes:\n" + "\n".join(f"  {code:>3}  {text.replace('`', '')}" for code, text in MEANINGS.items())


def _remember(name: str) -> Callable[[click.Context, click.Parameter, Any], None]:
    def callback(ctx: click.Context, param: click.Parameter, value: Any) -> None:
        if value not in (None, False):
            setattr(ctx.ensure_object(App), name, False if name == "color" else value)

    return callback


def _global_options() -> list[click.Option]:
    return [
        click.Option(
            ["--host"],
            metavar="ADDR",
            expose_value=False,
            callback=_remember("host"),
            help="The server to talk to: HOST:PORT, a URL or unix:/path. Default: CORRAL_HOST, else your own.",
        ),
        click.Option(
            ["--json"],
            is_flag=True,
            expose_value=False,
            callback=_remember("json"),
            help="Print JSON instead of words.",
        ),
        click.Option(
            ["--no-color"],
            is_flag=True,
            expose_value=False,
            callback=_remember("color"),
            help="No colours, as with NO_COLOR=1.",
        ),
    ]


def with_global_options(command: click.Command) -> click.Command:
    """`command`, and all below it, taking the global options too; an option of its own with such a name stays."""
    if command.params and getattr(command.params[-1], "corral_global", False):
        return command
    own = {name: param for param in command.params for name in param.opts}
    for option in _global_options():
        if (mine := own.get(option.opts[0])) is None:
            option.corral_global = True  # type: ignore[attr-defined]
            command.params.append(option)
        elif option.opts[0] == "--json":
            mine.default = _json_before_the_command
    if isinstance(command, click.Group):
        for each in command.commands.values():
            with_global_options(each)
    return command


def _json_before_the_command() -> bool:
    ctx = click.get_current_context(silent=True)
    app = ctx.find_object(App) if ctx is not None else None
    return app.json if app is not None else False


class Commands(click.Group):
    """Looks commands up by the table above, so that help and completion import none of them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"corral.cli.{cmd_name}{'_' if keyword.iskeyword(cmd_name) else ''}")
        command: click.Command = module.command
        command.short_help = COMMANDS[cmd_name]
        return with_global_options(command)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            raise click.UsageError(f"there is no command {args[0]!r}", ctx=_Hinted(self, _nearest(args[0])))
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[Any]:
        from click.shell_completion import CompletionItem

        found = [CompletionItem(name, help=text) for name, text in COMMANDS.items() if name.startswith(incomplete)]
        return found + click.Command.shell_complete(self, ctx, incomplete)


class _Hinted(click.Context):
    """A context that carries the hint of the usage error raised in it."""

    def __init__(self, command: click.Command, hint: str) -> None:
        super().__init__(command, info_name="corral")
        self.hint = hint


def _nearest(name: str) -> str:
    from difflib import get_close_matches

    near = get_close_matches(name, COMMANDS, n=1, cutoff=0.5) or [each for each in COMMANDS if each.startswith(name)]
    return f"did you mean: corral {near[0]}?" if near else "see all commands with: corral --help"


@click.command(
    cls=Commands,
    name="corral",
    epilog=_EPILOG,
    context_settings={"help_option_names": ["-h", "--help"]},
    params=_global_options(),
)
@click.version_option(__version__, "--version", prog_name="corral", message="%(prog)s %(version)s")
@click.pass_context
def group(ctx: click.Context) -> None:
    """Corral runs AI models on this machine: any client, any engine, within the memory there is.

    \b
    Examples:
      corral serve                   run the server
      corral run demo "hello"        ask once
      corral ps                      see what runs
    """
    ctx.ensure_object(App)


def completing() -> bool:
    """Whether a shell asks for completions and no command is to be run."""
    return "_CORRAL_COMPLETE" in os.environ
