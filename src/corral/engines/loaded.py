"""What a load took: by the engine's report and what its processes hold then, and what they hold later. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from corral.engines.plan import Footprint, LaunchPlan
from corral.engines.report import Report
from corral.ledger.figures import Figures
from corral.models.memory.predict import PROCESSOR, Parts

MATTERS: Final = 256 << 20
"""Bytes of system memory beyond what the engine reports that are worth counting: its program is smaller."""

_UNREPORTED: Final = ("--mmproj", "--model-draft")
"""Flags whose files the engine does not fully report: their weights stay as predicted where that is more."""


MATTERS_ON_GPU: Final = 64 << 20
"""The same of a GPU, while it runs."""


def peak_of(footprint: Footprint, held: Mapping[str, int], *, at_wall_s: float) -> Figures | None:
    """What a running engine holds beyond its measured `footprint`, as figures to add to it; None when nothing that
    matters. `held` as in `figures_of`."""
    found: dict[str, Mapping[str, int]] = {}
    for name, size in held.items():
        if size - footprint.bytes_by_device.get(name, 0) > (MATTERS if name == PROCESSOR else MATTERS_ON_GPU):
            parts = footprint.parts.get(name, Parts())
            other = size - parts.total - (footprint.growth if name == PROCESSOR else 0)
            found[name] = _sizes(parts, other)
    return Figures(MappingProxyType(found), loads=0, at_wall_s=at_wall_s) if found else None


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
            beside += report.mapped if report is not None else 0  # without a report it is not known what is mapped
            beside = beside if beside > MATTERS else 0
        devices[name] = _sizes(parts, beside)
    return Figures(MappingProxyType(devices), load_s, at_wall_s=at_wall_s)


def _parts(predicted: Parts, reported: Parts | None, *, more: bool) -> Parts:
    if reported is None:
        return predicted
    weights = max(reported.weights, predicted.weights) if more else reported.weights or predicted.weights
    compute = max(reported.compute, predicted.compute) if more else reported.compute or predicted.compute
    return Parts(weights, reported.cache or predicted.cache, compute)


def _sizes(parts: Parts, other: int) -> Mapping[str, int]:
    sizes = {"weights": parts.weights, "cache": parts.cache, "compute": parts.compute, "other": max(0, other)}
    return MappingProxyType({each: size for each, size in sizes.items() if size})
