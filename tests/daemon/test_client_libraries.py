"""Client libraries against a real server with keys: Anthropic's, OpenAI's, Ollama's, LangChain, LiteLLM."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from pydantic import SecretStr

from corral.config.paths import Paths
from support.for_clients import EMBEDDING, WORDS, config_in, key
from support.ggufs import chain_text
from support.server import Server

HI: Any = [{"role": "user", "content": "hi"}]
TOOL: Any = {
    "name": "weather",
    "description": "The weather.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}


@pytest.fixture(scope="module")
def server(module_paths: Paths) -> Iterator[Server]:
    with Server(module_paths, config_in(module_paths.state_dir.parent)) as started:
        yield started


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


def test_openais_keys(server: Server) -> None:
    """A key is good for its models, in streams, embeddings and lists too; what is refused are OpenAI's errors."""
    base: Any = {"base_url": f"{server.url}/v1", "max_retries": 0}
    with openai.OpenAI(**base, api_key="sk-none") as stranger:
        with pytest.raises(openai.AuthenticationError) as refused:
            stranger.chat.completions.create(model="demo", messages=HI, stream=True)
        assert (refused.value.code, refused.value.type) == ("unauthorized", "authentication_error")
        with pytest.raises(openai.AuthenticationError):
            stranger.models.list()
    with openai.OpenAI(**base, api_key=key(server, models=["chain", "bert"])) as client:
        stream = client.chat.completions.create(model="chain", messages=HI, stream=True)
        assert "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices) == chain_text(WORDS)
        assert len(client.embeddings.create(model="bert", input="one").data[0].embedding) == 64
        assert {model.id for model in client.models.list()} == {"chain", "bert", EMBEDDING}
        with pytest.raises(openai.PermissionDeniedError, match="may not use demo"):
            client.chat.completions.create(model="demo", messages=HI, stream=True)
        with pytest.raises(openai.PermissionDeniedError) as forbidden:
            client.models.retrieve("demo")
        assert forbidden.value.type == "permission_error"
    with openai.OpenAI(**base, api_key=key(server, requests_per_minute=1)) as client:
        client.completions.create(model="chain", prompt="hi")
        with pytest.raises(openai.RateLimitError) as limited:
            client.completions.create(model="chain", prompt="hi")
        assert limited.value.type == "rate_limit_error"
        assert int(limited.value.response.headers["retry-after"]) > 0


def test_ollamas_keys(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same with ollama-python, whose key is a header of its own or in the environment."""
    import ollama

    def asking(secret: str) -> ollama.Client:
        return ollama.Client(host=server.url, headers={"Authorization": f"Bearer {secret}"})

    with ollama.Client(host=server.url) as nobody, asking("sk-none") as stranger:
        for client in (nobody, stranger):
            with pytest.raises(ollama.ResponseError, match="key") as refused:
                client.chat("chain", HI)
            assert refused.value.status_code == 401
    with asking(key(server, models=["chain", "bert"])) as client:
        assert client.chat("chain", HI).message.content == chain_text(WORDS)
        pieces = [piece.message.content or "" for piece in client.chat("chain", HI, stream=True)]
        assert "".join(pieces) == chain_text(WORDS)
        assert len(client.embed("bert", "one").embeddings[0]) == 64
        assert {model.model for model in client.list().models} == {"chain:latest", "bert:latest", f"{EMBEDDING}:latest"}
        with pytest.raises(ollama.ResponseError, match="may not use demo") as forbidden:
            list(client.chat("demo", HI, stream=True))
        assert forbidden.value.status_code == 403
        with pytest.raises(ollama.ResponseError, match="scope pull"):
            client.pull("nobody")
    monkeypatch.setenv("OLLAMA_API_KEY", key(server))
    with ollama.Client(host=server.url) as client:
        assert client.chat("chain", HI).message.content == chain_text(WORDS)


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
url, key, other = sys.argv[1:]
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
pieces = litellm.completion("openai/caller", hi, tools=[tool], stream=True, **openai)
calls = [call.function for chunk in pieces for call in chunk.choices[0].delta.tool_calls or ()]
said["streamed_call"] = ["".join(call.name or "" for call in calls), json.loads("".join(c.arguments for c in calls))]
failing = {
    "unknown": ("openai/nobody", openai),
    "key": ("openai/demo", openai | {"api_key": "no"}),
    "other_key": ("openai/demo", openai | {"api_key": other}),
    "few": ("openai/chain", openai | {"api_key": other}),
    "fewer": ("openai/chain", openai | {"api_key": other}),
    "anthropic_key": ("anthropic/demo", messages | {"api_key": "no"}),
}
for name, (model, more) in failing.items():
    try:
        list(litellm.completion(model, hi, stream=name == "other_key", **more))
    except Exception as error:
        said[name] = f"{type(error).__name__} {error}"
print(json.dumps(said))
"""


@pytest.mark.lasts(18)
@pytest.mark.long
def test_litellm(server: Server) -> None:
    """The same through LiteLLM, which has an environment of its own; by OpenAI's API, responses and Anthropic's."""
    python = os.environ.get("CORRAL_TEST_CLIENTS_PYTHON", "")
    if not python or not Path(python).exists():
        pytest.skip("no LiteLLM here: `make clients` installs it")
    env = {"PATH": os.environ["PATH"], "HOME": os.environ["HOME"], "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    done = subprocess.run(
        [python, "-c", LITELLM, server.url, key(server), key(server, models=["chain"], requests_per_minute=1)],
        capture_output=True,
        text=True,
        env=env,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    said = json.loads(done.stdout.splitlines()[-1])
    assert said["text"] and said["streamed"] and said["responses"] and said["anthropic"] and said["anthropic_streamed"]
    assert said["call"] == said["streamed_call"] == ["weather", {"city": "Rome"}]
    assert said["vector"] > 1
    assert said["unknown"].startswith("NotFoundError")
    assert said["key"].startswith("AuthenticationError") and said["anthropic_key"].startswith("AuthenticationError")
    assert said["other_key"].startswith("APIError") and "may not use demo" in said["other_key"]  # it knows no 403
    assert "few" not in said and said["fewer"].startswith("RateLimitError")
