"""What each request asks: prompts of random words, as many tokens as wanted, and answers of fixed length. Pure but for
the chance that is handed in."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import field
from types import MappingProxyType
from typing import Any, Final

from corral.lazy_dataclass import dataclass

OPENING: Final = "Tell me about the"
WORDS: Final = (
    "river", "stone", "window", "letter", "garden", "bridge", "market", "winter", "table", "music", "doctor", "forest",
    "number", "village", "silver", "engine", "paper", "morning", "captain", "shadow", "yellow", "kitchen", "thunder",
    "pocket", "summer", "mountain", "island", "mirror", "candle", "station", "a", "I", "of", "to", "in", "and", "one",
)  # fmt: skip
CHAT: Final = "/v1/chat/completions"
PLAIN: Final = "/v1/completions"


@dataclass(frozen=True, slots=True)
class Fields:
    """Which fields beside the model and the prompt a server takes; not every one knows them all."""

    limit: str = "max_tokens"  # or "max_completion_tokens"
    ignore_eos: bool = True
    usage: bool = True  # stream_options.include_usage

    def body(self, tokens: int) -> dict[str, Any]:
        found: dict[str, Any] = {self.limit: tokens, "stream": True}
        if self.ignore_eos:
            found["ignore_eos"] = True
        if self.usage:
            found["stream_options"] = {"include_usage": True}
        return found


USUAL: Final = Fields()
WAYS: Final = (
    USUAL,
    Fields(ignore_eos=False),
    Fields("max_completion_tokens"),
    Fields("max_completion_tokens", ignore_eos=False),
    Fields(usage=False),
    Fields(ignore_eos=False, usage=False),
)
"""What is tried in turn with a server that refuses the first."""


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """How many tokens each word costs after others, in one model; `opening` those of OPENING."""

    costs: Mapping[str, int]
    opening: int
    _reach: dict[int, tuple[str, ...]] = field(default_factory=dict, repr=False, compare=False)

    def count(self, text: str) -> int:
        """Of a text that `text` made."""
        return self.opening + sum(self.costs[word] for word in text.removeprefix(OPENING).split())

    def text(self, tokens: int, chance: random.Random) -> str:
        """A random text of exactly so many tokens; the nearest longer one where that cannot be reached."""
        return " ".join([OPENING, *self.more(tokens - self.opening, chance)])

    def more(self, tokens: int, chance: random.Random) -> list[str]:
        """Words that cost exactly so much together, or the least more that can be had."""
        names = tuple(self.costs)
        dear = max(self.costs.values())
        found: list[str] = []
        left = tokens
        while left > 2 * dear:
            found.append(chance.choice(names))
            left -= self.costs[found[-1]]
        last = list(self._last(max(0, left)))
        chance.shuffle(last)
        return found + last

    def _last(self, tokens: int) -> tuple[str, ...]:
        """The fewest words that come to `tokens`."""
        if (known := self._reach.get(tokens)) is not None:
            return known
        ways: list[tuple[str, ...] | None] = [()]
        top = tokens + max(self.costs.values())
        for total in range(1, top + 1):
            best: tuple[str, ...] | None = None
            for word, cost in self.costs.items():
                before = ways[total - cost] if 0 < cost <= total else None
                if before is not None and (best is None or len(before) + 1 < len(best)):
                    best = (*before, word)
            ways.append(best)
        found = next(way for way in ways[tokens:] if way is not None)
        self._reach[tokens] = found
        return found


@dataclass(frozen=True, slots=True)
class Work:
    """What each request asks. Prompts differ from their first words on, so that hardly anything is in a cache."""

    model: str
    words: int = 128  # of the prompt, where its tokens cannot be counted
    tokens: int = 64  # of the answer, always all of them
    prompt_tokens: int | None = None  # of the prompt as the server counts it, template included
    overhead: int = 0  # of those, the template's
    vocabulary: Vocabulary | None = None
    fields: Fields = USUAL
    path: str = CHAT
    extra: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))

    def prompt(self, chance: random.Random) -> str:
        if self.vocabulary is not None and self.prompt_tokens is not None:
            return self.vocabulary.text(self.prompt_tokens - self.overhead, chance)
        return " ".join([OPENING, *chance.choices(WORDS, k=self.words)])

    def body(self, chance: random.Random) -> bytes:
        return self.asking(self.prompt(chance))

    def asking(self, prompt: str) -> bytes:
        """The body for this prompt."""
        asked: dict[str, Any] = {"model": self.model, **self.fields.body(self.tokens), **self.extra}
        if self.path == CHAT:
            asked["messages"] = [{"role": "user", "content": prompt}]
        else:
            asked["prompt"] = prompt
        return json.dumps(asked).encode()

    def bodies(self, count: int, seed: object) -> Sequence[bytes]:
        return [self.body(random.Random(f"{seed} {number}")) for number in range(count)]
