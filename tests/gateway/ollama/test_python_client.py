"""ollama-python as a client, and llama.cpp itself as the engine."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import ollama
import pytest

from gateway.stable import Stable
from gateway.test_openai_client import WORDS, add_llama
from support.ggufs import chain_text, write_chain

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather in a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


@pytest.fixture(params=[""])
async def asking(ollama_stable: Stable, request: pytest.FixtureRequest) -> AsyncIterator[ollama.AsyncClient]:
    """A client of the gateway, or of a prefix there."""
    async with ollama.AsyncClient(host=f"http://{ollama_stable.address}{request.param}") as made:
        yield made


def user(text: str = "hi") -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


@pytest.mark.parametrize("asking", ["", "/ollama"], indirect=True)
async def test_chat_whole_and_streamed(asking: ollama.AsyncClient) -> None:
    """The same text either way, by each of its names, with counts and times that the engine took."""
    for name in ("chain", "chain:latest", "org/chain:f16", "ORG/Chain:f16"):
        whole = await asking.chat(name, user())
        assert whole.message.content == chain_text(WORDS)
        assert (whole.model, whole.done, whole.done_reason) == (name, True, "stop")
    assert whole.eval_count == len(WORDS) + 1  # the end is a token
    assert whole.prompt_eval_count
    assert whole.prompt_eval_count > 5
    assert whole.load_duration == 0
    pieces = [piece async for piece in await asking.chat("chain", user(), stream=True)]
    assert "".join(piece.message.content or "" for piece in pieces) == chain_text(WORDS)
    assert [piece.done for piece in pieces] == [False] * (len(pieces) - 1) + [True]
    last = pieces[-1]
    assert (last.done_reason, last.eval_count, last.prompt_eval_count) == (
        "stop", len(WORDS) + 1, whole.prompt_eval_count,
    )  # fmt: skip
    assert last.total_duration
    assert last.eval_duration
    assert 0 < last.eval_duration < last.total_duration


async def test_the_first_answer_says_how_long_loading_took(asking: ollama.AsyncClient) -> None:
    """load_duration is the lease's, and part of the total."""
    first = await asking.chat("chain", user(), options={"num_predict": 2})
    assert first.load_duration
    assert first.total_duration
    assert 0 < first.load_duration < first.total_duration
    assert (first.done_reason, first.eval_count) == ("length", 2)


async def test_generate_and_its_context(asking: ollama.AsyncClient) -> None:
    """What `context` holds goes before the next prompt: the second prompt is longer by the first turn."""
    first = await asking.generate("chain", "one", system="Be brief.")
    assert first.response == chain_text(WORDS)
    assert first.context
    alone = await asking.generate("chain", "two")
    second = await asking.generate("chain", "two", context=first.context)
    assert (second.prompt_eval_count or 0) > (alone.prompt_eval_count or 0) + len(WORDS)
    pieces = [piece async for piece in await asking.generate("chain", "one", system="Be brief.", stream=True)]
    assert "".join(piece.response or "" for piece in pieces) == chain_text(WORDS)
    assert pieces[-1].context == first.context
    with pytest.raises(ollama.ResponseError, match="none that this server gave") as refused:
        await asking.generate("chain", "two", context=[1, 2, 3])
    assert refused.value.status_code == 400


async def test_raw_prompts_and_templates(asking: ollama.AsyncClient) -> None:
    """A raw prompt has no template around it; one of the request's own is that around it, and nothing else."""
    raw = await asking.generate("chain", "x", raw=True)
    assert (raw.response, raw.prompt_eval_count, raw.context) == (chain_text(WORDS), 1, None)
    template = "{{ if .System }}S{{ .System }}{{ end }}<{{ .Prompt }}>{{ .Response }}."
    made = await asking.generate("chain", "abc", template=template)
    assert (made.response, made.prompt_eval_count) == (chain_text(WORDS), len("<abc>"))
    made = await asking.generate("chain", "abc", template=template, system="s")
    assert made.prompt_eval_count == len("Ss<abc>")
    pieces = [piece async for piece in await asking.generate("chain", "x", raw=True, stream=True)]
    assert "".join(piece.response or "" for piece in pieces) == chain_text(WORDS)
    assert pieces[-1].eval_count == len(WORDS) + 1
    with pytest.raises(ollama.ResponseError, match="not understood here"):
        await asking.generate("chain", "abc", template="{{ range .Messages }}{{ end }}")
    with pytest.raises(ollama.ResponseError, match='"chain" does not support insert'):
        await asking.generate("chain", "def f(", suffix="return x")


