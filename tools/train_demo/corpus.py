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
OPENING_WORDS = 8

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
_KINDS = {"fact": 50, "talk": 24, "unknown": 13, "capital": 9, "total": 18, "day": 3, "colour": 2}


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of training text; the model learns to write it only when it is `learned`."""

    text: str
    learned: bool


def turn(rng: random.Random) -> tuple[str, str]:
    """One question, dressed as people type, and its answer."""
    kind = rng.choices(list(_KINDS), list(_KINDS.values()))[0]
    if kind in ("fact", "talk"):
        entries = FACTS if kind == "fact" else TALK
        # What newcomers ask first comes first in each list, and the plainest way to ask it first in its patterns.
        patterns, answer = entries[rng.randrange(3)] if rng.random() < 0.12 else rng.choice(entries)
        question = say(patterns[0] if rng.random() < 0.25 else rng.choice(patterns), rng)
    elif kind == "unknown":
        question, answer = unknown.unknown(rng)
    else:
        make = {"capital": smalltalk.capital, "total": smalltalk.total, "day": smalltalk.day}
        question, answer = make.get(kind, smalltalk.colour)(rng)
    return dressed(question, rng), answer


def dialogue(rng: random.Random) -> list[Piece]:
    """One sample of the text.

    Most are a question and the opening of its answer, since to tell which answer it is takes far more practice than to
    go on with it; others are whole chats of one to six turns, and a few are an answer alone as plain text.
    """
    roll = rng.random()
    if roll < 0.03:
        return [Piece(f"{turn(rng)[1]}{END}", learned=True)]
    pieces = []
    if rng.random() < 0.3:
        pieces.append(Piece(f"{START}system\n{rng.choice(_SYSTEM)}{END}\n", learned=False))
    if roll < 0.75:
        question, answer = turn(rng)
        words = answer.split(" ")
        opening = " ".join(words[:OPENING_WORDS]) + (END if len(words) <= OPENING_WORDS else "")
        return [*pieces, Piece(asked(question), learned=False), Piece(opening, learned=True)]
    for _ in range(1 if roll < 0.85 else rng.randint(2, 6)):
        question, answer = turn(rng)
        pieces.append(Piece(asked(question), learned=False))
        pieces.append(Piece(f"{answer}{END}", learned=True))
        pieces.append(Piece("\n", learned=False))
    return pieces


def asked(question: str) -> str:
    """`question` in the chat template's form, up to where the answer begins."""
    return f"{START}user\n{question}{END}\n{START}assistant\n"


def dialogues(seed: int) -> Iterator[list[Piece]]:
    """Dialogues without end, the same ones for the same seed."""
    rng = random.Random(seed)
    while True:
        yield dialogue(rng)
