"""The dialects beside OpenAI's, each loaded when somebody first asks for what no other route answers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from corral.gateway.api.chat_route import Chat
from corral.gateway.host import Host
from corral.gateway.models_host import ModelsHost
from corral.gateway.path.proxy import Proxy
from corral.gateway.routes import Route
from corral.gateway.tables import Groups

if TYPE_CHECKING:
    from corral.gateway.control.access import AccessHost


def dialect_groups(
    host: Host,
    proxy: Proxy,
    models: ModelsHost | None,
    chat: Chat,
    access: AccessHost | None = None,
    heartbeat_s: float = 15.0,
) -> Groups:
    """What makes the routes of each dialect, by its name."""
    return {
        "openai": lambda: _openai(host, proxy, chat),
        "anthropic": lambda: _anthropic(host, proxy, chat),
        "ollama": lambda: _ollama(host, proxy, models, chat),
        "docker": lambda: _docker(host, proxy, models, chat, access),
        "llamacpp": lambda: _llamacpp(host, proxy, models, chat, heartbeat_s),
    }


def _ollama(host: Host, proxy: Proxy, models: ModelsHost | None, chat: Chat) -> Iterable[Route]:
    from corral.gateway.api.ollama_routes import ollama_routes

    return ollama_routes(host, proxy, models, chat)


def _anthropic(host: Host, proxy: Proxy, chat: Chat) -> Iterable[Route]:
    from corral.gateway.api.anthropic_routes import anthropic_routes

    return anthropic_routes(host, proxy, chat)


def _openai(host: Host, proxy: Proxy, chat: Chat) -> Iterable[Route]:
    from corral.gateway.api.openai_routes import openai_routes

    return openai_routes(host, proxy, chat)


def _docker(
    host: Host, proxy: Proxy, models: ModelsHost | None, chat: Chat, access: AccessHost | None
) -> Iterable[Route]:
    from corral.gateway.api.docker_routes import docker_routes

    return docker_routes(host, proxy, models, chat, access)


def _llamacpp(host: Host, proxy: Proxy, models: ModelsHost | None, chat: Chat, heartbeat_s: float) -> Iterable[Route]:
    from corral.gateway.api.llamacpp_routes import llamacpp_routes

    return llamacpp_routes(host, proxy, models, chat, heartbeat_s)
