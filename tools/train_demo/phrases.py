"""A small grammar for many ways to say one thing: `(a|b)` chooses, `[a]` is optional."""

from __future__ import annotations

import random
import re

_INNERMOST = re.compile(r"\(([^()\[\]]*)\)|\[([^()\[\]]*)\]")
_SPACES = re.compile(r" {2,}")


def say(pattern: str, rng: random.Random) -> str:
    """One way to read `pattern`, drawn with `rng`."""

    def choose(match: re.Match[str]) -> str:
        if match[2] is not None:
            return rng.choice(match[2].split("|")) if rng.random() < 0.5 else ""
        return rng.choice(match[1].split("|"))

    while _INNERMOST.search(pattern):
        pattern = _INNERMOST.sub(choose, pattern)
    return _SPACES.sub(" ", pattern).strip()


def dressed(question: str, rng: random.Random, *, is_request: bool = False) -> str:
    """`question` as a person might type it: with or without capitals, manners and punctuation."""
    if rng.random() < 0.12:
        question = rng.choice(("hey, ", "ok, ", "so, ", "hi, ", "well, ", "please, ", "and ", "now, ")) + question
    if rng.random() < 0.08:
        question = question + rng.choice((" please", ", please", " then", " now", " exactly"))
    roll = rng.random()
    if roll < 0.5:
        question = question[:1].upper() + question[1:]
    elif roll < 0.56:
        question = question.upper()
    elif roll < 0.6:
        question = question.title()
    roll = rng.random()
    usual = "." if is_request else "?"
    if roll < 0.55:
        return question + usual
    if roll < 0.9:
        return question
    return question + rng.choice(("!", "??", " ?", ".", "...", "?", "!!"))
