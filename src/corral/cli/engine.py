"""`corral engine`: engines that Corral installs, beside each other."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from corral.cli.app import App

if TYPE_CHECKING:
    from pathlib import Path

    from corral.environments.shelf import Environment, Shelf

LLAMA = "llama.cpp"


@click.group("engine")
def command() -> None:
    """Install engines, each version in an environment of its own, and say which one is used.

    Works with and without a running server, on this machine. A server takes up what is current at the next start of an
    engine; engines that run stay as they are.

    \b
    Examples:
      corral engine install vllm --variant cpu
      corral engine list
      corral engine rollback vllm
    """


@command.command("install")
@click.argument("engine")
@click.option(
    "--variant", default="cpu", show_default=True, metavar="NAME", help="cpu, cuda or rocm; llama.cpp: vulkan."
)
@click.option("--version", "version_", metavar="VERSION", help="Another than the one this Corral was tried with.")
@click.option("--wheels", metavar="DIR", help="Only from the wheels in this folder, all of them; asks no index.")
@click.option("--python", metavar="PROGRAM", help="For this Python; without, the one that Corral runs on.")
@click.pass_obj
def install(app: App, engine: str, variant: str, version_: str | None, wheels: str | None, python: str | None) -> None:
    """Make an environment with ENGINE (vllm, detector-export or llama.cpp) and have it be the current one. One that is
    there already is taken at once.

    vLLM is fetched by pip, from the index of your own pip configuration, each file checked against a hash; so is
    detector-export, which makes ONNX of a detector's safetensors. llama.cpp's llama-server is built from source, which
    takes minutes and a compiler.

    \b
    Examples:
      corral engine install vllm --variant cpu
      corral engine install detector-export
      corral engine install vllm --variant rocm --wheels ./vllm-rocm
      corral engine install llama.cpp --variant vulkan
    """
    from pathlib import Path

    from corral.cli.engine_steps import Steps
    from corral.environments.make import Request
    from corral.environments.make import install as make
    from corral.environments.variants import variant_of

    if engine == LLAMA:
        _build_llama(app, variant, version_, wheels, python)
        return
    request = Request(
        variant_of(engine, variant),
        version_ or "",
        Path(wheels).expanduser().absolute() if wheels else None,
        _program(python) if python else Path(sys.executable),
    )
    steps = Steps(app)
    try:
        done = make(request, _shelf(app, engine), steps.say)
    finally:
        steps.end()
    if app.json:
        app.print_json({"made": done.made, "environment": _told(done.environment, current=True)})
        return
    for each in done.swept:
        app.note(f"removed what was left of an installation cut short: {each}")
    app.say(f"{done.environment} {'is installed' if done.made else 'was there already'}: {done.environment.path}")
    app.note(_of_lock(done.environment))


def _of_lock(environment: Environment) -> str:
    how = {
        "shipped": "by the lock that comes with Corral",
        "index": f"not locked for this version and Python: what the index gave is in {environment.path}/lock.txt",
        "wheels": "by the hashes of the wheels in the folder",
    }
    return f"{environment.packages} packages, {how[environment.origin]}"


def _program(name: str) -> Path:
    import shutil
    from pathlib import Path

    from corral.errors import CallerError

    found = shutil.which(name)
    if found is None:
        raise CallerError(f"there is no program {name}", hint="give the path of a Python 3.10 or later", param="python")
    return Path(found).absolute()


def _build_llama(app: App, variant: str, *others: str | None) -> None:
    from corral.cli.engine_steps import Steps
    from corral.environments.llama_server import build
    from corral.errors import CallerError

    if any(others):
        raise CallerError("--version, --wheels and --python are not for llama.cpp", hint="it is built at one version")
    steps = Steps(app)
    try:
        done = build(app.paths.cache_dir, variant, steps.say)
    finally:
        steps.end()
    if app.json:
        app.print_json({"made": done.made, "variant": done.variant, "version": done.version, "path": str(done.program)})
        return
    how = "is built" if done.made else "was there already"
    app.say(f"llama-server {done.version} ({done.variant}) {how}: {done.program}")
    app.note(f"have it used with: executables: {{llama.cpp: {done.program}}} in models.yaml, or put it on PATH")


@command.command("list")
@click.argument("engine", required=False)
@click.pass_obj
def list_(app: App, engine: str | None) -> None:
    """Show the engines there are, installed by Corral or found, with what takes how much room.

    \b
    Example:
      corral engine list
    """
    from corral.cli.spinner import Spinner
    from corral.cli.table import Cell, Column
    from corral.engine_list import engines
    from corral.units import show_bytes

    with Spinner("asking the engines", quiet=app.json):
        found = [each for each in engines(app.paths) if engine in (None, each.engine)]
    if app.json:
        app.print_json(found)
        return
    columns = [Column("ENGINE"), Column("VERSION"), Column("VARIANT"), Column("ID", 2), Column("SIZE", 3, right=True)]
    columns += [Column("STATE", 1), Column("RUNS ON", 4, cut=True), Column("PATH", 5)]
    rows: list[list[Cell | str]] = [
        [
            each.engine,
            each.version,
            each.variant,
            each.id,
            show_bytes(each.bytes) if each.bytes else "",
            Cell(
                each.state, ("green",) if each.state == "current" else ("yellow",) if each.state == "unfinished" else ()
            ),
            ", ".join(each.devices),
            each.path,
        ]
        for each in found
    ]
    if rows:
        app.print_table(columns, rows)
    else:
        app.say("There are none. Install one with: corral engine install vllm --variant cpu")


@command.command("remove")
@click.argument("engine")
@click.argument("id_", metavar="ID")
@click.pass_obj
def remove(app: App, engine: str, id_: str) -> None:
    """Remove an environment, by the beginning of its ID or its version. One that an engine runs in stays.

    \b
    Example:
      corral engine remove vllm 835f3b
    """
    from corral.environments.users import users
    from corral.errors import InUse

    shelf = _shelf(app, engine)
    environment = shelf.find(id_)
    if running := users(environment.path):
        pids = ", ".join(str(pid) for pid, _ in running)
        raise InUse(
            f"{environment} is in use by process {pids}",
            hint="stop its model first: corral ps, corral stop MODEL",
            pids=[pid for pid, _ in running],
        )
    shelf.remove(environment)
    shelf.sweep()
    now = shelf.current()
    if app.json:
        app.print_json({"removed": _told(environment, current=False), "current": now.id if now else None})
        return
    app.say(f"{environment} is removed")
    app.note(f"current is now {now}" if now else f"no environment of {engine} is left")


@command.command("rollback")
@click.argument("engine")
@click.argument("id_", metavar="ID", required=False)
@click.pass_obj
def rollback(app: App, engine: str, id_: str | None) -> None:
    """Have the environment before the current one be current again, or the one with this ID.

    \b
    Example:
      corral engine rollback vllm
    """
    before, now = _shelf(app, engine).roll_back(id_)
    if app.json:
        app.print_json({"before": before.id, "current": _told(now, current=True)})
        return
    app.say(f"{now} is current")
    app.note("An engine that runs keeps what it has; take it up with: corral restart MODEL")


@command.command("path")
@click.argument("engine")
@click.argument("id_", metavar="ID", required=False)
@click.pass_obj
def path(app: App, engine: str, id_: str | None) -> None:
    """Print where an engine is: the current environment's directory, or llama.cpp's llama-server.

    \b
    Example:
      $(corral engine path vllm)/bin/python -c 'import vllm'
    """
    if engine == LLAMA:
        from corral.environments.llama_server import needed

        program = needed(app.paths.cache_dir, id_)
        app.print_json({"path": str(program)}) if app.json else app.say(str(program))
        return
    shelf = _shelf(app, engine)
    found = shelf.find(id_) if id_ else shelf.needed()
    app.print_json(_told(found, current=found == shelf.current())) if app.json else app.say(str(found.path))


def _shelf(app: App, engine: str) -> Shelf:
    from corral.environments.shelf import Shelf
    from corral.environments.variants import installable
    from corral.errors import CallerError

    if engine not in installable():
        hint = f"it has {', '.join(installable())}; for {LLAMA} there are install, list and path"
        raise CallerError(f"Corral has no environments of {engine[:40]!r}", hint=hint, param="engine")
    return Shelf(app.paths.engines_dir, engine)


def _told(environment: Environment, *, current: bool) -> dict[str, object]:
    from dataclasses import asdict

    told = {**asdict(environment), "id": environment.id, "current": current, "path": str(environment.path)}
    return {**told, "python_program": str(environment.interpreter)}
