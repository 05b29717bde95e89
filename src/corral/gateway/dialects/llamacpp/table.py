"""llama.cpp's routes and llama-swap's, each with what becomes of it here.

Sources: llama.cpp's tools/server/server.cpp, build 11434; llama-swap 0bdb3720, `proxy/proxymanager.go`.
"""

from __future__ import annotations

from typing import Final

from corral.gateway.dialects.dialect import Said
from corral.gateway.dialects.responses.table import ROUTES as RESPONSES

_SHAPES: Final = "tests/gateway/llamacpp/test_shapes.py::"
_SERVE: Final = "tests/gateway/llamacpp/test_router.py::"
_PAGES: Final = "tests/gateway/llamacpp/test_page.py::"
_SWAP: Final = "tests/gateway/llamacpp/test_swap_routes.py::"
_ENGINE: Final = _SHAPES + "test_paths_of_an_engine"
_LOOK: Final = _SHAPES + "test_what_an_engine_tells_of_itself"
_CHANGE: Final = _SHAPES + "test_what_changes_an_engine"
_NOT: Final = _SHAPES + "test_what_is_not_offered_says_so"
_UNDER: Final = _SHAPES + "test_openai_and_anthropic_are_under_the_prefix_too"
_STREAMS: Final = _SHAPES + "test_no_stream_outlives_its_client"

_PAGE: Final = "`page` of an address gives it llama.cpp's web page, at its root"
_TOOLS: Final = "Corral runs no tools: the client does, as the model asks for them"
_RECORDS: Final = "what happened is at GET /control/events, what was asked in `corral usage`"
_IMAGES: Final = "no engine here makes images"
_SOUND: Final = "no engine here speaks"
_V: Final = "say /v1"

DISABLED: Final = ("/tools", "/cors-proxy")
"""Of those that are refused, what its own server answers with 403 unless it is switched on."""
REFUSED: Final = (
    Said("POST", "/v1/chat/completions/control", "refused",
         "leave, and the answer ends; `reasoning_effort` says how much a model thinks", _NOT),
    Said("*", "/tools", "refused", _TOOLS, _NOT),
    Said("*", "/cors-proxy", "refused", "Corral fetches nothing for others", _NOT),
    Said("*", "/v1/systemone", "refused", "ask for a chat completion", _NOT),
    Said("GET", "/ui/", "refused", _PAGE, _NOT),
    Said("GET", "/ui/{path}", "refused", _PAGE, _NOT),
    Said("*", "/v/{path}", "refused", _V, _NOT),
    Said("GET", "/unload", "refused", "any page could have a browser ask for it: POST /api/models/unload", _NOT),
    Said("GET", "/wol-health", "refused", "Corral wakes no other machine: GET /health", _NOT),
    Said("GET", "/logs", "refused", "each model has its own: GET /control/logs/{model}", _NOT),
    Said("GET", "/logs/stream", "refused", "each model has its own: GET /control/logs/{model}?follow=1", _NOT),
    Said("GET", "/logs/stream/{model}", "refused", "GET /control/logs/{model}?follow=1", _NOT),
    Said("GET", "/api/profiles", "refused", "aliases and `corral reload` do what profiles do", _NOT),
    Said("PUT", "/api/profiles/active", "refused", "aliases and `corral reload` do what profiles do", _NOT),
    Said("POST", "/api/inflight/{id}/cancel", "refused", "a client that leaves ends its request", _NOT),
    Said("GET", "/api/events", "refused", "GET /control/events?follow=1, or GET /models/sse", _NOT),
    Said("GET", "/api/metrics/activity", "refused", _RECORDS, _NOT),
    Said("GET", "/api/metrics/stats", "refused", _RECORDS, _NOT),
    Said("GET", "/api/performance", "refused", "GET /control/devices has the memory of each device", _NOT),
    Said("GET", "/api/hardware", "refused", "GET /control/devices", _NOT),
    Said("GET", "/api/captures/{id}", "refused", _RECORDS, _NOT),
    Said("*", "/comfyui/{path}", "refused", _IMAGES, _NOT),
    Said("*", "/sdapi/{path}", "refused", _IMAGES, _NOT),
    Said("*", "/audioapi/{path}", "refused", _SOUND, _NOT),
    Said("*", "/v1/audio/voices", "refused", _SOUND, _NOT),
    Said("POST", "/v1/audio/speech", "refused", _SOUND, _NOT),
    Said("POST", "/v1/images/generations", "refused", _IMAGES, _NOT),
    Said("POST", "/v1/images/edits", "refused", _IMAGES, _NOT),
)  # fmt: skip

