"""How fast a model reads and writes with so many tokens already in its context, as `llama-bench` has it, but through
a server: `pp` at a depth, and `tg` at a depth."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from corral.measure.answer import Shot
from corral.measure.figures import DEPTH, Figure, figure
from corral.measure.series import Tell
from corral.measure.target import Target
from corral.measure.wire import shoot, tls_of
from corral.measure.work import OPENING, PLAIN, WORDS, Work


async def depths(
    target: Target, at: Sequence[int], *, prompt_tokens: int, tokens: int, runs: int, tell: Tell = lambda text: None
) -> tuple[list[Figure], list[str]]:
    """Figures at each depth, and what has to be said about them.

    The context is filled by a request of its own, whose end the engine keeps. Then the same beginning and
    `prompt_tokens` more are sent for one token: what was not cached, by the time to the first token, is the rate of
    reading. The beginning alone and `tokens` to be written give the rate of writing: one by the time per output token.
    """
    found: list[Figure] = []
    notes: list[str] = []
    for depth in at:
        reads: list[Shot] = []
        writes: list[Shot] = []
        for number in range(runs):
            chance = random.Random(f"{depth} {number} {target.name}")
            begins = _words(target, depth, chance) if depth else []
            if begins:
                await _ask(target, begins, 1)
            reads.append(await _ask(target, [*begins, *_words(target, prompt_tokens, chance)], 1))
            writes.append(await _ask(target, begins or _words(target, 1, chance), tokens))
        bad = next((shot.problem for shot in (*reads, *writes) if shot.problem), "")
        if bad:
            notes.append(f"at a depth of {depth}: {bad}")
        told = [_read(shot) for shot in reads]
        if depth and not bad and any(shot.cached is None for shot in reads):
            notes.append(f"{target.name} does not tell what was cached: reading at a depth of {depth} is not measured")
            told = []
        elif depth and any((shot.cached or 0) < depth // 2 for shot in reads if not shot.problem):
            notes.append(
                f"{target.name} did not keep the {depth} tokens before: its reading is that of the whole prompt"
            )
        wrote = [_write(shot) for shot in writes]
        if not bad and None in wrote:
            notes.append(
                f"at a depth of {depth} an answer came all at once: its writing is not measured, ask for more tokens"
            )
            wrote = []  # the other runs alone would be those in which it wrote slowly
        made = [
            figure(target.name, DEPTH, float(depth), "prompt_per_s", told),
            figure(target.name, DEPTH, float(depth), "generation_per_s", wrote),
            figure(target.name, DEPTH, float(depth), "engine_prompt_per_s", _engine(reads, "prompt_per_second")),
            figure(
                target.name, DEPTH, float(depth), "engine_generation_per_s", _engine(writes, "predicted_per_second")
            ),
        ]
        found += [each for each in made if each.values]
        said = ", ".join(f"{each.kind.words} {each.median:.0f}/s" for each in made[:2] if each.values)
        tell(f"{target.name} at a depth of {depth}: {said or 'nothing'}")
    return found, notes


def _words(target: Target, tokens: int, chance: random.Random) -> list[str]:
    if target.vocabulary is not None:
        return target.vocabulary.more(tokens, chance)
    return chance.choices(WORDS, k=max(1, round(tokens * target.words_a_token)))


async def _ask(target: Target, words: Sequence[str], tokens: int) -> Shot:
    # After a chat's last words its template goes on; a plain prompt ends as it is, so that the next can go on from it.
    work = Work(target.model, tokens=tokens, fields=replace(target.fields, limit="max_tokens"), path=PLAIN)
    return await shoot(target.address, tls_of(target.address), PLAIN, work.asking(" ".join([OPENING, *words])))


def _read(shot: Shot) -> float | None:
    """Tokens read a second, the making of one token included, as a client has it."""
    if shot.problem or shot.prompt is None or not shot.ttft:
        return None
    return (shot.prompt - (shot.cached or 0)) / shot.ttft


def _write(shot: Shot) -> float | None:
    return 1 / shot.tpot if not shot.problem and shot.tpot else None


def _engine(shots: Sequence[Shot], name: str) -> list[float | None]:
    def value(timings: dict[str, Any] | None) -> float | None:
        told = (timings or {}).get(name)
        return float(told) if isinstance(told, (int, float)) and told > 0 else None

    return [value(shot.timings) for shot in shots if not shot.problem]
