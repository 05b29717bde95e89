"""The `llm` command with its Ollama plugin, as people run it."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path

import pytest

from gateway.stable import Stable
from gateway.test_openai_client import WORDS
from support.ggufs import chain_text

pytest.importorskip("llm_ollama", reason="llm and llm-ollama are not installed")


async def llm(stable: Stable, directory: Path, *args: str) -> str:
    """What `llm` prints."""
    env = {**os.environ, "OLLAMA_HOST": f"http://{stable.address}", "LLM_USER_PATH": str(directory), "NO_COLOR": "1"}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "llm", *args, env=env, stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, err = await asyncio.wait_for(process.communicate(), 90)
    assert process.returncode == 0, err.decode() + out.decode()
    return out.decode()


@pytest.mark.long
async def test_llm_lists_prompts_and_embeds(ollama_stable: Stable, short_tmp: Path) -> None:
    """Models by name, a streamed and a whole answer, options, embeddings, capabilities."""
    listed = await llm(ollama_stable, short_tmp, "models", "list")
    assert "Ollama: ollama/demo:latest (aliases: ollama/demo)" in listed
    assert "Ollama: ollama/tools:latest" in listed
    for flags in ((), ("--no-stream",)):
        answer = await llm(ollama_stable, short_tmp, "-m", "ollama/chain", *flags, "hi")
        assert answer.strip() == chain_text(WORDS)
    short = await llm(ollama_stable, short_tmp, "-m", "ollama/chain", "-o", "num_predict", "2", "hi")
    assert short.strip() == " ".join(WORDS[:2])
    vector = json.loads(await llm(ollama_stable, short_tmp, "embed", "-m", "ollama/bert", "-c", "a horse"))
    assert len(vector) == 64
    table = await llm(ollama_stable, short_tmp, "ollama", "models")
    assert next(row for row in table.splitlines() if row.startswith("think:latest")).endswith("completion, thinking")
