"""Client libraries against a real server with keys: Anthropic's, OpenAI's responses, LangChain, LiteLLM."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from pydantic import SecretStr

from corral.api_access import KeyAsk
from corral.config.paths import Paths
from support.ggufs import TOOLS_TEMPLATE, write_bert, write_chain
from support.server import Server

CALL = ('<tool_call>\n{"name":', '"weather",', '"arguments":', '{"city":', '"Rome"}}\n</tool_call>')
HI: Any = [{"role": "user", "content": "hi"}]
TOOL: Any = {
    "name": "weather",
    "description": "The weather.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}


def config_in(place: Path) -> str:
    caller = write_chain(place / "caller.gguf", CALL, template=TOOLS_TEMPLATE)
    bert = write_bert(place / "bert.gguf")
    return f"""
require_keys: true
models:
  - {{name: demo, source: 'builtin:demo', executable: embedded}}
  - {{name: caller, source: {caller}, executable: embedded, context: 2048}}
  - {{name: bert, source: {bert}, executable: embedded, args: [--embedding]}}
"""


@pytest.fixture(scope="module")
def server(module_paths: Paths) -> Iterator[Server]:
    with Server(module_paths, config_in(module_paths.state_dir.parent)) as started:
        yield started


_number = itertools.count(1)


def key(server: Server, **ask: Any) -> str:
    return server.client.create_key(KeyAsk(f"k{next(_number)}", **ask)).secret


def test_anthropics_keys(server: Server) -> None:
    """A key in `x-api-key` is good for its models; none, a wrong one and another model are Anthropic's errors."""
    import anthropic  # takes two seconds, which each process that collects tests would spend

    with anthropic.Anthropic(base_url=server.url, api_key="sk-none", max_retries=0) as stranger:
        with pytest.raises(anthropic.AuthenticationError) as refused:
            stranger.messages.create(model="demo", max_tokens=5, messages=HI)
        assert refused.value.body["error"]["type"] == "authentication_error"  # type: ignore[index]
        with pytest.raises(anthropic.AuthenticationError):
            stranger.messages.count_tokens(model="demo", messages=HI)
    with anthropic.Anthropic(base_url=server.url, api_key=key(server, models=["demo"]), max_retries=0) as client:
        message = client.messages.create(model="demo", max_tokens=50, messages=HI)
        assert message.content[0].text  # type: ignore[union-attr]
        with client.messages.stream(model="demo", max_tokens=50, messages=HI) as stream:
            assert "".join(stream.text_stream)
        with pytest.raises(anthropic.PermissionDeniedError) as forbidden:
            client.messages.create(model="caller", max_tokens=5, messages=HI)
        assert forbidden.value.body["error"]["type"] == "permission_error"  # type: ignore[index]
        assert [model.id for model in client.models.list()] == ["demo"]
    few = key(server, requests_per_minute=1)
    with anthropic.Anthropic(base_url=server.url, api_key=few, max_retries=0) as client:
        client.messages.create(model="demo", max_tokens=5, messages=HI)
        with pytest.raises(anthropic.RateLimitError) as limited:
            client.messages.create(model="demo", max_tokens=5, messages=HI)
        assert limited.value.body["error"]["type"] == "rate_limit_error"  # type: ignore[index]
        assert int(limited.value.response.headers["retry-after"]) > 0


@pytest.mark.leaves("the file's server, as a new process")
def test_responses_survive_a_kill_and_are_their_keys(server: Server) -> None:
    """What was answered before kill -9 is there after it; another key does not see it; the file is its user's alone."""
    mine, others = key(server), key(server)
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key=mine, max_retries=0) as client:
        first = client.responses.create(model="demo", input="My name is Ann.")
        with client.responses.stream(model="demo", input="And?", previous_response_id=first.id) as stream:
            second = list(stream)[-1].response  # type: ignore[union-attr]
    server.kill()
    server.start()
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key=mine, max_retries=0) as client:
        assert client.responses.retrieve(first.id).output_text == first.output_text
        third = client.responses.create(model="demo", input="What?", previous_response_id=second.id)
        assert third.usage is not None
        assert second.usage is not None
        assert third.usage.input_tokens > second.usage.input_tokens
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key=others, max_retries=0) as client:
        with pytest.raises(openai.NotFoundError):
            client.responses.retrieve(first.id)
        with pytest.raises(openai.NotFoundError):
            client.responses.create(model="demo", input="What?", previous_response_id=first.id)
        with pytest.raises(openai.NotFoundError):
            client.responses.delete(first.id)
    assert (server.paths.state_dir / "responses.sqlite").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("responses", [False, True])