async def test_gaps_are_filled(stable: Stable, short_tmp: Path) -> None:
    """`suffix` with a model that is made for it: whole, streamed, and said in what it can do."""
    model = write_chain(short_tmp / "fim.gguf", WORDS, fills=True)
    add_llama(stable, "fim", model, "-c", "1024", "-t", "1")
    await stable.open()
    async with ollama.AsyncClient(host=f"http://{stable.address}") as asking:
        assert (await asking.show("fim")).capabilities == ["completion", "insert"]
        whole = await asking.generate("fim", "def f(", suffix="return x", options={"num_predict": 4})
        assert (whole.response, whole.done_reason, whole.eval_count) == (chain_text(WORDS[:4]), "length", 4)
        pieces = [piece async for piece in await asking.generate("fim", "def f(", suffix="return x", stream=True)]
        assert "".join(piece.response or "" for piece in pieces).startswith(chain_text(WORDS))


async def test_options_reach_the_engine(asking: ollama.AsyncClient) -> None:
    """temperature, seed, stop, num_predict and formats do what they say."""
    ask: dict[str, Any] = {"model": "demo", "messages": user("What is Corral?")}
    cold = {"temperature": 0, "num_predict": 12}
    answers = {(await asking.chat(**ask, options=cold)).message.content for _ in range(2)}
    assert len(answers) == 1
    hot = {"temperature": 5.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0, "num_predict": 12}
    seeded = [(await asking.chat(**ask, options={**hot, "seed": seed})).message.content for seed in (1, 1, 2)]
    assert seeded[0] == seeded[1] != seeded[2]
    stopped = await asking.chat("chain", user(), options={"stop": [WORDS[2]]})
    assert (stopped.message.content, stopped.done_reason) == (" ".join(WORDS[:2]) + " ", "stop")
    shape = {"type": "object", "properties": {"a": {"enum": ["x"]}}, "required": ["a"], "additionalProperties": False}
    formed = await asking.chat("demo", user(), format=shape, options={"temperature": 0, "num_predict": 200})
    assert '"a"' in (formed.message.content or "")
    made = await asking.generate("demo", "hi", raw=True, format=shape, options={"temperature": 0, "num_predict": 200})
    assert (made.response or "").startswith("{")
    free = await asking.generate("demo", "hi", raw=True, options=cold)
    assert not (free.response or "").startswith("{")
    with pytest.raises(ollama.ResponseError, match='option "temperature" must be of type float32'):
        await asking.chat(**ask, options={"temperature": "x"})


async def test_logprobs(asking: ollama.AsyncClient) -> None:
    """One for each token, with as many alternatives as were asked for; for raw prompts too."""
    answer = await asking.chat("chain", user(), logprobs=True)
    assert answer.logprobs
    assert "".join(each.token for each in answer.logprobs).startswith(chain_text(WORDS))
    assert answer.logprobs[0].top_logprobs is None
    raw = await asking.generate("chain", "x", raw=True, logprobs=True, top_logprobs=2)
    assert raw.logprobs
    assert [len(each.top_logprobs or []) for each in raw.logprobs[:2]] == [2, 2]
    pieces = [piece async for piece in await asking.chat("chain", user(), logprobs=True, stream=True)]
    assert sum(len(piece.logprobs or []) for piece in pieces) >= len(WORDS)


async def test_tools(asking: ollama.AsyncClient) -> None:
    """A call comes whole with an object as arguments, streamed or not, and its result goes back to the model."""
    answer = await asking.chat("tools", user("Weather in Paris?"), tools=[WEATHER])
    assert answer.message.tool_calls
    (call,) = answer.message.tool_calls
    assert (call.function.name, call.function.arguments) == ("get_weather", {"city": "Paris"})
    pieces = [piece async for piece in await asking.chat("tools", user(), tools=[WEATHER], stream=True)]
    calls = [call for piece in pieces for call in piece.message.tool_calls or []]
    assert [(each.function.name, each.function.arguments) for each in calls] == [("get_weather", {"city": "Paris"})]
    assert (pieces[-1].done, pieces[-1].done_reason) == (True, "stop")
    back: list[Any] = [*user(), answer.message, {"role": "tool", "content": "11 degrees", "tool_name": "get_weather"}]
    again = await asking.chat("tools", back, tools=[WEATHER])
    assert (again.prompt_eval_count or 0) > (answer.prompt_eval_count or 0)
    with pytest.raises(ollama.ResponseError, match='"chain" does not support tools'):
        await asking.chat("chain", user(), tools=[WEATHER])


