"""Docker Model Runner's routes, each with what becomes of it here. Source: docker/model-runner 642c7211."""

from __future__ import annotations

from typing import Final

from corral.gateway.dialects.dialect import Said

VERSION: Final = "1.2.6"
"""The version of the API that is spoken; Compose passes flags on to 1.0.6 and later."""

_SHAPES: Final = "tests/gateway/docker/test_shapes.py::"
_STORE: Final = "tests/gateway/docker/test_store.py::"
_INFER: Final = _SHAPES + "test_inference_under_every_prefix"
_LISTS: Final = _SHAPES + "test_the_lists_of_models"
_CONFIGURE: Final = _STORE + "test_configure_is_kept"
_REQUESTS: Final = _STORE + "test_requests_are_shown_to_who_may_see_them"
_NOT: Final = _SHAPES + "test_what_is_not_offered_says_so"

REFUSED: Final = (Said("GET", "/metrics", "refused", "GET /upstream/{model}/metrics has those of an engine", _NOT),)

ROUTES: Final = (
    Said("GET", "/", "corral", "the greeting, at the root where the listener's dialect is docker, else at /docker and "
         "/docker/", _SHAPES + "test_the_greeting_and_the_version"),
    Said("GET", "/version", "corral", "the version of the API that is spoken",
         _SHAPES + "test_the_greeting_and_the_version"),
    Said("GET", "/logs", "corral", "what happened, and what the engines wrote", _SHAPES + "test_logs"),
    *REFUSED,
    Said("GET", "/models", "corral", "", _LISTS),
    Said("POST", "/models/create", "corral", "a pull, with Docker's lines of progress",
         _STORE + "test_pull_tells_how_far_it_is"),
    Said("POST", "/models/load", "corral", "up to max_body_bytes; for larger ones there is `corral load`",
         _STORE + "test_export_and_load"),
    Said("GET", "/models/{name}", "corral", "", _LISTS),
    Said("GET", "/models/{name}?remote=true", "corral", "", _STORE + "test_a_model_of_a_registry"),
    Said("GET", "/models/{name}/export", "corral", "", _STORE + "test_export_and_load"),
    Said("POST", "/models/{name}/tag", "corral", "", _STORE + "test_tag_and_delete"),
    Said("POST", "/models/{name}/push", "corral", "to OCI registries", _STORE + "test_push_goes_to_a_registry"),
    Said("POST", "/models/{name}/repackage", "corral", "", _STORE + "test_repackage"),
    Said("DELETE", "/models/{name}", "corral", "", _STORE + "test_tag_and_delete"),
    Said("DELETE", "/models/purge", "corral", "", _STORE + "test_purge"),
    Said("POST", "/engines/v1/chat/completions", "native", "with X-Preload-Only the model is loaded only", _INFER),
    Said("POST", "/engines/v1/completions", "native", "", _INFER),
    Said("POST", "/engines/v1/embeddings", "native", "", _INFER),
    Said("POST", "/engines/v1/images/generations", "refused", "no engine here makes images", _NOT),
    Said("POST", "/engines/v1/messages", "translated", "Anthropic's", _INFER),
    Said("POST", "/engines/v1/messages/count_tokens", "translated", "Anthropic's", _INFER),
    Said("POST", "/engines/rerank", "native", "", _INFER),
    Said("POST", "/engines/score", "refused", "/engines/rerank gives a score for each document", _NOT),
    Said("GET", "/engines/v1/models", "corral", "", _LISTS),
    Said("GET", "/engines/v1/models/{name}", "corral", "", _LISTS),
    Said("*", "/engines/v1/responses", "translated", "OpenAI's, kept on disk", _INFER),
    Said("*", "/engines/v1/responses/{id}", "translated", "OpenAI's", _INFER),
    Said("*", "/engines/responses", "translated", "OpenAI's", _INFER),
    Said("*", "/engines/responses/{id}", "translated", "OpenAI's", _INFER),
    Said("*", "/engines/{backend}/…", "native", "each of these; the backend may be left out", _INFER),
    Said("GET", "/engines/status", "corral", "", _SHAPES + "test_engines"),
    Said("GET", "/engines/ps", "corral", "", _SHAPES + "test_engines"),
    Said("GET", "/engines/df", "corral", "the engine is part of the installation and counts as 0",
         _SHAPES + "test_engines"),
    Said("POST", "/engines/unload", "corral", "", _SHAPES + "test_engines"),
    Said("POST", "/engines/_configure", "corral", "merged with what was asked before, and kept over restarts; "
         'context-size -1, runtime-flags [] and keep_alive "" take back what was said; no draft model, no vLLM',
         _CONFIGURE),
    Said("POST", "/engines/{backend}/_configure", "corral", "likewise", _CONFIGURE),
    Said("GET", "/engines/_configure", "corral", "", _CONFIGURE),
    Said("GET", "/engines/requests", "corral", "what `corral requests --on` records, on the unix socket or with an "
         "administrator's key", _REQUESTS),
    Said("POST", "/engines/install-backend", "corral", "llama.cpp is always there", _SHAPES + "test_engines"),
    Said("POST", "/engines/uninstall-backend", "refused", "the engine is part of the installation", _NOT),
    Said("POST", "/v1/chat/completions", "native", "as under /engines", _INFER),
    Said("POST", "/v1/completions", "native", "as under /engines", _INFER),
    Said("POST", "/v1/embeddings", "native", "as under /engines", _INFER),
    Said("POST", "/v1/images/generations", "refused", "no engine here makes images", _NOT),
    Said("POST", "/v1/messages", "translated", "Anthropic's", _INFER),
    Said("POST", "/v1/messages/count_tokens", "translated", "Anthropic's", _INFER),
    Said("GET", "/v1/models", "corral", "as under /engines", _LISTS),
    Said("GET", "/v1/models/{name}", "corral", "as under /engines", _LISTS),
    Said("*", "/v1/responses", "translated", "OpenAI's", _INFER),
    Said("*", "/v1/responses/{id}", "translated", "OpenAI's", _INFER),
    Said("POST", "/rerank", "native", "", _INFER),
    Said("POST", "/score", "refused", "/rerank gives a score for each document", _NOT),
    Said("*", "/responses", "translated", "OpenAI's", _INFER),
    Said("*", "/responses/{id}", "translated", "OpenAI's", _INFER),
    Said("POST", "/anthropic/v1/messages", "translated", "Anthropic's", _INFER),
    Said("POST", "/anthropic/v1/messages/count_tokens", "translated", "Anthropic's", _INFER),
    Said("POST", "/api/chat", "translated", "and all of Ollama's: see there; at the root only",
         _SHAPES + "test_a_listener_of_its_own"),
)  # fmt: skip
