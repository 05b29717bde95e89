"""Ollama's routes, each with what becomes of it here. Source: Ollama 0.33, `server/routes.go`."""

from __future__ import annotations

from typing import Final

from corral.gateway.dialects.dialect import Said
from corral.gateway.dialects.responses.table import ROUTES as RESPONSES

VERSION: Final = "0.33.0"
"""The version of Ollama's API that is spoken; clients compare it with what they need."""

_SHAPES: Final = "tests/gateway/ollama/test_shapes.py::"
_CLIENT: Final = "tests/gateway/ollama/test_python_client.py::"
_MANAGE: Final = "tests/gateway/ollama/test_manage.py::"
_ACCOUNT: Final = "accounts of ollama.com are not Corral's: keys of this server are made with `corral keys`"
_WEB: Final = "Corral sends nothing to other services: give the model a tool of your own"

REFUSED: Final = (
    Said("POST", "/api/me", "refused", _ACCOUNT, _SHAPES + "test_what_is_not_offered_says_so"),
    Said("POST", "/api/signout", "refused", _ACCOUNT, _SHAPES + "test_what_is_not_offered_says_so"),
    Said("DELETE", "/api/user/keys/{key}", "refused", _ACCOUNT, _SHAPES + "test_what_is_not_offered_says_so"),
    Said("POST", "/api/experimental/web_search", "refused", _WEB, _SHAPES + "test_what_is_not_offered_says_so"),
    Said("POST", "/api/experimental/web_fetch", "refused", _WEB, _SHAPES + "test_what_is_not_offered_says_so"),
    Said(
        "GET", "/api/experimental/model-recommendations", "refused", "`corral search` finds models",
        _SHAPES + "test_what_is_not_offered_says_so",
    ),
)  # fmt: skip

ROUTES: Final = (
    Said("GET", "/", "corral", "the greeting, at the root where the listener's dialect is ollama, else at /ollama and "
         "/ollama/", _SHAPES + "test_the_greeting_and_the_version"),
    Said("HEAD", "/", "corral", "likewise", _SHAPES + "test_the_greeting_and_the_version"),
    Said("GET", "/api/version", "corral", "the version of the API that is spoken",
         _SHAPES + "test_the_greeting_and_the_version"),
    Said("HEAD", "/api/version", "corral", "", _SHAPES + "test_the_greeting_and_the_version"),
    Said("GET", "/api/status", "corral", "there is no cloud", _SHAPES + "test_the_greeting_and_the_version"),
    Said("GET", "/api/tags", "corral", "", _SHAPES + "test_tags_and_ps_and_show"),
    Said("HEAD", "/api/tags", "corral", "", _SHAPES + "test_the_greeting_and_the_version"),
    Said("GET", "/api/ps", "corral", "", _SHAPES + "test_tags_and_ps_and_show"),
    Said("POST", "/api/show", "corral", "", _SHAPES + "test_tags_and_ps_and_show"),
    Said("POST", "/api/chat", "translated", "", _CLIENT + "test_chat_whole_and_streamed"),
    Said("POST", "/api/generate", "translated", "", _CLIENT + "test_generate_and_its_context"),
    Said("POST", "/api/embed", "translated", "", _CLIENT + "test_embeddings"),
    Said("POST", "/api/embeddings", "translated", "", _CLIENT + "test_embeddings"),
    Said("POST", "/api/pull", "corral", "a client that leaves does not end the download",
         _MANAGE + "test_pull_tells_how_far_it_is"),
    Said("POST", "/api/push", "corral", "to OCI registries", _MANAGE + "test_push_goes_to_a_registry"),
    Said("POST", "/api/create", "corral", "of a stored model or of GGUF blobs; what `quantize` would do, "
         "`corral quantize` and `corral convert` do", _MANAGE + "test_create_of_a_stored_model"),
    Said("POST", "/api/copy", "corral", "", _MANAGE + "test_copy_and_delete"),
    Said("DELETE", "/api/delete", "corral", "", _MANAGE + "test_copy_and_delete"),
    Said("HEAD", "/api/blobs/{digest}", "corral", "", _MANAGE + "test_create_of_a_blob"),
    Said("POST", "/api/blobs/{digest}", "corral", "", _MANAGE + "test_create_of_a_blob"),
    *REFUSED,
    Said("POST", "/v1/chat/completions", "native", "OpenAI's, with OpenAI's errors",
         _SHAPES + "test_openai_is_under_the_prefix_too"),
    Said("POST", "/v1/completions", "native", "OpenAI's", _SHAPES + "test_openai_is_under_the_prefix_too"),
    Said("POST", "/v1/embeddings", "native", "OpenAI's", _SHAPES + "test_openai_is_under_the_prefix_too"),
    Said("POST", "/v1/audio/transcriptions", "native", "OpenAI's: by models with a projector for sound",
         _SHAPES + "test_openai_is_under_the_prefix_too"),
    *(Said(row.method, row.path, row.how, "OpenAI's", _SHAPES + "test_openai_is_under_the_prefix_too")
      for row in RESPONSES),
    Said("POST", "/v1/messages", "translated", "Anthropic's, with Anthropic's errors",
         _SHAPES + "test_anthropic_is_under_the_prefix_too"),
    Said("POST", "/v1/messages/count_tokens", "translated", "Anthropic's",
         _SHAPES + "test_anthropic_is_under_the_prefix_too"),
    Said("POST", "/v1/rerank", "native", "", _SHAPES + "test_openai_is_under_the_prefix_too"),
    Said("POST", "/v1/reranking", "native", "", _SHAPES + "test_openai_is_under_the_prefix_too"),
    Said("GET", "/v1/models", "corral", "OpenAI's", _SHAPES + "test_openai_is_under_the_prefix_too"),
    Said("GET", "/v1/models/{model}", "corral", "OpenAI's", _SHAPES + "test_openai_is_under_the_prefix_too"),
)  # fmt: skip
