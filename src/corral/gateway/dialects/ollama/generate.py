"""`/api/generate` as one of llama.cpp's routes: a chat of one turn, a raw prompt, or a gap to be filled."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

from corral.errors import CallerError
from corral.gateway.dialects.ollama import asked
from corral.gateway.dialects.ollama.chat import Wanted, completed
from corral.gateway.dialects.ollama.go_template import render
from corral.gateway.dialects.ollama.memory import recall
from corral.gateway.dialects.ollama.options import native
from corral.gateway.dialects.ollama.times import keep_alive_s

RAW: Final = b"/completion"
INFILL: Final = b"/infill"


def read_generate(given: dict[str, Any]) -> Wanted:
    """Raises CallerError."""
    prompt, suffix = asked.text(given, "prompt"), asked.text(given, "suffix")
    so_far = Wanted(
        asked.model(given),
        asked.flag(given, "stream", True),
        keep_alive_s(given.get("keep_alive")),
        needs=("completion",),
    )
    pictures = asked.images(given)
    if not prompt and not suffix and not pictures:
        return so_far
    system, template = asked.text(given, "system"), asked.text(given, "template")
    raw = asked.flag(given, "raw", False)
    if raw and (system or template or given.get("context")):
        raise CallerError(
            "raw mode does not support template, system, or context", hint="put all of it into the prompt"
        )
    if suffix:
        if pictures or template or raw:
            raise CallerError("suffix goes with a prompt alone", hint="leave out images, template and raw")
        return _plain(given, so_far, {"input_prefix": prompt, "input_suffix": suffix, "prompt": ""}, INFILL)
    if raw or template:
        if pictures:
            raise CallerError("images do not go with raw or a template", hint="use /api/chat for them")
        earlier = recall(given.get("context"))
        if earlier:
            raise CallerError("a template does not go with context", hint="use /api/chat, or leave template out")
        text = prompt if raw else render(template, {"Prompt": prompt, "System": system})
        return _plain(given, so_far, {"prompt": text}, RAW)
    said: Any = [{"type": "text", "text": prompt}, *pictures] if pictures else prompt
    if pictures:
        so_far = replace(so_far, needs=(*so_far.needs, "vision"))
    earlier = recall(given.get("context"))
    if system and earlier and earlier[0]["role"] == "system":
        earlier = earlier[1:]
    messages = [
        *([{"role": "system", "content": system}] if system else []),
        *earlier,
        {"role": "user", "content": said},
    ]
    kept = [*messages[:-1], {"role": "user", "content": prompt}]
    return replace(completed(given, {"messages": messages}, so_far), remember=kept)


def _plain(given: dict[str, Any], so_far: Wanted, body: dict[str, Any], path: bytes) -> Wanted:
    """A prompt that goes to the model as it is."""
    if asked.think(given):
        raise CallerError("think needs the model's own chat template", hint="leave raw, template and suffix out")
    whole = completed(given, {}, so_far)
    assert whole.body is not None
    fields = native({**whole.body, **body})
    form = fields.pop("response_format", None)
    if form is not None:
        fields["json_schema"] = form["json_schema"]["schema"] if "json_schema" in form else {"type": "object"}
    if fields.pop("logprobs", False):
        fields["n_probs"] = fields.pop("top_logprobs")
    for name in ("stream_options", "chat_template_kwargs", "reasoning_effort"):
        fields.pop(name, None)
    needs = ("completion", "insert") if path == INFILL else ("completion",)
    return replace(whole, body=fields, path=path, needs=needs)
