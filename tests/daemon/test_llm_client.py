"""The `llm` command against a real server with keys: by its Ollama plugin, and by its own OpenAI models."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

from corral.config.paths import Paths
from support.for_clients import AFTERWARDS, EMBEDDING, SCRIPTS, WORDS, config_in, key
from support.ggufs import chain_text
from support.server import Server

pytest.importorskip("llm_ollama", reason="llm and llm-ollama are not installed")

TEXT = chain_text(WORDS)
TOOL = """
def weather(city: str) -> str:
    "The weather."
    return "sun in " + city
"""


class Done(NamedTuple):
    """What one command came to."""

    code: int
    out: str
    err: str


@pytest.fixture(scope="module")
def server(module_paths: Paths) -> Iterator[Server]:
    with Server(module_paths, config_in(module_paths.state_dir.parent)) as started:
        yield started


def llm(server: Server, place: Path, commands: Sequence[Sequence[str]], **env: str) -> list[Done]:
    """What commands print whose settings are in `place`."""
    done = subprocess.run(
        [sys.executable, SCRIPTS / "llm_commands.py"],
        input=json.dumps(commands),
        env={**server.environment, "LLM_USER_PATH": str(place), "NO_COLOR": "1", **env},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [Done(*each) for each in json.loads(done.stdout)]


def test_by_the_ollama_plugin(server: Server, short_tmp: Path) -> None:
    """Models by name, answers whole and streamed, options, a tool called and its result, embeddings, errors."""
    ask = ["-m", "ollama/chain"]
    env = {"OLLAMA_HOST": server.url, "OLLAMA_API_KEY": key(server)}
    listed, streamed, whole, short, tool, vector, table, unknown, wrong, forbidden = llm(
        server,
        short_tmp,
        [
            ["models", "list"],
            [*ask, "hi"],
            [*ask, "--no-stream", "hi"],
            [*ask, "-o", "num_predict", "2", "hi"],
            ["-m", "ollama/caller", "--functions", TOOL, "--td", "hi"],
            ["embed", "-m", "ollama/bert", "-c", "a horse"],
            ["ollama", "models"],
            ["-m", "ollama/nobody", "hi"],
            [*ask, "--key", "sk-none", "hi"],
            [*ask, "--key", key(server, models=["demo"]), "hi"],
        ],
        **env,
    )
    assert "Ollama: ollama/demo:latest (aliases: ollama/demo)" in listed.out
    assert (streamed.out.strip(), whole.out.strip(), short.out.strip()) == (TEXT, TEXT, " ".join(WORDS[:2]))
    assert ("sun in Rome" in tool.err, tool.out.strip()) == (True, chain_text(AFTERWARDS[1:])), tool
    assert len(json.loads(vector.out)) == 64
    assert next(row for row in table.out.splitlines() if row.startswith("caller:")).endswith("completion, tools")
    assert "Unknown model: ollama/nobody" in unknown.err  # it knows those of the list only
    assert (wrong.code, "401" in wrong.err) == (1, True), wrong
    assert (forbidden.code, "may not use chain" in forbidden.err) == (1, True), forbidden
    (stranger,) = llm(server, short_tmp / "nobody", [["models", "list"]], OLLAMA_HOST=server.url)
    assert "ollama/" not in stranger.out


@pytest.mark.parametrize("responses", [False, True], ids=["chat", "responses"])
def test_by_its_own_openai_models(server: Server, short_tmp: Path, responses: bool) -> None:
    """Answers whole and streamed, a tool called and its result, errors and keys, of models of its extra ones."""
    entry = {"api_base": f"{server.url}/v1", "api_key_name": "corral", "supports_tools": True, "responses": responses}
    models = [{"model_id": f"my-{name}", "model_name": name, **entry} for name in ("chain", "caller", "chian")]
    (short_tmp / "extra-openai-models.yaml").write_text(json.dumps(models))  # JSON is YAML
    (short_tmp / "keys.json").write_text(json.dumps({"corral": key(server)}))
    ask = ["-m", "my-chain"]
    streamed, whole, tool, unknown, wrong, forbidden = llm(
        server,
        short_tmp,
        [
            [*ask, "hi"],
            [*ask, "--no-stream", "hi"],
            ["-m", "my-caller", "--functions", TOOL, "--td", "hi"],
            ["-m", "my-chian", "hi"],
            [*ask, "--key", "sk-none", "hi"],
            [*ask, "--key", key(server, models=["demo"]), "hi"],
        ],
    )
    assert (streamed.out.strip(), whole.out.strip()) == (TEXT, TEXT)
    assert ("sun in Rome" in tool.err, tool.out.strip()) == (True, chain_text(AFTERWARDS[1:])), tool
    assert (unknown.code, "404 - no model is called 'chian'" in unknown.err) == (1, True), unknown
    assert (wrong.code, "401 - the key that was sent" in wrong.err) == (1, True), wrong
    assert (forbidden.code, "may not use chain" in forbidden.err) == (1, True), forbidden


def test_by_its_openai_endpoint_and_embeddings(server: Server, short_tmp: Path) -> None:
    """`llm openai endpoint` needs no settings; its embeddings are OpenAI's models, of which one has an alias here."""
    base = f"{server.url}/v1"
    point = ["openai", "endpoint", base, "--key", key(server)]
    embed = ["embed", "-c", "a horse", "-m", EMBEDDING]
    listed, answer, vector, wrong, unknown = llm(
        server,
        short_tmp,
        [
            [*point, "--models"],
            [*point, "-m", "chain", "hi"],
            [*embed, "--key", key(server)],
            [*embed, "--key", "sk-none"],
            ["embed", "-c", "a horse", "-m", "3-large", "--key", key(server)],
        ],
        OPENAI_BASE_URL=base,
    )
    assert {"chain", "caller", EMBEDDING} < set(listed.out.split())
    assert answer.out.strip() == TEXT
    assert len(json.loads(vector.out)) == 64
    assert (wrong.code, "401" in wrong.err) == (1, True), wrong
    assert (unknown.code, "no model is called 'text-embedding-3-large'" in unknown.err) == (1, True), unknown
