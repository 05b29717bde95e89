"""`figures_of`: what a load took, from the engine's report and from what its processes hold. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from corral.engines.plan import LaunchPlan
from corral.engines.report import Report
from corral.ledger.figures import Figures
from corral.models.memory.predict import PROCESSOR, Parts

MATTERS: Final = 256 << 20
"""Bytes of system memory beyond what the engine reports that are worth counting: its program is smaller."""

_UNREPORTED: Final = ("--mmproj", "--model-draft")
"""Flags whose files the engine does not fully report: their weights stay as predicted where that is more."""


def figures_of(
    plan: LaunchPlan, report: Report | None, held: Mapping[str, int], *, load_s: float | None, at_wall_s: float
) -> Figures:
    """The figures of one load of `plan`. What `report` does not have stays as predicted.

    `held` are the bytes that its processes were seen to hold by device: private ones of the machine's memory.
    """
    reported = report.devices if report is not None else {}
    predicted = plan.footprint.parts
    more = any(word in _UNREPORTED for word in plan.argv)
    devices: dict[str, Mapping[str, int]] = {}
    for name in dict.fromkeys((*predicted, *reported)):
        parts = _parts(predicted.get(name, Parts()), reported.get(name), more=more)
        beside = held.get(name, 0) - parts.total
        if name == PROCESSOR:
            beside += report.mapped if report is not None else parts.weights
            beside = beside if beside > MATTERS else 0
        sizes = {"weights": parts.weights, "cache": parts.cache, "compute": parts.compute, "other": max(0, beside)}
        devices[name] = MappingProxyType({each: size for each, size in sizes.items() if size})
    return Figures(MappingProxyType(devices), load_s, at_wall_s=at_wall_s)


def _parts(predicted: Parts, reported: Parts | None, *, more: bool) -> Parts:
    if reported is None:
        return predicted
    weights = max(reported.weights, predicted.weights) if more else reported.weights or predicted.weights
    compute = max(reported.compute, predicted.compute) if more else reported.compute or predicted.compute
    return Parts(weights, reported.cache or predicted.cache, compute)
