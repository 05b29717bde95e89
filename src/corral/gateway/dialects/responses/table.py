"""The routes of OpenAI's responses, each with what becomes of it here."""

from __future__ import annotations

from typing import Final

from corral.gateway.dialects.dialect import Said

_CLIENT: Final = "tests/gateway/test_responses_client.py::"

ROUTES: Final = (
    Said("POST", "/v1/responses", "translated", "into chat completions, streams too; kept unless `store` is false",
         _CLIENT + "test_a_response"),
    Said("GET", "/v1/responses/{id}", "corral", "what was kept", _CLIENT + "test_what_is_kept"),
    Said("DELETE", "/v1/responses/{id}", "corral", "", _CLIENT + "test_what_is_kept"),
    Said("GET", "/v1/responses/{id}/input_items", "corral", "", _CLIENT + "test_what_is_kept"),
    Said("POST", "/v1/responses/{id}/cancel", "refused", "nothing runs in the background: leave, and it is cancelled",
         _CLIENT + "test_what_cannot_be"),
    Said("POST", "/v1/responses/input_tokens", "translated", "the engine renders and counts",
         _CLIENT + "test_counting"),
    Said("POST", "/v1/responses/compact", "refused", "a conversation is kept as it is",
         _CLIENT + "test_what_cannot_be"),
)  # fmt: skip
