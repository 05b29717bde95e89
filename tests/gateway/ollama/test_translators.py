"""Ollama's pure translators: any cut of a stream, any order of deltas, anything at all from clients and engines."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral.api_store import BlobInfo, DownloadInfo, Progress
from corral.errors import CallerError, CorralError
from corral.gateway.dialects.ollama import asked, embed, facts, names, pulls
from corral.gateway.dialects.ollama.answer import Answer, Loaded, chat_piece, plain_piece
from corral.gateway.dialects.ollama.chat import Wanted, read_chat
from corral.gateway.dialects.ollama.errors import OLLAMA, engine_error
from corral.gateway.dialects.ollama.facts import Facts, Running
from corral.gateway.dialects.ollama.generate import INFILL, RAW, read_generate
from corral.gateway.dialects.ollama.go_template import render
from corral.gateway.dialects.ollama.memory import recall, remembered
from corral.gateway.dialects.ollama.modelfile import read_create
from corral.gateway.dialects.ollama.options import read_options
from corral.gateway.dialects.ollama.times import Times, keep_alive_s, moment, nanoseconds, until
from corral.gateway.http import sse

TIMES = Times(lambda: 1_700_000_000.25, lambda: 1.5)
FOREVER = float("inf")

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


def answer(*, chat: bool = True, read: Any = chat_piece, **more: Any) -> Answer:
    return Answer("m", TIMES, 12.5, read, chat=chat, **more)


def delta(finish: str | None = None, **said: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": said, "finish_reason": finish}]}


def streamed(events: list[Any]) -> bytes:
    return b"".join(sse.event(json.dumps(each)) for each in events) + sse.event("[DONE]")


def lines(data: bytes) -> list[dict[str, Any]]:
    return [json.loads(each) for each in data.splitlines()]


def fed(made: Answer, stream: bytes, cuts: list[int]) -> bytes:
    """What comes out when the stream comes in pieces."""
    splitter, out, at = sse.Splitter(), b"", 0
    for cut in [*sorted(cuts), len(stream)]:
        if whole := splitter.feed(stream[at : max(at, cut)]):
            out += made.events(whole)
        at = max(at, cut)
    return out + made.end(splitter.rest())


TIMINGS = {"prompt_n": 3, "cache_n": 4, "prompt_ms": 2.5, "predicted_n": 2, "predicted_ms": 8.25}
PLAIN = [
    delta(role="assistant", content=None), delta(reasoning_content="hm "), delta(reasoning_content="so"),
    delta(content="Grüß"), delta(content=" dich 🐎"), delta("stop"), {"choices": [], "timings": TIMINGS},
]  # fmt: skip
METRICS = {
    "total_duration": 1_500_000_000, "load_duration": 12_500_000, "prompt_eval_count": 7,
    "prompt_eval_duration": 2_500_000, "eval_count": 2, "eval_duration": 8_250_000,
}  # fmt: skip
AT = {"model": "m", "created_at": "2023-11-14T22:13:20.250000+00:00"}


@given(st.lists(st.integers(0, 900), max_size=6))
def test_a_stream_cut_anywhere_is_the_same_stream(cuts: list[int]) -> None:
    """Lines in the recorded shape, the last with every count and duration."""
    out = lines(fed(answer(), streamed(PLAIN), cuts))
    assert out == [
        {**AT, "message": {"role": "assistant", "content": "", "thinking": "hm "}, "done": False},
        {**AT, "message": {"role": "assistant", "content": "", "thinking": "so"}, "done": False},
        {**AT, "message": {"role": "assistant", "content": "Grüß"}, "done": False},
        {**AT, "message": {"role": "assistant", "content": " dich 🐎"}, "done": False},
        {**AT, "message": {"role": "assistant", "content": ""}, "done": True, "done_reason": "stop", **METRICS},
    ]


def test_generate_has_its_own_shape() -> None:
    """`response` and `thinking` at the top, and a context that holds the whole turn."""
    out = lines(fed(answer(chat=False, remember=[{"role": "user", "content": "?"}]), streamed(PLAIN), []))
    context = out[-1].pop("context")
    assert out[0] == {**AT, "response": "", "thinking": "hm ", "done": False}
    assert out[-1] == {**AT, "response": "", "done": True, "done_reason": "stop", **METRICS}
    assert recall(context) == [
        {"role": "user", "content": "?"}, {"role": "assistant", "content": "Grüß dich 🐎"},
    ]  # fmt: skip


@given(st.permutations(range(6)), st.lists(st.integers(0, 1500), max_size=4))
def test_tool_calls_come_whole_whatever_the_order(order: list[int], cuts: list[int]) -> None:
    """Deltas of two calls, mixed in any order that keeps each one's own: two calls with objects."""

    def call(index: int, arguments: str, **first: Any) -> dict[str, Any]:
        named = {"name": first.pop("name")} if "name" in first else {}
        return delta(tool_calls=[{"index": index, **first, "function": {**named, "arguments": arguments}}])

    own = [
        [call(0, "", id="a", name="f"), call(0, '{"x":'), call(0, "1}")],
        [call(1, "", id="b", name="g"), call(1, '{"y": '), call(1, '"z"}')],
    ]
    mixed = [own[place % 2].pop(0) for place in order if own[place % 2]]
    events = [*mixed, *own[0], *own[1], delta("tool_calls"), {"choices": [], "timings": TIMINGS}]
    *_, called, last = lines(fed(answer(), streamed(events), cuts))
    assert called["message"]["tool_calls"] == [
        {"id": "a", "function": {"index": 0, "name": "f", "arguments": {"x": 1}}},
        {"id": "b", "function": {"index": 1, "name": "g", "arguments": {"y": "z"}}},
    ]
    assert (last["done"], last["done_reason"]) == (True, "stop")


