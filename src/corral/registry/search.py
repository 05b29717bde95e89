"""Searching for models on Docker Hub and Hugging Face."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal
from urllib.parse import urlencode

from corral.descriptors import decode_json
from corral.errors import ManifestError
from corral.registry.answers import clean, refusal
from corral.registry.egress import Egress
from corral.registry.huggingface import HuggingFace

Place = Literal["docker", "hf"]

DOCKER_API: Final = "https://hub.docker.com"
NAMESPACE: Final = "ai"  # where Docker publishes models
MAX_FOUND: Final = 100


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
        """Docker publishes models in one namespace, whose list the API narrows by name.

        Source: Docker Hub API, "List repositories in a namespace".
        """
        query = urlencode({"name": text.removeprefix(f"{NAMESPACE}/"), "page_size": limit, "ordering": "-pull_count"})
        url = f"{self._docker_api}/v2/namespaces/{NAMESPACE}/repositories?{query}"
        what = "the search on Docker Hub"
        with self._egress.request("GET", url, headers={"Accept": "application/json"}) as response:
            if response.status != 200:
                raise refusal(response.status, what, retry_after=response.headers.get("retry-after"))
            answer = decode_json(response.read(), what)
        results = answer.get("results")
        if not isinstance(results, list):
            raise ManifestError(f"{what} has no results in its answer", hint="its API may have changed")
        return sorted((_model(each, what) for each in results[:limit]), key=lambda model: -model.downloads)

    def _hugging_face(self, text: str, limit: int, only_gguf: bool) -> list[Found]:
        models = self._hub.search(text, limit, only_gguf=only_gguf)
        return [Found(f"hf.co/{each.name}", clean(each.description), each.downloads, "hf") for each in models]


def _model(data: Any, what: str) -> Found:
    if not isinstance(data, Mapping) or not isinstance(name := data.get("name"), str):
        raise ManifestError(f"{what} found something without a name", hint="its API may have changed")
    text, pulls = data.get("description"), data.get("pull_count")
    description = clean(text) if isinstance(text, str) else ""
    return Found(f"{NAMESPACE}/{clean(name)}", description, pulls if isinstance(pulls, int) else 0, "docker")
