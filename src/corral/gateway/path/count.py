"""Having an engine say what a stream took, and keeping that from clients that did not ask. Pure.

llama.cpp says it in its last event always. Others say it when they are asked, in an event of its own, without choices.
Source: OpenAI's `stream_options.include_usage`.
"""

from __future__ import annotations

import json

from corral.gateway.dialects.chat import datas, parsed


class Silent:
    """The models whose streams do not say it unasked."""

    def __init__(self) -> None:
        self._models: set[str] = set()

    def __contains__(self, model: str) -> bool:
        return model in self._models

    def ended(self, model: str, *, told: bool) -> None:
        """A whole stream of `model`, which was not asked for it, has `told` it or not."""
        if not told:
            self._models.add(model)


def asking(body: bytes) -> bytes | None:
    """The body of a request for a stream so that the engine says it; None when it asks for that itself.

    Other bytes are left alone, unless the client said that it does not want it.
    """
    if b'"stream_options"' in body:
        request = parsed(body)
        if request is None:
            return None
        if "stream_options" in request:
            options = request["stream_options"]
            options = options if isinstance(options, dict) else {}
            if options.get("include_usage") is True:
                return None
            return json.dumps({**request, "stream_options": {**options, "include_usage": True}}).encode()
    at = body.find(b"{") + 1
    comma = b"" if body[at:].lstrip().startswith(b"}") else b","
    return b'%b"stream_options":{"include_usage":true}%b%b' % (body[:at], comma, body[at:])


def without_count(events: bytes) -> bytes:
    """`events` without the one that is there because we asked."""
    if b'"usage"' not in events:
        return events
    kept = []
    for data in datas(events):
        chunk = parsed(data)
        if chunk is None or chunk.get("choices") != [] or not isinstance(chunk.get("usage"), dict):
            kept.append(b"data: %b\n\n" % data)
    return b"".join(kept)
