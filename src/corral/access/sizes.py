"""How many tokens a request may take at most, read from its body before any engine sees it. Pure.

A token stands for at least one byte of text, so a body's bytes bound its prompt; pictures and sounds are counted apart,
because their bytes say nothing. What a chat template adds is in `TEMPLATE`.

An answer is bounded by the field that its engine obeys, and by no other. Sources: llama.cpp's tools/server, build 11434
(`make_llama_cmpl_schema`: `n_predict`, else `max_completion_tokens`, else `max_tokens`, null counts as absent, -1 is no
bound, and a number is cut to 32 bits; 0 still makes one token; `tokenize_input_prompts`: a list without numbers is as
many prompts as it has elements), and vLLM 0.32's OpenAI protocol (`max_tokens`; chats `max_completion_tokens` too).
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any, Final

from corral.errors import CallerError, NotJson
from corral.lazy_dataclass import dataclass

TEMPLATE: Final = 256
"""Tokens that a model's chat template may add of itself, beyond what the JSON around each message is long."""
PAIR: Final = 128
"""The same of a reranker's, around a question and one document."""
ATTACHMENT: Final = 4096
"""Tokens of one picture, or one piece of sound or video, at most."""
_MOST: Final = 1 << 31  # no answer is longer, and no number of answers larger
_LONG: Final = 256  # base64 shorter than this is text

_BOUNDS: Final = (
    "n_predict", "max_completion_tokens", "max_tokens", "max_output_tokens", "num_predict", "max_tokens_to_sample",
    "max_new_tokens",
)  # fmt: skip
_MEDIA: Final = (
    "image_url", "input_image", "image", "image_embeds", "input_audio", "audio_url", "audio_embeds", "video_url",
    "input_video", "file", "input_file",
)  # fmt: skip
_NO_TOKENS: Final = ("/tokenize", "/detokenize", "/apply-template", "/count_tokens", "/input_tokens", "/detect")
_PAIRS: Final = ("/rerank", "/reranking", "/score")
_NO_ANSWER: Final = ("/embeddings", "/embedding", "/embed", "/pooling", "/classify", *_PAIRS)
_CHATS: Final = ("/chat/completions", "/messages", "/responses", "/chat")  # one conversation, whatever else is there
_FORMS: Final = ("/audio/transcriptions", "/audio/translations", "/images/edits")
_RESPONSES: Final = "/responses"


@dataclass(frozen=True, slots=True)
class Size:
    """A request's tokens at most. `each` is the bound that it sets to each of its `answers`; None when it sets none."""

    prompt: int
    each: int | None
    answers: int = 1
    counts: bool = True  # false for what takes no tokens of the model
    most_each: int | None = None  # what the model can give at all, where that is known
    told: bool = False  # the engine has to be told `each`: by the body as it came, it might do something else

    @property
    def least(self) -> int:
        """What has to be reserved: all of it, or with no bound set, one token of each answer."""
        return self.prompt + (1 if self.each is None else self.each) * self.answers


NOTHING = Size(0, 0, counts=False)


def takes_tokens(method: str, path: str) -> bool:
    """Whether such a request has a model read or write."""
    return method == "POST" and not path.endswith(_NO_TOKENS)


def size_of(path: str, body: bytes, context: int | None = None, engine: str | None = None) -> Size:
    """`body` as it is sent to `path` of an engine of this kind; `context` is what one sequence of the model holds. Both
    are None where they are not known.

    Raises NotJson for a body that cannot be read, and CallerError for a number of answers that is none: what they would
    take, nobody could say.
    """
    if not body or path.endswith(_NO_TOKENS):
        return NOTHING
    try:
        data = json.loads(body)
    except (ValueError, RecursionError):
        data = None
    if not isinstance(data, dict):
        if path.endswith(_FORMS):
            return Size(ATTACHMENT + TEMPLATE, ATTACHMENT)
        raise NotJson(
            "the body cannot be read as a JSON object, and this key's tokens are counted",
            hint="send one JSON object in UTF-8, not compressed and not nested hundreds of levels deep",
        )
    skipped, attachments = _look(data)
    prompts = _prompts(path, data)
    prompt = max(0, len(body) - skipped) + attachments * ATTACHMENT
    prompt += _again(data, prompts) if path.endswith(_PAIRS) else TEMPLATE * prompts
    if context is not None:
        prompt = min(prompt, context * prompts)
    if path.endswith(_NO_ANSWER):
        return Size(prompt, 0)
    each, told = bound(path, data, engine)
    if each is not None and context is not None and each > context:
        each, told = context, True  # one that moves its context on would write more
    return Size(prompt, each, _choices(data) * prompts, most_each=context, told=told)


def bound(path: str, data: dict[str, Any], engine: str | None = None) -> tuple[int | None, bool]:
    """The bound to the length of an answer which an engine finds in a request's body, None when it finds none; and
    whether it has to be told so, because another engine, or another build of it, might find something else."""
    if path.endswith(_RESPONSES):
        sure: tuple[str, ...] = ("max_output_tokens",)
        read = sure
    elif engine == "vllm":
        chat = path.endswith("/chat/completions")
        read = sure = ("max_completion_tokens", "max_tokens") if chat else ("max_tokens",)
    else:
        native = engine == "llama.cpp" and not path.endswith("/messages")
        read = _BOUNDS[:3]
        sure = ("n_predict", "max_tokens") if native else ("max_tokens",)
    said = [name for name in _BOUNDS if name in data]
    for name in read:
        if data.get(name) is not None:
            each = _whole(data[name])
            return each, each is None or len(said) > 1 or name not in sure
    return None, bool(said)


