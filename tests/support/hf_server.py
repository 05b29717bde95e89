"""A small real server that speaks Hugging Face's HTTP API as it is documented, and a second one as its storage.

Files over `LFS_FROM` bytes are LFS ones: the API tells their SHA-256, and their content is on the storage server behind
a redirect. The others are git's own: the API tells git's SHA-1 of them, and they come directly.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from support.http_servers import QuietHandler, running

LFS_FROM = 1000
PAGE = 5  # entries on a page of a listing

GGUF_FILES = {
    "m-Q4_K_M.gguf": b"4" * 5000,
    "m-Q8_0.gguf": b"8" * 5000,
    "mmproj-F16.gguf": b"9" * 5000,
    "chat_template.jinja": b"{{ messages }}",
    "LICENSE": b"free",
    "README.md": b"# m",
    ".gitattributes": b"x",
}
"""What a GGUF repository usually has."""


@dataclass
class Repo:
    """A repository at one commit. `hidden` ones are seen with a token only, `gated` ones are read with one only."""

    files: dict[str, bytes]
    commit: str = "1" * 40
    revisions: tuple[str, ...] = ("main",)
    hidden: bool = False
    gated: bool = False
    downloads: int = 0
    tags: tuple[str, ...] = ()


@dataclass
class HfServer:
    """What the server knows and was asked. `asked` and `stored` have the requests to either server, with headers."""

    endpoint: str = ""
    storage: str = ""
    token: str = "hf_secret"
    repos: dict[str, Repo] = field(default_factory=dict)
    asked: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    stored: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    change: Callable[[str, Any], Any] = lambda path, answer: answer  # of a JSON answer, to lie
    status: int = 0  # answers everything with this status instead
    headers: dict[str, str] = field(default_factory=dict)  # more of them, with every JSON answer and error
    redirect: str = ""  # where content is said to be, instead of the storage
    corrupt: bool = False  # small files come with a byte changed
    ranges: bool = True  # the storage knows ranges

    def paths(self) -> list[str]:
        return [path for path, _ in self.asked]


@contextmanager
def serving() -> Iterator[HfServer]:
    """Both servers, running."""
    state = HfServer()
    with running(_Api, state) as api, running(_Storage, state) as storage:
        state.endpoint, state.storage = api, storage
        yield state


class _Handler(QuietHandler):
    state: HfServer


class _Storage(_Handler):
    def do_GET(self) -> None:
        self.state.stored.append((self.path, self.head()))
        repository, _, path = unquote(urlsplit(self.path).path)[1:].partition("/file/")
        content = self.state.repos[repository].files[path]
        self.answer_content(content, ranges=self.state.ranges)


class _Api(_Handler):
    def do_GET(self) -> None:
        state = self.state
        state.asked.append((self.path, self.head()))
        url = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        if state.status:
            self._refuse(state.status, "", "out of order")
        elif url.path == "/api/models":
            self._search(query)
        elif url.path.startswith("/api/models/"):
            parts = [unquote(part) for part in url.path.removeprefix("/api/models/").split("/")]
            self._about("/".join(parts[:2]), parts[2], "/".join(parts[3:]), query)
        else:
            repository, _, rest = unquote(url.path)[1:].partition("/resolve/")
            commit, _, path = rest.partition("/")
            self._content(repository, commit, path)

    def _found(self, name: str, revision: str) -> Repo | None:
        repo = self.state.repos.get(name)
        known = self.headers.get("Authorization") == f"Bearer {self.state.token}"
        if repo is None or (repo.hidden and not known):
            self._refuse(404 if known else 401, "RepoNotFound", "Repository not found")
            return None
        if revision != repo.commit and revision not in repo.revisions:
            self._refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
            return None
        return repo

    def _about(self, name: str, verb: str, revision: str, query: dict[str, str]) -> None:
        repo = self._found(name, revision)
        if repo is None:
            return
        if verb == "revision":
            self._json({"id": name, "sha": repo.commit, "gated": repo.gated, "private": repo.hidden, "siblings": []})
            return
        entries = [_entry(path, content) for path, content in sorted(repo.files.items())]
        folders = sorted({path.rpartition("/")[0] for path in repo.files} - {""})
        entries += [{"type": "directory", "oid": "0" * 40, "size": 0, "path": folder} for folder in folders]
        start = int(query.get("cursor", "0"))
        link = {}
        if start + PAGE < len(entries):
            address = f"{self.state.endpoint}/api/models/{name}/tree/{revision}?recursive=True&cursor={start + PAGE}"
            link = {"Link": f'<{address}>; rel="next"'}
        self._json(entries[start : start + PAGE], link)

    def _content(self, name: str, commit: str, path: str) -> None:
        repo = self._found(name, commit)
        if repo is None:
            return
        if repo.gated and self.headers.get("Authorization") != f"Bearer {self.state.token}":
            self._refuse(403, "GatedRepo", f"Access to model {name} is restricted")
        elif path not in repo.files:
            self._refuse(404, "EntryNotFound", "Entry not found")
        elif len(repo.files[path]) >= LFS_FROM or self.state.redirect:
            self.answer(302, b"", {"Location": self.state.redirect or f"{self.state.storage}/{name}/file/{path}"})
        else:
            content = repo.files[path]
            self.answer_content(content[:-1] + b"?" if self.state.corrupt else content)

    def _search(self, query: dict[str, str]) -> None:
        wanted = query.get("search", "").lower()
        found = [(name, repo) for name, repo in self.state.repos.items() if wanted in name.lower() and not repo.hidden]
        found = [(name, repo) for name, repo in found if query.get("filter", "") in ("", *repo.tags)]
        found.sort(key=lambda each: -each[1].downloads if query.get("sort") == "downloads" else 0)
        listed = [
            {"id": name, "downloads": repo.downloads, "tags": list(repo.tags), "pipeline_tag": "text-generation"}
            for name, repo in found[: int(query.get("limit", "1000"))]
        ]
        self._json(listed)

    def _json(self, answer: Any, headers: dict[str, str] | None = None) -> None:
        self.answer_json(self.state.change(self.path, answer), headers={**(headers or {}), **self.state.headers})

    def _refuse(self, status: int, code: str, message: str) -> None:
        self.answer(status, b"", {"X-Error-Code": code, "X-Error-Message": message, **self.state.headers})


def _entry(path: str, content: bytes) -> dict[str, Any]:
    if len(content) < LFS_FROM:
        oid = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
        return {"type": "file", "oid": oid, "size": len(content), "path": path}
    digest = hashlib.sha256(content).hexdigest()
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{digest}\nsize {len(content)}\n".encode()
    oid = hashlib.sha1(b"blob %d\0" % len(pointer) + pointer).hexdigest()
    lfs = {"oid": digest, "size": len(content), "pointerSize": len(pointer)}
    return {"type": "file", "oid": oid, "size": len(content), "path": path, "lfs": lfs, "xetHash": "0" * 64}
