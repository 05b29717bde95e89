"""llama.cpp's web page, whose files people have in a folder: served where its requests go, since it asks the address
that it came from and no other.

The files are public, as `llama-server` has them; what the page asks for then is let in by its key, or not, like any
client's request.
"""

from __future__ import annotations

import asyncio
import os
import stat
from pathlib import Path
from typing import BinaryIO, Final

from corral.errors import NotFound
from corral.gateway.dialects.llamacpp.errors import LLAMACPP
from corral.gateway.exchange import Exchange
from corral.gateway.http.headers import Fields
from corral.gateway.routes import Match, Route

KINDS: Final = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".ico": "image/x-icon",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".mjs": "text/javascript; charset=utf-8",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".ttf": "font/ttf",
    ".txt": "text/plain; charset=utf-8",
    ".wasm": "application/wasm",
    ".webmanifest": "application/manifest+json",
    ".woff": "font/woff",
    ".woff2": "font/woff2",
}
"""By their endings, and not by the machine's own table: a browser runs no script that is called something else."""
_FOREVER: Final = "/immutable/"  # below it, SvelteKit's names have a hash in them
_PIECE: Final = 1 << 18


def page_routes() -> list[Route]:
    """For the front of the table of an address that has a page (`Listen.page`): its root, and all that nothing else of
    the table answers."""
    return [
        Route(method, path, _send, dialect=LLAMACPP, scope=None)
        for method, path in (("GET", "/"), ("GET", "/favicon.ico"), ("*", "/{path}"))
    ]


async def _send(exchange: Exchange, match: Match, body: bytes) -> None:
    folder = exchange.where.page
    if folder is None or exchange.method not in ("GET", "HEAD"):
        raise _nothing(exchange.path)
    name = exchange.path.lstrip("/") or "index.html"
    file = await asyncio.to_thread(find, folder, name)
    if file is None:
        raise _no_page() if name == "index.html" else _nothing(exchange.path)
    with file:
        size, tag = _about(file)
        head = _head(name, tag)
        if exchange.header(b"if-none-match") == tag:
            await exchange.respond(304, head)
            return
        await exchange.start(200, [*head, (b"content-length", b"%d" % size)])
        while exchange.method == "GET" and size:
            piece = await asyncio.to_thread(file.read, min(size, _PIECE))
            if not piece:  # it was cut short meanwhile
                exchange.abort()
                return
            size -= len(piece)
            await exchange.write(piece)
        await exchange.end()


def find(folder: Path, name: str) -> BinaryIO | None:
    """The regular file of `folder` that a path names; None where there is none, or it leads out of the folder or to
    something hidden. Blocks."""
    parts = name.split("/")
    if any(not part or part.startswith(".") or "\0" in part or "\\" in part for part in parts):
        return None
    try:
        inside, path = folder.resolve(strict=True), folder.joinpath(*parts).resolve(strict=True)
        if not path.is_relative_to(inside):
            return None
        file = open(path, "rb", opener=_without_waiting)  # noqa: SIM115 - the caller closes it
    except OSError:
        return None
    if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        return file
    file.close()
    return None


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)  # for what is a pipe


def _about(file: BinaryIO) -> tuple[int, bytes]:
    found = os.fstat(file.fileno())
    return found.st_size, b'"%x-%x"' % (found.st_size, found.st_mtime_ns)


def _head(name: str, tag: bytes) -> Fields:
    kept = "public, max-age=31536000, immutable" if _FOREVER in f"/{name}" else "no-cache"
    return [
        (b"content-type", KINDS.get(Path(name).suffix.lower(), "application/octet-stream").encode()),
        (b"etag", tag),
        (b"cache-control", kept.encode()),
        (b"content-security-policy", b"frame-ancestors 'none'"),
        (b"x-content-type-options", b"nosniff"),
    ]


def _nothing(path: str) -> NotFound:
    shown = path if len(path) <= 200 else path[:200] + "…"
    return NotFound(f"there is nothing at {shown}", hint="GET /models lists the models, GET / is llama.cpp's page")


def _no_page() -> NotFound:
    return NotFound(
        "llama.cpp's page is not where `page` of models.yaml says",
        hint="name the folder with its index.html: `dist` of tools/ui, once it is built or unpacked",
    )
