"""Searching for models on Docker Hub and Hugging Face."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal
from urllib.parse import urlencode

from corral.descriptors import decode_json
from corral.errors import ManifestError
from corral.lazy_dataclass import dataclass
from corral.registry.answers import failure
from corral.registry.egress import Egress
from corral.registry.huggingface import HuggingFace

Place = Literal["docker", "hf"]

DOCKER_API: Final = "https://hub.docker.com"
NAMESPACE: Final = "ai"  # where Docker publishes models
MAX_FOUND: Final = 100
_PAGE_SIZE: Final = 100
_PAGES: Final = 10


@dataclass(frozen=True, slots=True)
class Found:
    """One model that a search found. `name` is what `corral pull` takes."""

    name: str
    description: str
    downloads: int
    source: Place


class Search:
    """Searches of both places. Methods block, and may be called from several threads."""

    def __init__(self, egress: Egress, *, hub: HuggingFace | None = None, docker_api: str = DOCKER_API) -> None:
        self._egress = egress
        self._hub = hub or HuggingFace(egress)
        self._docker_api = docker_api

    def __call__(
        self, text: str, *, places: Sequence[Place] = ("docker", "hf"), limit: int = 25, only_gguf: bool = True
    ) -> list[Found]:
        """At most `limit` models of each of `places` whose name has `text`, the most downloaded first.

        Raises the RegistryError of a place that cannot be asked.
        """
        limit = max(1, min(limit, MAX_FOUND))
        found: list[Found] = []
        for place in dict.fromkeys(places):
            found += self._docker(text, limit) if place == "docker" else self._hugging_face(text, limit, only_gguf)
        return found

    def _docker(self, text: str, limit: int) -> list[Found]:
        """Docker publishes models in one namespace, small enough to be read as a list.

        Source: Docker Hub API, "List repositories in a namespace" (`page`, `page_size` of up to 100).
        """
        words = text.lower().removeprefix(f"{NAMESPACE}/").split()
        found: list[Found] = []
        for page in range(1, _PAGES + 1):
            models = self._docker_page(page)
            found += [
                each for each in models if all(word in f"{each.name} {each.description}".lower() for word in words)
            ]
            if len(models) < _PAGE_SIZE:
                break
        return sorted(found, key=lambda model: (-model.downloads, model.name))[:limit]

    def _docker_page(self, page: int) -> list[Found]:
        what = "the search on Docker Hub"
        query = urlencode({"page": page, "page_size": _PAGE_SIZE})
        url = f"{self._docker_api}/v2/namespaces/{NAMESPACE}/repositories?{query}"
        # It is Docker's registry that is searched, for those who allow certain registries only.
        named = "docker.io" if self._docker_api == DOCKER_API else None
        with self._egress.request("GET", url, headers={"Accept": "application/json"}, auth_host=named) as response:
            if response.status == 404 and page > 1:
                return []  # one page too far
            if response.status != 200:
                raise failure(response, "a search", "Docker Hub")
            answer = decode_json(response.read(), what)
        results = answer.get("results")
        if not isinstance(results, list):
            raise ManifestError(f"{what} has no results in its answer", hint="its API may have changed")
        return [_model(each, what) for each in results[:_PAGE_SIZE]]

    def _hugging_face(self, text: str, limit: int, only_gguf: bool) -> list[Found]:
        models = self._hub.search(text, limit, only_gguf=only_gguf)
        return [Found(f"hf.co/{each.name}", _line(each.description), each.downloads, "hf") for each in models]


def _model(data: Any, what: str) -> Found:
    if not isinstance(data, Mapping) or not isinstance(name := data.get("name"), str):
        raise ManifestError(f"{what} found something without a name", hint="its API may have changed")
    text, pulls = data.get("description"), data.get("pull_count")
    description = _line(text) if isinstance(text, str) else ""
    return Found(f"{NAMESPACE}/{_line(name)}", description, pulls if isinstance(pulls, int) else 0, "docker")


def _line(text: str) -> str:
    """A server's words for a line of ours: printable and short."""
    return " ".join("".join(char if char.isprintable() else " " for char in text[:400]).split())[:200]
