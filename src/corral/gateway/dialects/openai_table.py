"""OpenAI's routes, each with what becomes of it here."""

from __future__ import annotations

from typing import Final

from corral.gateway.dialects.dialect import Said
from corral.gateway.dialects.responses.table import ROUTES as RESPONSES

_CLIENT: Final = "tests/gateway/test_openai_client.py::"
_GAPS: Final = "tests/gateway/test_openai_gaps.py::"
_NOT: Final = _GAPS + "test_what_is_not_offered_says_so"
_FILES: Final = "Corral keeps no files: send what is in them with the request"
_BATCHES: Final = "send the requests one by one: they queue"

REFUSED: Final = (
    Said("*", "/v1/files", "refused", _FILES, _NOT),
    Said("*", "/v1/files/{id}", "refused", _FILES, _NOT),
    Said("*", "/v1/uploads", "refused", _FILES, _NOT),
    Said("*", "/v1/batches", "refused", _BATCHES, _NOT),
    Said("*", "/v1/batches/{id}", "refused", _BATCHES, _NOT),
    Said("POST", "/v1/images/generations", "refused", "no engine here makes images", _NOT),
    Said("POST", "/v1/images/edits", "refused", "no engine here makes images", _NOT),
    Said("POST", "/v1/images/variations", "refused", "no engine here makes images", _NOT),
    Said("POST", "/v1/audio/speech", "refused", "no engine here speaks", _NOT),
    Said("POST", "/v1/audio/translations", "refused", "transcribe it, and have a model translate the text", _NOT),
    Said("POST", "/v1/moderations", "refused", "ask a model that is made for it in a chat", _NOT),
    Said("*", "/v1/assistants", "refused", "responses go on from each other with previous_response_id", _NOT),
    Said("*", "/v1/threads", "refused", "responses go on from each other with previous_response_id", _NOT),
    Said("*", "/v1/conversations", "refused", "responses go on from each other with previous_response_id", _NOT),
    Said("*", "/v1/vector_stores", "refused", _FILES, _NOT),
    Said("*", "/v1/fine_tuning/jobs", "refused", "models are served here, not trained", _NOT),
)

ROUTES: Final = (
    Said("POST", "/v1/chat/completions", "native", "effort, forced tools, num_ctx and n are put right first",
         _CLIENT + "test_the_async_client_gets_answers_and_streams"),
    Said("POST", "/v1/completions", "native", "", _CLIENT + "test_the_async_client_gets_answers_and_streams"),
    Said("POST", "/v1/embeddings", "native", "", _CLIENT + "test_embeddings_and_reranking_work"),
    Said("POST", "/v1/rerank", "native", "", _CLIENT + "test_embeddings_and_reranking_work"),
    Said("POST", "/v1/reranking", "native", "", _CLIENT + "test_embeddings_and_reranking_work"),
    Said("GET", "/v1/models", "corral", "", _CLIENT + "test_the_sync_client_gets_answers_and_streams"),
    Said("GET", "/v1/models/{model}", "corral", "", _CLIENT + "test_the_sync_client_gets_answers_and_streams"),
    *RESPONSES,
    Said("POST", "/v1/audio/transcriptions", "native", "by models with a projector for sound",
         _GAPS + "test_transcriptions_reach_the_engine"),
    *REFUSED,
)  # fmt: skip
