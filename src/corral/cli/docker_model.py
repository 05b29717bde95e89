"""The commands of `docker model`, each on Corral's own: Docker's options, outputs and JSON."""

from __future__ import annotations

import json
import shlex
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import click

from corral import __version__
from corral.cli.app import App
from corral.cli.docker_plugin import VERSION
from corral.cli.group import with_global_options

if TYPE_CHECKING:
    from corral.client import Client


class _Commands(click.Group):
    """The commands with Docker's other names for them."""

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        return super().get_command(ctx, _OTHER_NAMES.get(cmd_name, cmd_name))


_OTHER_NAMES = {
    "ls": "list", "show": "inspect", "stop": "unload", "config": "configure", "reinstall-runner": "install-runner",
    "start-runner": "install-runner", "restart-runner": "install-runner", "stop-runner": "uninstall-runner",
}  # fmt: skip


@click.group("docker model", cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
def group() -> None:
    """Models that Corral serves, under the commands of Docker Model Runner."""


def _client(app: App) -> Client:
    import os

    from corral.cli.own_server import ensure

    app.host = app.host or os.environ.get("MODEL_RUNNER_HOST") or None
    return ensure(app)


def _ask(client: Client, method: str, path: str, body: Any = None, *, timeout_s: float | None = 60.0) -> Any:
    """What one of Docker's routes answers; None for nothing."""
    from corral.connection import request

    with request(client.address, method, f"/docker{path}", body, timeout_s=timeout_s) as answer:
        raw = answer.bytes()
    return json.loads(raw) if raw.strip() else None


def _on(app: App, name: str, *args: str) -> int:
    """Runs a command of Corral's with these arguments."""
    from corral.cli.group import group as corral

    with click.Context(corral, info_name="corral", obj=app) as above:
        found = corral.get_command(above, name)
        assert found is not None
        with found.make_context(name, list(args), parent=above) as ctx:
            result = found.invoke(ctx)
    return result if isinstance(result, int) else 0


def _json(value: Any) -> None:
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


@group.command("version")
def version() -> None:
    """Show the version."""
    click.echo(f"Docker Model Runner API {VERSION}, by Corral {__version__}")


@group.command("list")
@click.argument("model", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--openai", is_flag=True, help="Print the list as OpenAI's API has it.")
@click.option("--quiet", "-q", is_flag=True, help="Only ids.")
@click.pass_obj
def list_(app: App, model: str | None, as_json: bool, openai: bool, quiet: bool) -> None:
    """List the models there are."""
    client = _client(app)
    if openai:
        _json(_ask(client, "GET", "/engines/v1/models"))
        return
    found = _ask(client, "GET", "/models")
    if model is not None:
        one = _ask(client, "GET", f"/models/{quote(model, safe='/:')}")
        found = [each for each in found if each["id"] == one["id"]]
    if as_json:
        _json(found)
    elif quiet:
        for each in found:
            click.echo(each["id"])
    else:
        _table(app, found)


def _table(app: App, found: list[dict[str, Any]]) -> None:
    from corral.cli import words
    from corral.cli.table import Column

    columns = [Column("MODEL NAME", cut=True), Column("PARAMETERS", 4), Column("QUANTIZATION", 3)]
    columns += [Column("ARCHITECTURE", 5), Column("MODEL ID", 2), Column("CREATED", 7), Column("CONTEXT", 6)]
    columns += [Column("SIZE", 1)]
    rows = []
    for each in found:
        config = each["config"]
        for name in each["tags"] or ["<none>"]:
            rows.append([
                brief(name), config["parameters"], config["quantization"], config["architecture"], each["id"][7:19],
                words.moment(each["created"]), str(config.get("context_size", "")), config["size"],
            ])  # fmt: skip
    app.print_table(columns, rows)


def brief(name: str) -> str:
    """A name as Docker's tables have it."""
    return name.removeprefix("docker.io/").removesuffix(":latest").removeprefix("ai/")


@group.command("pull")
@click.argument("model")
@click.pass_obj
def pull(app: App, model: str) -> int:
    """Fetch a model."""
    _client(app)
    return _on(app, "pull", model)


@group.command("push")
@click.argument("model")
@click.pass_obj
def push(app: App, model: str) -> int:
    """Send a model to its registry."""
    _client(app)
    return _on(app, "push", model)


@group.command("run")
@click.argument("model")
@click.argument("prompt", nargs=-1)
@click.option("--detach", "-d", is_flag=True, help="Load the model only.")
@click.option("--debug", is_flag=True, help="Show rates after the answer.")
@click.option("--color", type=click.Choice(["auto", "yes", "no"]), default="auto", help="Colours.")
@click.pass_obj
def run(app: App, model: str, prompt: tuple[str, ...], detach: bool, debug: bool, color: str) -> int:
    """Ask a model once, or chat with it; one that is not here is fetched first."""
    from corral.errors import UnknownModel

    client = _client(app)
    try:
        _ask(client, "GET", f"/models/{quote(model, safe='/:')}")
    except UnknownModel:
        if (code := _on(app, "pull", model)) != 0:
            return code
    app.color = {"auto": app.color, "yes": True, "no": False}[color]
    if detach:
        client.start(model)
        return 0
    return _on(app, "run", model, *prompt, *(["--verbose"] if debug else []))


@group.command("ps")
@click.pass_obj
def ps(app: App) -> None:
    """Show the models that are loaded."""
    from corral.cli import words
    from corral.cli.table import Column

    client = _client(app)
    until = {unit.model: words.until(unit) for unit in client.units()}
    columns = [Column("MODEL NAME", cut=True), Column("BACKEND", 2), Column("MODE", 3), Column("UNTIL", 1)]
    rows = []
    for each in _ask(client, "GET", "/engines/ps"):
        name = each["model_name"]
        left = next((found for full, found in until.items() if brief(full) == brief(name)), "")
        state = "Loading..." if each.get("loading") else "Forever" if left == "never" else left
        rows.append([brief(name), each["backend_name"], each["mode"], state])
    app.print_table(columns, rows)


@group.command("inspect")
@click.argument("model")
@click.option("--openai", is_flag=True, help="As OpenAI's API has it.")
@click.option("--remote", "-r", is_flag=True, help="Of the registry.")
@click.pass_obj
def inspect(app: App, model: str, openai: bool, remote: bool) -> None:
    """Show what a model is."""
    if openai and remote:
        raise click.UsageError("--openai and --remote do not go together", click.get_current_context())
    path = f"/engines/v1/models/{quote(model, safe='/:')}" if openai else f"/models/{quote(model, safe='/:')}"
    _json(_ask(_client(app), "GET", f"{path}?remote=true" if remote else path))


@group.command("rm")
@click.argument("models", nargs=-1, required=True)
@click.option("--force", "-f", is_flag=True, help="Also one that is loaded, or has several names.")
@click.pass_obj
def rm(app: App, models: tuple[str, ...], force: bool) -> None:
    """Remove models."""
    client = _client(app)
    for model in models:
        for done in _ask(client, "DELETE", f"/models/{quote(model, safe='/:')}{'?force=true' if force else ''}"):
            for verb, what in done.items():
                click.echo(f"{verb}: {what}")


@group.command("purge")
@click.option("--force", "-f", is_flag=True, help="Do not ask.")
@click.pass_obj
def purge(app: App, force: bool) -> None:
    """Remove all models."""
    client = _client(app)
    if not force and not click.confirm("All models of the store will be removed. Go on?"):
        return
    _ask(client, "DELETE", "/models/purge")


@group.command("tag")
@click.argument("source")
@click.argument("target")
@click.pass_obj
def tag(app: App, source: str, target: str) -> int:
    """Give a model another name."""
    _client(app)
    return _on(app, "tag", source, target)


@group.command("package")
@click.argument("model")
@click.option("--gguf", metavar="FILE", help="A GGUF file.")
@click.option("--safetensors-dir", metavar="DIR", help="A directory with safetensors files.")
@click.option("--from", "base", metavar="MODEL", help="A model that is here.")
@click.option("--license", "-l", "licence", metavar="FILE", help="A licence to put in.")
@click.option("--mmproj", metavar="FILE", help="The projector for images or sound.")
@click.option("--chat-template", metavar="FILE", help="A Jinja chat template.")
@click.option("--context-size", type=click.IntRange(1), metavar="TOKENS", help="The context to serve it with.")
@click.option("--format", "form", type=click.Choice(["docker", "cncf"]), default="docker", help="The format.")
@click.option("--push", "and_push", is_flag=True, help="Send it to its registry, too.")
@click.pass_obj
def package(
    app: App, model: str, gguf: str | None, safetensors_dir: str | None, base: str | None, licence: str | None,
    mmproj: str | None, chat_template: str | None, context_size: int | None, form: str, and_push: bool,
) -> int:  # fmt: skip
    """Make a model of files, or of another model."""
    sources = [each for each in (gguf, safetensors_dir, base) if each is not None]
    if len(sources) != 1:
        raise click.UsageError("give exactly one of --gguf, --safetensors-dir and --from", click.get_current_context())
    client = _client(app)
    if base is not None:
        asked: dict[str, Any] = {"target": model}
        asked |= {"context_size": context_size} if context_size is not None else {}
        done = _ask(client, "POST", f"/models/{quote(base, safe='/:')}/repackage", asked, timeout_s=None)
        click.echo(f"{done['target']} is made of {done['source']}")
        code = 0
    else:
        options = [
            ("--license", licence), ("--mmproj", mmproj), ("--template", chat_template),
            ("--context-size", None if context_size is None else str(context_size)), ("--format", form),
        ]  # fmt: skip
        given = [word for name, value in options if value is not None for word in (name, value)]
        code = _on(app, "package", sources[0], "--tag", model, *given)
    return _on(app, "push", model) if and_push and code == 0 else code


@group.command("configure", context_settings={"ignore_unknown_options": True})
@click.argument("words", nargs=-1, type=click.UNPROCESSED)
@click.option("--context-size", type=int, metavar="TOKENS", help="Tokens of context; -1 for as many as fit.")
@click.option("--mode", metavar="MODE", help="completion, embedding or reranking.")
@click.option("--keep-alive", metavar="TIME", help="How long it stays loaded: 5m, 0, -1; '' as usual.")
@click.option("--think/--no-think", default=None, help="Whether it thinks first.")
@click.pass_obj
def configure(
    app: App, words: tuple[str, ...], context_size: int | None, mode: str | None, keep_alive: str | None,
    think: bool | None,
) -> None:  # fmt: skip
    """Say how a model is to be started: MODEL [-- FLAGS]. `configure show [MODEL]` tells what was said."""
    client = _client(app)
    if words[:1] == ("show",):
        _json(_ask(client, "GET", f"/engines/_configure{f'?model={quote(words[1])}' if words[1:] else ''}"))
        return
    if not words:
        raise click.UsageError("which model?", click.get_current_context())
    asked: dict[str, Any] = {"model": words[0], "context-size": context_size, "mode": mode, "keep_alive": keep_alive}
    if think is not None:
        asked["llamacpp"] = {"reasoning-budget": -1 if think else 0}
    if words[1:]:
        asked["raw-runtime-flags"] = shlex.join(words[1:])
    _ask(client, "POST", "/engines/_configure", {key: value for key, value in asked.items() if value is not None})


@group.command("unload")
@click.argument("models", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="All that are loaded.")
@click.option("--backend", metavar="NAME", default="", help="Only of this engine.")
@click.pass_obj
def unload(app: App, models: tuple[str, ...], everything: bool, backend: str) -> None:
    """Unload models."""
    if bool(models) is everything:
        raise click.UsageError("name models, or give --all", click.get_current_context())
    asked = {"all": everything, "backend": backend, "models": list(models)}
    count = _ask(_client(app), "POST", "/engines/unload", asked, timeout_s=None)["unloaded_runners"]
    click.echo(f"Unloaded {count} model(s)." if count else "No such model(s) running.")


@group.command("status")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def status(app: App, as_json: bool) -> None:
    """Show whether the server runs, its engines, and where it is for containers."""
    from corral.cli.reaching import base_url
    from corral.cli.table import Column
    from corral.errors import ConfigError

    client = _client(app)
    found, listen = _ask(client, "GET", "/engines/status"), client.status().listen
    host = next((f"http://{each}" for each in listen if not each.startswith("unix:")), str(client.address))
    try:
        base, problem = base_url(client.address, listen), ""
    except ConfigError as error:
        base, problem = host, f"{error.message}: {error.hint}"
    if as_json:
        made = {"running": True, "backends": found, "kind": "Corral"}
        _json({**made, "endpoint": f"{base}/engines/v1/", "endpointHost": f"{host}/engines/v1/"})
    else:
        click.echo("Docker Model Runner is running")
        rows = [[name, text.partition(":")[0], text.partition(":")[2].strip()] for name, text in found.items()]
        app.print_table([Column("BACKEND"), Column("STATUS"), Column("DETAILS", cut=True)], rows)
    if problem:
        app.warn(problem)


@group.command("df")
@click.pass_obj
def df(app: App) -> None:
    """Show what takes how much room."""
    from corral.cli.table import Column
    from corral.units import show_bytes

    found = _ask(_client(app), "GET", "/engines/df")
    rows = [
        ["Models", show_bytes(found["models_disk_usage"])],
        ["Inference engine", show_bytes(found["default_backend_disk_usage"])],
    ]
    app.print_table([Column("TYPE"), Column("SIZE", right=True)], rows)


@group.command("logs")
@click.option("--follow", "-f", is_flag=True, help="Stay, and show what comes.")
@click.option("--no-engines", is_flag=True, help="Without what the engines wrote.")
@click.pass_obj
def logs(app: App, follow: bool, no_engines: bool) -> None:
    """Show what happened, and what the engines wrote."""
    from corral.connection import request

    client = _client(app)
    path = f"/docker/logs?follow={str(follow).lower()}&no-engines={str(no_engines).lower()}"
    with request(client.address, "GET", path, accept="text/plain", timeout_s=None) as answer:
        for line in answer.lines():
            app.say_now(line)


@group.command("requests")
@click.option("--model", metavar="MODEL", help="Only of this one.")
@click.pass_obj
def requests(app: App, model: str | None) -> None:
    """Show recorded requests; `corral requests --on` begins it."""
    _json(_ask(_client(app), "GET", f"/engines/requests{f'?model={quote(model)}' if model else ''}"))


@group.command("search")
@click.argument("term")
@click.option("--limit", "-n", type=click.IntRange(1, 100), default=32, help="How many at most.")
@click.option("--source", type=click.Choice(["all", "dockerhub", "huggingface"]), default="all", help="Where.")
@click.pass_obj
def search(app: App, term: str, limit: int, source: str) -> int:
    """Look for models."""
    _client(app)
    where = {"all": [], "dockerhub": ["--source", "docker"], "huggingface": ["--source", "hf"]}[source]
    return _on(app, "search", term, "--limit", str(limit), *where)


@group.command("install-runner", context_settings={"ignore_unknown_options": True})
@click.argument("words", nargs=-1, type=click.UNPROCESSED)
@click.pass_obj
def install_runner(app: App, words: tuple[str, ...]) -> None:
    """Start the server, where none runs: there is nothing else to install."""
    click.echo(f"Corral {_client(app).status().version} is running; nothing has to be installed.")


@group.command("uninstall-runner", context_settings={"ignore_unknown_options": True})
@click.argument("words", nargs=-1, type=click.UNPROCESSED)
def uninstall_runner(words: tuple[str, ...]) -> None:
    """Say how the server is ended."""
    from corral.errors import NotOffered

    raise NotOffered(
        "Corral is not ended from here",
        hint="end `corral serve`; the plugin goes with: corral uninstall docker-plugin",
    )


def _not_here(name: str, instead: str) -> None:
    @group.command(name, context_settings={"ignore_unknown_options": True})
    @click.argument("words", nargs=-1, type=click.UNPROCESSED)
    def refuse(words: tuple[str, ...]) -> None:
        from corral.errors import NotOffered

        raise NotOffered(f"docker model {name} is not offered", hint=instead)

    refuse.help = "Not offered by Corral."


_not_here("bench", "measure with any load generator against /v1")
_not_here("launch", "give the application the address that docker model status shows")
_not_here("context", "set MODEL_RUNNER_HOST or CORRAL_HOST to the address of another server")
_not_here("gateway", "Corral's own server is one: see docs/access.md for keys")
_not_here("skills", "docs/connect.md says how clients reach Corral")

with_global_options(group)
