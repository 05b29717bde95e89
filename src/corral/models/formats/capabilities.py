"""What a model can do, judged by its header, its template and what its packager claims. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from corral.models.formats.gguf import Header

ALL: Final = ("completion", "tools", "vision", "audio", "thinking", "insert", "embedding", "rerank")
"""In the order in which they are shown; Ollama's words where it has one."""

_RANK = 4  # llama.cpp's pooling type for rerankers
_TOOLS = re.compile(r"\btools\b|\btool_calls?\b|\.Tools\b|\.ToolCalls\b")
_THINKING = re.compile(
    r"<think(?:ing)?>|\benable_thinking\b|\breasoning_content\b|<\|channel\|>|\.Thinking\b|\.Think\b"
)
_INSERT = re.compile(r"\.Suffix\b")
_FIM_KEYS: Final = ("tokenizer.ggml.fim_pre_token_id", "tokenizer.ggml.prefix_token_id")
_OTHER_WORDS: Final = {"image": "vision", "reasoning": "thinking", "tool": "tools", "chat": "completion"}


def capabilities(
    header: Header | None,
    *,
    template: str | None = None,
    claimed: Iterable[str] = (),
    vision: bool = False,
    audio: bool = False,
) -> tuple[str, ...]:
    """Words of `ALL`. `template` counts instead of the header's own; `claimed` adds to what is found out."""
    found = {_OTHER_WORDS.get(word, word) for word in claimed}
    found |= {word for word, has in (("vision", vision), ("audio", audio)) if has}
    if header is not None:
        pooling = header.integer("{arch}.pooling_type")
        if pooling == _RANK:
            found.add("rerank")
        elif header.get("{arch}.attention.causal") is False or pooling:
            found.add("embedding")
        if any(header.integer(key) is not None for key in _FIM_KEYS):
            found.add("insert")
    text = template if template is not None else (header.chat_template if header is not None else None) or ""
    for word, sign in (("tools", _TOOLS), ("thinking", _THINKING), ("insert", _INSERT)):
        if sign.search(text):
            found.add(word)
    if not found & {"embedding", "rerank"}:
        found.add("completion")
    return tuple(word for word in ALL if word in found)
