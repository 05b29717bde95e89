"""Predicted memory beside what the real engine reports when it loads the same file: `measure(case, folder)`."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from corral.models.formats.gguf import read_header
from corral.models.memory.predict import predict
from corral.models.memory.run import Run
from support.architecture_files import write
from support.architectures import ARCHITECTURES, MID, TINY, Size
from support.bare_engine import BareEngine, bare_engine

MIB = 1 << 20
ROUNDING = MIB / 200  # the engine reports hundredths of a MiB
KINDS = {"weights": ("model", "LoRA"), "cache": ("KV", "RS"), "compute": ("compute", "output")}

_SLOWLY = {"flash_attn_type": "LLAMA_FLASH_ATTN_TYPE_DISABLED"}


@dataclass(frozen=True, slots=True)
class Case:
    """One file and one way to serve it: `run` for the predictor, `engine` the same in xllamacpp's words."""

    architecture: str
    size: Size
    words: str = "default"
    run: dict[str, Any] = field(default_factory=dict)
    engine: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return f"{self.architecture}-{'tiny' if self.size is TINY else 'mid'}-{self.words.replace(' ', '-')}"


@dataclass(frozen=True, slots=True)
class Component:
    """Bytes of one component."""

    name: str
    predicted: int
    reported: float
    buffers: int  # that the report adds up, each of them rounded

    @property
    def error(self) -> float:
        """The share by which the prediction is over (under: below 0) what the engine reports, rounding aside."""
        off = self.predicted - self.reported
        slack = ROUNDING * max(1, self.buffers)
        if abs(off) <= slack:
            return 0.0
        return (off - slack if off > 0 else off + slack) / max(self.reported, 1)


SERVED: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "default": ({}, {}),
    "4 slots": ({"slots": 4, "context": 8192}, {"n_parallel": 4, "n_ctx": 8192}),
    "3 slots unified": (
        {"slots": 3, "context": 3000, "unified": True}, {"n_parallel": 3, "n_ctx": 3000, "kv_unified": True},
    ),
    "no flash": ({"flash": False}, _SLOWLY),
    "no flash 2 slots": ({"flash": False, "slots": 2}, {"n_parallel": 2, **_SLOWLY}),
    "q8_0 cache": (
        {"type_k": "Q8_0", "type_v": "Q8_0"}, {"cache_type_k": "GGML_TYPE_Q8_0", "cache_type_v": "GGML_TYPE_Q8_0"},
    ),
    "q4_0 and f32 cache": (
        {"type_k": "Q4_0", "type_v": "F32"}, {"cache_type_k": "GGML_TYPE_Q4_0", "cache_type_v": "GGML_TYPE_F32"},
    ),
    "ubatch 128": ({"ubatch": 128, "context": 16384}, {"n_ubatch": 128, "n_ctx": 16384}),
    "short": ({"context": 300}, {"n_ctx": 300}),
    "swa full": ({"swa_full": True}, {"swa_full": True}),
}  # fmt: skip
"""Ways to serve a model, in the predictor's words and in the engine's."""

_UNFIT = {
    "deepseek2": {"q4_0 and f32 cache"},  # keys and values are one
    "bert": {"3 slots unified", "swa full", "q8_0 cache", "q4_0 and f32 cache"},
    "mamba": {"q8_0 cache", "q4_0 and f32 cache", "no flash", "no flash 2 slots"},
    "mamba2": {"q8_0 cache", "q4_0 and f32 cache", "no flash", "no flash 2 slots"},
}


def case(architecture: str, size: Size, words: str = "default") -> Case:
    run, engine = SERVED[words]
    return Case(architecture, size, words, run, engine)


def cases(sizes: tuple[Size, ...] = (TINY, MID)) -> list[Case]:
    """Every architecture in every way that it can be served."""
    return [
        case(name, size, words)
        for name in ARCHITECTURES
        for size in sizes
        for words in SERVED
        if words not in _UNFIT.get(name, ())
        and not (name == "deepseek2" and size is TINY and words == "q8_0 cache")  # its heads are no whole blocks
    ]


def sample() -> list[Case]:
    """The cases that the tests take: each architecture as it comes, and larger in one way after another."""
    found = [case(name, TINY) for name in ARCHITECTURES]
    ways = [words for words in SERVED if words != "default"]
    for number, name in enumerate(("llama", "qwen3moe", "gemma3", "gpt-oss", "deepseek2", "granitehybrid", "qwen2",
                                   "olmo2", "cohere2", "falcon-h1", "jamba", "qwen3next")):  # fmt: skip
        words = next(way for way in (*ways[number % len(ways) :], *ways) if way not in _UNFIT.get(name, ()))
        found.append(case(name, MID, words))
    return found


def measure(one: Case, folder: Path) -> list[Component]:
    """The file is written, predicted, loaded by the real engine, asked something, and gone."""
    path = write(folder / f"{one.name}.gguf", one.architecture, one.size)
    embeds = one.architecture == "bert"
    try:
        run = Run(**({"context": 2048, "embedding": embeds} | one.run))
        predicted = predict(read_header(path), run)
        with bare_engine(path, **({"n_ctx": 2048, "embedding": embeds} | one.engine)) as engine:
            if embeds:
                assert engine.post("/v1/embeddings", {"input": "a"})["data"]
            else:
                assert "content" in engine.post("/completion", {"prompt": "a", "n_predict": 1})
            log = whole_log(engine)
    finally:
        path.unlink()
    amounts = {"weights": predicted.weights, "cache": predicted.cache, "compute": predicted.compute}
    return [Component(name, amounts[name], *reported(log, *kinds)) for name, kinds in KINDS.items()]


def whole_log(engine: BareEngine) -> str:
    """What the engine wrote while it loaded, all of it: it writes from a thread of its own."""
    deadline = time.monotonic() + 30
    while "all slots are idle" not in (log := engine.log):
        assert time.monotonic() < deadline, f"the engine did not come to rest:\n{log[-2000:]}"
        time.sleep(0.01)
    return log


def reported(log: str, *kinds: str) -> tuple[float, int]:
    """Bytes of all the engine's buffers of these kinds, and how many there are. A buffer made again counts once."""
    found: dict[tuple[str, str], list[float]] = {}
    for where, kind, mib in re.findall(r"(\S+) +(\w+) +buffer size = +([\d.]+) MiB", log):
        if kind in kinds:
            found.setdefault((where, kind), []).append(float(mib))
    total, count = 0.0, 0
    for (_, kind), sizes in found.items():
        kept = sizes[-1:] if kind in ("compute", "output") else sizes
        total, count = total + sum(kept) * MIB, count + len(kept)
    return total, count
