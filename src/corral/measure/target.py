"""A target: a model of some server, its name, which fields the server takes, and how its tokens are counted."""

from __future__ import annotations

import asyncio
import os
import random
import re
import socket
from collections.abc import Mapping, Sequence
from dataclasses import field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from corral.connection import Address, parse_address
from corral.errors import CallerError, CorralError, Unreachable
from corral.lazy_dataclass import dataclass
from corral.measure.answer import Shot
from corral.measure.wire import ask, shoot, tls_of
from corral.measure.work import CHAT, OPENING, USUAL, WAYS, WORDS, Fields, Vocabulary, Work

PATIENCE_S: Final = 600.0
"""How long the first answer may take: the model may have to be loaded."""
_REFUSED: Final = re.compile(r"(400|422|501): ")


class WrongTarget(CallerError):
    """A target that cannot be meant: no such machine or model, or several models and none named."""


@dataclass(frozen=True, slots=True)
class Target:
    """One column of a comparison. `settled` fills what is below `model`."""

    name: str
    address: Address
    model: str = ""  # the server's only one
    fields: Fields = USUAL
    vocabulary: Vocabulary | None = None
    overhead: int = 0  # tokens of a prompt that are the chat template's
    words_a_token: float = 1.0  # where only the server's own counts tell
    notes: tuple[str, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))

    def work(self, prompt_tokens: int, tokens: int) -> Work:
        """Prompts of so many tokens, exactly where they can be counted."""
        room = max(1, prompt_tokens - self.overhead - len(OPENING.split()))
        words = max(1, round(room * self.words_a_token))
        return Work(self.model, words, tokens, prompt_tokens, self.overhead, self.vocabulary, self.fields)

    @property
    def counting(self) -> str:
        """How long prompts are made, in words."""
        if self.vocabulary is not None:
            return "exactly, with the server's own tokenizer"
        return (
            "roughly, by what the server counted of two trials" if self.fields.usage else "by words: it counts nothing"
        )


def parse_target(text: str, *, ca: str | None = None) -> Target:
    """`[NAME=]URL[#model]`. Raises CallerError."""
    name, equals, rest = text.partition("=")
    if not equals or "/" in name or ":" in name or "#" in name:
        name, rest = "", text
    url, _, model = rest.partition("#")
    if not url:
        raise CallerError(
            f"{text!r} names no server", hint="write [NAME=]URL[#model], as in vllm=http://127.0.0.1:8000#m"
        )
    address = parse_address(url)
    base = address.base.removesuffix("/v1")
    address = replace(address, base=base, ca=ca)
    return Target(name or (f"{_place(address)}#{model}" if model else _place(address)), address, model)


def _place(address: Address) -> str:
    return address.socket.name if address.socket is not None else f"{address.host}:{address.port}"


def with_keys(targets: Sequence[Target], keys: Sequence[str], env: Mapping[str, str] | None = None) -> list[Target]:
    """Each target with its key. `keys` are `[NAME=]env:VARIABLE` or `[NAME=]file:PATH`; one without a name is for a
    single target, so that no server is sent another's. Raises CallerError."""
    env = os.environ if env is None else env
    found = {each.name: each for each in targets}
    for text in keys:
        name, equals, source = text.partition("=")
        if not equals or name.startswith(("env:", "file:")):
            source = text
            if len(targets) != 1:
                raise CallerError(
                    f"{text!r} does not say whose key it is", hint=f"write NAME={text}, with a target's name"
                )
            name = targets[0].name
        if name not in found:
            raise CallerError(f"--key names {name!r}, which is no target", hint=f"targets are: {', '.join(found)}")
        found[name] = replace(found[name], address=replace(found[name].address, key=_key(source, env)))
    return list(found.values())


def _key(source: str, env: Mapping[str, str]) -> str:
    kind, _, where = source.partition(":")
    if kind == "env" and where:
        if not (key := env.get(where, "").strip()):
            raise CallerError(f"the variable {where} holds no key", hint=f"set it: export {where}=…")
    elif kind == "file" and where:
        try:
            key = Path(where).expanduser().read_text(encoding="utf-8").strip()
        except (OSError, ValueError) as error:
            raise CallerError(
                f"the key's file {where} cannot be read: {error}", hint="name a file with one key"
            ) from error
    else:
        # What was given may be the key itself: it is not repeated.
        raise CallerError(
            "a key is never given on the command line", hint="write --key NAME=env:VARIABLE or NAME=file:PATH"
        )
    if not key or not key.isascii() or any(each.isspace() for each in key):
        raise CallerError(f"what {source} holds is no key", hint="a key is one word, without spaces")
    return key


async def settled(target: Target, *, probe: bool = True) -> Target:
    """`target` as its server takes it: the model's name, fields, and how tokens are counted. Asks it a few things.

    Raises WrongTarget where it cannot be meant, CallerError where nothing that Corral can ask is answered, Unreachable
    where nobody is there.
    """
    try:
        await _known(target)
        target = await _taken(await _named(target))
        return await _counted(target) if probe else target
    except CorralError:
        raise
    except (OSError, ValueError) as error:
        words = getattr(error, "verify_message", None) or getattr(error, "strerror", None) or str(error) or "no answer"
        raise Unreachable(f"{target.name} ({target.address}) cannot be asked: {words}", hint=_hint(error)) from error


async def _known(target: Target) -> None:
    """Raises WrongTarget where its host's name leads nowhere."""
    if target.address.socket is not None:
        return
    try:
        await asyncio.to_thread(socket.getaddrinfo, target.address.host, target.address.port)
    except socket.gaierror as error:
        raise WrongTarget(
            f"{target.name}: there is no host {target.address.host!r} ({error.strerror})",
            hint="write [NAME=]URL[#model], as in vllm=http://127.0.0.1:8000#m",
        ) from error


