"""What a server that runs already says of itself once it is ready: what it calls the model, its context and version."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any, Final

from corral.engines.elsewhere import probe
from corral.engines.plan import LaunchPlan
from corral.errors import StartFailed
from corral.runners.server import ServerRunning
from corral.supervisor.looks import ask, health

_WITHIN_S: Final = 10.0
_DOUBT_S: Final = 2.0
_SHOWN: Final = 5  # names


async def known(plan: LaunchPlan) -> LaunchPlan:
    """`plan` with what its server says. An engine of Corral's own is known already.

    Raises StartFailed when it serves no such model, or several and nobody said which, or wants a key.
    """
    if plan.ours:
        return plan
    endpoint = plan.endpoint
    entries = _entries(await _asked(plan, "/v1/models"))
    names = [each["id"] for each in entries]
    name = _name(plan, names)
    entry: dict[str, Any] = next((each for each in entries if each["id"] == name), {})
    version, context = await _details(plan)
    return replace(
        plan,
        endpoint=replace(endpoint, model=name if name != plan.model else ""),
        probe=probe(plan.engine, name),
        engine_version=version,
        context=plan.context or _whole(entry.get("max_model_len")) or context,
    )


async def doubted(plan: LaunchPlan, running: ServerRunning) -> None:
    """It dropped a connection. Of an engine of ours the end would be known; here it has to be asked whether that was
    all, before a server that was started anew and still loads gets work, and answers with 503."""
    status = await health(plan.endpoint, plan.probe.path, _DOUBT_S)
    if status != 200:
        said = "does not answer" if status is None else f"answers {status} when asked for its health"
        running.gone(f"it dropped a connection and {said}")


def _name(plan: LaunchPlan, names: list[str]) -> str:
    """What the server calls the model. Raises StartFailed."""
    wanted, where = plan.endpoint.model or plan.model.partition("~")[0], plan.endpoint
    if wanted in names or not names:  # one without a list may be asked by any name
        return wanted
    shown = ", ".join(names[:_SHOWN]) + (" …" if len(names) > _SHOWN else "")
    if plan.endpoint.model:
        raise _refused(plan, f"the server at {where} has no model {wanted!r}", f"it has: {shown}; see `served_model`")
    if len(names) > 1:
        raise _refused(plan, f"the server at {where} has {len(names)} models", f"say in `served_model` which: {shown}")
    return names[0]


async def _details(plan: LaunchPlan) -> tuple[str, int]:
    """Version and context, as far as it tells."""
    if plan.engine == "vllm":
        version = _text(await _asked(plan, "/version"), "version")
        return f"vLLM {version}" if version else "", 0
    props = await _asked(plan, "/props")
    settings = props.get("default_generation_settings")
    context = _whole(settings.get("n_ctx")) if isinstance(settings, dict) else 0
    return _text(props, "build_info"), context


async def _asked(plan: LaunchPlan, path: str) -> dict[str, Any]:
    """What it answers; empty where that is nothing to go by. Raises StartFailed where it wants a key."""
    found = await ask(plan.endpoint, path, within_s=_WITHIN_S)
    if found is not None and found[0] in (401, 403):
        text = f"the server at {plan.endpoint} wants {'another key' if plan.endpoint.key else 'a key'} ({found[0]})"
        raise _refused(plan, text, "`api_key_file` or `api_key_env` says where the key is")
    if found is None or found[0] != 200:
        return {}
    try:
        said = json.loads(found[1])
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}


def _entries(said: dict[str, Any]) -> list[dict[str, Any]]:
    data = said.get("data")
    entries = data if isinstance(data, list) else []
    return [each for each in entries if isinstance(each, dict) and isinstance(each.get("id"), str)]


def _text(said: dict[str, Any], key: str) -> str:
    value = said.get(key)
    return value[:100] if isinstance(value, str) and value.isprintable() else ""


def _whole(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0


def _refused(plan: LaunchPlan, text: str, hint: str) -> StartFailed:
    return StartFailed(f"{plan.model} cannot be served: {text}", hint=hint, model=plan.model, kind="server")
