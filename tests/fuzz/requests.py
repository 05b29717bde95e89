"""Targets: requests in each dialect, read into what engines are asked."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from corral.config.tuning import Tuning
from corral.errors import CorralError
from corral.gateway.dialects import tool_choice
from corral.gateway.dialects.anthropic import request as anthropic
from corral.gateway.dialects.docker import configure
from corral.gateway.dialects.docker.names import wanted
from corral.gateway.dialects.fields import strict
from corral.gateway.dialects.ollama import asked, embed
from corral.gateway.dialects.ollama.chat import Wanted, read_chat
from corral.gateway.dialects.ollama.generate import read_generate
from corral.gateway.dialects.ollama.modelfile import read_create
from corral.gateway.dialects.prepare import bare, is_plain, prepared
from corral.gateway.dialects.reasoning.style import Style, style_of
from corral.gateway.dialects.responses.items import messages_of
from corral.gateway.dialects.responses.request import read as read_response
from fuzz.material import ODD, body, is_json

_ASKED = (
    "model", "messages", "role", "content", "user", "assistant", "system", "tool", "developer", "stream", "max_tokens",
    "temperature", "top_k", "top_p", "stop", "stop_sequences", "tools", "tool_choice", "function", "name", "parameters",
    "type", "text", "image", "image_url", "url", "source", "base64", "data", "media_type", "document", "tool_use",
    "tool_result", "tool_use_id", "id", "input", "thinking", "enabled", "budget_tokens", "output_config", "format",
    "json_schema", "schema", "any", "auto", "none", "required", "allowed_tools", "mode", "reasoning_effort", "effort",
    "high", "num_ctx", "n", "chat_template_kwargs", "enable_thinking", "response_format", "reasoning", "instructions",
    "previous_response_id", "store", "include", "metadata", "message", "function_call", "call_id", "arguments",
    "function_call_output", "output", "summary", "input_text", "input_image", "input_audio", "prompt", "suffix",
    "system", "template", "raw", "context", "images", "options", "keep_alive", "think", "logprobs", "top_logprobs",
    "5m", "-1", "modelfile", "from", "files", "adapters", "license", "FROM x\nPARAMETER temperature 1",
    "TEMPLATE {{ .Prompt }}", "sha256:" + "a" * 64, "a.gguf", "{{ .System }}{{ if .Prompt }}x{{ end }}", "truncate",
    "dimensions", "context-size", "runtime-flags", "raw-runtime-flags", "--threads 2", "--temp", "--log-file", "-c",
    "llamacpp", "reasoning-budget", "backend", "parallel_tool_calls", "minimal", "title", "search_result", "verbosity",
    "<|channel|>analysis<|message|>a<|end|>", *ODD,
)  # fmt: skip


def _anthropic(given: bytes) -> Any:
    anthropic_asked = anthropic.read(given)
    anthropic.read(given, counting=True)
    return _chat(anthropic_asked.chat)


def _responses(given: bytes) -> Any:
    made = read_response(given, lambda kind: f"{kind}_1")
    return [_chat({**made.chat, "messages": messages_of(made.items, made.instructions)}), made.items, made.echoed]


def _ollama(read: Callable[[dict[str, Any]], Any]) -> Callable[[bytes], Any]:
    def asks(given: bytes) -> Any:
        made = read(asked.read(given))
        if isinstance(made, embed.Wanted):
            return json.loads(made.body(list(made.inputs)))
        found = made.body if isinstance(made, Wanted) else None
        return _chat(found) if found is not None and "messages" in found else found

    return asks


def _docker(given: bytes) -> Any:
    made = configure.read(given)
    tuning = made.over(Tuning())
    return [list(tuning.args or ()), configure.shown(made.model, tuning, None)]


def _openai(given: bytes) -> Any:
    if is_plain(given):
        return None
    return _chat(strict(given))


_STYLES = (
    Style(), Style("harmony", False, True, "levels", True), Style("think", True, True, "switch", False),
    style_of("<think>{{ x }}</think>{{ tools }}", "qwen3"),
)  # fmt: skip


def _chat(request: Any) -> Any:
    """As every chat request goes on, whatever its dialect."""
    if not isinstance(request, dict):
        return None
    out = []
    for style in _STYLES:
        made = prepared(request, style)
        bare(made.request)
        out.append(made.request)
        assert all(isinstance(each, bytes) for pair in made.headers for each in pair)
    request, must = tool_choice.chosen(request)
    if must:
        out.append(tool_choice.bound(request))
    return out


_READERS: tuple[Callable[[bytes], Any], ...] = (
    _anthropic, _responses, _openai, _docker, _ollama(read_chat), _ollama(read_generate), _ollama(read_create),
    _ollama(embed.read_embed), _ollama(embed.read_embeddings),
)  # fmt: skip


def requests(data: bytes) -> None:
    """A request in any dialect is read, or refused with a hint; what an engine is asked then is JSON."""
    which = data[0] % len(_READERS) if data else 0
    given = body(data[1:], _ASKED)
    if _READERS[which] is _openai:
        try:
            strict(given)
        except (ValueError, RecursionError):
            return  # which is refused before
    try:
        made = _READERS[which](given)
    except CorralError as exc:
        assert exc.hint and exc.message
    else:
        is_json(json.dumps(made).encode())
    wanted(given.decode("utf-8", "replace"))
