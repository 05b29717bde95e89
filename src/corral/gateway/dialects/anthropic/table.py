"""Anthropic's routes, each with what becomes of it here."""

from __future__ import annotations

from typing import Final

from corral.gateway.dialects.dialect import Said

_CLIENT: Final = "tests/gateway/test_anthropic_client.py::"
_SHAPES: Final = "tests/gateway/test_anthropic_shapes.py::"
_BATCHES: Final = "Corral keeps no batches: send the requests one by one, they queue"
_FILES: Final = "Corral keeps no files: send images and texts in the messages"
_NOT: Final = _SHAPES + "test_what_is_not_offered_says_so"

REFUSED: Final = (
    Said("POST", "/v1/messages/batches", "refused", _BATCHES, _NOT),
    Said("GET", "/v1/messages/batches", "refused", _BATCHES, _NOT),
    Said("*", "/v1/messages/batches/{id}", "refused", _BATCHES, _NOT),
    Said("POST", "/v1/complete", "refused", "text completions are at /v1/completions, as OpenAI has them", _NOT),
)

FILES: Final = (
    Said("*", "/v1/files", "refused", _FILES, _NOT),
    Said("*", "/v1/files/{id}", "refused", _FILES, _NOT),
)

ROUTES: Final = (
    Said("POST", "/v1/messages", "translated", "into chat completions, streams too", _CLIENT + "test_messages"),
    Said("POST", "/v1/messages/count_tokens", "translated", "the engine renders and counts", _CLIENT + "test_counting"),
    Said(
        "GET", "/v1/models", "corral", "in Anthropic's shape when `anthropic-version` is sent", _CLIENT + "test_models"
    ),
    Said("GET", "/v1/models/{model}", "corral", "likewise", _CLIENT + "test_models"),
    *REFUSED,
    *FILES,
)