def _hint(error: Exception) -> str:
    if getattr(error, "verify_message", None):
        return "name the PEM file of its authority with --ca"
    return "see that it runs, and that the address is right"


async def _named(target: Target) -> Target:
    if target.model:
        return target
    said = await ask(target.address, tls_of(target.address), "GET", "/v1/models")
    if said.status != 200:
        keyless = said.status in (401, 403)
        hint = _what(str(said.status)) if keyless else "name one: URL#model"
        raise CallerError(f"{target.name} does not list its models: {said.status}: {said.words}", hint=hint)
    data = said.json()
    rows = data.get("data") if isinstance(data, dict) else None
    names = [str(row["id"]) for row in rows or () if isinstance(row, dict) and row.get("id")]
    if len(names) != 1:
        raise WrongTarget(
            f"{target.name} has {len(names) or 'no'} models",
            hint="name one: URL#model" + (f", of {', '.join(names[:8])}" if names else ""),
        )
    return replace(target, model=names[0])


async def _taken(target: Target) -> Target:
    """The first way to ask that the server does not refuse."""
    first = ""
    for way in WAYS:
        shot = await _trial(replace(target, fields=way), 4)
        if not shot.problem:
            notes = list(target.notes)
            if first:
                notes.append(f"{target.name} refused all of the usual fields ({first}): asked with {_words(way)}")
            if not way.ignore_eos:
                notes.append(f"{target.name} does not know ignore_eos: its answers may be shorter than asked")
            if not shot.counted:
                notes.append(f"{target.name} streams without usage: its tokens are counted as pieces with text")
                way = replace(way, usage=False)
            return replace(target, fields=way, notes=tuple(notes))
        if not _REFUSED.match(shot.problem):
            kind = Unreachable if shot.first is None and "nothing answers at" in shot.problem else CallerError
            kind = WrongTarget if shot.problem.startswith("404") else kind
            raise kind(f"{target.name} does not answer a chat: {shot.problem}", hint=_what(shot.problem))
        first = first or shot.problem
    raise CallerError(f"{target.name} does not answer a chat: {first}", hint=_what(first))


def _words(way: Fields) -> str:
    return ", ".join([way.limit, *["ignore_eos"] * way.ignore_eos, *["stream_options"] * way.usage])


def _what(problem: str) -> str:
    if problem.startswith(("401", "403")):
        return "give its key: --key NAME=env:VARIABLE or NAME=file:PATH"
    if problem.startswith("404"):
        return "see the model's name after #, and the address"
    if "not trusted" in problem:
        return "name the PEM file of its authority with --ca"
    return "see that it runs, and what it logs"


async def _trial(target: Target, words: int, tokens: int = 2, seed: int = 0) -> Shot:
    work = Work(target.model, words, tokens, fields=target.fields)
    body = work.body(random.Random(f"trial {seed}"))
    return await shoot(target.address, tls_of(target.address), CHAT, body, within_s=PATIENCE_S)


async def _counted(target: Target) -> Target:
    """With the server's tokenizer where it has one, else by what it counted itself."""
    vocabulary, why = await vocabulary_of(target)
    text = " ".join([OPENING, *WORDS[:8]])
    work = Work(target.model, tokens=2, fields=target.fields)
    shot = await shoot(target.address, tls_of(target.address), CHAT, work.asking(text), within_s=PATIENCE_S)
    if vocabulary is not None and shot.prompt is not None:
        overhead = shot.prompt - vocabulary.count(text)
        if overhead >= 0:
            return replace(target, vocabulary=vocabulary, overhead=overhead)
        why = "its tokenizer and its usage do not agree"
    few, many = await _trial(target, 16, seed=1), await _trial(target, 80, seed=1)
    notes = (*target.notes, f"{target.name}: prompts are only roughly as long as asked, since {why}")
    if few.prompt is None or many.prompt is None or many.prompt <= few.prompt:
        return replace(target, notes=notes)
    each = (many.prompt - few.prompt) / 64
    overhead = max(0, round(few.prompt - each * (16 + len(OPENING.split()))))
    return replace(target, words_a_token=1 / each, overhead=overhead, notes=notes)


async def vocabulary_of(target: Target) -> tuple[Vocabulary | None, str]:
    """What each word costs, by the server's own `/tokenize` (llama.cpp's or vLLM's); or why that is not known."""
    tls = tls_of(target.address)

    async def count(text: str) -> int | None:
        # Each of the two takes its own fields of these, and leaves the others.
        asked = {
            "model": target.model,
            "content": text,
            "prompt": text,
            "add_special": False,
            "add_special_tokens": False,
        }
        try:
            said = await ask(target.address, tls, "POST", "/tokenize", asked)
        except OSError:
            return None
        found = said.json() if said.status == 200 else None
        tokens = found.get("tokens") if isinstance(found, dict) else None
        return len(tokens) if isinstance(tokens, list) else None

    opening = await count(OPENING)
    if not opening:
        return None, "it has no tokenizer to ask"
    costs: dict[str, int] = {}
    for word in WORDS:
        whole = await count(f"{OPENING} {word}")
        if whole is not None and whole > opening:
            costs[word] = whole - opening
    if not costs:
        return None, "its tokenizer answers nothing that can be used"
    vocabulary = Vocabulary(costs, opening)
    chance = random.Random("check")
    for tokens in (40, 97):
        text = vocabulary.text(tokens, chance)
        if await count(text) != vocabulary.count(text):
            return None, "its tokenizer joins words"
    return vocabulary, ""
