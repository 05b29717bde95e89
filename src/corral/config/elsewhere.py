"""Servers that run already, as models name them: their addresses, and the keys that say nothing to them. Pure."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final
from urllib.parse import urlsplit

from corral.config.listening import MAX_SOCKET_BYTES
from corral.config.problem import Problem
from corral.config.settings import SERVER_KEYS, VLLM_KEYS, ModelSettings
from corral.config.sources import absolute
from corral.config.values import Unfit, text

RUNNER: Final = "server"
"""The value of the `runner` key that means them."""

ENGINES: Final = ("vllm", "llama.cpp")
"""Engines whose servers can be named."""

STARTING_KEYS: Final = (
    "executable", "image", "gpu_layers", "gpu_backend", "devices", "split", "tensor_split", "args", "env", "exclusive",
    "group", "replicas", "on_out_of_memory", "cpu_fallback", "sandbox", "limits", *VLLM_KEYS,
)  # fmt: skip
"""Model keys that are about starting an engine, or about its place in memory."""

_EXAMPLES: Final = "write http://127.0.0.1:8000 or unix:/path/of/socket"
_SHARED: Final = ipaddress.ip_network(
    "100.64.0.0/10"
)  # of overlay networks: nobody else's, although not called private
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def endpoint(value: Any) -> str:
    """`http://127.0.0.1:8000`, with the port written out and `localhost` as an address, or `unix:/path`. Raises
    Unfit."""
    given = text(value).strip()
    if given.startswith("unix:"):
        if not given.removeprefix("unix:"):
            raise Unfit(f"names no socket ({_EXAMPLES})")
        return given
    if given.lower().startswith("https://"):
        raise Unfit("is https, which Corral does not speak to engines: let the server listen on http beside it")
    if not given.lower().startswith("http://"):
        raise Unfit(f"is no address of a server ({_EXAMPLES})")
    try:
        url = urlsplit(given)
        port = url.port or 80
    except ValueError:
        raise Unfit(f"is no address of a server ({_EXAMPLES})") from None
    if url.username is not None or url.password is not None:
        raise Unfit("has a user or password in it: a key belongs into the file that `api_key_file` names")
    if url.path not in ("", "/") or url.query or url.fragment:
        raise Unfit(f"has a path: give the address alone, such as http://{url.netloc}")
    address = _near(url.hostname or "")
    return f"http://[{address}]:{port}" if address.version == 6 else f"http://{address}:{port}"


def variable(value: Any) -> str:
    """The name of a variable. Raises Unfit."""
    if not _NAME.fullmatch(given := text(value)):
        raise Unfit("must be the name of a variable, such as VLLM_API_KEY; the key itself does not belong here")
    return given


def parts(endpoint: str) -> tuple[Path | None, str, int]:
    """A socket, or host and port."""
    if endpoint.startswith("unix:"):
        return Path(endpoint.removeprefix("unix:")), "", 0
    url = urlsplit(endpoint)
    return None, url.hostname or "", url.port or 80


def located(endpoint: str, base: Path, env: Mapping[str, str]) -> str:
    """`endpoint` with its socket's path made whole. Raises ValueError."""
    if not endpoint.startswith("unix:"):
        return endpoint
    path = absolute(endpoint.removeprefix("unix:"), base, env)
    if len(bytes(path)) > MAX_SOCKET_BYTES:
        raise ValueError(f"has a socket's path longer than {MAX_SOCKET_BYTES} bytes")
    return f"unix:{path}"


def taken(model: ModelSettings, given: Iterable[str]) -> ModelSettings:
    """`model` as if nothing said how its engine is started, of its own keys (`given`) or of all models'. Where no idle
    time is given it has none: letting go of a server frees nothing."""
    return replace(
        model, executable="auto", image=None, gpu_layers="auto", gpu_backend="auto", devices=(), split=None,
        tensor_split=(), args=(), env=MappingProxyType({}), exclusive=False, group=None, replicas=1,
        on_out_of_memory=None, cpu_fallback=True, sandbox="off", limits=False, max_num_seqs=256, tensor_parallel=1,
        pipeline_parallel=1, data_parallel=1, quantization=None, kv_cache_type="auto", kv_cache_bytes=None, sleep=0,
        ref=None, idle_timeout_s=model.idle_timeout_s if "idle_timeout" in set(given) else None,
    )  # fmt: skip


def faults(engine: str, runner: str, given: Iterable[str], *, stored: bool) -> list[Problem]:
    """What is wrong with the keys of one model that are `given` together; `stored`: its source is a model of the
    store."""
    names = set(given)
    found = []
    if engine != "vllm":
        hint = "set engine: vllm, or take it away"
        found += [_wrong(key, f"`{key}` is a key of vLLM's", hint) for key in sorted(names & set(VLLM_KEYS))]
    if runner != RUNNER:
        words, hint = "is for a server that runs already", "set runner: server, or take it away"
        return [*found, *(_wrong(key, f"`{key}` {words}", hint) for key in SERVER_KEYS if key in names)]
    if engine not in ENGINES:
        hint = f"of {' and '.join(ENGINES)} one can be named"
        found.append(_wrong("runner", f"a server of the engine {engine} that runs already is not known", hint))
    if "endpoint" not in names:
        found.append(_wrong("endpoint", "`endpoint` is missing: where does the server listen?", _EXAMPLES))
    if {"api_key_env", "api_key_file"} <= names:
        found.append(_wrong("api_key_env", "the key is named twice", "keep one of `api_key_env` and `api_key_file`"))
    if stored:
        hint = "say in `served_model` what the server calls it; `source` may be the same model's files on this machine"
        found.append(_wrong("source", "`source` is no file here, and a server that runs already fetches none", hint))
    hint = "it says how an engine is started, or what place it takes"
    return [
        *found,
        *(
            Problem(f"`{key}` says nothing to a server that runs already", hint, key=(key,), level="warning")
            for key in STARTING_KEYS
            if key in names
        ),
    ]


def _wrong(key: str, message: str, hint: str) -> Problem:
    return Problem(message, hint, key=(key,))


def _near(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """The address, where nothing beyond this machine and its own networks is reached by it. Raises Unfit."""
    try:
        address = ipaddress.ip_address("127.0.0.1" if host == "localhost" else host)
    except ValueError:
        raise Unfit(f"names the host {host[:60]!r}: write its address, such as 127.0.0.1 or 192.168.1.20") from None
    private = address.is_private or (address.version == 4 and address in _SHARED)
    if address.is_unspecified or not private:
        raise Unfit(f"is at {address}, which is not of this machine or a private network, and http is read on the way")
    return address