def test_a_call_that_the_limit_cut_is_left_out_and_one_that_is_no_json_is_an_error() -> None:
    """`done_reason` is "length" for the first; the second is the model's fault and is said."""
    begun = delta(tool_calls=[{"index": 0, "id": "a", "function": {"name": "f", "arguments": '{"x'}}])
    (last,) = lines(fed(answer(), streamed([begun, delta("length")]), []))
    assert (last["done_reason"], "tool_calls" in last["message"]) == ("length", False)
    with pytest.raises(CorralError, match="no JSON object"):
        fed(answer(), streamed([begun, delta("tool_calls")]), [])


def test_a_stream_that_ends_early_or_in_an_error_ends_in_an_error_line() -> None:
    """Nobody takes half an answer for a whole one."""
    assert lines(fed(answer(), streamed([delta(content="a")]), []))[-1] == {
        "error": "the engine ended its answer before it was whole"
    }
    broken = streamed([delta(content="a"), {"error": {"message": "out of luck", "code": 500}}, delta(content="b")])
    assert [each.get("error") for each in lines(fed(answer(), broken, []))] == [None, "out of luck"]


def test_plain_answers() -> None:
    """Chat completions, llama.cpp's own completions, and refusals."""
    whole = {
        "choices": [{"message": {"content": "hi", "reasoning_content": "hm"}, "finish_reason": "length"}],
        "timings": TIMINGS,
    }
    status, body = answer().body(200, json.dumps(whole).encode())
    assert (status, json.loads(body)) == (200, {
        **AT, "message": {"role": "assistant", "content": "hi", "thinking": "hm"},
        "done": True, "done_reason": "length", **METRICS,
    })  # fmt: skip
    native = {"content": "hi", "stop": True, "stop_type": "limit", "timings": TIMINGS}
    _, body = answer(chat=False, read=plain_piece).body(200, json.dumps(native).encode())
    assert json.loads(body)["done_reason"] == "length"
    assert json.loads(body)["response"] == "hi"
    assert answer().body(503, b'{"error": {"message": "Loading model"}}') == (503, b'{"error":"Loading model"}')
    assert engine_error(501, b"nothing") == (400, b'{"error":"the engine answered 501"}')
    counted = {**whole, "timings": None, "usage": {"prompt_tokens": 5, "completion_tokens": 6}}
    _, body = answer().body(200, json.dumps(counted).encode())
    assert (json.loads(body)["prompt_eval_count"], json.loads(body)["eval_count"]) == (5, 6)
    _, body = Loaded("m", TIMES, 3, chat=False, reason="load").body(200, b"{}")
    assert json.loads(body) == {
        **AT, "response": "", "done": True, "done_reason": "load",
        "total_duration": 1_500_000_000, "load_duration": 3_000_000,
    }  # fmt: skip


