"""Placement through the whole server: contexts that fit, engines taken over as they were placed, lost GPUs."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from corral.config.paths import Paths
from support.architecture_files import write
from support.architectures import MID
from support.engines import until
from support.llama import llama_server
from support.rpc import free_port, models_yaml, rpc_server
from support.server import Server


def asked(server: Server, path: str, body: dict[str, Any] | None = None) -> tuple[dict[str, Any], dict[str, str]]:
    """The JSON of the answer, and its headers in lower case."""
    request = urllib.request.Request(
        f"{server.url}{path}",
        None if body is None else json.dumps(body).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.loads(answer.read()), {name.lower(): value for name, value in answer.headers.items()}


async def test_a_context_that_fits_is_said_and_stays(paths: Paths, short_tmp: Path) -> None:
    """Under a budget an auto context is shorter than the model's own; ps and the list of models say so, and a server
    that comes after a kill takes the engine over as it is."""
    source = write(short_tmp / "m.gguf", "llama", MID)
    config = f"memory: {{cpu: 72MiB}}\nmodels: [{{name: m, source: {source}, executable: embedded, pin: true}}]"
    with Server(paths, config) as server:
        server.client.start("m")
        (unit,) = server.client.units()
        assert 2048 <= unit.context < 8192
        assert unit.placement == "on the processor"
        said = f"context {unit.context} of 8192: more does not fit in memory"
        assert said in unit.warnings
        entry = next(each for each in asked(server, "/v1/models")[0]["data"] if each["id"] == "m")
        assert entry["meta"]["n_ctx"] == unit.context
        assert said in entry["meta"]["notes"]
        server.kill()
        server.start()
        await until(lambda: any(each.state == "ready" for each in server.client.units()), "the engine is taken over")
        (after,) = server.client.units()
        assert (after.pid, after.generation, after.context) == (unit.pid, unit.generation, unit.context)


@pytest.mark.engines
def test_a_request_outlives_the_gpu(paths: Paths, short_tmp: Path) -> None:
    """A request that the loss of a GPU hits before its first byte is answered by the processor, and says so."""
    source, port = write(short_tmp / "m.gguf", "llama", MID), free_port()
    config = models_yaml(llama_server(), port, source)
    body = {"model": "m", "prompt": [1, 2, 3], "max_tokens": 1}
    with rpc_server(llama_server(), port) as gpu, Server(paths, config) as server:
        _, headers = asked(server, "/v1/completions", body)
        assert "x-corral-degraded" not in headers
        (unit,) = server.client.units()
        assert (unit.device, unit.degraded) == ("gpu0", None)
        gpu.kill()
        gpu.wait()
        _, headers = asked(server, "/v1/completions", body)
        assert headers["x-corral-degraded"].startswith("cpu (the GPU failed (Remote RPC server crashed")
        (unit,) = server.client.units()
        assert unit.device == "cpu"
        assert unit.degraded == headers["x-corral-degraded"]
        assert any(event.kind == "unit.fallback" for event in server.client.events(model="m"))


@pytest.mark.engines
def test_without_fallback_a_lost_gpu_is_an_error(paths: Paths, short_tmp: Path) -> None:
    """With cpu_fallback off, who asks is told that the GPU failed."""
    source, port = write(short_tmp / "m.gguf", "llama", MID), free_port()
    config = f"""
        cpu_fallback: false
        models:
          - name: m
            source: {source}
            executable: {llama_server()}
            context: 512
            gpu_layers: 99
            args: [--rpc, "127.0.0.1:{port}", --no-warmup]
    """
    body = {"model": "m", "prompt": [1, 2, 3], "max_tokens": 1}
    with rpc_server(llama_server(), port) as gpu, Server(paths, config) as server:
        asked(server, "/v1/completions", body)
        gpu.kill()
        gpu.wait()
        with pytest.raises(urllib.error.HTTPError) as caught:
            asked(server, "/v1/completions", body)
        said = json.loads(caught.value.read())["error"]
        caught.value.close()
        assert "GPU" in said["message"] + said["hint"]
