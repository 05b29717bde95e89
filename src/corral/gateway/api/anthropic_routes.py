"""Anthropic's routes: messages, the counting of their tokens, and its list of models."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl

from corral.errors import NotOffered
from corral.gateway import request_ids
from corral.gateway.answer import send_json
from corral.gateway.api.chat_route import Chat
from corral.gateway.api.inference import Inference
from corral.gateway.dialects.anthropic import models
from corral.gateway.dialects.anthropic.answer import Message
from corral.gateway.dialects.anthropic.errors import ANTHROPIC
from corral.gateway.dialects.anthropic.request import read
from corral.gateway.dialects.anthropic.table import FILES, REFUSED
from corral.gateway.exchange import Exchange
from corral.gateway.host import Host
from corral.gateway.http.headers import first
from corral.gateway.path.proxy import Proxy
from corral.gateway.routes import Handler, Match, Route


def anthropic_routes(host: Host, proxy: Proxy, chat: Chat) -> list[Route]:
    """All of them; the list of models is OpenAI's at the root, which knows when it is asked for this one."""
    messages = Messages(host, chat)
    lists = Lists(Inference(host, proxy, chat))
    return [
        _route("POST", "/v1/messages", messages.answer, counted=True),
        _route("POST", "/v1/messages/count_tokens", messages.count, counted=True),
        *(_route(row.method, row.path, _refuse(row.path, row.words)) for row in REFUSED),
        _route("GET", "/v1/models", lists.models),
        _route("GET", "/v1/models/{model}", lists.model),
        *(_route(row.method, row.path, _refuse(row.path, row.words)) for row in FILES),
    ]


class Messages:
    """What a model answers."""

    def __init__(self, host: Host, chat: Chat) -> None:
        self._host, self._chat = host, chat

    async def answer(self, exchange: Exchange, match: Match, body: bytes) -> None:
        number(exchange)
        asked = read(body)
        model = await self._host.find(asked.model, exchange.listener_default, exchange.caller)
        name = asked.model or model.name
        await self._chat.ask(
            exchange,
            model,
            asked.chat,
            lambda lease: Message(
                name,
                request_ids.new_request_id().decode()[4:],
                thinks=asked.thinks,
                prefill=asked.prefill,
                single=asked.chat.get("parallel_tool_calls") is False,
            ),
            budget=asked.budget,
        )

    async def count(self, exchange: Exchange, match: Match, body: bytes) -> None:
        number(exchange)
        asked = read(body, counting=True)
        model = await self._host.find(asked.model, exchange.listener_default, exchange.caller)
        tokens = await self._chat.count(exchange, model, asked.chat)
        await send_json(exchange, {"input_tokens": tokens})


class Lists:
    """The list of models, where only Anthropic's clients ask."""

    def __init__(self, inference: Inference) -> None:
        self._inference = inference

    async def models(self, exchange: Exchange, match: Match, body: bytes) -> None:
        await send_models(exchange, await self._inference.entries(exchange))

    async def model(self, exchange: Exchange, match: Match, body: bytes) -> None:
        await send_model(exchange, self._inference, match.rest)


async def send_models(exchange: Exchange, entries: list[dict[str, Any]]) -> None:
    """The list in Anthropic's shape, a page of it as the query wants it."""
    exchange.dialect = ANTHROPIC
    number(exchange)
    query = dict(parse_qsl(exchange.query.decode("ascii", "replace")))
    await send_json(exchange, models.page(entries, query))


async def send_model(exchange: Exchange, inference: Inference, name: str) -> None:
    """One model in Anthropic's shape. Raises UnknownModel."""
    exchange.dialect = ANTHROPIC
    number(exchange)
    await send_json(exchange, models.entry(await inference.entry(name, exchange.caller)))


def number(exchange: Exchange) -> None:
    """Anthropic's clients look for the request's id in a field of their own."""
    if (known := first(exchange.extra, b"x-request-id")) is not None:
        exchange.extra = [*exchange.extra, (b"request-id", known)]


def _route(method: str, path: str, handler: Handler, *, counted: bool = False) -> Route:
    return Route(method, path, handler, large=counted, counted=counted, scope="infer", dialect=ANTHROPIC)


def _refuse(path: str, words: str) -> Handler:
    async def refuse(exchange: Exchange, match: Match, body: bytes) -> None:
        raise NotOffered(f"{path} is not offered", hint=words)

    return refuse
