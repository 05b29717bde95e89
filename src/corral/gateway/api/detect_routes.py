"""`POST /detect`: pictures to a detector. Which one is said in the form, the JSON, or the query; the only one need not
be named."""

from __future__ import annotations

import asyncio

from corral.config.settings import ModelSettings
from corral.errors import CallerError, MissingModel, NotJson
from corral.gateway.dialects.multipart import field
from corral.gateway.exchange import Exchange
from corral.gateway.host import Host
from corral.gateway.named import named
from corral.gateway.path.peek import peek
from corral.gateway.path.proxy import Proxy
from corral.gateway.routes import Match, Route

PATH = "/detect"
_ENGINE = "detector"
_LARGE_BYTES = 256 << 10
_JSON = (b"", b"application/json", b"text/json")


class Detect:
    """Its handler, over one host and one proxy."""

    def __init__(self, host: Host, proxy: Proxy) -> None:
        self._host, self._proxy = host, proxy

    def routes(self) -> list[Route]:
        return [Route("POST", PATH, self._detect, large=True, scope="infer", counted=True)]

    async def _detect(self, exchange: Exchange, match: Match, body: bytes) -> None:
        kind = exchange.header(b"content-type") or b""
        if len(body) < _LARGE_BYTES:
            name = _named_in(kind, body)
        else:
            name = await asyncio.to_thread(_named_in, kind, body)
        model = await self._model(exchange, named(exchange, name))
        target = PATH.encode() + (b"?" + exchange.query if exchange.query else b"")
        await self._proxy.forward(exchange, model.name, target, body, again=True, identity=True)

    async def _model(self, exchange: Exchange, name: str | None) -> ModelSettings:
        """The detector that is meant. Raises MissingModel, CallerError, and what `find` raises."""
        if name is None:
            name = self._default(exchange)
        model = await self._host.find(name, None, exchange.caller)
        if model.engine != _ENGINE:
            known = self._detectors(exchange)
            hint = f"detectors here: {', '.join(known)}" if known else _NONE
            raise CallerError(f"{name} is no detector", hint=hint, param="model")
        return model

    def _default(self, exchange: Exchange) -> str:
        known = self._detectors(exchange)
        if not known:
            raise MissingModel("no detector is configured here that you may use", hint=_NONE)
        settings = self._host.settings
        wanted = [each for each in (exchange.listener_default, settings.default_model) if each is not None]
        for each in wanted:
            own = next((name for name in known if each in (name, *settings.models[name].aliases)), None)
            if own is not None:
                return own
        if len(known) > 1:
            raise MissingModel(
                "the request names no model, and there are several detectors",
                hint=f"name one as `model`: {', '.join(known)}",
            )
        return known[0]

    def _detectors(self, exchange: Exchange) -> list[str]:
        """The configured ones that the caller may use."""
        caller, models = exchange.caller, self._host.settings.models.values()
        found = [model for model in models if model.engine == _ENGINE]
        return [each.name for each in found if caller is None or caller.may_use((each.name, *each.aliases))]


_NONE = "add a model with `engine: detector` to models.yaml; docs/vision.md says how"


def _named_in(kind: bytes, body: bytes) -> str | None:
    """The model that a form or JSON names. What is neither is the engine's to judge."""
    if (name := field(kind, body, b"model")) is not None:
        return name
    if kind.partition(b";")[0].strip().lower() not in _JSON:
        return None
    try:
        return peek(body).model
    except NotJson:
        return None
