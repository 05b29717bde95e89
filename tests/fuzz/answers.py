"""Targets: engines' answers on their way into each dialect, and thoughts told from what is said."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any

from corral.errors import CorralError
from corral.gateway.dialects import chat
from corral.gateway.dialects.anthropic.answer import Message
from corral.gateway.dialects.chain import Chain
from corral.gateway.dialects.dialect import Translation
from corral.gateway.dialects.ollama import embed
from corral.gateway.dialects.ollama.answer import Answer, Loaded, chat_piece, plain_piece
from corral.gateway.dialects.ollama.times import Times
from corral.gateway.dialects.reasoning.clean import Cleaned
from corral.gateway.dialects.reasoning.harmony import Harmony
from corral.gateway.dialects.reasoning.tags import Cleaner, Piece, joined
from corral.gateway.dialects.reasoning.think import Think
from corral.gateway.dialects.responses.answer import Answering
from corral.gateway.dialects.tool_choice import Called
from corral.gateway.http.sse import Splitter
from fuzz.material import ODD, Reader, body, is_json, pieces

_SAID = (
    "choices", "delta", "message", "content", "reasoning_content", "reasoning", "tool_calls", "function", "name",
    "arguments", "index", "id", "finish_reason", "stop", "length", "usage", "timings", "error", "code",
    "prompt_tokens", "completion_tokens", "prompt_n", "cache_n", "predicted_n", "prompt_ms", "predicted_ms", "logprobs",
    "top_logprobs", "token", "logprob", "bytes", "__verbose", "stopping_word", "prompt_progress", "total", "cache",
    "stop_type", "limit", "completion_probabilities", "embedding", "embeddings", "data",
    "<think>hm</think>so", "<|channel|>final<|message|>", '{"name": "f", "arguments": {}}', "image not supported",
    "does not match the expected", *ODD,
)  # fmt: skip
_TIMES = Times(lambda: 1_700_000_000.25, lambda: 1.5)


# Streams.


def _ids() -> Callable[[str], str]:
    count = iter(range(10**9))
    return lambda kind: f"{kind}_{next(count)}"


_MAKERS: tuple[tuple[str, Callable[[], Translation]], ...] = (
    ("ollama chat", lambda: Answer("m", _TIMES, 1.5, chat_piece, chat=True, tops=2)),
    ("ollama generate", lambda: Answer("m", _TIMES, 1.5, chat_piece, chat=False, remember=[])),
    ("ollama plain", lambda: Answer("m", _TIMES, 1.5, plain_piece, chat=False)),
    ("ollama loaded", lambda: Loaded("m", _TIMES, 1.5, chat=True, reason="load")),
    ("anthropic", lambda: Message("m", "1", thinks=True, prefill="so")),
    ("anthropic, one call", lambda: Message("m", "1", single=True)),
    ("responses", lambda: Answering({"id": "r"}, _ids())),
    ("openai, harmony", lambda: Cleaned(Harmony)),
    ("openai, think", lambda: Cleaned(lambda: Think(opened=True), "so")),
    ("openai, called", lambda: Called("1")),
    ("anthropic, harmony", lambda: Chain(Cleaned(Harmony), Message("m", "1", thinks=True))),
    ("responses, think", lambda: Chain(Cleaned(Think), Answering({"id": "r"}, _ids()))),
    ("ollama, called", lambda: Chain(Called("1"), Answer("m", _TIMES, 1.5, chat_piece, chat=True))),
)


def translations(data: bytes) -> None:
    """A stream of an engine in each dialect: only our errors; the same however it comes; and it has an end."""
    which = data[0] % len(_MAKERS) if data else 0
    name, make = _MAKERS[which]
    stream = _stream(data[1:])
    whole, in_pieces = _translated(make(), [stream]), _translated(make(), list(pieces(stream)))
    assert (whole[1] is None) == (in_pieces[1] is None), (whole, in_pieces)
    if whole[1] is not None:
        return
    if name.startswith("openai"):  # what engines send beside events' data may go through, or not
        assert chat.datas(whole[0] + b"\n\n") == chat.datas(in_pieces[0] + b"\n\n"), (whole, in_pieces)
    else:
        assert whole[0] == in_pieces[0], (whole, in_pieces)
    _is_ended(name, whole[0])


def _stream(data: bytes) -> bytes:
    """Events of an engine: as they are given, or spelled by `data`, a bad one among them at times."""
    if data[:1] >= b"\t":
        return data
    reader, made = Reader(data), b""
    while reader.more:
        kind = reader.byte() % 12
        if kind < 7:
            made += _event(_chunk(reader))
        elif kind < 9:
            made += _event(reader.value(_SAID))
        elif kind == 9:
            made += b": a comment\n\n"
        elif kind == 10:
            made += b"data: [DONE]\n\n"
        else:
            made += reader.bytes()
    return made


def _event(value: Any) -> bytes:
    return b"data: %b\n\n" % json.dumps(value).encode()


_TEXTS = ("a", " ", "\n", "<think>", "</think>", "<|channel|>", "analysis", "final", "<|message|>", "<|end|>",
          "<|start|>", "assistant", " to=functions.f", "<|call|>", "```", "<", '{"name": "f", ', '"arguments": {}}',
          "<channel|>", "\ud800", "")  # fmt: skip


def _chunk(reader: Reader) -> dict[str, Any]:
    """A chunk as an engine sends it, nearly."""
    delta: dict[str, Any] = {}
    kind = reader.byte() % 8
    if kind < 4:
        delta["content" if kind < 3 else "reasoning_content"] = "".join(
            reader.one_of(_TEXTS) for _ in range(1 + reader.byte() % 3)
        )
    elif kind < 6:
        function = {"name": reader.one_of(("f", "g", None, "")), "arguments": reader.one_of(("", "{", "}", '{"a": 1}'))}
        delta["tool_calls"] = [{"index": reader.byte() % 3, "id": reader.one_of(("c", None)), "function": function}]
    elif kind == 6:
        delta = {"role": "assistant", "content": None}
    choice = {"index": reader.one_of((0, 0, 0, 1)), "delta": delta}
    choice["finish_reason"] = reader.one_of((None, None, None, "stop", "length", "tool_calls"))
    chunk: dict[str, Any] = {"id": "chatcmpl-1", "choices": [choice]}
    if reader.byte() % 4 == 3:
        chunk[reader.one_of(("usage", "timings", "__verbose", "error"))] = reader.value(_SAID)
    return chunk


def _translated(made: Translation, parts: Iterable[bytes]) -> tuple[bytes, CorralError | None]:
    """All that goes out, and the error that ends it, which the gateway makes the stream's last event of."""
    splitter, out = Splitter(), b""
    try:
        for part in parts:
            if whole := splitter.feed(part):
                out += made.events(whole)
        return out + made.end(splitter.rest()), None
    except CorralError as exc:
        assert exc.hint
        return out, exc


