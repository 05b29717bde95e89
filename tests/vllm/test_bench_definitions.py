"""The figures of `corral bench` beside those that vLLM's own `vllm bench serve` makes of the same requests."""

from __future__ import annotations

import json
import random
import subprocess

import pytest

from corral.measure.answer import Shot
from corral.measure.curve import Run
from corral.measure.figures import of_runs
from support.vllm import environment

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(900), pytest.mark.lasts(30)]

THEIRS = """
import json, sys
from vllm.benchmarks.lib.endpoint_request_func import RequestFuncOutput
from vllm.benchmarks.serve import calculate_metrics
asked = json.load(sys.stdin)
outputs = [RequestFuncOutput(**each) for each in asked["outputs"]]
made, _ = calculate_metrics([], outputs, asked["took"], None, [50, 95, 99], {})
found = {name: getattr(made, name) for name in ("output_throughput", "total_token_throughput", "request_throughput",
    "failed", "max_concurrent_requests")}
for name in ("ttft", "tpot", "itl", "e2el"):
    found[f"{name}_mean"] = getattr(made, f"mean_{name}_ms")
    for percent, value in getattr(made, f"percentiles_{name}_ms"):
        found[f"{name}_p{percent:g}"] = value
print("FOUND" + json.dumps({name: float(value) for name, value in found.items()}))
"""


def some_shots() -> tuple[Shot, ...]:
    """Requests of all lengths, one token and failures among them."""
    chance = random.Random(5)
    found = []
    for number in range(60):
        began = chance.uniform(100.0, 110.0)
        first = began + chance.expovariate(4.0)
        gaps = tuple(chance.expovariate(50.0) for _ in range(chance.choice([0, 1, 7, 40])))
        last = first + sum(gaps)
        problem = "500: no" if number % 13 == 0 else ""
        found.append(
            Shot(began, last, first, len(gaps) + chance.choice([1, 1, 3]), problem, last, gaps, prompt=number + 1)
        )
    return tuple(found)


def test_the_definitions_are_those_of_vllm() -> None:
    """TTFT, TPOT, ITL, time to the last token, their means and percentiles, and throughput: the same numbers."""
    run = Run(8, some_shots())
    outputs = [
        {
            "success": not shot.problem, "latency": shot.latency, "ttft": shot.ttft, "itl": list(shot.gaps),
            "output_tokens": shot.tokens, "prompt_len": shot.prompt, "start_time": shot.began, "error": shot.problem,
        }
        for shot in run.shots
    ]  # fmt: skip
    done = subprocess.run(
        [str(environment() / "bin" / "python"), "-c", THEIRS],
        input=json.dumps({"outputs": outputs, "took": run.took}), stdout=subprocess.PIPE, text=True, timeout=800,
        check=True,
    )  # fmt: skip
    theirs = json.loads(done.stdout.partition("FOUND")[2].splitlines()[0])
    ours = {each.name: each.median for each in of_runs("m", [run])}
    assert theirs["failed"] == ours["failed"] == 5
    names = {"output_throughput": "output_tokens_per_s", "total_token_throughput": "total_tokens_per_s"}
    names["request_throughput"] = "requests_per_s"
    for their, our in (("ttft", "ttft"), ("tpot", "tpot"), ("itl", "itl"), ("e2el", "e2e")):
        names |= {f"{their}_{part}": f"{our}_{part}_ms" for part in ("mean", "p50", "p95", "p99")}
    for their, our in names.items():
        assert ours[our] == pytest.approx(theirs[their], rel=1e-9), our
