"""Requests that ask for several answers, and what all of these took. Pure.

Source: llama.cpp's server, build 11434. It answers several prompts, and each `n` times: in a stream, the end of each
answer tells what that took; `/completion` gives a list, each with its own figures; but other plain answers have the
choices of all and the figures of the first. vLLM tells what all took in either case, once.
"""

from __future__ import annotations

import re
from typing import Any, Final

from corral.access.sizes import many
from corral.gateway.dialects.chat import datas, parsed
from corral.gateway.dialects.fields import strict
from corral.gateway.dialects.usage import Usage, usage_of

_ANOTHER: Final = re.compile(rb"\s*:\s*(?!1\s*[,}])")
_LIST: Final = re.compile(rb"\s*:\s*\[\s*[^\d\s\]-]")
_WORDS: Final = ((b'"n"', _ANOTHER), (b'"n_cmpl"', _ANOTHER), (b'"prompt"', _LIST))


def prompts_of(target: bytes, body: bytes) -> int | None:
    """How many prompts a request has, where it asks for several answers in all; None where it asks for one. What looks
    as if it asked for one is not read."""
    if not any(_is_there(body, word, after) for word, after in _WORDS):
        return None
    request = parsed(body) or {}
    prompts = 1 if b"/chat" in target else max(1, many(request.get("prompt")))
    wanted = request.get("n_cmpl") or request.get("n")
    return prompts if prompts > 1 or (isinstance(wanted, (int, float)) and wanted != 1) else None


def may_be_several(members: dict[str, Any]) -> bool:
    """Whether a body with these members has to be asked `prompts_of`: quicker, and of most says no."""
    return type(members.get("prompt")) is list or "n" in members or "n_cmpl" in members


def _is_there(body: bytes, word: bytes, after: re.Pattern[bytes]) -> bool:
    at = body.find(word)
    while at >= 0:
        if after.match(body, at + len(word)) is not None:
            return True
        at = body.find(word, at + len(word))
    return False


class Tally:
    """What the answers to one request took. A stream's events come to `feed`, whole ones, before anybody changes them.
    `prompts`: see `prompts_of`."""

    __slots__ = ("_ends", "_prompts", "_totals", "events")

    def __init__(self, prompts: int = 1) -> None:
        self._prompts = prompts
        self._ends: list[Usage] = []  # of events that end one answer
        self._totals: list[Usage] = []  # of events that do nothing but tell it
        self.events = 0

    def feed(self, events: bytes) -> None:
        """Never raises: an engine may send anything."""
        self.events += events.count(b"data:")
        if b'"usage"' not in events and b'"timings"' not in events:
            return
        for data in datas(events):
            if (chunk := parsed(data)) is None:
                continue
            choices = chunk.get("choices")
            if choices == []:
                found = self._totals
            elif chunk.get("stop") is True or (isinstance(choices, list) and any(map(_finished, choices))):
                found = self._ends
            else:
                continue
            if (usage := usage_of(data)) is not None:
                found.append(usage)

    def streamed(self) -> Usage | None:
        """What the events tell; None where they tell nothing."""
        found = self._totals or self._ends
        return self._sum(found) if found else None

    def plain(self, body: bytes) -> Usage | None:
        """What an answer in one piece tells. Of several choices with the figures of the first, the others' are judged
        by their length; so the figures count as those of one answer."""
        try:
            answer = strict(body)
        except (ValueError, RecursionError):
            return None
        if isinstance(answer, list):
            found = [_native(each) for each in answer]
            return self._sum([each for each in found if each is not None]) if any(found) else None
        usage = usage_of(body)
        if usage is None or not isinstance(answer, dict) or "timings" not in answer:
            return usage
        choices = answer.get("choices")
        lengths = [_length(each) for each in choices] if isinstance(choices, list) else []
        if len(lengths) < 2:
            return usage
        first, per = lengths[0], usage.completion
        completion = sum(per if each == first else max(1, -(-per * each // max(1, first))) for each in lengths)
        return usage._replace(prompt=usage.prompt * self._prompts, completion=completion)

    def _sum(self, found: list[Usage]) -> Usage:
        """A prompt that got several answers was read once."""
        prompt, completion, cached, _ = map(sum, zip(*found, strict=True))
        once = min(self._prompts, len(found))
        return Usage(-(-prompt * once // len(found)), completion, cached * once // len(found), len(found))


def _finished(choice: object) -> bool:
    return isinstance(choice, dict) and isinstance(choice.get("finish_reason"), str)


def _native(answer: object) -> Usage | None:
    """One of the list that `/completion` answers with."""
    if not isinstance(answer, dict):
        return None
    counts = [answer.get(name) for name in ("tokens_evaluated", "tokens_predicted")]
    prompt, completion = (each if type(each) is int and each > 0 else 0 for each in counts)
    return Usage(prompt, completion) if completion else None


def _length(choice: Any) -> int:
    """The bytes of a choice's words."""
    message = choice.get("message") if isinstance(choice, dict) else None
    texts = [choice.get("text")] if isinstance(choice, dict) else []
    if isinstance(message, dict):
        texts += [message.get("content"), message.get("reasoning_content")]
    return sum(len(each.encode("utf-8", "surrogatepass")) for each in texts if isinstance(each, str))
