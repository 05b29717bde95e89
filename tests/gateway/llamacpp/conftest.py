"""A gateway over real engines, as llama.cpp's clients meet it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from corral.config.settings import Listen
from corral.demo.where import demo_model
from gateway.stable import Stable
from gateway.test_openai_client import WORDS, add_llama
from gateway.wire import Answer, ask
from support.ggufs import write_bert, write_chain


@pytest.fixture
async def llamas(stable: Stable, short_tmp: Path) -> AsyncIterator[Stable]:
    """`demo`, `org/chain:f16` (alias `chain`) and `bert`, behind a listener that speaks llama.cpp and one that does
    not."""
    add_llama(
        stable,
        "demo",
        Path(str(demo_model())),
        "--parallel",
        "2",
        "-c",
        "2048",
        "-t",
        "1",
        "--slots",
        "--metrics",
        "--slot-save-path",
        str(short_tmp),
    )
    chain = write_chain(short_tmp / "chain.gguf", WORDS)
    add_llama(stable, "org/chain:f16", chain, "-c", "1024", "-t", "1", "--slots", aliases=("chain",))
    add_llama(stable, "bert", write_bert(short_tmp / "bert.gguf"), "--embeddings", "-t", "1")
    stable.change(listen=(Listen(port=0, dialect="llamacpp"), Listen(host="127.0.0.2", port=0)))
    await stable.open()
    yield stable


async def send(stable: Stable, method: str, path: str, body: Any = None, *, plain: bool = False) -> Answer:
    """`plain`: to the listener without a dialect."""
    where = stable.listeners.addresses[1 if plain else 0]
    return await ask(where, method, path, body)