def _is_ended(name: str, out: bytes) -> None:
    if name.startswith("ollama"):
        assert out.endswith(b"\n")
        lines = [is_json(line) for line in out.splitlines()]
        last = lines[-1]
        assert last.get("done") is True or "error" in last, last
        assert sum(1 for line in lines if line.get("done")) <= 1
    elif name.startswith(("anthropic", "responses")):
        assert out.endswith(b"\n\n")
        events = [event.split(b"\ndata: ", 1) for event in out[:-2].split(b"\n\n")]
        said = [is_json(event[1]) for event in events]
        kinds = [each["type"] for each in said]
        assert [event[0] for event in events] == [b"event: " + kind.encode() for kind in kinds]
        if name.startswith("anthropic"):
            _is_message(said, kinds)
        else:
            assert kinds[0] == "response.created" and kinds[-1] in ("response.completed", "response.incomplete")
            assert [each["sequence_number"] for each in said] == list(range(len(said)))
            added, done = (sum(kind == f"response.output_item.{what}" for kind in kinds) for what in ("added", "done"))
            assert added == done == len(said[-1]["response"]["output"])


def _is_message(said: list[dict[str, Any]], kinds: list[str]) -> None:
    assert kinds[0] == "message_start" and kinds[-2:] == ["message_delta", "message_stop"]
    assert kinds.count("message_stop") == 1
    open_at, blocks = -1, 0
    for each in said:
        kind = each["type"]
        if kind == "content_block_start":
            assert open_at < 0 and each["index"] == blocks
            open_at = blocks
        elif kind == "content_block_delta":
            assert each["index"] == open_at
        elif kind == "content_block_stop":
            assert each["index"] == open_at
            open_at, blocks = -1, blocks + 1
    assert open_at < 0


