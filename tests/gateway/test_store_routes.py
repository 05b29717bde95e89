"""The routes of the model store: their bodies, who may ask, and how a work is followed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from corral.api_store import (
    DownloadInfo,
    ExportAsk,
    ImportAsk,
    LoginAsk,
    PackageAsk,
    PruneAsk,
    PullAsk,
    PushAsk,
    VerifyAsk,
)
from corral.errors import CallerError, NotJson
from corral.gateway.app import build
from corral.gateway.control.bodies import example, read_body
from corral.gateway.listen import Listeners
from corral.gateway.models_host import ModelsHost
from gateway.stable import Stable
from gateway.wire import ask

PAGE = Path(__file__).parents[2] / "docs" / "api.md"


@dataclass
class Nothing:
    """A model store without anything in it, that says what it was asked for."""

    asked: list[Any] = field(default_factory=list)

    def __getattr__(self, name: str) -> Any:
        async def act(*args: Any, **kwargs: Any) -> list[Any]:
            self.asked.append((name, *args))
            return []

        if name == "follow_downloads":
            return self._follow
        return act

    async def _follow(self) -> AsyncIterator[DownloadInfo]:
        for state in ("running", "done"):
            yield DownloadInfo("i", "r", "n", state, [], 1, 0, None, None, None, [], 0.0, None, None)


@pytest.fixture
async def open_stable(stable: Stable) -> Stable:
    host: Any = Nothing()
    stable.models_host = host  # type: ignore[attr-defined]
    stable.listeners = Listeners(build(stable, stable, models=host))
    await stable.open(stable.directory / "c.sock")
    return stable


async def test_every_route_of_the_store_is_in_the_page(stable: Stable) -> None:
    """docs/api.md names each of them, and of Corral's and OpenAI's; docs/dialects.md has the other dialects'."""
    host: ModelsHost = Nothing()
    routes = [
        route
        for route in build(stable, stable, models=host)().routes
        if not route.mount and route.dialect.name in ("control", "openai")
    ]
    assert any(route.path == "/control/store/tag" for route in routes)
    missing = [route.path for route in routes if route.path.removesuffix("{model}") not in PAGE.read_text()]
    assert missing == []


@pytest.mark.parametrize("verb", ["login", "logout", "store/package", "store/import", "store/export", "store/load"])
async def test_what_names_files_or_takes_passwords_is_for_the_socket(open_stable: Stable, verb: str) -> None:
    """Over TCP it is refused before its body is looked at."""
    answer = await ask(open_stable.address, "POST", f"/control/{verb}", b"{}")
    assert (answer.status, answer.json["error"]["code"]) == (403, "local_only")
    assert open_stable.models_host.asked == []  # type: ignore[attr-defined]


async def test_bodies_become_wire_types(open_stable: Stable) -> None:
    """What the client wrote is what the store is asked."""
    await ask(open_stable.address, "POST", "/control/pull", {"ref": "ai/smollm2"})
    await ask(open_stable.address, "POST", "/control/store/prune", {"older_than_s": 60, "keep": ["a"]})
    asked = open_stable.models_host.asked  # type: ignore[attr-defined]
    assert asked == [("pull", PullAsk("ai/smollm2")), ("prune", PruneAsk(60, keep=["a"]))]


async def test_downloads_are_followed(open_stable: Stable) -> None:
    """Each state of a download is one event."""
    answer = await ask(open_stable.address, "GET", "/control/downloads?follow=1")
    assert [state for state in ("running", "done") if f'"state": "{state}"' in answer.body.decode()] == [
        "running",
        "done",
    ]


async def test_a_work_is_followed_to_its_result(open_stable: Stable) -> None:
    """The last event has the result."""
    target = "/control/store/push"
    answer = await ask(open_stable.address, "POST", target, {"name": "m"}, headers={"accept": "text/event-stream"})
    assert answer.body.decode().rstrip().endswith('data: {"result": []}')


@pytest.mark.parametrize(
    ("kind", "body", "words"),
    [
        (PullAsk, b"", "ref"),
        (PullAsk, b"[]", "ref"),
        (PullAsk, b'{"ref": ""}', "ref"),
        (PullAsk, b'{"ref": 3}', "ref"),
        (PullAsk, b'{"ref": "a", "nmae": "b"}', "did you mean 'name'"),
        (PullAsk, b'{"ref": "a", "update": 1}', "update"),
        (PruneAsk, b'{"older_than_s": "1d"}', "older_than_s"),
        (PruneAsk, b'{"older_than_s": true}', "older_than_s"),
        (PruneAsk, b'{"keep": "x"}', "keep"),
        (VerifyAsk, b'{"names": [1]}', "names"),
        (LoginAsk, b'{"host": "h", "user": "u"}', "password"),
    ],
)
def test_bad_bodies_name_the_field(kind: type[Any], body: bytes, words: str) -> None:
    """Missing, misspelt and mistyped fields are refused, with what to send."""
    with pytest.raises((CallerError, NotJson)) as caught:
        read_body(kind, body)
    assert words in f"{caught.value.message} {caught.value.hint}"


@pytest.mark.parametrize("kind", [PullAsk, PushAsk, PruneAsk, PackageAsk, ImportAsk, ExportAsk, VerifyAsk])
def test_the_example_in_a_hint_is_right(kind: type[Any]) -> None:
    """What a hint says to send is accepted."""
    assert isinstance(read_body(kind, example(kind).encode()), kind)
