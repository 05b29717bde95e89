"""What a start would run, as people read it: a command line to copy, and what it stands for."""

from __future__ import annotations

import shlex

from corral.api import PlanInfo
from corral.cli.app import App
from corral.units import show_bytes


def show(app: App, plan: PlanInfo) -> None:
    """Prints `plan`, as JSON where that is wanted."""
    if app.json:
        app.print_json(plan)
        return
    where = plan.runner if plan.image is None else f"{plan.runner}, image {plan.image} ({(plan.image_id or '')[:12]})"
    sizes = ", ".join(f"{name} {show_bytes(size)}" for name, size in plan.footprint.items())
    limits = [f"{show_bytes(plan.memory_limit_bytes)} of memory"] if plan.memory_limit_bytes else []
    limits += [f"{plan.pids_limit} threads"] if plan.pids_limit else []
    app.print_pairs(
        [
            ("unit", plan.unit),
            ("engine", f"{plan.engine} {plan.engine_version}"),
            ("runs in", where),
            ("listens", plan.endpoint),
            ("footprint", f"{sizes or 'not known'} ({plan.footprint_origin})"),
            ("placement", plan.placement or ", ".join(plan.devices)),
            ("context", f"{plan.context} tokens in each of {plan.slots}" if plan.context else "the engine decides"),
            *([("limits", ", ".join(limits))] if limits else []),
            *(("sees", f"{each.source} ({'read' if each.read_only else 'write'})") for each in plan.mounts),
            *(("device", each) for each in plan.nodes),
        ]
    )
    app.say()
    for name, value in sorted(plan.env.items()):
        app.write(f"{name}={shlex.quote(value)} \\")
    app.write(" ".join(shlex.quote(word) for word in plan.command) or "# nothing: that server runs already")
    for warning in plan.warnings:
        app.warn(warning)
