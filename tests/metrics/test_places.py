"""What the store takes, as scrapes tell it."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from types import SimpleNamespace
from typing import Any, cast

from corral.config.paths import Paths
from corral.errors import StoreError
from corral.models.library import Library
from corral.observability.places import Places


class Store:
    """Fails as often as `failures` says."""

    failures = 0

    def usage(self) -> SimpleNamespace:
        if self.failures:
            self.failures -= 1
            raise StoreError("it has no index.json")
        return SimpleNamespace(total_bytes=1234)


def spawn(work: Coroutine[Any, Any, Any], *, name: str) -> asyncio.Task[Any]:
    return asyncio.create_task(work, name=name)


async def look(places: Places) -> int | None:
    """What the store takes, after a look."""
    places.refresh()
    assert places._looking is not None
    await places._looking
    return places.found.store_bytes


async def test_a_store_that_nobody_has_made_takes_nothing(paths: Paths) -> None:
    assert not paths.store_dir.exists()
    assert await look(Places(paths, cast(Library, SimpleNamespace(store=Store())), spawn)) == 0


async def test_one_that_cannot_be_read_is_looked_at_again_soon(paths: Paths) -> None:
    paths.store_dir.mkdir(parents=True)
    store = Store()
    store.failures = 1
    places = Places(paths, cast(Library, SimpleNamespace(store=store)), spawn)
    assert await look(places) is None
    assert await look(places) == 1234
