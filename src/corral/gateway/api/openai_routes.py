"""OpenAI's routes beyond those that are always loaded: responses, transcriptions, and what is not offered."""

from __future__ import annotations

from urllib.parse import parse_qs

from corral.errors import NotOffered
from corral.gateway.api.chat_route import Chat
from corral.gateway.api.inference import Inference
from corral.gateway.api.responses_routes import Responses
from corral.gateway.dialects.multipart import field
from corral.gateway.dialects.openai_table import REFUSED
from corral.gateway.exchange import Exchange
from corral.gateway.host import Host
from corral.gateway.path.proxy import Proxy
from corral.gateway.routes import Handler, Match, Route

_TRANSCRIBE = "/v1/audio/transcriptions"


def openai_routes(host: Host, proxy: Proxy, chat: Chat) -> list[Route]:
    """All of them, those that are always loaded among them for the prefix."""
    responses = Responses(host, chat)
    proxy.at_rest.append(responses.file.close)
    always = [route for route in Inference(host, proxy, chat).routes() if route.path.startswith("/v1/")]
    return [
        *always,
        *responses.routes(),
        Route("POST", _TRANSCRIBE, Transcriptions(host, proxy).answer, large=True, scope="infer", counted=True),
        *(Route(row.method, row.path, _refuse(row.path, row.words), large=True, scope="infer") for row in REFUSED),
    ]


class Transcriptions:
    """Sound to text, by engines that can: the form goes through as it is."""

    def __init__(self, host: Host, proxy: Proxy) -> None:
        self._host, self._proxy = host, proxy

    async def answer(self, exchange: Exchange, match: Match, body: bytes) -> None:
        query = parse_qs(exchange.query.decode("ascii", "replace"))
        name = field(exchange.header(b"content-type") or b"", body, b"model") or query.get("model", [None])[0]
        model = await self._host.find(name, exchange.listener_default, exchange.caller)
        await self._proxy.forward(exchange, model.name, _TRANSCRIBE.encode(), body, again=True, identity=True)


def _refuse(path: str, words: str) -> Handler:
    async def refuse(exchange: Exchange, match: Match, body: bytes) -> None:
        if exchange.header(b"anthropic-version") is not None:
            from corral.gateway.dialects.anthropic.errors import ANTHROPIC

            exchange.dialect = ANTHROPIC
        raise NotOffered(f"{path} is not offered", hint=words)

    return refuse