# Plain answers.


def plain(data: bytes) -> None:
    """A plain answer in each dialect: JSON, or one of our errors."""
    which = data[0] % len(_MAKERS) if data else 0
    status = (200, 200, 200, 400, 500, 503)[data[1] % 6] if len(data) > 1 else 200
    name, make = _MAKERS[which]
    given = body(data[2:], _SAID)
    if data[2:3] < b"\t" and len(data) > 4 and data[3] % 2:
        given = json.dumps(_answer(Reader(data[4:]))).encode()
    try:
        status, out = make().body(status, given)
    except CorralError as exc:
        assert exc.hint
    else:
        assert out == given or status >= 400 or isinstance(is_json(out), dict), name
        if out != given:
            is_json(out)
    try:
        status, said = embed.answered(embed.read_embed({"model": "m", "input": "a"}), status, given, _TIMES, 1.5)
    except CorralError as exc:
        assert exc.hint
    else:
        is_json(json.dumps(said).encode())


def _answer(reader: Reader) -> dict[str, Any]:
    chunk = _chunk(reader)
    choice = chunk["choices"][0]
    choice["message"] = {**choice.pop("delta"), "role": "assistant", reader.one_of(_SAID[:12]): reader.value(_SAID)}
    return chunk


# Thoughts.


def thoughts(data: bytes) -> None:
    """What is said, thought and called is the same however a text comes; a cleaner that is plain changes nothing."""
    makers: tuple[Callable[[], Cleaner], ...] = (Harmony, Think, lambda: Think(opened=True))
    make = makers[data[0] % 3] if data else Harmony
    text = data[1:].decode("utf-8", "replace")
    if data[1:2] < b"\t":
        reader = Reader(data[2:])
        text = ""
        while reader.more:
            text += reader.one_of(_TEXTS)
    whole = _cleaned(make(), [text])
    chance = [len(part) for part in pieces(text.encode(errors="replace"))]
    parts, at = [], 0
    for size in chance:
        parts.append(text[at : at + size])
        at += size
    in_pieces = _cleaned(make(), [*parts, text[at:]])
    assert whole == in_pieces, (whole, in_pieces)
    made, wire = Cleaned(make), b""
    for part in parts:
        wire += made.events(_event({"choices": [{"index": 0, "delta": {"content": part}, "finish_reason": None}]}))
    wire += made.events(_event({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})) + made.end(b"")
    said, thought, names = "", "", []
    for event in wire.split(b"\n\n")[:-1]:
        delta = json.loads(event.removeprefix(b"data: "))["choices"][0]["delta"]
        said += delta.get("content") or ""
        thought += delta.get("reasoning_content") or ""
        names += [call["function"]["name"] for call in delta.get("tool_calls", ()) if "id" in call]
    texts = {kind: "".join(piece.text for piece in whole if piece.kind == kind) for kind in ("text", "think")}
    assert (said, thought) == (texts["text"], texts["think"]), ((said, thought), texts)
    assert names == [piece.text for piece in whole if piece.kind == "call"]


def _cleaned(cleaner: Cleaner, parts: list[str]) -> list[Piece]:
    """As `Cleaned` does it: what comes while the cleaner is plain, and has none of its signs, is not given to it."""
    made: list[Piece] = []
    for part in parts:
        if cleaner.plain and not any(sign.decode() in part for sign in cleaner.signs):
            made.append(Piece("text", part))
        else:
            made += cleaner.feed(part)
    return joined([*made, *cleaner.end()])