@given(st.lists(JSON | st.binary(max_size=20), max_size=6), st.booleans(), st.booleans())
def test_no_engine_brings_a_translation_down(events: list[Any], chat: bool, native: bool) -> None:
    """Whatever an engine sends, nothing but a CorralError comes of it, and a stream ends in a last line."""
    data = b"".join(
        b"data: " + each + b"\n\n" if isinstance(each, bytes) else sse.event(json.dumps(each)) for each in events
    )
    read = plain_piece if native else chat_piece
    with suppress(CorralError):
        last = lines(fed(answer(chat=chat, read=read, remember=[]), data, []))[-1]
        assert last.get("done") is True or "error" in last
    for each in events:
        with suppress(CorralError):
            body = each if isinstance(each, bytes) else json.dumps(each).encode()
            answer(chat=chat, read=read).body(200, body)
            answer(chat=chat, read=read).body(500, body)
            embed.answered(embed.Wanted("m", ["x"], None), 200, body, TIMES, 0)
            embed.cut(200, body, 4)


FIELDS = st.sampled_from(
    ["model", "messages", "prompt", "suffix", "system", "template", "context", "stream", "raw", "format", "keep_alive",
     "images", "options", "think", "logprobs", "top_logprobs", "tools", "input", "dimensions", "truncate", "from",
     "files", "adapters", "license", "parameters", "modelfile", "name"]
)  # fmt: skip


@given(st.dictionaries(FIELDS, JSON, max_size=6))
def test_no_client_brings_a_reader_down(body: dict[str, Any]) -> None:
    """Whatever a client sends, it is read or refused as its own mistake; what is read can be sent on."""
    for read in (read_chat, read_generate, embed.read_embed, embed.read_embeddings, read_create):
        with suppress(CorralError):
            made = read(body)
            if isinstance(made, Wanted):
                json.dumps(made.body)


def test_a_chat_becomes_an_openai_chat() -> None:
    """Messages, images, calls, tools, options, format and think."""
    wanted = read_chat(
        {
            "model": "m",
            "messages": [
                {"role": "System", "content": "s"},
                {"role": "user", "content": "u", "images": ["iVBORw0KGgo="]},
                {"role": "assistant", "content": "", "thinking": "t", "tool_calls": [
                    {"function": {"name": "f", "arguments": {"a": 1}}}]},
                {"role": "tool", "content": "r", "tool_name": "f"},
            ],
            "tools": [{"type": "function"}],
            "options": {"temperature": 0.5, "num_predict": 7, "num_ctx": 4096, "num_gpu": 1, "stop": "x", "seed": -1,
                        "odd": 1},
            "format": {"type": "object"},
            "think": "max",
            "keep_alive": "1h30m",
            "logprobs": True,
        }
    )  # fmt: skip
    assert wanted.body == {
        "messages": [
            {"role": "system", "content": "s"},
            {"role": "user", "content": [
                {"type": "text", "text": "u"},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}]},
            {"role": "assistant", "content": "", "reasoning_content": "t", "tool_calls": [
                {"id": "call_0", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}]},
            {"role": "tool", "content": "r", "name": "f"},
        ],
        "tools": [{"type": "function"}],
        "temperature": 0.5, "max_tokens": 7, "stop": ["x"],
        "reasoning_effort": "max",
        "logprobs": True, "top_logprobs": 1,
        "response_format": {"type": "json_schema", "json_schema": {"name": "answer", "schema": {"type": "object"}}},
        "stream": True, "stream_options": {"include_usage": True},
    }  # fmt: skip
    assert (wanted.options.num_ctx, wanted.options.ignored, wanted.keep_alive_s) == (4096, ("num_gpu", "odd"), 5400)
    assert wanted.needs == ("completion", "tools", "vision", "thinking")


