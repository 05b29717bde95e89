"""The doctor's look at what engines can be shut into and bounded by: bubblewrap, and control groups."""

from __future__ import annotations

from typing import TYPE_CHECKING

from corral.cli.finding import Finding, Level, install
from corral.hardware import cgroups, confinement

if TYPE_CHECKING:
    from corral.config.settings import Settings


def sandbox(settings: Settings | None) -> list[Finding]:
    """Whether both work here. Where a model wants them, not working is a warning, and an error where it is a must."""
    models = [] if settings is None else list(settings.models.values())
    wanted = {model.sandbox for model in models} | ({settings.sandbox} if settings is not None else set())
    bounded = any(model.limits for model in models) or (settings is not None and settings.limits)
    return [_bubblewrap("bubblewrap" in wanted, "auto" in wanted), _limits(bounded)]


def _bubblewrap(must: bool, wanted: bool) -> Finding:
    area, name = "tools", "bubblewrap"
    try:
        program, env = confinement.find_bwrap()
        confinement.check(program, env)
    except confinement.NoSandbox as why:
        level: Level = "error" if must else "warn" if wanted else "missing"
        absent = "is not on PATH" in str(why)
        fix = install("bubblewrap") if absent else why.hint
        return Finding(area, name, level, f"{why}; `sandbox` in models.yaml shuts engines in with it", fix)
    return Finding(area, name, "ok", f"{program} works: engines can be shut in with `sandbox: bubblewrap`")


def _limits(wanted: bool) -> Finding:
    area, name = "tools", "control groups"
    try:
        tree = cgroups.find(trying=False)
    except cgroups.NotPermitted as why:
        text = f"limits not enforced ({why}); `limits` in models.yaml asks for them"
        fix = "systemd-run --user --scope -p Delegate=yes corral serve"
        return Finding(area, name, "warn" if wanted else "missing", text, fix)
    return Finding(area, name, "ok", f"version {tree.version}: `limits: true` bounds engines' memory and processes")
