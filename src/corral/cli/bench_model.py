"""`corral bench MODEL`: one model, from its cold start to many requests at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from corral.cli.app import App
from corral.cli.arguments import model_argument, model_names
from corral.cli.bench_compare import said_of, saturation
from corral.cli.bench_report import Numbers, check_drawing, drawing_options, finish, saving_options
from corral.cli.bench_subject import done, facts_of, machine, report, target_of, teller, unit_of, watts

if TYPE_CHECKING:
    from corral.api import UnitInfo
    from corral.client import Client
    from corral.measure.figures import Figure
    from corral.measure.target import Target


@click.command("model")
@model_argument()
@click.option("--depths", type=Numbers(0, 10_000_000), help="Tokens already in the context. Default: 0 and what fits.")
@click.option("--concurrency", type=Numbers(), default="1,4,16", show_default=True, help="Requests at once.")
@click.option("--prompt-tokens", type=click.IntRange(1, 1_000_000), default=512, show_default=True, help="Of a prompt.")
@click.option("--output-tokens", type=click.IntRange(2, 100_000), default=128, show_default=True, help="Of an answer.")
@click.option("--runs", type=click.IntRange(1, 99), default=3, show_default=True, help="Of everything.")
@click.option("--each", type=click.IntRange(1, 1000), default=2, show_default=True, help="Of a run, for each at once.")
@click.option("--cold/--no-cold", default=True, help="Stop the model to measure its start, or do not.")
@click.option("--swap", metavar="OTHER", shell_complete=model_names, help="The swap from this model, too.")
@saving_options
@drawing_options
@click.pass_obj
def command(
    app: App, model: str, depths: tuple[int, ...] | None, concurrency: tuple[int, ...], prompt_tokens: int,
    output_tokens: int, runs: int, each: int, cold: bool, swap: str | None, save: bool, against: str | None,
    html: str | None, png: str | None, csv: str | None, charts: bool | None,
) -> None:  # fmt: skip
    """Measure one model through the server: how fast it reads and writes at which depth, TTFT, TPOT and ITL with so
    many requests at once, its cold start, memory, and energy where the devices tell their power.

    The result is saved and compared with the last one of the same settings. The model is stopped and started for it,
    unless others use it at this moment.

    \b
    Examples:
      corral bench coder
      corral bench coder --depths 0,4096,16384 --concurrency 1,8 --html coder.html
      corral bench coder --swap writer
    """
    import time

    from corral.cli.own_server import ensure

    check_drawing(png)
    client = ensure(app)
    unit = unit_of(client, model)
    began, machine_ = time.time(), machine(client)
    sizes = fitting(unit.context, prompt_tokens, output_tokens, depths)
    settings = {
        "depths": list(sizes.depths), "concurrency": list(concurrency), "prompt_tokens": sizes.prompt,
        "output_tokens": sizes.output, "runs": runs, "each": each,
    }  # fmt: skip
    found, notes, facts = measure(
        app, client, unit, sizes, concurrency, runs=runs, each=each, cold=cold, swap=swap, name=unit.model
    )
    kept = report(
        "model", unit.model, began, client=client, settings=settings, subjects={unit.model: facts}, figures=found,
        notes=notes, machine_=machine_,
    )  # fmt: skip
    finish(app, kept, save=save, against=against, charts=charts, html=html, png=png, csv=csv)


class Sizes:
    """How long prompts and answers are, and how deep, so that all of it fits a slot's context."""

    def __init__(self, prompt: int, output: int, depths: tuple[int, ...], notes: list[str]) -> None:
        self.prompt, self.output, self.depths, self.notes = prompt, output, depths, notes


SPARE = 64
"""Of a context, for a chat's template and rounding."""
DEPTHS = (0, 512, 2048, 8192, 32768, 131072)


