"""What an engine's own error says about the engine: that it has run out of memory, or lost its GPU. Pure.

llama.cpp goes on after a failed allocation or a lost device, and answers every request with an error from then on. Such
an error is no answer to the client: the engine is to be replaced.

Errors may quote what a client sent, and nobody should be able to have an engine replaced by asking for it. So the
message is looked at as a whole: nothing but words of the engine's own may stand before or after what is looked for.
"""

from __future__ import annotations

import json
import re

_LONGEST_BYTES = 16 << 10  # such an error is short

# Source: llama.cpp's server (`decode() failed: ` and `Failed to initialize samplers: ` before an exception's words, an
# exception's words alone), libstdc++, libc++ and MSVC's `bad_alloc`, vulkan.hpp's exceptions, ggml's own messages, and
# PyTorch's, which vLLM passes on.
_LEAD = (
    r"(?:[a-z_]+\(\) failed: |Failed to initialize samplers: "
    r"|Unable to generate parser for this template\. Automatic parser generation failed: )?"
)
_SAID = (
    r"std::bad_(?:alloc|array_new_length)|bad allocation|MemoryError|[Cc]annot allocate memory"
    r"|vk::(?:\w+::)*\w+: Error(?:OutOfDeviceMemory|OutOfHostMemory|DeviceLost|InitializationFailed)"
    r"|(?:CUDA|ROCm|MUSA) error(?:: |\n).*|CUDA out of memory\. Tried to allocate .*"
    r"|(?:\w+: )?(?:failed|unable) to allocate (?:\w+ ){1,4}buffers?(?: of size \d+)?"
)
_MESSAGE = re.compile(rf"{_LEAD}(?:{_SAID})", re.DOTALL)
_STUMBLES = ("Invalid input batch.", "Compute error.")
"""What llama.cpp says of requests whose computation failed for whatever reason: over what another one left behind when
its memory was not enough, for one. It clears the slot then, and the next try may well go through."""
_EVENT = re.compile(rb"(?:data|error): ?(\{.*\})\s*\Z")


def ailment(message: str) -> str:
    """`message`, where it says that the engine is no good any more; else nothing."""
    return message if _MESSAGE.fullmatch(message) else ""


def stumbled(message: str) -> bool:
    """Whether it says only that this computation failed."""
    return message in _STUMBLES


def in_event(events: bytes) -> str:
    """The message of the error that the last of these server-sent events is; empty where it is none."""
    last = events[-_LONGEST_BYTES:].rstrip().rpartition(b"\n")[2]
    found = _EVENT.match(last)
    return in_answer(found[1]) if found is not None and b'"error"' in last else ""


def in_answer(text: bytes) -> str:
    """The message of an error's body; empty where there is none."""
    if len(text) > _LONGEST_BYTES:
        return ""
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        return ""
    error = data.get("error") if isinstance(data, dict) else None
    message = error.get("message") if isinstance(error, dict) else error
    if message is None and isinstance(data, dict) and data.get("object") == "error":
        message = data.get("message")
    return message if isinstance(message, str) else ""
