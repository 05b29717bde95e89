"""Models that reason, on real engines: whatever their tags are, the text has none of them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import openai
import pytest

from gateway.stable import Stable
from gateway.test_openai_client import add_llama
from gateway.wire import ask
from support.ggufs import CHAT_TEMPLATE, THINKING_TEMPLATE, write_chain

HI: Any = [{"role": "user", "content": "hi"}]
CHAT = "/v1/chat/completions"
HARMONY_TEMPLATE = (
    "{% for m in messages %}{% if '<|channel|>' in m.content %}{{ raise_exception('tags in the history') }}{% endif %}"
    "<|start|>{{ m.role }}<|message|>{{ m.content }}<|end|>{% endfor %}"
    "<|start|>system<|message|>Reasoning: {{ reasoning_effort|default('medium') }}<|end|>"
    "{% if add_generation_prompt %}<|start|>assistant{% endif %}{# <|channel|>analysis #}"
)
"""What of gpt-oss's template matters to llama.cpp, which takes it for Harmony by its marker."""

Said = tuple[str, str]


@pytest.fixture
async def client(stable: Stable) -> AsyncIterator[openai.AsyncOpenAI]:
    await stable.open()
    async with openai.AsyncOpenAI(base_url=f"http://{stable.address}/v1", api_key="none", max_retries=0) as client:
        yield client


def add(stable: Stable, folder: Path, words: tuple[str, ...], template: str, *flags: str, **settings: Any) -> None:
    """The model `m`, which answers everything with `words`."""
    model = write_chain(folder / "m.gguf", words, template=template)
    add_llama(stable, "m", model, "-c", "4096", "-t", "1", *flags)
    made = replace(stable.settings.models["m"], args=flags, **settings)
    stable.change(models=MappingProxyType({"m": made}))


async def said(client: openai.AsyncOpenAI, **more: Any) -> tuple[Said, Said]:
    """What was thought and said, whole and streamed."""
    answer = await client.chat.completions.create(model="m", messages=HI, **more)
    message: Any = answer.choices[0].message
    thought, text = "", ""
    async for chunk in await client.chat.completions.create(model="m", messages=HI, stream=True, **more):
        delta: Any = chunk.choices[0].delta if chunk.choices else None
        text += (delta.content or "") if delta else ""
        thought += (getattr(delta, "reasoning_content", None) or "") if delta else ""
    whole = getattr(message, "reasoning_content", None) or ""
    return (whole.strip(), (message.content or "").strip()), (thought.strip(), text.strip())


@pytest.mark.parametrize(
    ("words", "thought", "text"),
    [
        (("<|channel|>analysis<|message|>I", "think<|end|><|start|>assistant<|channel|>final<|message|>Four", "then."),
         "I think", "Four then."),
        (("Four", "then."), "", "Four then."),  # no markup: llama.cpp answers 500, and is asked once more
        (("<|channel|>??", "analysis<|message|>I", "think"), "I think", ""),  # a malformed header: likewise
        (("analysisWe", "think", "assistantfinalFour"), "We think", "Four"),  # the markers are gone: likewise
    ],
)  # fmt: skip
async def test_harmony(
    client: openai.AsyncOpenAI, stable: Stable, short_tmp: Path, words: tuple[str, ...], thought: str, text: str
) -> None:
    """Channels come apart whatever llama.cpp's own parser makes of them."""
    add(stable, short_tmp, words, HARMONY_TEMPLATE)
    assert await said(client) == ((thought, text), (thought, text))


@pytest.mark.parametrize(
    ("template", "flags", "settings", "body"),
    [
        (THINKING_TEMPLATE, (), {}, {}),  # llama.cpp does it
        (THINKING_TEMPLATE, ("--reasoning-format", "none"), {}, {}),
        (THINKING_TEMPLATE, (), {}, {"reasoning_effort": "none"}),  # it thinks all the same
        (CHAT_TEMPLATE, (), {"reasoning": "think"}, {}),  # a template that knows nothing of it
    ],
)
async def test_think(
    client: openai.AsyncOpenAI,
    stable: Stable,
    short_tmp: Path,
    template: str,
    flags: tuple[str, ...],
    settings: dict[str, Any],
    body: dict[str, Any],
) -> None:
    """Thoughts between tags come apart, whoever has to do it."""
    add(stable, short_tmp, ("<think>", "Let", "me", "see.", "</think>", "Four", "then."), template, *flags, **settings)
    both = await said(client, **body)
    assert [(" ".join(thought.split()), text) for thought, text in both] == [("Let me see.", "Four then.")] * 2