def test_langchain(server: Server, responses: bool) -> None:
    """Answers, streams, tools, embeddings and errors through LangChain, by chat completions and by responses."""
    from langchain_core.messages import HumanMessage  # likewise
    from langchain_openai import ChatOpenAI, OpenAIEmbeddings

    with openai.DefaultHttpxClient() as http:
        given: Any = {"base_url": f"{server.url}/v1", "max_retries": 0, "http_client": http}
        known = given | {"api_key": SecretStr(key(server)), "use_responses_api": responses}
        chat = ChatOpenAI(model="demo", **known)
        answer = chat.invoke([HumanMessage("hi")])
        assert answer.text
        assert answer.usage_metadata is not None
        assert answer.usage_metadata["output_tokens"] > 0
        assert "".join(chunk.text for chunk in chat.stream([HumanMessage("hi")]))
        calls = ChatOpenAI(model="caller", **known).bind_tools([TOOL]).invoke([HumanMessage("hi")]).tool_calls
        assert [(call["name"], call["args"]) for call in calls] == [("weather", {"city": "Rome"})]
        with pytest.raises(openai.NotFoundError):
            ChatOpenAI(model="nobody", **known).invoke("hi")
        with pytest.raises(openai.AuthenticationError):
            ChatOpenAI(model="demo", **given, api_key=SecretStr("none")).invoke("hi")
        known.pop("use_responses_api")
        embeddings = OpenAIEmbeddings(model="bert", check_embedding_ctx_length=False, **known)
        assert len(embeddings.embed_query("one")) > 1


LITELLM = """
import json, os, sys
import litellm
litellm.suppress_debug_info = True
url, key = sys.argv[1:]
hi = [{"role": "user", "content": "hi"}]
openai = {"api_base": url + "/v1", "api_key": key, "num_retries": 0}
said = {}
answer = litellm.completion("openai/demo", hi, **openai)
said["text"] = answer.choices[0].message.content
said["streamed"] = "".join(
    chunk.choices[0].delta.content or "" for chunk in litellm.completion("openai/demo", hi, stream=True, **openai)
)
tool = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
called = litellm.completion("openai/caller", hi, tools=[tool], **openai).choices[0].message.tool_calls[0].function
said["call"] = [called.name, json.loads(called.arguments)]
said["vector"] = len(litellm.embedding("openai/bert", ["one"], **openai).data[0]["embedding"])
said["responses"] = litellm.responses(model="openai/demo", input="hi", **openai).output[0].content[0].text
messages = {"api_base": url, "api_key": key, "num_retries": 0, "max_tokens": 60}
said["anthropic"] = litellm.completion("anthropic/demo", hi, **messages).choices[0].message.content
said["anthropic_streamed"] = "".join(
    chunk.choices[0].delta.content or "" for chunk in litellm.completion("anthropic/demo", hi, stream=True, **messages)
)
nobody = messages | {"api_key": "no"}
for name, model, more in (("unknown", "openai/nobody", openai), ("anthropic_key", "anthropic/demo", nobody)):
    try:
        litellm.completion(model, hi, **more)
    except Exception as error:
        said[name] = type(error).__name__
print(json.dumps(said))
"""


@pytest.mark.long
def test_litellm(server: Server) -> None:
    """The same through LiteLLM, which has an environment of its own; by OpenAI's API, responses and Anthropic's."""
    python = os.environ.get("CORRAL_TEST_CLIENTS_PYTHON", "")
    if not python or not Path(python).exists():
        pytest.skip("no LiteLLM here: `make clients` installs it")
    env = {"PATH": os.environ["PATH"], "HOME": os.environ["HOME"], "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    done = subprocess.run(
        [python, "-c", LITELLM, server.url, key(server)],
        capture_output=True,
        text=True,
        env=env,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    said = json.loads(done.stdout.splitlines()[-1])
    assert said["text"] and said["streamed"] and said["responses"] and said["anthropic"] and said["anthropic_streamed"]
    assert said["call"] == ["weather", {"city": "Rome"}]
    assert said["vector"] > 1
    assert (said["unknown"], said["anthropic_key"]) == ("NotFoundError", "AuthenticationError")