def fitting(context: int, prompt: int, output: int, depths: tuple[int, ...] | None) -> Sizes:
    """What was asked, cut to the context of one slot, and what was cut."""
    notes = []
    room = max(8, context - SPARE)
    if prompt + output > room:
        prompt, output = min(prompt, room // 2), min(output, room // 4)
        notes.append(f"a slot has {context} tokens: prompts have {prompt}, answers {output}")
    most = room - prompt - output
    if depths is None:
        return Sizes(prompt, output, tuple(depth for depth in DEPTHS if depth <= most), notes)
    if deep := [depth for depth in depths if depth > most]:
        notes.append(f"a slot has {context} tokens: no depth of {', '.join(map(str, deep))}")
    return Sizes(prompt, output, tuple(depth for depth in depths if depth <= most) or (0,), notes)


def measure(
    app: App, client: Client, unit: UnitInfo, sizes: Sizes, concurrency: tuple[int, ...], *, runs: int, each: int,
    cold: bool, swap: str | None, name: str,
) -> tuple[list[Figure], list[str], dict[str, Any]]:  # fmt: skip
    """Everything of one model: figures of the subject `name`, notes, and what it is."""
    from corral.measure.cold import cold_starts, first_token, swaps
    from corral.measure.depth import depths
    from corral.measure.target import settled

    tell, notes = teller(app), list(sizes.notes)
    tell(f"{unit.unit}, {unit.engine_version}: {unit.slots} slots of {unit.context} tokens on {unit.device}")
    target = done(settled(target_of(client, unit, name)))
    notes += target.notes
    found: list[Figure] = []

    def ask() -> Any:
        return done(first_token(target))

    if cold and unit.busy:
        notes.append(f"{unit.model} is in use: its cold start was not measured")
    elif cold:
        tell("cold starts")
        made, said = cold_starts(client, target, ask, runs)
        found, notes = found + made, notes + said
    if swap is not None:
        tell(f"swaps from {swap}")
        made, said = swaps(client, target, swap, ask, runs)
        found, notes = found + made, notes + said
    unit = unit_of(client, unit.model)
    made, said = done(
        depths(target, sizes.depths, prompt_tokens=sizes.prompt, tokens=sizes.output, runs=runs, tell=tell)
    )
    found, notes = found + made, notes + said
    made, said, facts = _loads(app, client, target, sizes, concurrency, runs, each)
    unit = unit_of(client, unit.model)
    return [*found, *made, *_memory(name, unit)], notes + said, {**facts_of(unit), **facts}


def _loads(
    app: App, client: Client, target: Target, sizes: Sizes, concurrency: tuple[int, ...], runs: int, each: int
) -> tuple[list[Figure], list[str], dict[str, Any]]:
    from corral.measure.figures import REQUESTS, figure, of_runs
    from corral.measure.power import Power
    from corral.measure.series import Load, series

    found: list[Figure] = []
    made = []
    drew: list[str] = []
    for level in concurrency:
        with Power(watts(client)) as power:
            work = target.work(sizes.prompt, sizes.output)
            done_ = done(series([target], [work], [Load(level)], runs=runs, each=each, tell=teller(app)))
        made.append(done_[target.name][0])
        found += of_runs(target.name, made[-1], tokens=sizes.output)
        tokens = sum(shot.tokens for run in made[-1] for shot in run.good)
        if power.joules is not None and tokens:
            drew = power.devices
            found.append(figure(target.name, REQUESTS, float(level), "joules_per_token", [power.joules / tokens]))
            found.append(figure(target.name, REQUESTS, float(level), "power_w", [power.watts]))
    by_name = {target.name: made}
    notes = said_of(by_name, sizes.output, {target.name: sizes.prompt} if target.vocabulary else {})
    facts: dict[str, Any] = {"prompts": target.counting, "energy_of": drew or None}
    facts |= {"saturates_at": saturation(by_name)[target.name]} if len(made) > 1 else {}
    return found, notes, facts


def _memory(name: str, unit: UnitInfo) -> list[Figure]:
    from corral.measure.figures import MEMORY, figure

    made = [figure(name, MEMORY, None, which, [getattr(unit, which)]) for which in ("memory_bytes", "gpu_bytes")]
    return [each for each in made if each.values and each.median > 0]
