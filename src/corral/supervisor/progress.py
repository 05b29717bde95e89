"""How far a long start is, by what the engine says in its log. Pure.

Source: vLLM 0.32's log, and tqdm's bars.
"""

from __future__ import annotations

import re
from typing import Final

_SAID: Final = tuple(
    (re.compile(pattern), words)
    for pattern, words in (
        (r"non-default args", "its modules are loaded"),
        (r"Initializing a V1 LLM engine|init engine|OpenMP thread binding", "its workers are started"),
        (r"Starting to load model", "loads the model"),
        (r"Loading \S+ checkpoint shards: +(?P<percent>\d+)%", "reads its weights, {percent} %"),
        (r"Loading weights took", "its weights are read"),
        (r"[Cc]ompiling a graph|torch\.compile takes|Dynamo bytecode transform", "compiles the model"),
        (r"KV cache size", "its cache is made"),
        (r"Capturing CUDA graphs?.*?(?P<percent>\d+)%", "captures graphs, {percent} %"),
        (r"init engine .* took", "its engine is made"),
        (r"Starting vLLM server", "opens its server"),
    )
)


def said(log: str) -> str:
    """The furthest that the log tells of, in words; empty where it tells nothing."""
    found, at = "", -1
    for pattern, words in _SAID:
        for match in pattern.finditer(log):
            if match.start() >= at:
                found, at = words.format(**match.groupdict()), match.start()
    return found
