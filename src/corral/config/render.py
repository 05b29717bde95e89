"""Settings as a models.yaml again: for `corral config show`, with secrets masked. Reading it back gives the same."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from corral import hidden
from corral.config.elsewhere import STARTING_KEYS
from corral.config.problem import Key
from corral.config.scalar import read_scalar
from corral.config.settings import Listen, ModelSettings, Registry, Settings
from corral.config.times import as_keys

MASK = "********"
_SECRET = re.compile(r"key|token|secret|passw|passphrase|credential|auth|cookie|private", re.IGNORECASE)


def as_data(settings: Settings, *, masked: bool = False) -> dict[str, Any]:
    """Every key with its effective value, as plain data in the order of the documentation."""
    timeouts = settings.timeouts
    return {
        "listen": [_listen(each) for each in settings.listen],
        "require_keys": settings.require_keys,
        "allowed_hosts": list(settings.allowed_hosts),
        "allowed_origins": list(settings.allowed_origins),
        "trusted_proxies": [str(each) for each in settings.trusted_proxies],
        "default_model": settings.default_model,
        "return_to_default": _timeout(settings.return_to_default_s),
        "max_active": "unlimited" if settings.max_active is None else settings.max_active,
        "memory": {device: _size(budget) for device, budget in settings.memory.items()},
        "headroom": _size(settings.headroom)
        if isinstance(settings.headroom, int)
        else {device: _size(size) for device, size in settings.headroom.items()},
        "max_queue": settings.max_queue,
        "max_wait": _duration(settings.max_wait_s),
        "min_residency": _duration(settings.min_residency_s),
        "max_body": _size(settings.max_body_bytes),
        "timeouts": {
            "start": _duration(timeouts.start_s),
            "stop": _duration(timeouts.stop_s),
            "queue": _duration(timeouts.queue_s),
            "drain": _duration(timeouts.drain_s),
            "hang": _duration(timeouts.hang_s),
        },
        "roots": [_path(root) for root in settings.roots],
        "conversations": "off" if settings.conversations_bytes is None else _size(settings.conversations_bytes),
        "resume": settings.resume,
        "comments_after": _timeout(settings.comments_after_s),
        "responses_ttl": _timeout(settings.responses_ttl_s),
        "executables": {engine: _escaped(program) for engine, program in settings.executables.items()},
        "registries": {host: _registry(each) for host, each in settings.registries.items()},
        "allow_registries": None if settings.allow_registries is None else list(settings.allow_registries),
        "auto_pull": settings.auto_pull,
        "require_signed": [{"prefix": each.prefix, "key": _escaped(each.key)} for each in settings.require_signed],
        "model_roots": [_path(root) for root in settings.model_roots],
        "download": {
            "connections": settings.download.connections,
            "limit": None if settings.download.limit_bytes is None else _size(settings.download.limit_bytes),
        },
        "on_out_of_memory": _rungs(settings.on_out_of_memory),
        "cpu_fallback": settings.cpu_fallback,
        "gpu_layers": settings.gpu_layers,
        "gpu_backend": settings.gpu_backend,
        "env": _env(settings.env, masked=masked),
        "sandbox": settings.sandbox,
        "limits": settings.limits,
        "log": {"format": settings.log.format, "requests": settings.log.requests},
        "traces": None
        if settings.traces is None
        else {
            "endpoint": _address(settings.traces.endpoint or "", masked=masked) or None,
            "ratio": settings.traces.ratio,
        },
        "models": [_model(model, masked=masked) for model in settings.models.values()],
    }


def as_yaml(settings: Settings, *, masked: bool = False, origin: Callable[[Key], str] | None = None) -> str:
    """The same as YAML text; with `origin`, each line says where its value comes from."""
    data = as_data(settings, masked=masked)
    rows: list[tuple[str, Key | None]] = []
    for name, value in data.items():
        if name == "models":
            continue
        rows += _rows(name, value, (name,), "")
    rows.append(("models:" if data["models"] else "models: []", None))
    for model in data["models"]:
        for position, (name, value) in enumerate(model.items()):
            rows += _rows(name, value, ("models", model["name"], name), "  - " if position == 0 else "    ")
    if origin is None:
        return "".join(f"{text}\n" for text, _ in rows)
    wide = min(60, max(len(text) for text, _ in rows))
    return "".join(text + "\n" if key is None else f"{text:<{wide}}  # {origin(key)}\n" for text, key in rows)


def _rows(name: str, value: Any, key: Key, lead: str) -> Iterator[tuple[str, Key | None]]:
    if isinstance(value, dict) and value:
        yield f"{lead}{name}:", None
        indent = " " * len(lead) + "  "
        for inner, item in value.items():
            yield f"{indent}{_flow(inner)}: {_flow(item)}", (*key, inner)
    else:
        yield f"{lead}{name}: {_flow(value)}", key


class _Dumper(yaml.SafeDumper):
    """Quotes texts that YAML 1.2 would read as something else, such as 09."""


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    return dumper.represent_scalar(
        "tag:yaml.org,2002:str", value, style=None if isinstance(read_scalar(value), str) else "'"
    )


_Dumper.add_representer(str, _text)


def _flow(value: Any) -> str:
    text = yaml.dump(value, Dumper=_Dumper, default_flow_style=True, width=1 << 30, allow_unicode=True, sort_keys=False)
    return text.removesuffix("\n").removesuffix("\n...").strip()


def _model(model: ModelSettings, *, masked: bool) -> dict[str, Any]:
    found = {
        "name": model.name,
        "source": _path(model.source) if model.ref is None else str(model.ref),
        "aliases": list(model.aliases),
        "engine": model.engine,
        "executable": _escaped(model.executable),
        "runner": model.runner,
        "image": model.image,
        "context": model.context,
        "gpu_layers": model.gpu_layers,
        "gpu_backend": model.gpu_backend,
        "devices": list(model.devices) or "auto",
        "split": model.split,
        "tensor_split": [_number(share) for share in model.tensor_split],
        "parallel": model.parallel,
        "args": hidden.arguments(model.args, MASK) if masked else list(model.args),
        "env": _env(model.env, masked=masked),
        "port": model.port,
        "idle_timeout": _timeout(model.idle_timeout_s),
        "preload": model.preload,
        "pin": model.pin,
        "priority": model.priority,
        "exclusive": model.exclusive,
        "group": model.group,
        "replicas": model.replicas,
        "schedule": [as_keys(window) for window in model.schedule],
        "on_out_of_memory": _rungs(model.on_out_of_memory),
        "cpu_fallback": model.cpu_fallback,
        "sandbox": model.sandbox,
        "limits": model.limits,
        "reasoning": model.reasoning,
        **(_vllm(model) if model.engine == "vllm" else {}),
    }
    return found if model.endpoint is None else _served(model, found)


def _served(model: ModelSettings, found: dict[str, Any]) -> dict[str, Any]:
    """`found` without what says nothing to a server that runs already, and with what does."""
    left_out = {*STARTING_KEYS, *(["source"] if model.source == Path(model.endpoint or "") else [])}
    return {
        **{key: value for key, value in found.items() if key not in left_out},
        "endpoint": _escaped(model.endpoint or ""),
        "served_model": model.served_model,
        "api_key_env": model.api_key_env,
        "api_key_file": None if model.api_key_file is None else _path(model.api_key_file),
    }


def _env(env: Mapping[str, str], *, masked: bool) -> dict[str, str]:
    return {
        name: MASK if masked and _SECRET.search(name) else _escaped(_address(text, masked=masked))
        for name, text in env.items()
    }


def _address(text: str, *, masked: bool) -> str:
    """A value that may be, or have in it, an address with a password: a proxy's for one."""
    return hidden.proxy(text, MASK) if masked else text


