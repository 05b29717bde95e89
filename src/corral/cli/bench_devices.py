"""`corral bench devices`: one model on the processor and on each GPU backend that is found."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from corral.cli.app import App
from corral.cli.arguments import model_argument
from corral.cli.bench_model import fitting, measure
from corral.cli.bench_report import Numbers, check_drawing, drawing_options, finish, saving_options
from corral.cli.bench_subject import machine, report, teller, unit_of

if TYPE_CHECKING:
    from corral.api import ModelInfo, PlanInfo
    from corral.measure.backends import Way
    from corral.measure.figures import Figure
    from corral.measure.report import Report


@click.command("devices")
@model_argument()
@click.option("--executable", "programs", metavar="PATH", multiple=True, help="A llama-server to look at, too.")
@click.option("--depths", type=Numbers(0, 10_000_000), default="0", help="Tokens already in the context.")
@click.option("--concurrency", type=Numbers(), default="1", show_default=True, help="Requests at once.")
@click.option("--prompt-tokens", type=click.IntRange(1, 1_000_000), default=512, show_default=True, help="Of a prompt.")
@click.option("--output-tokens", type=click.IntRange(2, 100_000), default=128, show_default=True, help="Of an answer.")
@click.option("--runs", type=click.IntRange(1, 99), default=3, show_default=True, help="Of everything.")
@click.option("--cold/--no-cold", default=True, help="Cold starts, too.")
@saving_options
@drawing_options
@click.pass_obj
def command(
    app: App, model: str, programs: tuple[str, ...], depths: tuple[int, ...], concurrency: tuple[int, ...],
    prompt_tokens: int, output_tokens: int, runs: int, cold: bool, save: bool, against: str | None, html: str | None,
    png: str | None, csv: str | None, charts: bool | None,
) -> None:  # fmt: skip
    """Serve one model on the processor and on each GPU backend that a llama.cpp here reaches, side by side.

    It is done by a server of its own, with nothing else loaded; the model is stopped in yours meanwhile. Looked at are
    the model's own engine, those that Corral built, the llama-server on PATH, and each --executable.

    \b
    Examples:
      corral bench devices coder
      corral bench devices coder --executable /opt/llama-vulkan/bin/llama-server --html devices.html
    """
    import time

    from corral.cli.own_server import ensure
    from corral.client import Client

    check_drawing(png)
    client = ensure(app)
    plan = client.plan(model)
    info = next(each for each in client.models() if each.name == plan.model)
    file, ways = _ways(app, plan, [Path(each).expanduser() for each in programs])
    if any(unit.model == plan.model and unit.busy for unit in client.units()):
        app.warn(f"{plan.model} is in use: it is not stopped, and its requests show in the figures")
    else:
        client.stop(plan.model)
    began, machine_ = time.time(), machine(client)
    sizes = fitting(plan.context, prompt_tokens, output_tokens, depths)
    found: list[Figure] = []
    notes: list[str] = []
    subjects: dict[str, dict[str, Any]] = {}
    from corral.cli.bench_server import Alone

    with Alone(_config(info, plan, file, ways), app.paths) as alone:
        own = Client(alone.address)
        for way in ways:
            teller(app)(f"{way.name}: {way.words}")
            figures, said, facts = _one(app, own, way, sizes, concurrency, runs, cold)
            found, notes = found + figures, notes + said
            if figures:
                subjects[way.name] = {**facts, "program": way.program, "devices": list(way.devices)}
    settings = {
        "depths": list(sizes.depths), "concurrency": list(concurrency), "prompt_tokens": sizes.prompt,
        "output_tokens": sizes.output, "runs": runs,
    }  # fmt: skip
    kept = report(
        "devices", plan.model, began, client=client, settings=settings, subjects=subjects, figures=found,
        notes=notes, machine_=machine_,
    )  # fmt: skip
    kept = finish(app, kept, save=save, against=against, charts=charts, html=html, png=png, csv=csv)
    if not app.json:
        _ratios(app, kept)


def _ways(app: App, plan: PlanInfo, programs: list[Path]) -> tuple[str, list[Way]]:
    """The model's file, and every way to serve it. Raises CallerError where there is nothing to compare."""
    from corral.engine_list import llama_cpp, llama_cpps
    from corral.errors import CallerError
    from corral.measure.backends import file_of, ways_of

    file = file_of(plan.argv)
    if plan.engine != "llama.cpp" or plan.runner != "process" or file is None:
        raise CallerError(
            f"{plan.model} is served by {plan.engine} in {plan.runner}: only plain llama.cpp is compared by device",
            hint="measure it as it is: corral bench " + plan.model,
        )
    for each in programs:
        if not each.is_file():
            raise CallerError(f"there is no program {each}", hint="name a llama-server")
    own = Path(plan.argv[0]).resolve()
    engines = [llama_cpp(each.resolve()) for each in programs] + llama_cpps(app.paths)
    if plan.engine_version.startswith("xllamacpp") or own in {Path(each.path).resolve() for each in engines}:
        listed = engines
    else:
        listed = [llama_cpp(own), *engines]
    ways = ways_of(listed, "embedded" if plan.engine_version.startswith("xllamacpp") else str(own))
    if all(way.backend is None for way in ways):
        app.warn("no llama.cpp here reaches a GPU: only the processor is measured. See: corral doctor")
    return file, ways


def _config(info: ModelInfo, plan: PlanInfo, file: str, ways: list[Way]) -> str:
    """The configuration of the server that compares: JSON, which YAML is too."""
    import json

    from corral.measure.backends import ENV, kept_flags

    common = {
        "source": file, "context": plan.context, "parallel": info.parallel, "idle_timeout": "never",
        "args": kept_flags(plan.argv),
    }  # fmt: skip
    env = {name: value for name, value in plan.env.items() if name in ENV}
    models = [
        {"name": way.name, **common, **way.settings, "env": {**env, **way.settings.get("env", {})}} for way in ways
    ]
    return json.dumps({"max_active": 1, "timeouts": {"start": "20m", "hang": "20m"}, "models": models})


def _one(
    app: App, client: Any, way: Way, sizes: Any, concurrency: tuple[int, ...], runs: int, cold: bool
) -> tuple[list[Figure], list[str], dict[str, Any]]:
    from corral.errors import CorralError

    try:
        unit = unit_of(client, way.name)
        if way.backend is not None and unit.degraded:
            return [], [f"{way.name}: left out, since it ran on the processor: {unit.degraded}"], {}
        figures, said, facts = measure(
            app, client, unit, sizes, concurrency, runs=runs, each=2, cold=cold, swap=None, name=way.name
        )
    except CorralError as error:
        return [], [f"{way.name}: left out: {error.message}"], {}
    finally:
        client.stop(way.name)
    if way.software:
        said = [*said, f"{way.name}: {way.devices[0]} is the processor behind a GPU's interface, not a GPU"]
    return figures, said, facts


def _ratios(app: App, kept: Report) -> None:
    """How much faster each is than the processor."""
    from corral.measure.figures import DEPTH

    base = next(iter(kept.subjects), None)
    for subject in list(kept.subjects)[1:]:
        for each in kept.of(subject):
            if each.part != DEPTH or each.name not in ("prompt_per_s", "generation_per_s") or base is None:
                continue
            other = kept.get(base, DEPTH, each.at, each.name)
            if other is not None and other.median:
                app.say(f"{subject}: {each.kind.words} at {each.at:g} is {each.median / other.median:.2f} of {base}'s")