RELAYED: Final = (
    Said("POST", "/completion", "native", "", _ENGINE),
    Said("POST", "/completions", "native", "", _ENGINE),
    Said("POST", "/infill", "native", "", _ENGINE),
    Said("POST", "/embedding", "native", "", _ENGINE),
    Said("POST", "/embeddings", "native", "", _ENGINE),
    Said("POST", "/chat/completions/input_tokens", "native", "", _ENGINE),
    Said("POST", "/v1/chat/completions/input_tokens", "native", "", _ENGINE),
)
"""What a model answers at the same path."""

LOOKED_AT: Final = (
    Said("GET", "/slots", "native", "shows what others ask: for administrators", _LOOK),
    Said("GET", "/lora-adapters", "native", "for administrators", _LOOK),
    Said("GET", "/metrics", "native", "of the model that `?model=` or the listener names", _LOOK),
)

CHANGED: Final = (
    Said("POST", "/props", "native", "for administrators; where the engine was started with --props", _CHANGE),
    Said("POST", "/slots/{id}", "native", "`?action=`; for administrators", _CHANGE),
    Said("POST", "/lora-adapters", "native", "`?model=` names the model; for administrators", _CHANGE),
)

ROUTES: Final = (
    Said("GET", "/", "corral", "llama.cpp's web page and its files where the address has a `page`; else a greeting",
         _PAGES + "test_the_files_are_at_the_root"),
    Said("GET", "/favicon.ico", "corral", "the page's, or Corral's own", _PAGES + "test_the_icon"),
    *RELAYED,
    Said("POST", "/chat/completions", "native", "as at /v1/chat/completions", _ENGINE),
    *(Said("POST", path, "native", "", _ENGINE) for path in (
        "/tokenize", "/detokenize", "/apply-template", "/rerank", "/reranking",
    )),
    Said("GET", "/props", "native", "of the model that `?model=` or the listener names; else the router's own", _LOOK),
    *LOOKED_AT,
    *CHANGED,
    Said("GET", "/health", "corral", "Corral's own: an engine's is at /upstream/{model}/health", _LOOK),
    Said("GET", "/v1/health", "corral", "likewise", _LOOK),
    Said("GET", "/models", "corral", "as the router lists them", _SHAPES + "test_the_list_of_models"),
    Said("GET", "/v1/models", "corral", "likewise", _SHAPES + "test_the_list_of_models"),
    Said("GET", "/v1/models/{model}", "corral", "one of them", _SHAPES + "test_the_list_of_models"),
    Said("POST", "/models", "corral", "fetches a model", _SERVE + "test_a_download_is_followed"),
    Said("DELETE", "/models", "corral", "`?model=`; models of the store, and downloads",
         _SERVE + "test_a_download_is_followed"),
    Said("POST", "/models/load", "corral", "answers at once", _SHAPES + "test_loading_and_unloading"),
    Said("POST", "/models/unload", "corral", "answers at once; pauses a download",
         _SHAPES + "test_loading_and_unloading"),
    Said("GET", "/models/sse", "corral", "what happens to models", _SERVE + "test_the_feed"),
    Said("GET", "/v1/stream", "refused", "an answer ends when its client leaves: nothing is kept to go on with",
         _STREAMS),
    Said("GET", "/v1/stream/{id}", "refused", "likewise", _STREAMS),
    Said("DELETE", "/v1/stream", "corral", "there is none", _STREAMS),
    Said("DELETE", "/v1/stream/{id}", "corral", "there is none", _STREAMS),
    Said("POST", "/v1/streams/lookup", "corral", "an empty list", _STREAMS),
    *(Said("POST", path, "native", "OpenAI's", _UNDER) for path in (
        "/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/rerank", "/v1/reranking",
        "/v1/audio/transcriptions",
    )),
    *(Said(row.method, row.path, row.how, "OpenAI's", _UNDER) for row in RESPONSES),
    Said("POST", "/v1/messages", "translated", "Anthropic's", _UNDER),
    Said("POST", "/v1/messages/count_tokens", "translated", "Anthropic's", _UNDER),
    Said("*", "/upstream/{model}", "native", "any path of the engine; the model may be in `?model=` instead",
         _SHAPES + "test_upstream_takes_the_model_from_the_query"),
    Said("GET", "/running", "corral", "llama-swap's", _SWAP + "test_what_runs"),
    Said("POST", "/api/models/unload", "corral", "llama-swap's: all of them", _SWAP + "test_unloading"),
    Said("POST", "/api/models/unload/{model}", "corral", "llama-swap's", _SWAP + "test_unloading"),
    Said("GET", "/api/version", "corral", "as Ollama's clients expect it", _SWAP + "test_what_runs"),
    *REFUSED,
)  # fmt: skip
