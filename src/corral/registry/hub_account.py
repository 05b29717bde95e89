"""Which Hugging Face server is meant and as whom, by the variables and files of its own tools."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

ENDPOINT = "https://huggingface.co"
_MAX_TOKEN_BYTES = 4096


def endpoint(env: Mapping[str, str] | None = None) -> str:
    """The server's base URL: HF_ENDPOINT where it is set (a mirror), else Hugging Face's own."""
    env = os.environ if env is None else env
    return (env.get("HF_ENDPOINT") or ENDPOINT).rstrip("/")


def offline(env: Mapping[str, str] | None = None) -> bool:
    """Whether HF_HUB_OFFLINE=1 forbids Hugging Face's own tools, and so us, to ask the server."""
    return _switched_on(os.environ if env is None else env, "HF_HUB_OFFLINE")


def token(env: Mapping[str, str] | None = None) -> str | None:
    """HF_TOKEN, else what `hf auth login` has stored; read at each call. None when there is neither, or it is damaged.

    HF_HUB_DISABLE_IMPLICIT_TOKEN=1 keeps it from being used, as it does for Hugging Face's own tools.
    """
    env = os.environ if env is None else env
    if _switched_on(env, "HF_HUB_DISABLE_IMPLICIT_TOKEN"):
        return None
    given = env.get("HF_TOKEN") or env.get("HUGGING_FACE_HUB_TOKEN")
    return _clean(given if given else _stored(env))


def token_file(env: Mapping[str, str] | None = None) -> Path:
    env = os.environ if env is None else env
    if named := env.get("HF_TOKEN_PATH"):
        return Path(named).expanduser()
    cache = Path(env.get("XDG_CACHE_HOME") or Path(env.get("HOME") or Path.home()) / ".cache")
    return Path(env.get("HF_HOME") or cache / "huggingface").expanduser() / "token"


def _switched_on(env: Mapping[str, str], name: str) -> bool:
    return env.get(name, "").lower() in ("1", "true", "yes", "on")


def _stored(env: Mapping[str, str]) -> str:
    try:
        with token_file(env).open("rb") as file:
            return file.read(_MAX_TOKEN_BYTES).decode(errors="replace")
    except OSError:
        return ""


def _clean(text: str) -> str | None:
    """A token is sent in a header: printable ASCII without spaces, or it is none."""
    text = text.strip()
    return text if text and text.isascii() and text.isprintable() and " " not in text else None
