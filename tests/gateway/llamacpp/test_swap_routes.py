"""The routes of llama-swap that Corral has."""

from __future__ import annotations

from gateway.llamacpp.conftest import send
from gateway.stable import Stable
from gateway.wire import until

ASK = {"model": "chain", "prompt": "x", "n_predict": 1}


async def test_what_runs(llamas: Stable) -> None:
    """Models that have an engine, by their own names; and a version that Ollama's clients can compare."""
    assert (await send(llamas, "GET", "/running")).json == {"running": []}
    await send(llamas, "POST", "/completion", ASK)
    for path in ("/running", "/llamacpp/running"):
        assert (await send(llamas, "GET", path)).json == {"running": [{"model": "org/chain:f16", "state": "ready"}]}
    version = (await send(llamas, "GET", "/api/version")).json
    assert version == (await send(llamas, "GET", "/api/version", plain=True)).json


async def test_unloading(llamas: Stable) -> None:
    """One by any of its names, or all."""
    await send(llamas, "POST", "/completion", ASK)
    unit = llamas.units_by_name["org/chain:f16"]
    one = await send(llamas, "POST", "/api/models/unload/chain")
    assert (one.status, one.body) == (200, b"OK")
    await until(lambda: not unit.running, "it is unloaded")
    await send(llamas, "POST", "/completion", ASK)
    await send(llamas, "POST", "/completion", {**ASK, "model": "demo"})
    every = await send(llamas, "POST", "/api/models/unload")
    assert (every.status, every.body) == (200, b"OK")
    await until(lambda: not any(each.running for each in llamas.units_by_name.values()), "all are unloaded")
    assert (await send(llamas, "POST", "/api/models/unload/nobody")).status == 404
    assert (await send(llamas, "GET", "/unload")).status == 501