async def test_none_leaves_it_as_it_is(client: openai.AsyncOpenAI, stable: Stable, short_tmp: Path) -> None:
    """`reasoning: none` relays what the engine sends; so does a request that says how it wants its thoughts."""
    words = ("<think>", "Hm.", "</think>", "Four.")
    add(stable, short_tmp, words, CHAT_TEMPLATE, reasoning="none")
    assert (await said(client))[0] == ("", "<think> Hm. </think> Four.")
    stable.change(models=MappingProxyType({"m": replace(stable.settings.models["m"], reasoning="think")}))
    assert (await said(client))[0] == ("Hm.", "Four.")
    asked = {"model": "m", "messages": HI, "reasoning_format": "none"}
    raw = await ask(stable.address, "POST", CHAT, asked)
    assert raw.json["choices"][0]["message"]["content"] == "<think> Hm. </think> Four."


@pytest.mark.parametrize(
    ("asked", "told", "prompt"),
    [
        ("low", "low", "Reasoning: low"),
        ("max", "high; asked=max", "Reasoning: high"),
        ("none", "low; asked=none", "Reasoning: low"),
        ("lots", "medium; asked=lots", "Reasoning: medium"),
    ],
)
async def test_effort_by_level(stable: Stable, short_tmp: Path, asked: str, told: str, prompt: str) -> None:
    """What is asked for reaches the template, as one of the levels that it knows, and the answer says which."""
    add(stable, short_tmp, ("Four",), HARMONY_TEMPLATE)
    await stable.open()
    body = {"model": "m", "messages": HI, "reasoning_effort": asked}
    answer = await ask(stable.address, "POST", CHAT, body)
    assert answer.headers["x-corral-reasoning-effort"] == told
    plain = {"model": "m", "messages": HI, "chat_template_kwargs": {"reasoning_effort": prompt.split()[-1]}}
    shown = await ask(stable.address, "POST", "/apply-template", plain)
    assert prompt in shown.json["prompt"]


async def test_effort_by_switch(stable: Stable, short_tmp: Path) -> None:
    """A model that can only be switched is; its prompt then ends with an empty thought, which takes tokens."""
    add(stable, short_tmp, ("Four.",), THINKING_TEMPLATE)
    await stable.open()
    tokens = {}
    for effort in ("none", "high"):
        answer = await ask(stable.address, "POST", CHAT, {"model": "m", "messages": HI, "reasoning_effort": effort})
        tokens[effort] = answer.json["usage"]["prompt_tokens"]
        assert answer.headers["x-corral-reasoning-effort"] == effort
    assert tokens["none"] > tokens["high"]


async def test_a_model_that_does_not_think_says_so(stable: Stable, short_tmp: Path) -> None:
    """Effort is no error for it."""
    add(stable, short_tmp, ("Four.",), CHAT_TEMPLATE)
    await stable.open()
    answer = await ask(stable.address, "POST", CHAT, {"model": "m", "messages": HI, "reasoning_effort": "high"})
    assert answer.json["choices"][0]["message"]["content"] == "Four."
    assert answer.headers["x-corral-reasoning-effort"] == "none; asked=high"


async def test_tags_in_the_history_are_taken_out(stable: Stable, short_tmp: Path) -> None:
    """A client that sends an answer back with its tags gets an answer, although the template would raise."""
    words = ("<|channel|>final<|message|>Four",)
    add(stable, short_tmp, words, HARMONY_TEMPLATE)
    await stable.open()
    echoed = "<|channel|>analysis<|message|>R<|end|><|start|>assistant<|channel|>final<|message|>A"
    messages = [*HI, {"role": "assistant", "content": echoed}, *HI]
    answer = await ask(stable.address, "POST", CHAT, {"model": "m", "messages": messages})
    assert answer.json["choices"][0]["message"]["content"] == "Four"


async def test_text_without_tags_is_relayed_as_it_came(stable: Stable, short_tmp: Path) -> None:
    """Where a cleaner has nothing to do, an engine's events stay byte for byte what they were."""
    add(stable, short_tmp, ("Four", "it", "is."), CHAT_TEMPLATE, reasoning="think")
    await stable.open()
    body = {"model": "m", "messages": HI, "stream": True}
    cleaned = await ask(stable.address, "POST", CHAT, body)
    direct = await ask(stable.address, "POST", f"/upstream/m{CHAT}", body)
    assert len(cleaned.events) == len(direct.events)
    assert [set(event.split('"')) & {"Four", " it", " is."} for event in cleaned.events] == [
        set(event.split('"')) & {"Four", " it", " is."} for event in direct.events
    ]
