"""The adapter of servers that run already: from a model's settings to a plan that starts nothing."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from corral.config import elsewhere
from corral.config.settings import ModelSettings
from corral.engines.adapter import Start
from corral.engines.placement import UNKNOWN
from corral.engines.plan import Endpoint, Footprint, LaunchPlan, Probe
from corral.errors import StartFailed

_NOTHING: Final = Footprint(MappingProxyType({}))  # what it holds was somebody else's to grant
_ASK_EVERY_S: Final = 0.2
_MOST_KEY_BYTES: Final = 4096


class Elsewhere:
    """The `Adapter` of models whose server somebody else runs. Stateless. `env` has the keys that are named by
    variables."""

    def __init__(self, env: Mapping[str, str] = os.environ) -> None:
        self._env = env

    def plan(self, start: Start) -> LaunchPlan:
        """Raises StartFailed where the key cannot be read. Nobody is asked: the server may not be there yet."""
        model = start.model
        assert model.endpoint is not None
        socket, host, port = elsewhere.parts(model.endpoint)
        key, name = self._key(model), model.served_model or ""
        return LaunchPlan(
            unit=start.unit,
            model=model.name,
            generation=start.generation,
            engine=model.engine,
            engine_version="",
            argv=(),
            endpoint=Endpoint(socket, host, port, model=name, key=key),
            footprint=_NOTHING,
            probe=probe(model.engine, name),
            devices=(),
            context=model.context or 0,
            slots=model.parallel,
            runner=model.runner,
            room=start.room or UNKNOWN,
            step=start.step,
            placement="where the server was started",
        )

    def footprint(self, model: ModelSettings) -> Footprint:
        return _NOTHING

    def has_gpus(self, model: ModelSettings) -> bool:
        return False

    def _key(self, model: ModelSettings) -> str:
        found, where = "", ""
        try:
            if model.api_key_file is not None:
                where = f"the file {model.api_key_file}"
                found = _read(model.api_key_file).strip()
            elif model.api_key_env is not None:
                where = f"the variable {model.api_key_env}"
                found = self._env.get(model.api_key_env, "").strip()
        except (OSError, ValueError) as error:
            words = error.strerror if isinstance(error, OSError) else "it is no text"
            raise _keyless(model, where, f"cannot be read: {words}") from None
        if where and not found:
            raise _keyless(model, where, "has nothing in it" if model.api_key_file else "is not set")
        if not found.isascii() or not found.isprintable() or " " in found:
            raise _keyless(model, where, "has more in it than one key")
        return found


def probe(engine: str, name: str) -> Probe:
    """How a server of `engine` is asked whether it is ready and well, when it calls the model `name`."""
    called: dict[str, Any] = {"model": name} if name else {}
    if engine == "vllm":
        body = {**called, "prompt": " ", "max_tokens": 1}
        return Probe(canary="/v1/completions", canary_body=json.dumps(body), counters="/metrics", pause_s=_ASK_EVERY_S)
    body = {**called, **json.loads(Probe().canary_body)}
    return Probe(canary_body=json.dumps(body), pause_s=_ASK_EVERY_S)


def _read(file: Path) -> str:
    with file.open("rb") as opened:
        return opened.read(_MOST_KEY_BYTES).decode("ascii")


def _keyless(model: ModelSettings, where: str, why: str) -> StartFailed:
    return StartFailed(
        f"the key of {model.name}'s server is missing: {where} {why}",
        hint="`api_key_env` and `api_key_file` say where it is, for Corral as it was started",
        model=model.name,
        kind="file",
    )
