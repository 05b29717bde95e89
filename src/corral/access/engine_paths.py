"""What a key must be good for to reach a path of an engine itself. Pure.

An engine's own API has paths that answer requests, and paths that change the engine for everybody or show what others
asked. So what is not known to be harmless needs an administrator's key.
"""

from __future__ import annotations

from typing import Final

from corral.access.keys import Scope

_ASK: Final = frozenset(
    f"{prefix}/{name}"
    for prefix in ("", "/v1", "/v2", "/api")
    for name in (
        "chat/completions", "chat/completions/input_tokens", "completions", "completion", "responses",
        "responses/input_tokens", "embeddings", "embedding", "embed", "messages",
        "messages/count_tokens", "rerank", "reranking", "score", "pooling", "classify", "infill", "tokenize",
        "detokenize", "apply-template", "audio/transcriptions", "audio/translations", "audio/speech",
        "images/generations", "images/edits", "generate", "chat",
    )
)  # fmt: skip
"""Requests that an engine answers and then forgets."""

_READ: Final = frozenset(
    ("/health", "/v1/health", "/ping", "/version", "/v1/models", "/models", "/props", "/load", "/is_sleeping")
)
"""What may be looked at."""


def scope_of(method: str, path: str) -> Scope:
    """`path` is the engine's own, percent-decoded and without a query."""
    if method in ("GET", "HEAD"):
        if path in _READ or path.startswith("/v1/models/"):
            return "infer"
        return "metrics" if path == "/metrics" else "admin"  # /slots shows what others ask; files of a web page too
    return "infer" if method == "POST" and path in _ASK else "admin"
