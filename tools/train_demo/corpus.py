"""The training text: dialogues put together from the questions and answers beside it, by a seed."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

import smalltalk
import unknown
from facts import FACTS
from phrases import dressed, say
from smalltalk import TALK

START, END, TEXT = "<|im_start|>", "<|im_end|>", "<|endoftext|>"
SPECIAL = (TEXT, START, END)

_SYSTEM = (
    "You are a helpful assistant.",
    "You are a helpful assistant. Answer in one sentence.",
    "You are Corral's demo model.",
    "Be brief.",
    "Be brief and friendly.",
    "Answer the question of the user.",
    "You are a friendly assistant who answers questions about Corral.",
    "You are an expert. Answer in English.",
    "Answer in one word.",
    "Always be polite and tell the truth.",
)
_KINDS = {"fact": 50, "talk": 24, "unknown": 13, "capital": 6, "total": 9, "day": 3, "colour": 2}


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of training text; the model learns to write it only when it is `learned`."""

    text: str
    learned: bool


def turn(rng: random.Random) -> tuple[str, str]:
    """One question, dressed as people type, and its answer."""
    kind = rng.choices(list(_KINDS), list(_KINDS.values()))[0]
    if kind in ("fact", "talk"):
        patterns, answer = rng.choice(FACTS if kind == "fact" else TALK)
        question = say(rng.choice(patterns), rng)
    elif kind == "unknown":
        question, answer = unknown.unknown(rng)
    else:
        make = {"capital": smalltalk.capital, "total": smalltalk.total, "day": smalltalk.day}
        question, answer = make.get(kind, smalltalk.colour)(rng)
    return dressed(question, rng), answer


def dialogue(rng: random.Random) -> list[Piece]:
    """A chat of one to six turns in the chat template's form, or now and then an answer alone as plain text."""
    if rng.random() < 0.05:
        return [Piece(f"{turn(rng)[1]}{END}", learned=True)]
    pieces = []
    if rng.random() < 0.3:
        pieces.append(Piece(f"{START}system\n{rng.choice(_SYSTEM)}{END}\n", learned=False))
    turns = 1 if rng.random() < 0.6 else rng.randint(2, 6)
    for _ in range(turns):
        question, answer = turn(rng)
        pieces.append(Piece(f"{START}user\n{question}{END}\n{START}assistant\n", learned=False))
        pieces.append(Piece(f"{answer}{END}", learned=True))
        pieces.append(Piece("\n", learned=False))
    return pieces


def dialogues(seed: int) -> Iterator[list[Piece]]:
    """Dialogues without end, the same ones for the same seed."""
    rng = random.Random(seed)
    while True:
        yield dialogue(rng)
