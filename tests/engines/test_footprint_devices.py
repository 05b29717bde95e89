"""Predicted memory by device against a real llama-server whose GPUs are ggml's RPC devices on this machine."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from corral.models.formats.gguf import read_header
from corral.models.memory.predict import predict
from corral.models.memory.run import Run
from support.architecture_files import write
from support.architectures import MID
from support.llama import llama_server
from support.rpc import free_port, rpc_server

pytestmark = pytest.mark.engines
MIB = 1 << 20
DEADLINE_S = 30


@pytest.fixture(scope="module")
def programs() -> Path:
    return Path(llama_server()).resolve().parent


@pytest.fixture(scope="module")
def devices(programs: Path) -> Iterator[list[str]]:
    """Two RPC servers, each a device of its own."""
    ports = free_port(), free_port()
    with rpc_server(programs / "llama-server", ports[0]), rpc_server(programs / "llama-server", ports[1]):
        yield [f"127.0.0.1:{port}" for port in ports]


def loaded(programs: Path, model: Path, devices: list[str], folder: Path, *more: str) -> str:
    """What llama-server wrote until it had made all its buffers."""
    log = folder / "log"
    where = ["--rpc", ",".join(devices), "--host", str(folder / "e.sock"), "-fit", "off", "--load-mode", "none"]
    how = ["-c", "2048", "-np", "1", "--no-warmup", "-lv", "4", *where, *more]
    argv = [str(programs / "llama-server"), "-m", str(model), *how]
    with log.open("wb") as out:
        child = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT)
    deadline = time.monotonic() + DEADLINE_S
    try:
        while "listening on" not in (said := log.read_text(errors="replace")):
            assert child.poll() is None, said[-2000:]
            assert time.monotonic() < deadline, said[-2000:]
            time.sleep(0.01)
    finally:
        child.kill()
        child.wait()
    return said


@pytest.mark.parametrize("layers", [99, 4])
@pytest.mark.parametrize("split", [(), (3.0, 1.0)])
@pytest.mark.parametrize("name", ["llama", "gemma3", "qwen3moe", "deepseek2", "granitehybrid", "gpt-oss"])
def test_each_device_is_as_reported(
    programs: Path, devices: list[str], tmp_path: Path, name: str, split: tuple[float, ...], layers: int
) -> None:
    """Weights, cache and compute of each device are within a tenth of the report and at most a twentieth under.

    So too where a hybrid that is partly on a GPU makes llama.cpp give up flash attention.
    """
    model = write(tmp_path / "m.gguf", name, MID)
    used = devices if split else devices[:1]
    gpus = tuple(f"gpu{number}" for number in range(len(used)))
    run = Run(context=2048, gpus=gpus, layers_on_gpus=layers, split=split)
    more = ["-ngl", str(layers), *(["-ts", ",".join(map(str, split))] if split else [])]
    log = loaded(programs, model, used, tmp_path, *more)
    found = predict(read_header(model), run)
    wrong = {}
    for device, parts in found.devices.items():
        label = "CPU" if device == "cpu" else rf"RPC\d+\[{re.escape(used[gpus.index(device)])}\]"
        for part, kinds in {"weights": "model", "cache": "KV|RS", "compute": "compute|output"}.items():
            sizes = re.findall(rf"{label} +(?:{kinds}) +buffer size = +([\d.]+) MiB", log)
            truth, predicted = sum(map(float, sizes)) * MIB, getattr(parts, part)
            if abs(predicted - truth) > MIB // 20 and not -0.05 <= (predicted - truth) / max(truth, 1) <= 0.10:
                wrong[device, part] = (predicted / MIB, truth / MIB)
    assert wrong == {}
