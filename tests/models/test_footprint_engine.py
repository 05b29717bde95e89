"""Predicted memory against the real engine's own report, component by component."""

from __future__ import annotations

import re
import statistics
from collections.abc import Iterator
from pathlib import Path
from types import MappingProxyType

import pytest

from corral.models.formats.gguf import read_header
from corral.models.memory.predict import Prediction, predict
from corral.models.memory.projector import predict_projector
from corral.models.memory.run import Run
from support.architecture_files import write, write_adapter, write_projector
from support.architectures import ARCHITECTURES, TINY
from support.bare_engine import bare_engine
from support.footprints import MIB, ROUNDING, Case, Component, measure, reported, sample, whole_log


@pytest.fixture(scope="module")
def errors() -> Iterator[list[float]]:
    """Of all components of the cases that ran in this process, half come out within three percent: in truth nearly all
    of them, to the engine's last digit."""
    seen: list[float] = []
    yield seen
    assert statistics.median(seen) <= 0.03


@pytest.mark.parametrize("case", sample(), ids=lambda case: case.name)
def test_components_are_as_the_engine_reports(tmp_path: Path, case: Case, errors: list[float]) -> None:
    """Weights, cache and compute are within a tenth of what the engine reports, and at most a twentieth under."""
    parts = measure(case, tmp_path)
    assert {part.name: part.error for part in parts if not -0.05 <= part.error <= 0.10} == {}
    assert all(part.predicted == 0 for part in parts if not part.reported)
    errors.extend(abs(part.error) for part in parts if part.reported)


def test_architectures_are_many() -> None:
    """At least a dozen architectures are loaded, among them those with windows, experts, latents and states."""
    taken = {case.architecture for case in sample()}
    assert taken == ARCHITECTURES.keys()
    assert len(taken) >= 12
    assert {"gemma3", "gpt-oss", "deepseek2", "mamba2", "granitehybrid", "qwen3next", "bert"} <= taken


def test_adapter_counts(tmp_path: Path) -> None:
    """A LoRA's own weights count, and what it adds to the scratch."""
    model = write(tmp_path / "m.gguf", "llama", TINY)
    adapter = write_adapter(tmp_path / "a.gguf", "llama", TINY, rank=64)
    found = predict(read_header(model), Run(context=1024, adapters=(read_header(adapter),)))
    with bare_engine(model, lora=str(adapter)) as engine:
        log = whole_log(engine)
    weights = Component("weights", found.weights, *reported(log, "model", "LoRA"))
    compute = Component("compute", found.compute, *reported(log, "compute", "output"))
    assert (weights.error, compute.error) == (0, 0)
    assert found.weights > read_header(model).weights_bytes


@pytest.mark.parametrize(("width", "image"), [(256, 448), (512, 336)])
def test_projector_is_as_the_engine_estimates(tmp_path: Path, width: int, image: int) -> None:
    """A projector's weights and scratch are within a twentieth of what the engine itself expects of it."""
    model = write(tmp_path / "m.gguf", "llama", TINY)
    projector = write_projector(tmp_path / "p.gguf", width=width, image=image, out=TINY.width)
    with bare_engine(model, mmproj=str(projector), warmup=True) as engine:
        log = whole_log(engine)
    told = re.search(r"usage of mmproj is ([\d.]+) MiB", log)
    assert told is not None
    assert predict_projector(read_header(projector)).total == pytest.approx(float(told[1]) * MIB, rel=0.05)


def test_draft_is_a_second_model(tmp_path: Path) -> None:
    """A draft model has weights, cache and scratch of its own beside the model's."""
    model, draft = write(tmp_path / "m.gguf", "llama", TINY), write(tmp_path / "d.gguf", "llama", TINY)
    one = predict(read_header(model), Run(context=1024))
    with bare_engine(model, draft=str(draft)) as engine:
        log = whole_log(engine)
    assert abs((one + one).weights - reported(log, "model")[0]) <= 2 * ROUNDING
    assert abs((one + one).cache - reported(log, "KV")[0]) <= 2 * ROUNDING
    assert one + Prediction(MappingProxyType({})) == one
