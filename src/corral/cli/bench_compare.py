"""`corral bench compare`: models of Corral and other servers, side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from corral.cli.app import App
from corral.cli.arguments import model_names
from corral.cli.bench_report import Numbers, check_drawing, drawing_options, finish, saving_options
from corral.cli.bench_subject import done, facts_of, machine, report, target_of, teller, unit_of

if TYPE_CHECKING:
    from corral.client import Client
    from corral.measure.curve import Run
    from corral.measure.target import Target


@click.command("compare")
@click.argument("models", nargs=-1, shell_complete=model_names)
@click.option("--target", "targets", metavar="[NAME=]URL[#MODEL]", multiple=True, help="An OpenAI-compatible server.")
@click.option(
    "--key", "keys", metavar="[NAME=]env:VARIABLE|file:PATH", multiple=True, help="Where a target's key is kept."
)
@click.option("--ca", metavar="FILE", envvar="CORRAL_CA", help="The authority of the targets' certificates, as PEM.")
@click.option("--concurrency", type=Numbers(), default="1,4,16,64,256", show_default=True, help="Requests at once.")
@click.option("--rate", type=Numbers(0.001, 100_000, whole=False), help="Requests a second instead, at random times.")
@click.option("--at-most", type=click.IntRange(0, 4096), default=0, help="Open at once with --rate; 0: any number.")
@click.option(
    "--seconds", type=click.FloatRange(1, 3600), default=10.0, show_default=True, help="Of a run with --rate."
)
@click.option("--prompt-tokens", type=click.IntRange(1, 1_000_000), default=128, show_default=True, help="Of a prompt.")
@click.option("--output-tokens", type=click.IntRange(1, 100_000), default=64, show_default=True, help="Of an answer.")
@click.option("--runs", type=click.IntRange(1, 99), default=3, show_default=True, help="Of each level.")
@click.option("--each", type=click.IntRange(1, 1000), default=2, show_default=True, help="Of a run, for each at once.")
@saving_options
@drawing_options
@click.pass_obj
def command(
    app: App, models: tuple[str, ...], targets: tuple[str, ...], keys: tuple[str, ...], ca: str | None,
    concurrency: tuple[int, ...], rate: tuple[float, ...] | None, at_most: int, seconds: float, prompt_tokens: int,
    output_tokens: int, runs: int, each: int, save: bool, against: str | None, html: str | None, png: str | None,
    csv: str | None, charts: bool | None,
) -> None:  # fmt: skip
    """Send the same load to several servers in turn, and set what comes of it side by side.

    MODELS are Corral's own; each --target is a server that speaks OpenAI's chat completions, with its model after #
    where it has several. A target that does not answer is left out, and said so at once; one that cannot be meant (no
    such host or model, several models and none named) is an error before anything is measured. Prompts have exactly
    the asked number of tokens where the server can count them.

    \b
    Examples:
      corral bench compare coder --target llama=http://127.0.0.1:8080
      corral bench compare --target a=http://10.0.0.5:8000#m --target b=https://api.example.com#m --key b=env:B_KEY
      corral bench compare coder --rate 1,2,4 --seconds 30
    """
    import time

    from corral.errors import CallerError, CorralError
    from corral.measure.figures import of_runs
    from corral.measure.series import Load, series
    from corral.measure.target import WrongTarget, parse_target, settled, with_keys

    check_drawing(png)
    asked = with_keys(_distinct([parse_target(each_, ca=ca) for each_ in targets]), keys)
    if not asked and not models:
        raise CallerError("nothing to compare", hint="name models of Corral, or give --target URL")
    notes: list[str] = []
    facts: dict[str, dict[str, Any]] = {}
    left: list[CorralError] = []

    def there(targets: list[tuple[Target, dict[str, Any]]]) -> list[Target]:
        ready = []
        for target, what in targets:
            try:
                found = done(settled(target))
            except WrongTarget:
                raise
            except CorralError as error:
                left.append(error)
                notes.append(f"left out: {error.message}")
                teller(app)(notes[-1])
                continue
            ready.append(found)
            notes.extend(found.notes)
            facts[found.name] = {**what, "model": found.model, "prompts": found.counting}
        return ready

    # The others first: what is wrong with one is said before a model is loaded.
    others = there([(each_, {"address": str(each_.address)}) for each_ in asked])
    client, ours = _own(app, models)
    ready = [*there(ours), *others]
    facts = {each_.name: facts[each_.name] for each_ in ready}
    if not ready:
        raise left[0]
    loads = [Load(level) for level in concurrency] if rate is None else [Load(at_most, each_) for each_ in rate]
    began, machine_ = time.time(), machine(client)
    works = [each_.work(prompt_tokens, output_tokens) for each_ in ready]
    made = done(series(ready, works, loads, runs=runs, each=each, seconds=seconds, tell=teller(app)))
    notes += said_of(made, output_tokens, {each_.name: prompt_tokens for each_ in ready if each_.vocabulary})
    for name, level in saturation(made).items():
        facts[name]["saturates_at"] = level
    settings = {
        "concurrency": list(concurrency) if rate is None else None, "rate": None if rate is None else list(rate),
        "at_most": at_most, "seconds": None if rate is None else seconds, "prompt_tokens": prompt_tokens,
        "output_tokens": output_tokens, "runs": runs, "each": each,
    }  # fmt: skip
    figures = [
        one for name, done_ in made.items() for level in done_ for one in of_runs(name, level, tokens=output_tokens)
    ]
    kept = report(
        "compare", "-".join(made), began, client=client, settings=settings, subjects=facts, figures=figures,
        notes=notes, machine_=machine_,
    )  # fmt: skip
    finish(app, kept, save=save, against=against, charts=charts, html=html, png=png, csv=csv)


def _own(app: App, models: tuple[str, ...]) -> tuple[Client | None, list[tuple[Target, dict[str, Any]]]]:
    from corral.cli.own_server import ensure

    if not models:
        return None, []
    client = ensure(app)
    units = [unit_of(client, model) for model in dict.fromkeys(models)]
    return client, [(target_of(client, unit), facts_of(unit)) for unit in units]


def _distinct(targets: list[Target]) -> list[Target]:
    from corral.errors import CallerError

    names = [each.name for each in targets]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise CallerError(f"two targets are called {twice}", hint="give each a name: --target NAME=URL")
    return targets


def said_of(made: dict[str, list[list[Run]]], tokens: int, exact: dict[str, int]) -> list[str]:
    """What has to be known to read the figures: failures, a generator at its limit, other sizes than asked."""
    notes = []
    for name, levels in made.items():
        runs = [run for level in levels for run in level]
        shots = [shot for run in runs for shot in run.shots]
        good = [shot for run in runs for shot in run.good]
        if bad := [shot.problem for shot in shots if shot.problem]:
            notes.append(f"{name}: {len(bad)} of {len(shots)} requests failed, the first with: {bad[0]}")
        for level in levels:
            if why := next((run.limited for run in level if run.limited), ""):
                at = f"{level[0].level} at once" if level[0].rate is None else f"{level[0].rate:g} a second"
                notes.append(f"{name}, {at}: the generator was the limit: {why}")
        if short := sum(shot.tokens < tokens for shot in good):
            notes.append(f"{name}: {short} of {len(good)} answers were shorter than {tokens} tokens")
        off = [shot.prompt for shot in good if name in exact and shot.prompt not in (None, exact[name])]
        if off:
            notes.append(f"{name}: {len(off)} of {len(good)} prompts were not {exact[name]} tokens but as {off[0]}")
        early = [s.text - s.first for s in good if s.text is not None and s.first is not None]
        if early and sorted(early)[len(early) // 2] > 0.005:
            notes.append(f"{name} sends an empty piece before its first text: see `text_p50_ms` beside its TTFT")
    return notes


def saturation(made: dict[str, list[list[Run]]]) -> dict[str, int | None]:
    """From which level on more at once bring hardly more, by subject; none with rates."""
    from corral.measure.curve import point, saturates_at

    closed = {name: [point(level) for level in levels] for name, levels in made.items() if levels[0][0].rate is None}
    return {name: saturates_at(points) for name, points in closed.items() if len(points) > 1}
