"""`/api/embed` and the older `/api/embeddings` as llama.cpp's embeddings."""

from __future__ import annotations

import json
import math
import re
from typing import Any, Final

from corral.errors import CallerError, EngineError
from corral.gateway.dialects.ollama import asked
from corral.gateway.dialects.ollama.errors import engine_error
from corral.gateway.dialects.ollama.times import Times, keep_alive_s, nanoseconds
from corral.lazy_dataclass import dataclass

PATH: Final = b"/v1/embeddings"
TOO_LONG: Final = "the input length exceeds the context length"
_MARKS: Final = ("too large to process", "exceeds the available context", "exceed_context_size")
_LIMIT = re.compile(r"batch size: (\d+)|context size \((\d+)")


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be embedded; nothing at all is a load."""

    model: str
    inputs: list[str]
    keep_alive_s: float | None
    truncate: bool = True
    dimensions: int = 0
    legacy: bool = False

    def body(self, inputs: list[Any]) -> bytes:
        """The engine's request for `inputs`: texts, or lists of tokens."""
        asked: dict[str, Any] = {"input": inputs, "encoding_format": "float"}
        if self.legacy:
            asked["embd_normalize"] = -1  # the older route gives vectors as they are
        return json.dumps(asked).encode()


def read_embed(given: dict[str, Any]) -> Wanted:
    """Raises CallerError."""
    texts = given.get("input")
    texts = [texts] if isinstance(texts, str) and texts else texts or []
    if not isinstance(texts, list) or not all(isinstance(each, str) for each in texts):
        raise CallerError("invalid input type", hint="input is a text or a list of texts", param="input")
    dimensions = given.get("dimensions") or 0
    if isinstance(dimensions, bool) or not isinstance(dimensions, int) or dimensions < 0:
        raise CallerError("dimensions must be a whole number", hint="leave it out for all", param="dimensions")
    keep_s = keep_alive_s(given.get("keep_alive"))
    return Wanted(asked.model(given), texts, keep_s, asked.flag(given, "truncate", True), dimensions)


def read_embeddings(given: dict[str, Any]) -> Wanted:
    """The older route. Raises CallerError."""
    text = asked.text(given, "prompt")
    return Wanted(asked.model(given), [text] if text else [], keep_alive_s(given.get("keep_alive")), legacy=True)


def is_too_long(status: int, body: bytes) -> bool:
    """The engine refused because an input is longer than it can take."""
    return status >= 400 and any(mark in body.decode("utf-8", "replace") for mark in _MARKS)


def answered(wanted: Wanted, status: int, body: bytes, times: Times, load_ms: float) -> tuple[int, dict[str, Any]]:
    """The answer in Ollama's shape. Raises EngineError."""
    if status >= 400:
        if is_too_long(status, body):
            return 400, {"error": TOO_LONG}
        status, refusal = engine_error(status, body)
        return status, json.loads(refusal)
    vectors, tokens = _vectors(body)
    if wanted.legacy:
        return 200, {"embedding": vectors[0] if vectors else []}
    if wanted.dimensions:
        vectors = [_shortened(vector, wanted.dimensions) for vector in vectors]
    return 200, made(wanted.model, vectors, tokens, times, load_ms)


def made(model: str, vectors: list[list[float]], tokens: int, times: Times, load_ms: float) -> dict[str, Any]:
    return {
        "model": model,
        "embeddings": vectors,
        "total_duration": nanoseconds(times.elapsed_s() * 1000),
        "load_duration": nanoseconds(load_ms),
        "prompt_eval_count": tokens,
    }


def _vectors(body: bytes) -> tuple[list[list[float]], int]:
    try:
        found = json.loads(body)
        entries = sorted(found["data"], key=lambda entry: entry["index"])
        vectors = [[float(number) for number in entry["embedding"]] for entry in entries]
        tokens = found.get("usage", {}).get("prompt_tokens", 0)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as exc:
        raise EngineError("the engine's answer has no embeddings", hint="see its log: corral logs MODEL") from exc
    return vectors, tokens if isinstance(tokens, int) else 0


def _shortened(vector: list[float], dimensions: int) -> list[float]:
    """The first `dimensions` numbers, made one long again."""
    cut = vector[:dimensions]
    length = math.sqrt(sum(number * number for number in cut))
    return [number / length for number in cut] if length else cut


def limit(refusal: bytes) -> int | None:
    """How many tokens the engine takes at once, where its refusal says so."""
    text = refusal.decode("utf-8", "replace")
    found = _LIMIT.search(text)
    return int(found[1] or found[2]) if found else None


def cut(status: int, answer: bytes, tokens: int) -> list[int]:
    """The first tokens of what `/tokenize` answered, with its last one kept, which ends the text for some models.

    Raises EngineError.
    """
    try:
        found = [int(each) for each in json.loads(answer)["tokens"]] if status == 200 else None
    except (ValueError, KeyError, TypeError, RecursionError):
        found = None
    if found is None:
        raise EngineError("the engine could not count the tokens of an input", hint="send truncate: false")
    return found if len(found) <= tokens else [*found[: tokens - 1], found[-1]]
