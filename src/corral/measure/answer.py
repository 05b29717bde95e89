"""One streamed answer: its events with the time each came, kept as they are while it runs and read afterwards. Pure."""

from __future__ import annotations

import json
from typing import Any, Final

from corral.lazy_dataclass import dataclass

KEPT_BYTES: Final = 1 << 20
"""So much of one answer may wait unread: reading takes time, in which other streams' events would be seen late."""


@dataclass(frozen=True, slots=True)
class Shot:
    """One request. Times are seconds on one clock; those of pieces are as `vllm bench serve` takes them: a piece is an
    event with `choices`, whatever it holds."""

    began: float  # when it was sent, on an open connection
    ended: float
    first: float | None = None  # when its first piece came
    tokens: int = 0
    problem: str = ""
    last: float | None = None  # when its last piece came
    gaps: tuple[float, ...] = ()  # between pieces: the inter-token latencies
    text: float | None = None  # when the first text came: some servers send an empty piece before they compute
    prompt: int | None = None  # tokens of the prompt, as the server counted them
    cached: int | None = None  # and of those, which it had already
    counted: bool = False  # the server told how many tokens it made; else pieces with text are counted
    connect: float = 0.0  # how long the connection took, before `began`
    due: float | None = None  # when it should have been sent
    finish: str = ""
    timings: dict[str, Any] | None = None  # llama.cpp's own
    headers: dict[str, str] | None = None  # of those that begin with x-corral-

    @property
    def ttft(self) -> float | None:
        """Time to first token."""
        return None if self.first is None else self.first - self.began

    @property
    def latency(self) -> float | None:
        """To the last piece."""
        return None if self.last is None else self.last - self.began

    @property
    def tpot(self) -> float | None:
        """Time per output token, the first one left out; None for a single token."""
        if self.first is None or self.last is None or self.tokens < 2:
            return None
        return (self.last - self.first) / (self.tokens - 1)


class Answer:
    """What has come of one answer. `take` costs little; `read` understands it, and may be called at any time."""

    __slots__ = (
        "cached", "counted", "done", "finish", "first", "gaps", "headers", "kept", "last", "pieces", "problem",
        "prompt", "rest", "size", "text", "timings", "tokens",
    )  # fmt: skip

    def __init__(self) -> None:
        self.kept: list[tuple[float, bytes]] = []
        self.rest = b""
        self.size = 0
        self.first: float | None = None
        self.last: float | None = None
        self.text: float | None = None
        self.gaps: list[float] = []
        self.tokens: int | None = None
        self.pieces = 0
        self.prompt: int | None = None
        self.cached: int | None = None
        self.done, self.problem, self.finish = False, "", ""
        self.timings: dict[str, Any] | None = None
        self.headers: dict[str, str] = {}

    def take(self, data: bytes, now: float) -> None:
        """Some bytes of the body, cut anywhere."""
        *lines, self.rest = (self.rest + data).split(b"\n") if self.rest else data.split(b"\n")
        for line in lines:
            if line.startswith(b"data:"):
                payload = line[5:].strip()
                if payload == b"[DONE]":
                    self.done = True
                else:
                    self.kept.append((now, payload))
        self.size += len(data)
        if self.size > KEPT_BYTES:
            self.read()

    def read(self) -> None:
        """Understands what is kept."""
        kept, self.kept, self.size = self.kept, [], 0
        for now, payload in kept:
            try:
                event = json.loads(payload)
            except ValueError:
                self.problem = self.problem or f"an event that is no JSON: {payload[:80]!r}"
                continue
            if isinstance(event, dict):
                self._event(event, now)

    def _event(self, event: dict[str, Any], now: float) -> None:
        if (error := event.get("error")) is not None:
            words = error.get("message") if isinstance(error, dict) else None
            self.problem = self.problem or f"an error in the stream: {words or error}"[:300]
            return
        if isinstance(usage := event.get("usage"), dict):
            self._usage(usage)
        if isinstance(timings := event.get("timings"), dict):
            self.timings = timings
        choices = event.get("choices")
        if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
            return
        if self.last is None:
            self.first = now
        else:
            self.gaps.append(now - self.last)
        self.last = now
        self.finish = str(choices[0].get("finish_reason") or self.finish)
        if _has_text(choices[0]):
            self.pieces += 1
            self.text = now if self.text is None else self.text

    def _usage(self, usage: dict[str, Any]) -> None:
        self.tokens = _count(usage.get("completion_tokens"), self.tokens)
        self.prompt = _count(usage.get("prompt_tokens"), self.prompt)
        if isinstance(details := usage.get("prompt_tokens_details"), dict):
            self.cached = _count(details.get("cached_tokens"), self.cached)

    def shot(self, began: float, ended: float, *, connect: float = 0.0, due: float | None = None) -> Shot:
        """What it was. A stream without its end was cut, whatever came of it; one without a piece failed."""
        self.read()
        problem = self.problem
        if not problem and not self.done:
            problem = "the stream was cut"
        if not problem and self.first is None:
            problem = "the stream ended without a token"
        timings = self.timings or {}
        cached = self.cached if self.cached is not None else _count(timings.get("cache_n"), None)
        tokens = self.pieces if self.tokens is None else self.tokens
        return Shot(
            began, ended, self.first, tokens, problem, self.last, tuple(self.gaps), self.text, self.prompt, cached,
            self.tokens is not None, connect, due, self.finish, self.timings, self.headers or None,
        )  # fmt: skip


def _has_text(choice: dict[str, Any]) -> bool:
    delta = choice.get("delta")
    if isinstance(delta, dict):
        return any(delta.get(key) for key in ("content", "reasoning_content", "reasoning", "tool_calls", "refusal"))
    return bool(choice.get("text"))


def _count(value: Any, default: int | None) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else default
