"""What an engine's refusal means for whoever asked: its own words and fields, and a hint beside them. Pure.

Source: the messages of llama.cpp's server (`tools/server`) and vLLM's that a client or `models.yaml` can do something
about.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any, Final

_LONGEST_BYTES: Final = 64 << 10  # a refusal is short

INPUT: Final = re.compile(
    r"(?i)\b(image|audio|video)s?\b.*not supported|failed to (load|decode|process).*(image|audio|media)"
    r"|does not supp?ort (multimodal|audio|image|vision)"
)
"""The model takes no pictures or sounds, or could not read this one: llama.cpp calls that its own failure, which
clients would try again."""

_RULES: Final[tuple[tuple[re.Pattern[str], Callable[[re.Match[str]], str]], ...]] = (
    (INPUT, lambda found: "the model takes no such input, or it cannot be read: a model with a projector does"),
    (
        re.compile(r"[Ss]tart it with `(--[\w-]+)`?"),
        lambda found: f"put {found[1]} into `args` of the model in models.yaml, or use a model that is made for it",
    ),
    (
        re.compile(r"[Ss]tart it without `(--[\w-]+)`?"),
        lambda found: f"take {found[1]} out of `args` of the model in models.yaml, or use another model",
    ),
    (
        re.compile(r"exceeds? the available context size|maximum context length|exceeds the context|exceed_context"),
        lambda found: "send less, or give the model more with `context` in models.yaml",
    ),
    (
        re.compile(r"too large to process. increase the physical batch size|are too large to process"),
        lambda found: (
            "send less at a time, or put --batch-size and --ubatch-size into `args` of the model in models.yaml"
        ),
    ),
    (
        re.compile(r"Infill is not supported by this model"),
        lambda found: "use a model that is made to fill gaps: `corral show` says `insert` of it",
    ),
)


def hint_of(message: str) -> str:
    """What to do about an engine's refusal; empty where nothing is known."""
    return next((hint(found) for rule, hint in _RULES if (found := rule.search(message)) is not None), "")


def explained(status: int, body: bytes) -> tuple[int, bytes]:
    """An engine's error with a `hint` where one is known: every field as it was, but the status (and where the body
    tells it, the code) 400 where it was the request's fault and the engine says that it was its own. Its 501 stays: it
    says that nothing of the kind is offered."""
    if status < 400 or len(body) > _LONGEST_BYTES:
        return status, body
    try:
        whole = json.loads(body)
    except (ValueError, RecursionError):
        return status, body
    error = whole.get("error") if isinstance(whole, dict) else None
    inner: Any = error if isinstance(error, dict) else whole
    message = inner.get("message", error) if isinstance(inner, dict) else None
    if not isinstance(message, str) or not (hint := hint_of(message)) or "hint" in inner:
        return status, body
    inner["hint"] = hint
    if status >= 500 and status != 501 and INPUT.search(message) is not None:
        if inner.get("code") == status:
            inner["code"] = 400
        if inner.get("type") == "server_error":
            inner["type"] = "invalid_request_error"
        status = 400
    return status, json.dumps(whole, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