def limited(body: bytes, each: int, path: str = "") -> bytes:
    """`body` so that an engine makes `each` tokens of an answer at most. Other bytes stay, if that can be."""
    data = json.loads(body)
    if not isinstance(data, dict):
        return body
    own = "max_output_tokens" if path.endswith(_RESPONSES) else "max_tokens"
    if any(name in data for name in _BOUNDS):  # null, -1, or several
        kept = {name: value for name, value in data.items() if name not in _BOUNDS}
        return json.dumps({**kept, own: each}, ensure_ascii=False).encode("utf-8", "surrogatepass")
    at = body.index(b"{") + 1
    return b'%b"%b": %d%b%b' % (body[:at], own.encode(), each, b", " if data else b"", body[at:])


def _whole(value: object) -> int | None:
    """A bound; None for what is none, or no number. Engines make a token where 0 are asked for."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < math.inf:
        return None
    return min(max(1, math.ceil(value)), _MOST)


def _choices(data: dict[str, Any]) -> int:
    """How many answers are asked for. Engines read 2.9 as 2, "4" as 4 and -4294967294 as 2. Raises CallerError."""
    most = 1
    for name in ("n", "n_cmpl", "best_of"):
        value = data.get(name)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _MOST:
            raise CallerError(
                f"{name} must be a whole number, and this key's tokens are counted",
                hint="send such as 2, or leave it out for one answer",
                param=name,
            )
        most = max(most, value)
    return most


def _prompts(path: str, data: dict[str, Any]) -> int:
    """How many prompts an engine takes a body to be."""
    if path.endswith(_CHATS):
        return 1
    if path.endswith(_PAIRS):
        return max(1, len(_documents(data)[1]))
    return max(1, many(data.get("prompt")) + many(data.get("prompt_embeds")), *(many(data.get(x)) for x in _INPUTS))


_INPUTS: Final = ("input", "inputs", "content")


def many(prompt: object) -> int:
    """The elements of a list that are a prompt each. With a number in it, all of it is one prompt."""
    if not isinstance(prompt, list) or any(isinstance(x, (int, float)) and not isinstance(x, bool) for x in prompt):
        return 0
    return len(prompt)


def _documents(data: dict[str, Any]) -> tuple[str, list[Any]]:
    """The longest list of a request that sorts documents, and its name."""
    return max(((name, each) for name, each in data.items() if isinstance(each, list)), key=lambda x: len(x[1]),
               default=("", []))  # fmt: skip


def _again(data: dict[str, Any], pairs: int) -> int:
    """What an engine reads beyond the body, where it reads the question anew with each document."""
    name, _ = _documents(data)
    rest = json.dumps({key: value for key, value in data.items() if key != name}, ensure_ascii=False)
    return PAIR * pairs + len(rest.encode("utf-8", "surrogatepass")) * (pairs - 1)


def _look(data: dict[str, Any]) -> tuple[int, int]:
    """Bytes that are no text, and attachments."""
    skipped = attachments = 0
    for part in _parts(data):
        if isinstance(part, str) or part.get("type") in _PICTURES:
            skipped += sum(len(each) for each in _strings(part) if _is_content(each))
        attachments += 1
    return skipped, attachments


_PICTURES: Final = tuple(each for each in _MEDIA if "file" not in each)  # of which no byte is read as text


def _parts(data: dict[str, Any]) -> Iterator[Any]:
    """What is no text among the parts of messages, in the places where engines look for it and nowhere else."""
    for name in ("images", "image_data"):
        if isinstance(found := data.get(name), list):
            yield from (each for each in found if isinstance(each, (str, dict)))
    prompt = data.get("prompt")
    for each in prompt if isinstance(prompt, list) else (prompt,):
        if isinstance(each, dict) and isinstance(found := each.get("multimodal_data"), list):
            yield from (inner for inner in found if isinstance(inner, str))
    for name in ("messages", "input"):
        messages = data.get(name)
        for message in messages if isinstance(messages, list) else ():
            if not isinstance(message, dict):
                continue
            if isinstance(found := message.get("images"), list):
                yield from (each for each in found if isinstance(each, (str, dict)))
            content = message.get("content")
            for part in content if isinstance(content, list) else ():
                if isinstance(part, dict) and (part.get("type") in _MEDIA or not _UNTYPED.isdisjoint(part)):
                    yield part


_UNTYPED: Final = frozenset(_MEDIA)  # vLLM goes by the key where there is no type


def _strings(part: Any) -> Iterator[str]:
    if isinstance(part, str):
        yield part
    elif isinstance(part, dict):
        for inner in part.values():
            yield from [inner] if isinstance(inner, str) else inner.values() if isinstance(inner, dict) else ()


def _is_content(text: object) -> bool:
    return isinstance(text, str) and (text.startswith("data:") or (len(text) > _LONG and " " not in text[:_LONG]))
