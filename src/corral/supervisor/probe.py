"""Asking an engine whether it is ready: one small GET, repeated often at first."""

from __future__ import annotations

import asyncio
import contextlib

from corral import clock
from corral.engines.plan import Endpoint, Probe

_QUICK_S, _QUICK_FOR_S = 0.002, 0.5
_STEADY_S = 0.005
_PATIENT_S, _PATIENT_AFTER_S = 0.008, 10.0


async def check(endpoint: Endpoint, probe: Probe) -> int | None:
    """The HTTP status of one GET of `probe.path`, or None when nobody answered within `probe.timeout_s`.

    It is a raw request over a connection of its own: a probe must not wait in anybody's pool.
    """
    writer: asyncio.StreamWriter | None = None
    try:
        async with asyncio.timeout(probe.timeout_s):
            if endpoint.socket is not None:
                reader, writer = await asyncio.open_unix_connection(str(endpoint.socket))
            else:
                reader, writer = await asyncio.open_connection(endpoint.host, endpoint.port)
            writer.write(f"GET {probe.path} HTTP/1.1\r\nHost: engine\r\nConnection: close\r\n\r\n".encode())
            line = await reader.readline()
    except (OSError, TimeoutError, ValueError):
        return None
    finally:
        if writer is not None:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
    parts = line.split(b" ", 2)
    return int(parts[1]) if len(parts) >= 2 and parts[0].startswith(b"HTTP/") and parts[1].isdigit() else None


async def wait_ready(endpoint: Endpoint, probe: Probe, deadline: float) -> bool:
    """True as soon as the probe answers 200, False once `deadline` (on `clock.monotonic`) has passed.

    Asks every 2 ms for the first half second, when tiny models come up, then every 5 ms, and every 8 ms in a long
    load: readiness is seen within 10 ms. While the engine's socket does not exist, asking costs one `stat`.
    """
    began = clock.monotonic()
    while (now := clock.monotonic()) < deadline:
        if (endpoint.socket is None or endpoint.socket.exists()) and await check(endpoint, probe) == 200:
            return True
        age = now - began
        pause = _QUICK_S if age < _QUICK_FOR_S else _STEADY_S if age < _PATIENT_AFTER_S else _PATIENT_S
        await asyncio.sleep(pause)
    return False