def test_a_generation_takes_the_route_that_fits() -> None:
    """A turn of a chat, a raw prompt, a gap, or nothing but a load."""
    assert read_generate({"model": "m"}).body is None
    turn = read_generate({"model": "m", "prompt": "p", "system": "s", "stream": False})
    assert turn.body == {
        "messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "p"}], "stream": False,
    }  # fmt: skip
    raw = read_generate({"model": "m", "prompt": "p", "raw": True, "format": "json", "options": {"num_predict": 3}})
    assert (raw.path, raw.body) == (
        RAW, {"prompt": "p", "n_predict": 3, "json_schema": {"type": "object"}, "stream": True},
    )  # fmt: skip
    gap = read_generate({"model": "m", "prompt": "a", "suffix": "b", "stream": False})
    assert (gap.path, gap.body) == (INFILL, {"input_prefix": "a", "input_suffix": "b", "prompt": "", "stream": False})
    assert gap.needs == ("completion", "insert")
    wrong: dict[str, Any]
    for wrong in (
        {"raw": True, "system": "s"}, {"raw": True, "context": [1]}, {"raw": True, "images": ["iVBORw0KGgo="]},
        {"raw": True, "think": True}, {"suffix": "x", "raw": True}, {"format": "yaml"}, {"think": "much"},
        {"top_logprobs": 21}, {"stream": 1}, {"images": ["&"]}, {"options": []},
    ):  # fmt: skip
        with pytest.raises(CallerError):
            read_generate({"model": "m", "prompt": "p", **wrong})


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None), ("", None), (0, 0), ("0", 0), (300, 300), ("5m", 300), ("1h30m5.5s", 5405.5), ("500ms", 0.5),
        (-1, FOREVER), ("-1s", FOREVER), ("-1", FOREVER), (1.5, 1.5), ("10", 10),
    ],
)  # fmt: skip
def test_keep_alive_is_gos_duration_or_seconds(value: Any, seconds: float | None) -> None:
    """Negative is for ever."""
    assert keep_alive_s(value) == seconds


@pytest.mark.parametrize("value", ["soon", True, [], "5 m", "1d", {}, "nan"])
def test_keep_alive_that_is_none(value: Any) -> None:
    """It is refused, and the answer shows how to write one."""
    with pytest.raises(CallerError, match="no duration"):
        keep_alive_s(value)


def test_moments() -> None:
    """RFC 3339 with six digits; never is a century away; nanoseconds are whole."""
    assert moment(0) == "1970-01-01T00:00:00.000000+00:00"
    assert until(0, 60) == "1970-01-01T00:01:00.000000+00:00"
    assert until(0, None) == until(0, FOREVER) > "2069"
    assert [nanoseconds(each) for each in (1.5, 0, -1, None, True, "x", 1e300)] == [1_500_000, 0, 0, 0, 0, 0, 0]


def test_options_of_the_wrong_kind_are_refused_and_unknown_ones_named() -> None:
    """In Ollama's words."""
    read = read_options({"top_k": 5.0, "seed": 3, "num_predict": -2, "num_ctx": 0, "stop": None, "mirostat": 1, "x": 1})
    assert (read.fields, read.num_ctx, read.ignored) == ({"top_k": 5, "seed": 3, "mirostat": 1}, None, ("x",))
    for name, value, kind in (("top_k", 1.5, "integer"), ("top_p", "1", "float32"), ("stop", 3, "array")):
        with pytest.raises(CallerError, match=f'option "{name}" must be of type {kind}'):
            read_options({name: value})


MESSAGES = st.lists(st.fixed_dictionaries({"role": st.text(max_size=9), "content": st.text(max_size=40)}), max_size=5)


@given(MESSAGES)
def test_a_context_gives_back_what_was_put_into_it(messages: list[dict[str, str]]) -> None:
    """As numbers that fit 32 bits."""
    numbers = remembered(messages)
    assert all(0 <= each < 1 << 24 for each in numbers)
    assert recall(json.loads(json.dumps(numbers))) == messages


@given(MESSAGES, st.integers(0, 200), st.integers(-5, 1 << 25))
def test_a_context_that_was_changed_is_refused_or_the_same(messages: list[Any], at: int, number: int) -> None:
    """Never another conversation, never anything but a CallerError."""
    numbers = remembered(messages)
    numbers[at % len(numbers)] = number
    with suppress(CallerError):
        assert recall(numbers) == messages


@given(JSON)
def test_what_is_no_context_is_refused(value: Any) -> None:
    """Tokens of another server, texts, anything."""
    with suppress(CallerError):
        assert recall(value) == []


def test_templates() -> None:
    """Values, conditions with else, trimming, comments; up to where the response begins."""
    values = {"Prompt": "p", "System": ""}
    assert render("a {{- if .System }}S{{ else }} N {{- end -}}  {{ .Prompt }}|{{ .Response }}after", values) == "a Np|"
    assert render("{{/* note */}}{{ if .Prompt }}{{ if .System }}x{{ end }}y{{ end }}", values) == "y"
    for wrong in ("{{ .Other }}", "{{ range .Messages }}{{ end }}", "{{ if .Prompt }}", "{{ end }}", "{{ else }}",
                  "{{ if eq .Prompt 1 }}{{ end }}"):  # fmt: skip
        with pytest.raises(CallerError):
            render(wrong, values)