async def test_thinking(asking: ollama.AsyncClient) -> None:
    """Thoughts are apart from the answer, at every level; a model that does not think says so."""
    for think in (None, True, "low", "high"):
        answer = await asking.chat("think", user(), think=think)
        assert (answer.message.content, (answer.message.thinking or "").strip()) == ("It is four.", "hm, let me see")
    pieces = [piece async for piece in await asking.generate("think", "2+2", stream=True, think=True)]
    assert "".join(piece.thinking or "" for piece in pieces).strip() == "hm, let me see"
    assert "".join(piece.response or "" for piece in pieces) == "It is four."
    with pytest.raises(ollama.ResponseError, match='"chain" does not support thinking'):
        await asking.chat("chain", user(), think=True)
    assert (await asking.chat("chain", user(), think=False)).message.content == chain_text(WORDS)


async def test_embeddings(asking: ollama.AsyncClient) -> None:
    """One text or several, made one long; fewer dimensions are made so again; too long a text is cut, or refused."""
    one = await asking.embed("bert", "a horse in a stable")
    several = await asking.embed("bert", ["a horse in a stable", "tokyo"])
    assert several.embeddings[0] == pytest.approx(one.embeddings[0], abs=1e-4)
    assert [math.hypot(*vector) for vector in several.embeddings] == pytest.approx([1, 1], abs=1e-4)
    assert (several.prompt_eval_count or 0) > (one.prompt_eval_count or 0) > 0
    short = await asking.embed("bert", "a horse in a stable", dimensions=3)
    assert len(short.embeddings[0]) == 3
    assert math.hypot(*short.embeddings[0]) == pytest.approx(1, abs=1e-6)
    old = await asking.embeddings("bert", "a horse in a stable")
    length = math.hypot(*old.embedding)
    assert [number / length for number in old.embedding] == pytest.approx(list(one.embeddings[0]), abs=1e-3)
    assert (await asking.embed("bert", [])).embeddings == []
    long = await asking.embed("bert", "horse " * 2000)
    assert math.hypot(*long.embeddings[0]) == pytest.approx(1, abs=1e-4)
    with pytest.raises(ollama.ResponseError, match="the input length exceeds the context length") as refused:
        await asking.embed("bert", "horse " * 2000, truncate=False)
    assert refused.value.status_code == 400
    with pytest.raises(ollama.ResponseError, match='"demo" does not support embeddings'):
        await asking.embed("demo", "x")


async def test_errors(asking: ollama.AsyncClient) -> None:
    """Ollama's words and statuses, in streams too."""
    with pytest.raises(ollama.ResponseError, match="model 'nobody' not found") as unknown:
        await asking.chat("nobody", user())
    assert unknown.value.status_code == 404
    with pytest.raises(ollama.ResponseError, match="model 'nobody' not found") as unknown:
        async for _ in await asking.generate("nobody", "x", stream=True):
            pass
    assert unknown.value.status_code == 404
    with pytest.raises(ollama.ResponseError, match="exceeds the available context size") as long:
        await asking.chat("chain", user("x" * 3000))
    assert long.value.status_code == 400
    with pytest.raises(ollama.ResponseError, match='"chain" does not support vision') as blind:
        await asking.generate("chain", "what is it?", images=[b"\x89PNG"])
    assert blind.value.status_code == 400
    with pytest.raises(ollama.ResponseError, match='"bert" does not support chat'):
        await asking.chat("bert", user())


async def test_models_are_listed_shown_loaded_and_let_go(asking: ollama.AsyncClient, ollama_stable: Stable) -> None:
    """list, show, ps, and requests without a prompt."""
    listed = {model.model: model for model in (await asking.list()).models}
    names = ("demo:latest", "chain:latest", "bert:latest", "tools:latest", "think:latest", "endless:latest")
    assert set(listed) == {*names, "org/chain:f16"}
    assert listed["chain:latest"].digest == listed["org/chain:f16"].digest
    shown = await asking.show("bert")
    assert (shown.capabilities, shown.details and shown.details.family) == (["embedding"], "bert")
    assert shown.modelinfo
    assert shown.modelinfo["bert.context_length"] == 512
    assert set((await asking.show("think")).capabilities or []) == {"completion", "thinking"}
    assert (await asking.ps()).models == []
    assert (await asking.generate("chain")).done_reason == "load"
    assert [model.model for model in (await asking.ps()).models] == ["org/chain:f16"]
    assert (await asking.chat("chain", [], keep_alive="10m")).done_reason == "load"
    assert ollama_stable.keep_alives[-1] == 600
    assert (await asking.generate("chain", keep_alive=0)).done_reason == "unload"
    assert ollama_stable.keep_alives[-1] == 0
    await asking.chat("chain", user(), keep_alive=-1)
    assert ollama_stable.keep_alives[-1] == float("inf")
