"""What a server with keys holds for tests of client libraries, and how a script of JavaScript asks it."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from corral.api_access import KeyAsk
from support.ggufs import TOOLS_TEMPLATE, write_bert, write_chain
from support.server import Server

SCRIPTS = Path(__file__).parents[1] / "clients"
CALL = ('<tool_call>\n{"name":', '"weather",', '"arguments":', '{"city":', '"Rome"}}\n</tool_call>')
WORDS = ("Corral", "keeps", "models", "in", "good", "order")
AFTERWARDS = ("Certainly:", "sun", "all", "day")
"""What the model that calls says once it has the result, its first word being the template's."""
EMBEDDING = "text-embedding-3-small"
"""Another name of `bert`, for clients that know OpenAI's own models only."""

_CALLER_TEMPLATE = TOOLS_TEMPLATE + "{% if messages[-1].role == 'tool' %}" + AFTERWARDS[0] + "{% endif %}"
_LONG = 32768  # more tokens than `endless` makes while a test lasts

_number = itertools.count(1)


def config_in(place: Path) -> str:
    """`demo`, `chain` of six words, `caller`, which calls the function weather, `bert` and `endless`."""
    models = {
        "chain": write_chain(place / "chain.gguf", WORDS),
        "caller": write_chain(place / "caller.gguf", CALL, template=_CALLER_TEMPLATE, afterwards=AFTERWARDS),
        "endless": write_chain(place / "endless.gguf", WORDS, loop=True, mib=24, context=_LONG),
    }
    entries = [
        f"{{name: {name}, source: {path}, executable: embedded, context: {_LONG}}}" for name, path in models.items()
    ]
    bert = write_bert(place / "bert.gguf")
    entries += ["{name: demo, source: 'builtin:demo', executable: embedded}"]
    entries += [f"{{name: bert, aliases: [{EMBEDDING}], source: {bert}, executable: embedded, args: [--embedding]}}"]
    return "\n  - ".join(("require_keys: true\nmodels:", *entries))


def key(server: Server, **ask: Any) -> str:
    """The secret of a new key."""
    return server.client.create_key(KeyAsk(f"k{next(_number)}", **ask)).secret


async def run_node(script: str, directory: Path, *args: str) -> Any:
    """What one of the scripts in `clients/npm` prints. Skips where Node.js, or what `make clients` installs, is
    missing."""
    node, clients = shutil.which("node"), os.environ.get("CORRAL_TEST_NODE_CLIENTS")
    if node is None:
        pytest.skip("Node.js is not installed")
    if clients is None:
        pytest.skip("the JavaScript clients are not installed: make clients")
    # Node looks for packages beside the script.
    (directory / "node_modules").symlink_to(Path(clients) / "node_modules")
    shutil.copy(SCRIPTS / "npm" / "common.mjs", directory)
    copied = shutil.copy(SCRIPTS / "npm" / script, directory)
    process = await asyncio.create_subprocess_exec(
        node, str(copied), *args, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, err = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 0, err.decode()
    return json.loads(out)