@given(st.text(alphabet="{}. -ifendlsPromt\n/*", max_size=60))
def test_no_template_brings_the_reader_down(template: str) -> None:
    """It is rendered, or refused."""
    with suppress(CallerError):
        render(template, {"Prompt": "p"})


@pytest.mark.parametrize(
    ("name", "reference", "shown"),
    [
        ("llama3.2", "ollama://llama3.2", "llama3.2:latest"),
        ("me/x:v1", "ollama://me/x:v1", "me/x:v1"),
        ("hf.co/org/Repo:Q4_K_M", "hf.co/org/Repo:Q4_K_M", "hf.co/org/Repo:Q4_K_M"),
        ("localhost:5000/x", "localhost:5000/x", "localhost:5000/x:latest"),
        ("registry.ollama.ai/library/llama3.2:1b", "registry.ollama.ai/library/llama3.2:1b", "llama3.2:1b"),
        ("docker.io/ai/smollm2:latest", "docker.io/ai/smollm2:latest", "docker.io/ai/smollm2:latest"),
    ],
)
def test_names(name: str, reference: str, shown: str) -> None:
    """What to fetch, and how it is shown; what is shown names the same model again."""
    assert (names.reference(name), names.shown(name)) == (reference, shown)
    again = set(names.candidates(shown))
    assert again & {name, names.full(name) if not names.has_host(name) else name}


def test_a_modelfile() -> None:
    """Every verb, texts of several lines, comments, parameters of each kind."""
    source = """# a comment
FROM llama3.2
PARAMETER temperature 0.5
parameter stop "<|a|>"
PARAMETER stop b
PARAMETER num_ctx 4096
TEMPLATE \"\"\"{% for m in messages %}
{{ m }}{% endfor %}\"\"\"
SYSTEM You are "Mario".
MESSAGE user "\"\"\"hi
there\"\"\"
LICENSE MIT
REQUIRES 0.14.0
"""
    recipe = read_create({"model": "mine", "modelfile": source.replace('user "', "user ")})
    assert (recipe.model, recipe.base, recipe.system) == ("mine", "llama3.2", 'You are "Mario".')
    assert recipe.template == "{% for m in messages %}\n{{ m }}{% endfor %}"
    assert recipe.params == {"temperature": 0.5, "stop": ["<|a|>", "b"], "num_ctx": 4096}
    assert recipe.messages == [{"role": "user", "content": "hi\nthere"}]
    assert recipe.licenses == ["MIT"]
    digest = "sha256:" + "a" * 64
    blob = read_create({"name": "mine", "modelfile": f"FROM @{digest}\nADAPTER {digest.replace(':', '-')}"})
    assert (list(blob.files.values()), list(blob.adapters.values())) == ([digest], [digest])
    both = read_create({"model": "m", "from": "b", "parameters": {"stop": "x", "top_k": 3}, "system": ""})
    assert (both.base, both.params, both.system) == ("b", {"stop": ["x"], "top_k": 3}, "")


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"model": "m"}, 'neither "from" nor "files"'),
        ({"from": "x"}, "model is required"),
        ({"model": "m", "modelfile": "FROM x\nPARAMETER top_k many"}, "line 2: PARAMETER top_k cannot be 'many'"),
        ({"model": "m", "modelfile": "FROM ./x.gguf"}, "does not open for its clients"),
        ({"model": "m", "modelfile": "FROM x\nSING la"}, "unknown command 'SING'"),
        ({"model": "m", "modelfile": 'FROM x\nSYSTEM """never'}, "has no end"),
        ({"model": "m", "from": "x", "quantize": "q4_0"}, "quantize is not offered"),
        ({"model": "m", "from": "x", "parameters": {"colour": 1}}, "unknown parameter"),
        ({"model": "m", "files": {"a.gguf": "md5:1"}}, "invalid digest"),
    ],
)
def test_what_cannot_be_created_is_explained(body: dict[str, Any], words: str) -> None:
    """With the line, where it is a Modelfile's."""
    with pytest.raises(CorralError, match=words):
        read_create(body)


