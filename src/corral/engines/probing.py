"""Asking llama.cpp itself what a start would take, without loading anything: `probed`.

Each start of the engine first plans its memory (`--fit`), with every buffer's size and none allocated, and logs it.
So a child is started as the unit would be, and ended as soon as it has said that.
"""

from __future__ import annotations

import os
import re
import selectors
import subprocess
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Final

from corral.config.settings import ModelSettings
from corral.engines.adapter import Start
from corral.engines.llamacpp import LlamaCpp
from corral.engines.placement import Room
from corral.engines.plan import Endpoint
from corral.errors import EngineError
from corral.models.memory.predict import PROCESSOR, Parts, Prediction
from corral.models.memory.run import Run

DEADLINE_S: Final = 20.0
_MIB: Final = 1 << 20
_BUFFER = re.compile(r"(\S+) +compute buffer size = +([0-9.]+) MiB")
_ROW = re.compile(r"\|   - (?P<name>.+?) +\|.*= +(?P<model>\d+) \+ +(?P<context>\d+) \+ +(?P<compute>\d+)")
_END = "fitting params to free memory took"
_FAILED = "failed to fit params"


def probed(model: ModelSettings, context: int, run: Run, estimate: Prediction, room: Room) -> Prediction:
    """What the engine says that `run` of `model`, which is the best in `room`, takes; projector and draft, which
    `estimate` has, left out.

    It reports whole MiB of weights and cache: where the estimate agrees with those, its exact figure stands. Blocks
    for the start of one process, `DEADLINE_S` at most.

    Raises EngineError when the engine says nothing of the kind.
    """
    asked = replace(model, context=context, parallel=run.slots)
    plan = LlamaCpp().plan(Start(asked, generation=0, endpoint=Endpoint(socket=Path("probe.sock")), room=room))
    with tempfile.TemporaryDirectory(prefix="corral-probe-") as folder:
        argv = [*plan.argv, "--fit", "on", "-lv", "5", "--no-warmup"]
        log = _said(argv, {**os.environ, **plan.env, "GGML_NO_BACKTRACE": "1"}, folder)
    return _read(log, run, estimate)


def _said(argv: list[str], env: dict[str, str], folder: str) -> str:
    """What the child wrote until it had planned, or failed to."""
    child = subprocess.Popen(
        argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=env, cwd=folder
    )
    assert child.stdout is not None
    said, deadline = b"", time.monotonic() + DEADLINE_S
    try:
        with selectors.DefaultSelector() as selector:
            selector.register(child.stdout, selectors.EVENT_READ)
            while _END.encode() not in said and _FAILED.encode() not in said:
                if not selector.select(max(0.0, deadline - time.monotonic())):
                    break
                if not (more := os.read(child.stdout.fileno(), 1 << 16)):
                    break
                said += more
    finally:
        child.kill()
        child.wait()
        child.stdout.close()
    return said.decode(errors="replace")


def _read(log: str, run: Run, estimate: Prediction) -> Prediction:
    rows = list(_ROW.finditer(log))
    if not rows:
        last = log.strip().rpartition("\n")[2][:200] or "nothing"
        raise EngineError("the engine did not say what it would take", hint="corral fit without --probe", last=last)
    buffers = [(name, round(float(size) * _MIB)) for name, size in _BUFFER.findall(log)]
    gpus = iter(run.gpus)
    found = {}
    for row in rows[: len(run.gpus) + 1]:
        host = row["name"].strip() == "Host"
        name = PROCESSOR if host else next(gpus, PROCESSOR)
        known = estimate.devices.get(name, Parts())
        compute = sum(size for where, size in buffers if _is_host(where) == host and (host or where in row["name"]))
        found[name] = Parts(
            _finer(int(row["model"]), known.weights),
            _finer(int(row["context"]), known.cache),
            compute or _finer(int(row["compute"]), known.compute),
        )
    return Prediction(MappingProxyType(found))


def _is_host(buffer: str) -> bool:
    return buffer.startswith("CPU") or buffer.endswith("_Host")


def _finer(mib: int, estimate: int) -> int:
    """`estimate` where it rounds to what the engine says, else that, rounded up: never less than is true."""
    return estimate if estimate // _MIB == mib else (mib + 1) * _MIB
