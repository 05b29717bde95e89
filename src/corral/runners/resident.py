"""`held_now`: what engines that run here hold by their plans, for who asks no server. Reads the warden's records."""

from __future__ import annotations

import json
from pathlib import Path

from corral.processes import alive
from corral.runners.record import load_plan


def held_now(directory: Path) -> dict[str, int]:
    """Bytes by device. Of the processor's memory, weights do not count: they are mapped, and given up when it is short.

    Never raises: what cannot be read counts nothing.
    """
    found: dict[str, int] = {}
    for path in sorted(directory.glob("*.json")):
        try:
            record = json.loads(path.read_bytes())
            pid, ended = int(record["pid"]), record.get("exit") is not None
            plan = load_plan(record.get("plan"))
        except (OSError, ValueError, KeyError, TypeError):
            continue
        if ended or not alive(pid):
            continue
        for device, size in plan.footprint.bytes_by_device.items():
            parts = plan.footprint.parts.get(device)
            mapped = parts.weights if parts is not None and device == "cpu" else 0
            found[device] = found.get(device, 0) + max(0, size - mapped)
    return found