def test_a_download_in_lines() -> None:
    """Each step once, a line for each blob that has come further."""
    digest = "sha256:" + "ab" * 32
    told = pulls.PullLines()

    def now(state: str, done: int) -> DownloadInfo:
        blobs = [BlobInfo(digest, "m.gguf", 10, done, None), BlobInfo(None, "t", None, 0, None)]
        return DownloadInfo("i", "r", "n", state, blobs, 10, done, None, None, None, [], 0.0, None, None)

    short = {"status": "pulling abababababab", "digest": digest, "total": 10}
    assert told.more(now("running", 0)) == [{"status": "pulling manifest"}, short]
    assert told.more(now("running", 0)) == []
    assert told.more(now("running", 4)) == [{**short, "completed": 4}]
    assert told.more(now("done", 10)) == [
        {**short, "completed": 10}, {"status": "verifying sha256 digest"}, {"status": "writing manifest"},
    ]  # fmt: skip
    assert pulls.push_line(Progress("x", 3, 9), digest) == {
        "status": "pushing abababababab", "digest": digest, "total": 9, "completed": 3,
    }  # fmt: skip


def test_lists_and_cards() -> None:
    """In the recorded shapes of tags, ps and show."""
    known = Facts(
        "c" * 64, 2019393189, 1746405464.5, family="llama", parameters=3212749888, quantization="Q4_K_M",
        context_length=131072, embedding_length=3072, capabilities=("completion", "tools", "rerank"), template="{{t}}",
        system="Be nice.", license="MIT", params={"stop": ["<|x|>"], "temperature": 0.5},
        metadata={"general.architecture": "llama", "long": (1,) * 9, "short": (1, 2)},
        tensors=(("a.weight", "F16", (2, 3)),),
    )  # fmt: skip
    details = {
        "parent_model": "", "format": "gguf", "family": "llama", "families": ["llama"], "parameter_size": "3.2B",
        "quantization_level": "Q4_K_M", "context_length": 131072, "embedding_length": 3072,
    }  # fmt: skip
    assert facts.tags([("llama3.2", known)]) == {"models": [{
        "name": "llama3.2:latest", "model": "llama3.2:latest", "modified_at": "2025-05-05T00:37:44.500000+00:00",
        "size": 2019393189, "digest": "c" * 64, "details": details, "capabilities": ["completion", "tools"],
    }]}  # fmt: skip
    ran = [Running("b", None, 5, 0, 2048, 60.0), Running("a", known, 9, 4, 4096, None)]
    first, second = facts.running(ran, 0.0)["models"]
    assert (first["name"], first["size"], first["size_vram"], first["context_length"]) == ("a:latest", 9, 4, 4096)
    assert (second["name"], second["expires_at"]) == ("b:latest", "1970-01-01T00:01:00.000000+00:00")
    card = facts.card("llama3.2", known, verbose=False)
    assert card["model_info"] == {
        "general.architecture": "llama", "long": [], "short": [1, 2], "general.parameter_count": 3212749888,
        "llama.context_length": 131072,
    }  # fmt: skip
    assert card["parameters"].splitlines() == [
        'stop                           "<|x|>"', "temperature                    0.5",
    ]  # fmt: skip
    assert "tensors" not in card
    made = read_create({"model": "m", "modelfile": card["modelfile"]})
    assert (made.base, made.params, made.system, made.template, made.licenses) == (
        "llama3.2:latest", {"stop": ["<|x|>"], "temperature": 0.5}, "Be nice.", "{{t}}", ["MIT"],
    )  # fmt: skip
    assert len(facts.card("m", known, verbose=True)["model_info"]["long"]) == 9
    assert [facts.count(each) for each in (None, 137_000_000, 134_515_008, 8_030_261_248, 1234)] == [
        "", "137M", "134.52M", "8.0B", "1K",
    ]  # fmt: skip


def test_errors_in_ollamas_shape() -> None:
    """Message and hint in one text; a line in a stream."""
    assert OLLAMA.error(CallerError("no", hint="yes")) == {"error": "no (yes)", "code": "bad_request"}
    assert OLLAMA.event(CallerError("no")) == b'{"error":"no","code":"bad_request"}\n'
    for body in (b"", b"[]", b"{", b"1"):
        with pytest.raises(CallerError):
            asked.read(body)
