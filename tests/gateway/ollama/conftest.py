"""A gateway over real engines, as Ollama's clients meet it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from corral.demo.where import demo_model
from gateway.stable import Stable
from gateway.test_openai_client import WORDS, add_llama
from support.ggufs import THINKING_TEMPLATE, TOOLS_TEMPLATE, write_bert, write_chain

CALL = ('<tool_call>\n{"name":', '"get_weather",', '"arguments":', '{"city":', '"Paris"}}\n</tool_call>')
THOUGHT = ("<think>\nhm,", "let", "me", "see\n</think>\n\nIt", "is", "four.")


@pytest.fixture
async def ollama_stable(stable: Stable, short_tmp: Path) -> AsyncIterator[Stable]:
    """`demo`, `org/chain:f16` (alias `chain`), `bert`, `tools`, `think` and `endless`; each engine starts when it is
    asked."""
    add_llama(stable, "demo", Path(str(demo_model())), "--parallel", "2", "-c", "2048", "-t", "1")
    chain = write_chain(short_tmp / "chain.gguf", WORDS)
    add_llama(stable, "org/chain:f16", chain, "-c", "1024", "-t", "1", aliases=("chain",))
    add_llama(stable, "bert", write_bert(short_tmp / "bert.gguf"), "--embeddings", "-t", "1")
    tools = write_chain(short_tmp / "tools.gguf", CALL, template=TOOLS_TEMPLATE)
    add_llama(stable, "tools", tools, "--jinja", "-c", "2048", "-t", "1")
    think = write_chain(short_tmp / "think.gguf", THOUGHT, template=THINKING_TEMPLATE)
    add_llama(stable, "think", think, "--jinja", "-c", "2048", "-t", "1")
    endless = write_chain(short_tmp / "endless.gguf", WORDS, loop=True, mib=24)
    add_llama(stable, "endless", endless, "-c", "4096", "-t", "1")
    await stable.open()
    yield stable
