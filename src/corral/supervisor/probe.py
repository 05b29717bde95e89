"""Asking an engine whether it is ready: one small GET, repeated often at first."""

from __future__ import annotations

import asyncio

from corral import clock
from corral.engines.plan import Endpoint, Probe
from corral.supervisor.looks import health

_QUICK_S, _QUICK_FOR_S = 0.002, 0.5
_STEADY_S = 0.005
_PATIENT_S, _PATIENT_AFTER_S = 0.008, 10.0


async def check(endpoint: Endpoint, probe: Probe) -> int | None:
    """The HTTP status of one GET of `probe.path`, or None when nobody answered within `probe.timeout_s`.

    Over a connection of its own: a probe must not wait in anybody's pool.
    """
    return await health(endpoint, probe.path, probe.timeout_s)


async def wait_ready(endpoint: Endpoint, probe: Probe, deadline: float) -> bool:
    """True as soon as the probe answers 200, False once `deadline` (on `clock.monotonic`) has passed.

    Asks every 2 ms for the first half second, when tiny models come up, then every 5 ms, and every 8 ms in a long
    load: readiness is seen within 10 ms. A probe may have a pause of its own instead. While the engine's socket does
    not exist, asking costs one `stat`.
    """
    began = clock.monotonic()
    while (now := clock.monotonic()) < deadline:
        if (endpoint.socket is None or endpoint.socket.exists()) and await check(endpoint, probe) == 200:
            return True
        age = now - began
        pause = probe.pause_s or (
            _QUICK_S if age < _QUICK_FOR_S else _STEADY_S if age < _PATIENT_AFTER_S else _PATIENT_S
        )
        await asyncio.sleep(pause)
    return False
