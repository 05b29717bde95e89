"""An address with llama.cpp's web page: its files are at the root, below everything that is a route."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral.config.settings import Listen
from corral.gateway.api.page_routes import find
from gateway.llamacpp.conftest import send
from gateway.stable import Stable
from gateway.wire import ask

SCRIPT = b"export const answer = 42;\n" * 40_000  # several pieces


@pytest.fixture
def folder(short_tmp: Path) -> Path:
    """A page as it comes out of its build, with what must not come out beside and in it."""
    made = short_tmp / "dist"
    (made / "_app" / "immutable").mkdir(parents=True)
    (made / "index.html").write_bytes(b"<!doctype html><title>page</title>")
    (made / "favicon.ico").write_bytes(b"\0\0\1\0")
    (made / "models").write_bytes(b"a file at a route's path")
    (made / "_app" / "immutable" / "bundle.aa.js").write_bytes(SCRIPT)
    (made / ".env").write_bytes(b"SECRET=1")
    (short_tmp / "outside.txt").write_bytes(b"SECRET=2")
    (made / "leads-out.txt").symlink_to(short_tmp / "outside.txt")
    (made / "leads-in.txt").symlink_to(made / "index.html")
    os.mkfifo(made / "pipe")
    return made


@pytest.fixture
async def paged(stable: Stable, folder: Path) -> AsyncIterator[Stable]:
    stable.change(listen=(Listen(port=0, dialect="llamacpp", page=folder),))
    await stable.open()
    yield stable


async def test_the_files_are_at_the_root(paged: Stable) -> None:
    """Each of its kind, and kept by browsers as long as its name lets it be; routes come first."""
    root = await send(paged, "GET", "/")
    assert (root.status, root.body) == (200, b"<!doctype html><title>page</title>")
    assert root.headers["content-type"] == "text/html; charset=utf-8"
    assert root.headers["cache-control"] == "no-cache"
    assert "frame-ancestors 'none'" in root.headers["content-security-policy"]
    script = await send(paged, "GET", "/_app/immutable/bundle.aa.js?v=1")
    assert (script.status, script.body) == (200, SCRIPT)
    assert script.headers["content-type"] == "text/javascript; charset=utf-8"
    assert "immutable" in script.headers["cache-control"]
    assert (await send(paged, "GET", "/favicon.ico")).headers["content-type"] == "image/x-icon"
    assert (await send(paged, "GET", "/leads-in.txt")).body == root.body
    assert "data" in (await send(paged, "GET", "/models")).json, "a route, whatever the page has there"
    assert (await send(paged, "GET", "/props")).json["role"] == "router"


async def test_the_icon(paged: Stable, folder: Path) -> None:
    """The page's where it has one; else Corral's own, also where there is no page."""
    (folder / "favicon.ico").unlink()
    assert (await send(paged, "GET", "/favicon.ico")).status == 404, "it is the page's to have none"
    own = await send(paged, "GET", "/llamacpp/favicon.ico")
    assert (own.status, own.headers["content-type"]) == (200, "image/svg+xml") and b"<svg" in own.body


async def test_what_a_browser_has_is_not_sent_again(paged: Stable) -> None:
    """By its tag, until it changes; and HEAD tells of a file without sending it."""
    first = await send(paged, "GET", "/_app/immutable/bundle.aa.js")
    where = paged.listeners.addresses[0]
    again = await ask(where, "GET", "/_app/immutable/bundle.aa.js", headers={"if-none-match": first.headers["etag"]})
    assert (again.status, again.body) == (304, b"")
    head = await ask(where, "HEAD", "/_app/immutable/bundle.aa.js")
    assert (head.status, head.headers["content-length"], head.body) == (200, str(len(SCRIPT)), b"")


@pytest.mark.parametrize(
    "path", ["/.env", "/leads-out.txt", "/%2e%2e/outside.txt", "/..%2foutside.txt", "/_app", "/_app/", "/pipe", "/none",
             "/_app//immutable/bundle.aa.js", "/_app/%00", "/a%5c..%5cb"]
)  # fmt: skip
async def test_nothing_else_comes_out(paged: Stable, path: str) -> None:
    """Nothing hidden, nothing outside, no folder and no pipe; and none of it is an answer that hangs."""
    answer = await send(paged, "GET", path)
    assert answer.status == 404, answer.body
    assert b"SECRET" not in answer.body and answer.json["error"]["type"] == "not_found_error"


async def test_what_is_no_file_is_refused_as_before(paged: Stable) -> None:
    """A path that nobody knows is a 404 for every method, and a page that is not there says where it should be."""
    assert (await send(paged, "POST", "/nowhere", {})).status == 404
    assert (await send(paged, "POST", "/", {})).status == 405
    (paged.settings.listen[0].page or Path()).joinpath("index.html").unlink()
    gone = await send(paged, "GET", "/")
    assert gone.status == 404 and "`page` of models.yaml" in gone.json["error"]["message"]


async def test_a_page_comes_and_goes_with_the_configuration(paged: Stable, folder: Path) -> None:
    """Without connections being closed, and the greeting is back."""
    (with_page,) = paged.settings.listen
    where = paged.listeners.addresses[0]
    paged.change(listen=(replace(with_page, page=None),))
    await paged.listeners.update(paged.settings)
    assert b"Corral" in (await ask(where, "GET", "/")).body
    assert (await ask(where, "GET", "/_app/immutable/bundle.aa.js")).status == 404
    paged.change(listen=(with_page,))
    await paged.listeners.update(paged.settings)
    assert b"<title>page</title>" in (await ask(where, "GET", "/")).body


@given(st.lists(st.sampled_from(["..", ".", "", "a", "b.txt", "in", "\\", "\0", "...", ".h", "é"]), max_size=6))
def test_no_path_leads_out(parts: list[str]) -> None:
    """Whatever it is made of: what is found is a file below the folder."""
    name = "/".join(parts)
    file = find(Path(__file__).parent, name)
    assert file is None
    assert find(Path(__file__).parent.parent, f"llamacpp/{name}") is None