def _number(share: float) -> float:
    return int(share) if share.is_integer() else share


def _vllm(model: ModelSettings) -> dict[str, Any]:
    return {
        "max_num_seqs": model.max_num_seqs,
        "tensor_parallel": model.tensor_parallel,
        "pipeline_parallel": model.pipeline_parallel,
        "data_parallel": model.data_parallel,
        "quantization": model.quantization,
        "kv_cache_type": model.kv_cache_type,
        "kv_cache": None if model.kv_cache_bytes is None else _size(model.kv_cache_bytes),
        "sleep": model.sleep or "off",
    }


def _rungs(rungs: Sequence[str] | None) -> list[str] | str | None:
    return "never" if rungs == () else None if rungs is None else list(rungs)


def _registry(registry: Registry) -> dict[str, Any]:
    data: dict[str, Any] = {"insecure": registry.insecure, "private": registry.private}
    if registry.ca is not None:
        data["ca"] = _escaped(registry.ca)
    if registry.mirrors:
        data["mirrors"] = list(registry.mirrors)
    return data if registry.auto_pull is None else {**data, "auto_pull": registry.auto_pull}


def _size(count: int) -> str | int:
    if count == 0:
        return 0
    for unit, factor in (("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if count % factor == 0:
            return f"{count // factor}{unit}"
    return count


def _duration(seconds: float) -> str | float:
    for unit, factor in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        if seconds % factor == 0 and (seconds or unit == "s"):
            return f"{int(seconds // factor)}{unit}"
    return seconds


def _timeout(seconds: float | None) -> str | float:
    return "never" if seconds is None else _duration(seconds)


def _path(path: Path) -> str:
    return _escaped(str(path))


def _listen(listen: Listen) -> str | dict[str, Any]:
    text = _escaped(str(listen)) if listen.path is not None else str(listen)
    more: dict[str, Any] = {} if listen.dialect is None else {"dialect": listen.dialect}
    if listen.tls is not None:
        more["tls"] = {"cert": _path(listen.tls.cert), "key": _path(listen.tls.key)}
    if listen.insecure:
        more["insecure"] = True
    if listen.page is not None:
        more["page"] = _path(listen.page)
    if not more:
        return text
    return {"address": text, **more} if listen.path is None else {"unix": text.removeprefix("unix:"), **more}


def _escaped(text: str) -> str:
    return text.replace("${", "$${")
