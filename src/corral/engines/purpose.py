"""What a model is for (answering, embedding, reranking), read from its header, and the flags that follow from it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal

from corral.engines import flags
from corral.models.formats.gguf import Header

Purpose = Literal["text", "embedding", "rerank"]

_ENCODERS: Final = frozenset(
    {"bert", "nomic-bert", "nomic-bert-moe", "jina-bert-v2", "jina-bert-v3", "modern-bert", "neo-bert", "eurobert"}
    | {"gemma-embedding", "llama-embed", "t5encoder"}
)
"""Architectures that generate no text."""

_RANK: Final = 4  # llama.cpp's LLAMA_POOLING_TYPE_RANK; 0 is none, the others pool to one vector
_LONGEST_BATCH: Final = 8192


def purpose(header: Header) -> Purpose:
    """What the model in `header` is for."""
    pooling = header.integer("{arch}.pooling_type") or 0
    if pooling == _RANK:
        return "rerank"
    return "embedding" if pooling > 0 or header.architecture in _ENCODERS else "text"


def arguments(header: Header, args: Sequence[str], context: int) -> tuple[str, ...]:
    """The flags that serve the model for its purpose, without those that `args` has already."""
    kind = asked(args) or purpose(header)
    switch = {"text": (), "embedding": ("--embedding",), "rerank": ("--reranking",)}[kind]
    wanted = () if asked(args) else switch
    size = batch(header, args, context)
    return (*wanted, "--batch-size", str(size), "--ubatch-size", str(size)) if size else wanted


def batch(header: Header, args: Sequence[str], context: int) -> int | None:
    """Tokens computed at once for a model that does not generate: such a model must see its whole input at once.

    None leaves it to the engine: for text, and where `args` say something themselves.
    """
    if any(flags.has(args, name) for name in ("--batch-size", "--ubatch-size")):
        return None
    return None if (asked(args) or purpose(header)) == "text" else min(context, _LONGEST_BATCH)


def asked(args: Sequence[str]) -> Purpose | None:
    """What `args` make of the model, whatever it is for."""
    if flags.has(args, "--reranking"):
        return "rerank"
    return "embedding" if flags.has(args, "--embedding") else None
