"""The routes that each peer's own documentation and source list, written down by hand: what docs/dialects.md must have.

Not made of the tables in `corral.gateway.dialects`, so that a row which is forgotten there is missed here. A line is
`METHODS path…`; `{a,b}` stands for each of several, `{name}` alone for a variable.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

OPENAI: Final = """
    POST /v1/{chat/completions,completions,embeddings,responses,audio/transcriptions,rerank,reranking}
    POST /v1/images/{generations,edits,variations} /v1/audio/{speech,translations} /v1/moderations
    GET /v1/models /v1/models/{model}
    GET,DELETE /v1/responses/{id}
    GET /v1/responses/{id}/input_items
    POST /v1/responses/{id}/cancel /v1/responses/{input_tokens,compact}
    GET,POST /v1/files /v1/batches
    GET,DELETE /v1/files/{id}
    GET /v1/batches/{id} /v1/files/{id}/content
    POST /v1/batches/{id}/cancel /v1/uploads /v1/assistants /v1/threads /v1/conversations /v1/vector_stores
    POST /v1/fine_tuning/jobs
"""

ANTHROPIC: Final = """
    POST /v1/messages /v1/messages/count_tokens /v1/messages/batches /v1/complete
    GET /v1/models /v1/models/{model} /v1/messages/batches /v1/messages/batches/{id} /v1/files /v1/files/{id}
    POST /v1/messages/batches/{id}/cancel
    GET /v1/messages/batches/{id}/results
"""

OLLAMA: Final = """
    HEAD,GET / /api/version /api/tags
    GET /api/status /api/ps /v1/models /v1/models/{model}
    POST /api/{pull,push,show,create,copy,generate,chat,embed,embeddings,me,signout}
    DELETE /api/delete /api/user/keys/{key}
    HEAD,POST /api/blobs/{digest}
    POST /api/experimental/{web_search,web_fetch}
    GET /api/experimental/model-recommendations
    POST /v1/{chat/completions,completions,embeddings,responses,audio/transcriptions,messages}
"""

DOCKER: Final = """
    GET / /version /logs /metrics
    GET /models /models/{name} /models/{name}/export
    POST /models/create /models/load /models/{name}/{tag,push,repackage}
    DELETE /models/{name} /models/purge
    POST /engines/v1/{chat/completions,completions,embeddings,images/generations,messages,messages/count_tokens}
    POST /engines/llama.cpp/v1/{chat/completions,completions,embeddings,images/generations}
    POST /engines/llama.cpp/v1/{messages,messages/count_tokens}
    POST /engines/{rerank,score} /engines/llama.cpp/{rerank,score} /rerank /score
    GET /engines/v1/models /engines/v1/models/{name} /engines/llama.cpp/v1/models /engines/llama.cpp/v1/models/{name}
    GET /engines/{status,ps,df,requests,_configure}
    POST /engines/{unload,_configure,install-backend,uninstall-backend} /engines/llama.cpp/_configure
    POST /v1/{chat/completions,completions,embeddings,images/generations,messages,messages/count_tokens,responses}
    GET /v1/models /v1/models/{name}
    POST /responses /engines/responses /engines/v1/responses /engines/llama.cpp/v1/responses
    GET,DELETE /v1/responses/{id} /responses/{id} /engines/responses/{id} /engines/v1/responses/{id}
    GET /v1/responses/{id}/input_items /responses/{id}/input_items /engines/v1/responses/{id}/input_items
    POST /anthropic/v1/{messages,messages/count_tokens}
    POST /api/chat
"""

LLAMACPP: Final = """
    GET / /health /v1/health /props /slots /metrics /models /v1/models /lora-adapters /models/sse /v1/stream
    POST /props /lora-adapters /slots/{id} /models /models/{load,unload}
    DELETE /models /v1/stream
    POST /completion /completions /chat/completions /infill /embedding /embeddings /rerank /reranking /tokenize
    POST /detokenize /apply-template /v1/streams/lookup
    POST /v1/{completions,embeddings,rerank,reranking,audio/transcriptions,messages,messages/count_tokens,systemone}
    POST /v1/chat/{completions,completions/control,completions/input_tokens} /v1/{responses,responses/input_tokens}
    GET,POST /tools /cors-proxy
"""

LLAMA_SWAP: Final = """
    POST /v1/{chat/completions,responses,completions,messages,messages/count_tokens,embeddings,rerank,reranking}
    POST /v1/audio/{speech,voices,transcriptions} /v1/images/{generations,edits} /sdapi/v1/{txt2img,img2img}
    POST /audioapi/v1/tasks/run /rerank /reranking /infill /completion
    POST /v/{chat/completions,responses,completions,messages,messages/count_tokens,embeddings,rerank,reranking}
    GET /v1/audio/voices /sdapi/v1/loras /props /v1/models /models /health /wol-health / /ui/ /favicon.ico /unload
    GET /running /upstream/{model} /comfyui/{path} /logs /logs/stream /logs/stream/{model} /metrics
    POST /upstream/{model} /api/models/unload /api/models/unload/{model} /api/inflight/{id}/cancel
    GET /api/profiles /api/events /api/metrics/{activity,stats} /api/{performance,version,hardware}
    GET /api/captures/{id}
    PUT /api/profiles/active
"""

LISTS: Final = {
    "openai": OPENAI,
    "anthropic": ANTHROPIC,
    "ollama": OLLAMA,
    "docker": DOCKER,
    "llamacpp": LLAMACPP + LLAMA_SWAP,
}
_SEVERAL: Final = re.compile(r"\{([^{}]*,[^{}]*)\}")


def routes(dialect: str) -> Iterator[tuple[str, str]]:
    """Each method and path of `dialect`."""
    for line in filter(None, map(str.strip, LISTS[dialect].splitlines())):
        methods, *paths = line.split()
        for path in paths:
            several = _SEVERAL.search(path)
            for each in several[1].split(",") if several else ("",):
                for method in methods.split(","):
                    yield method, path.replace(several[0], each) if several else path
