"""Searches on Docker Hub and Hugging Face, against real servers that speak their APIs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from corral.errors import CorralError, ManifestError, RateLimited
from corral.registry.egress import Egress, EgressPolicy
from corral.registry.huggingface import HuggingFace
from corral.registry.search import Found, Search
from support.hf_server import HfServer, Repo
from support.hf_server import serving as hugging_face
from support.http_servers import QuietHandler, running


@dataclass
class Docker:
    models: list[dict[str, Any]] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    answer: Any = None
    status: int = 200


class _Hub(QuietHandler):
    state: Docker

    def do_GET(self) -> None:
        self.state.asked.append(self.path)
        url = urlsplit(self.path)
        assert url.path == "/v2/namespaces/ai/repositories"
        query = parse_qs(url.query)
        page, size = int(query["page"][0]), min(100, int(query["page_size"][0]))
        part = self.state.models[(page - 1) * size : page * size]
        if self.state.status != 200:
            self.answer(self.state.status)
        elif page > 1 and not part:
            self.answer_json({"detail": "object not found"}, 404)
        else:
            listed = {"count": len(self.state.models), "next": "http://10.0.0.1/", "results": part}
            self.answer_json(listed if self.state.answer is None else self.state.answer)


@pytest.fixture
def docker() -> Docker:
    return Docker(
        [
            {"name": "smollm2", "description": "Tiny LLM\nfor edge", "pull_count": 500, "star_count": 1},
            {"name": "qwen3", "description": "A larger one", "pull_count": 900},
            {"name": "qwen3-coder", "description": None, "pull_count": 1000},
        ]
    )


@pytest.fixture
def hub() -> Iterator[HfServer]:
    with hugging_face() as server:
        server.repos["a/Qwen3-GGUF"] = Repo({}, downloads=10, tags=("gguf",))
        server.repos["b/Qwen3-8B-GGUF"] = Repo({}, downloads=30, tags=("gguf",))
        server.repos["c/Qwen3"] = Repo({}, downloads=99, tags=("safetensors",))
        yield server


@pytest.fixture
def search(docker: Docker, hub: HfServer) -> Iterator[Search]:
    with running(_Hub, docker) as base, Egress(EgressPolicy(stall_s=5), env={}) as egress:
        source = HuggingFace(egress, endpoint=lambda: hub.endpoint, token=lambda: None)
        yield Search(egress, hub=source, docker_api=base)


def test_both_places_give_what_can_be_pulled(search: Search) -> None:
    """A search names models as `corral pull` takes them, the most downloaded of each place first."""
    assert search("qwen3") == [
        Found("ai/qwen3-coder", "", 1000, "docker"),
        Found("ai/qwen3", "A larger one", 900, "docker"),
        Found("hf.co/b/Qwen3-8B-GGUF", "text-generation", 30, "hf"),
        Found("hf.co/a/Qwen3-GGUF", "text-generation", 10, "hf"),
    ]


def test_one_place_alone_is_asked_alone(search: Search, docker: Docker, hub: HfServer) -> None:
    """A search of one place makes no request to the other."""
    assert [each.name for each in search("ai/smol", places=("docker",))] == ["ai/smollm2"]
    assert hub.asked == []
    docker.asked.clear()
    assert len(search("qwen3", places=("hf",))) == 2
    assert docker.asked == []


def test_words_are_looked_for_in_descriptions_too(search: Search) -> None:
    """Every word must be in the name or the description, which is one printable line."""
    assert search("EDGE tiny", places=("docker",)) == [Found("ai/smollm2", "Tiny LLM for edge", 500, "docker")]
    assert search("edge large", places=("docker",)) == []


def test_limit_holds_for_each_place(search: Search) -> None:
    """`limit` bounds what each place gives."""
    assert [each.name for each in search("qwen3", limit=1)] == ["ai/qwen3-coder", "hf.co/b/Qwen3-8B-GGUF"]


def test_safetensors_are_found_when_asked_for(search: Search) -> None:
    """Hugging Face is asked for GGUF repositories unless others are wanted too."""
    found = search("qwen3", places=("hf",), only_gguf=False)
    assert [each.name for each in found] == ["hf.co/c/Qwen3", "hf.co/b/Qwen3-8B-GGUF", "hf.co/a/Qwen3-GGUF"]


@pytest.mark.parametrize("count", [99, 100, 101, 250])
def test_docker_list_is_read_to_its_end(search: Search, docker: Docker, count: int) -> None:
    """Pages are counted by us; the address of a next one that the server gives is not followed."""
    docker.models = [{"name": f"m{number}", "description": "", "pull_count": number} for number in range(count)]
    assert search("m", places=("docker",), limit=1)[0].name == f"ai/m{count - 1}"
    assert len(docker.asked) == count // 100 + 1


@pytest.mark.parametrize(
    "answer", [[], {}, {"results": None}, {"results": [None]}, {"results": [{}]}, {"results": [{"name": 5}]}, "x"]
)
def test_absurd_answers_are_refused(search: Search, docker: Docker, answer: Any) -> None:
    """An answer that is not as the API says is an error."""
    docker.answer = answer
    with pytest.raises(ManifestError):
        search("m", places=("docker",))


@pytest.mark.parametrize("answer", [{"error": "x"}, "x", [5], [{"id": 5}], [{"id": "a/b", "downloads": "many"}]])
def test_absurd_answers_of_hugging_face_are_refused(search: Search, hub: HfServer, answer: Any) -> None:
    """So is one of Hugging Face's."""
    hub.change = lambda path, listed: answer
    with pytest.raises(CorralError):
        search("m", places=("hf",))


def test_a_busy_server_is_reported(search: Search, docker: Docker) -> None:
    """A refusal is an error of its own kind."""
    docker.status = 429
    with pytest.raises(RateLimited, match="Docker Hub"):
        search("m")
