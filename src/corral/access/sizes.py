"""How many tokens a request may take at most, read from its body before any engine sees it. Pure.

A token stands for at least one byte of text, so a body's bytes bound its prompt; pictures and sounds are counted apart,
because their bytes say nothing. What a chat template adds is in `TEMPLATE`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final

from corral.lazy_dataclass import dataclass

TEMPLATE: Final = 256
"""Tokens that a model's chat template may add of itself, beyond what the JSON around each message is long."""
ATTACHMENT: Final = 4096
"""Tokens of one picture, or one piece of sound or video, at most."""
_LONG: Final = 256  # base64 shorter than this is text

_BOUNDS: Final = (
    "max_completion_tokens", "max_tokens", "max_output_tokens", "n_predict", "num_predict", "max_tokens_to_sample",
    "max_new_tokens",
)  # fmt: skip
_MEDIA: Final = ("image_url", "input_image", "image", "input_audio", "video_url", "input_video", "file", "input_file")
_NO_TOKENS: Final = ("/tokenize", "/detokenize", "/apply-template", "/count_tokens", "/input_tokens", "/detect")
_NO_ANSWER: Final = ("/embeddings", "/embedding", "/embed", "/rerank", "/reranking", "/score", "/pooling", "/classify")


@dataclass(frozen=True, slots=True)
class Size:
    """A request's tokens at most. `each` is the bound that it sets to each of its `answers`; None when it sets none."""

    prompt: int
    each: int | None
    answers: int = 1
    counts: bool = True  # false for what takes no tokens of the model
    most_each: int | None = None  # what the model can give at all, where that is known

    @property
    def least(self) -> int:
        """What has to be reserved: all of it, or with no bound set, one token of each answer."""
        return self.prompt + (1 if self.each is None else self.each) * self.answers


NOTHING = Size(0, 0, counts=False)


def takes_tokens(method: str, path: str) -> bool:
    """Whether such a request has a model read or write."""
    return method == "POST" and not path.endswith(_NO_TOKENS)


def size_of(path: str, body: bytes, context: int | None = None) -> Size:
    """`body` as it is sent to `path`; `context` is what one sequence of the model holds, where that is known."""
    if not body or path.endswith(_NO_TOKENS):
        return NOTHING
    try:
        data = json.loads(body)
    except (ValueError, RecursionError):
        data = None
    if not isinstance(data, dict):
        return Size(ATTACHMENT + TEMPLATE, ATTACHMENT)  # a form with a file, or what the engine will refuse
    skipped, attachments, prompts = _look(data)
    prompt = max(0, len(body) - skipped) + attachments * ATTACHMENT + TEMPLATE * prompts
    if context is not None:
        prompt = min(prompt, context * prompts)
    if path.endswith(_NO_ANSWER):
        return Size(prompt, 0)
    each = bound(data)
    if each is not None and context is not None:
        each = min(each, context)
    return Size(prompt, each, _choices(data) * prompts, most_each=context)


def bound(data: dict[str, Any]) -> int | None:
    """The bound that a request's body sets to the length of its answer."""
    places = [data, *(each for name in ("options", "generation_config") if isinstance(each := data.get(name), dict))]
    found = [place[name] for place in places for name in _BOUNDS if name in place]
    found = [each for each in found if isinstance(each, (int, float)) and not isinstance(each, bool) and each >= 0]
    return int(max(found)) if found else None  # which of two an engine obeys is its own affair


def limited(body: bytes, each: int) -> bytes:
    """`body` with a bound of `each` tokens to its answers, where it sets none. Other bytes stay, if that can be."""
    data = json.loads(body)
    if not isinstance(data, dict):
        return body
    if any(name in data for name in _BOUNDS):  # null or -1: without bound
        kept = {name: value for name, value in data.items() if name not in _BOUNDS}
        return json.dumps({**kept, "max_tokens": each}, ensure_ascii=False).encode("utf-8", "surrogatepass")
    at = body.index(b"{") + 1
    return b'%b"max_tokens": %d%b%b' % (body[:at], each, b", " if data else b"", body[at:])


def _choices(data: dict[str, Any]) -> int:
    found = [data.get(name) for name in ("n", "best_of", "n_cmpl")]
    return max([1, *(each for each in found if isinstance(each, int) and not isinstance(each, bool))])


def _look(data: dict[str, Any]) -> tuple[int, int, int]:
    """Bytes that are no text, attachments, and prompts."""
    skipped = attachments = 0
    for part in _parts(data):
        contents = [each for each in _strings(part) if _is_content(each)]
        skipped += sum(map(len, contents))
        attachments += 1
    prompt = data.get("prompt", data.get("input"))
    many = isinstance(prompt, list) and bool(prompt) and all(isinstance(each, (str, list)) for each in prompt)
    return skipped, attachments, len(prompt) if many and isinstance(prompt, list) else 1


def _parts(data: dict[str, Any]) -> Iterator[Any]:
    """What is no text among the parts of messages, in the places where engines look for it and nowhere else."""
    for name in ("images", "image_data"):
        if isinstance(found := data.get(name), list):
            yield from found
    for name in ("messages", "input"):
        messages = data.get(name)
        for message in messages if isinstance(messages, list) else ():
            if not isinstance(message, dict):
                continue
            if isinstance(found := message.get("images"), list):
                yield from found
            content = message.get("content")
            for part in content if isinstance(content, list) else ():
                if isinstance(part, dict) and part.get("type") in _MEDIA:
                    yield part


def _strings(part: Any) -> Iterator[str]:
    if isinstance(part, str):
        yield part
    elif isinstance(part, dict):
        for inner in part.values():
            yield from [inner] if isinstance(inner, str) else inner.values() if isinstance(inner, dict) else ()


def _is_content(text: object) -> bool:
    return isinstance(text, str) and (text.startswith("data:") or (len(text) > _LONG and " " not in text[:_LONG]))
