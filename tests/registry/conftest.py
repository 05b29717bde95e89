"""A server that speaks Hugging Face's API, and a source that asks it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from corral.registry.egress import Egress, EgressPolicy
from corral.registry.huggingface import HuggingFace
from support.hf_server import GGUF_FILES, HfServer, Repo, serving


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[HfServer]:
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_HOME", "HF_TOKEN_PATH", "HF_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    with serving() as found:
        found.repos["org/m"] = Repo(dict(GGUF_FILES))
        monkeypatch.setenv("HF_ENDPOINT", found.endpoint)
        yield found


@pytest.fixture
def hub_egress(hub: HfServer) -> Iterator[Egress]:
    with Egress(EgressPolicy(private_addresses=("127.0.0.1",), insecure=("127.0.0.1",), stall_s=5), env={}) as found:
        yield found


@pytest.fixture
def hugging_face(hub_egress: Egress) -> HuggingFace:
    return HuggingFace(hub_egress)
