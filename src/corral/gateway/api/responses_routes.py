"""OpenAI's responses: created, kept for requests that go on from them, shown and dropped."""

from __future__ import annotations

import asyncio
import logging
import secrets
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from corral import clock
from corral.errors import CallerError, NotFound, NotOffered, StoreError
from corral.gateway.answer import send_json
from corral.gateway.api.chat_route import Chat
from corral.gateway.api.responses_store import Kept, ResponsesStore
from corral.gateway.dialects.dialect import Dialect
from corral.gateway.dialects.fields import wrong
from corral.gateway.dialects.openai import error
from corral.gateway.dialects.responses.answer import Answering, failed
from corral.gateway.dialects.responses.items import Item, messages_of
from corral.gateway.dialects.responses.request import Asked, read
from corral.gateway.exchange import Exchange
from corral.gateway.host import Host
from corral.gateway.routes import Match, Route

FILE = "responses.sqlite"
log = logging.getLogger("corral.gateway")
RESPONSES = Dialect("responses", error, failed)


class Responses:
    """Their handlers. `file` is made when the first response is kept."""

    def __init__(self, host: Host, chat: Chat) -> None:
        self._host, self._chat = host, chat
        self.file = ResponsesStore(Path(host.status().state_dir) / FILE)

    def routes(self) -> list[Route]:
        def route(method: str, path: str, handler: Any, *, counted: bool = False) -> Route:
            return Route(method, path, handler, large=counted, counted=counted, scope="infer", dialect=RESPONSES)

        return [
            route("POST", "/v1/responses", self._create, counted=True),
            route("POST", "/v1/responses/input_tokens", self._count, counted=True),
            route("POST", "/v1/responses/compact", self._compact, counted=True),
            route("GET", "/v1/responses/{id}", self._show),
            route("DELETE", "/v1/responses/{id}", self._drop),
            route("POST", "/v1/responses/{id}", self._act),
        ]

    async def _create(self, exchange: Exchange, match: Match, body: bytes) -> None:
        asked = read(body, _new_id)
        model = await self._host.find(asked.model, exchange.listener_default, exchange.caller)
        messages = messages_of(await self._context(exchange, asked), asked.instructions)
        shell = {
            "id": _new_id("resp"),
            "object": "response",
            "created_at": int(clock.wall()),
            "model": asked.model or model.name,
            "error": None,
            "incomplete_details": None,
            **asked.echoed,
        }
        owner = _owner(exchange)

        async def keep(response: dict[str, Any]) -> None:
            kept = Kept(shell["id"], asked.previous, asked.items, response)
            ttl_s = self._host.settings.responses_ttl_s
            try:
                await asyncio.to_thread(self.file.put, kept, owner, clock.wall(), ttl_s)
            except StoreError as exc:  # the answer itself is there: whoever goes on from it hears that it is not kept
                log.warning("a response is not kept: %s", exc.message)

        request = {**asked.chat, "messages": messages}
        keeps = keep if asked.store else None
        await self._chat.ask(exchange, model, request, lambda lease: Answering(shell, _new_id, keeps))

    async def _context(self, exchange: Exchange, asked: Asked) -> list[Item]:
        """All that the model is shown. Raises NotFound."""
        if asked.previous is None:
            return asked.items
        now, ttl_s = clock.wall(), self._host.settings.responses_ttl_s
        chain = await asyncio.to_thread(self.file.chain, asked.previous, _owner(exchange), now, ttl_s)
        if chain is None:
            raise _unknown(asked.previous, "previous_response_id")
        return [item for kept in chain for item in (*kept.items, *kept.response["output"])] + asked.items

    async def _count(self, exchange: Exchange, match: Match, body: bytes) -> None:
        asked = read(body, _new_id)
        model = await self._host.find(asked.model, exchange.listener_default, exchange.caller)
        messages = messages_of(await self._context(exchange, asked), asked.instructions)
        tokens = await self._chat.count(exchange, model, {**asked.chat, "messages": messages})
        await send_json(exchange, {"object": "response.input_tokens", "input_tokens": tokens})

    async def _compact(self, exchange: Exchange, match: Match, body: bytes) -> None:
        raise NotOffered("responses are not compacted", hint="start a new one with what matters")

    async def _show(self, exchange: Exchange, match: Match, body: bytes) -> None:
        name, _, rest = match.rest.partition("/")
        if rest not in ("", "input_items"):
            raise NotFound(f"there is no {match.rest!r}", hint="GET /v1/responses/{id} or …/input_items")
        query = dict(parse_qsl(exchange.query.decode("ascii", "replace")))
        if not rest and query.get("stream") == "true":
            raise NotOffered("a kept response is not streamed again", hint="leave out stream", param="stream")
        kept = await self._kept(exchange, name)
        await send_json(exchange, _page(kept.items, query) if rest else kept.response)

    async def _drop(self, exchange: Exchange, match: Match, body: bytes) -> None:
        if not await asyncio.to_thread(self.file.drop, match.rest, _owner(exchange)):
            raise _unknown(match.rest)
        await send_json(exchange, {"id": match.rest, "object": "response.deleted", "deleted": True})

    async def _act(self, exchange: Exchange, match: Match, body: bytes) -> None:
        name, _, verb = match.rest.partition("/")
        if verb != "cancel":
            raise NotFound(f"there is no {match.rest!r}", hint="POST /v1/responses makes one")
        await self._kept(exchange, name)
        raise CallerError(
            "only responses in the background can be cancelled, and none runs there",
            hint="close the connection: the answer ends and its slot is free",
        )

    async def _kept(self, exchange: Exchange, name: str) -> Kept:
        ttl_s = self._host.settings.responses_ttl_s
        kept = await asyncio.to_thread(self.file.get, name, _owner(exchange), clock.wall(), ttl_s)
        if kept is None:
            raise _unknown(name)
        return kept


def _new_id(kind: str) -> str:
    return f"{kind}_{secrets.token_hex(24)}"


def _owner(exchange: Exchange) -> str:
    """Whose responses they are: a key's own, or of all who need none."""
    return exchange.caller.owner if exchange.caller is not None else ""


def _unknown(name: str, param: str = "response_id") -> NotFound:
    hint = "it was not stored, was dropped, or is older than `responses_ttl`: send the whole conversation"
    return NotFound(f"there is no response {name[:80]!r}", hint=hint, param=param)


def _page(items: list[Item], query: dict[str, str]) -> dict[str, Any]:
    """A page of input items, the newest first unless `order` is asc. Raises CallerError."""
    limit = query.get("limit", "20")
    if not limit.isascii() or not limit.isdecimal() or not 1 <= int(limit) <= 100:
        raise wrong("limit", "must be a number from 1 to 100")
    shown = items if query.get("order", "desc") == "asc" else items[::-1]
    names = [item["id"] for item in shown]
    if (after := query.get("after")) in names:
        shown = shown[names.index(after) + 1 :]
    page = shown[: int(limit)]
    first, last = (page[0]["id"], page[-1]["id"]) if page else (None, None)
    return {"object": "list", "data": page, "first_id": first, "last_id": last, "has_more": len(shown) > len(page)}
