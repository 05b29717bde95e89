"""Hugging Face as a source, against a real server that speaks its API."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from corral.artifact import read_artifact
from corral.descriptors import digest_of
from corral.errors import (
    CorralError,
    DigestMismatch,
    EgressRefused,
    ManifestError,
    NotAllowedThere,
    NotInRegistry,
    RateLimited,
    Unavailable,
)
from corral.refs_parse import parse_ref
from corral.registry import hub_account
from corral.registry.egress import Egress, EgressPolicy
from corral.registry.huggingface import HuggingFace
from corral.registry.source import RemoteBlob, RemoteModel
from support.hf_server import HfServer, Repo, serving

Q4, Q8, PROJECTOR = (bytes([value]) * 5000 for value in (4, 8, 9))
TEMPLATE = b"{{ messages }}"
GGUF = {
    "m-Q4_K_M.gguf": Q4,
    "m-Q8_0.gguf": Q8,
    "mmproj-F16.gguf": PROJECTOR,
    "chat_template.jinja": TEMPLATE,
    "LICENSE": b"free",
    "README.md": b"# m",
    ".gitattributes": b"x",
}


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[HfServer]:
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_HOME", "HF_TOKEN_PATH", "HF_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    with serving() as found:
        found.repos["org/m"] = Repo(dict(GGUF))
        monkeypatch.setenv("HF_ENDPOINT", found.endpoint)
        yield found


@pytest.fixture
def egress(server: HfServer) -> Iterator[Egress]:
    with Egress(EgressPolicy(private_addresses=("127.0.0.1",), insecure=("127.0.0.1",), stall_s=5), env={}) as found:
        yield found


@pytest.fixture
def source(egress: Egress) -> HuggingFace:
    return HuggingFace(egress)


def resolve(source: HuggingFace, text: str) -> RemoteModel:
    return source.resolve(parse_ref(text))


def read(blob: RemoteBlob, offset: int = 0, length: int | None = None) -> bytes:
    body = blob.open(offset, length)
    data, buffer = bytearray(), memoryview(bytearray(777))
    try:
        while count := body.readinto(buffer):
            data += buffer[:count]
    finally:
        body.close()
    return bytes(data)


def artifact(model: RemoteModel) -> Any:
    assert model.manifest is not None
    config = next(blob for blob in model.blobs if blob.title == "config")
    assert config.data is not None
    return read_artifact(json.loads(model.manifest), json.loads(config.data))


def by_title(model: RemoteModel) -> dict[str, RemoteBlob]:
    return {blob.title: blob for blob in model.blobs}


def test_repository_becomes_a_model_with_all_its_parts(source: HuggingFace) -> None:
    """The default quantization, its projector, template and licence make one artifact of Docker's format."""
    model = resolve(source, "hf.co/org/m")
    found = artifact(model)
    assert found.flavour == "docker"
    assert found.quantization == "Q4_K_M"
    assert [(file.role, file.path) for file in found.files] == [
        ("weights", "m-Q4_K_M.gguf"),
        ("mmproj", "mmproj-F16.gguf"),
        ("template", "chat_template.jinja"),
        ("license", "LICENSE"),
    ]
    assert {blob.digest for blob in model.blobs} == {f.descriptor.digest for f in found.files} | {found.config.digest}
    layers = json.loads(model.manifest or b"")["layers"]
    assert all(blob.media_type in {layer["mediaType"] for layer in layers} for blob in model.blobs[1:])
    assert model.annotations["org.opencontainers.image.revision"] == "1" * 40
    assert "took Q4_K_M by default; there is also Q8_0" in model.notes
    assert "main is commit 111111111111" in model.notes


def test_content_comes_from_storage_in_ranges_and_matches_its_digest(source: HuggingFace, server: HfServer) -> None:
    """Large files are opened by range at the place the server redirects to, and are what their LFS hash says."""
    weights = by_title(resolve(source, "hf.co/org/m:Q8_0"))["m-Q8_0.gguf"]
    assert weights.digest == digest_of(Q8)
    assert weights.size == 5000
    assert read(weights) == Q8
    assert read(weights, 10, 20) == Q8[10:30]
    body = weights.open(4000, None)
    assert (body.status, body.offset, body.total) == (206, 4000, 5000)
    body.close()
    assert [head.get("range") for _, head in server.stored] == [None, "bytes=10-29", "bytes=4000-"]


def test_storage_that_ignores_ranges_says_where_its_bytes_belong(source: HuggingFace, server: HfServer) -> None:
    """A whole answer to a range has the offset 0."""
    server.ranges = False
    body = by_title(resolve(source, "hf.co/org/m"))["m-Q4_K_M.gguf"].open(4000, 100)
    assert (body.status, body.offset, body.total) == (200, 0, 5000)
    body.close()


def test_same_commit_gives_the_same_digest(source: HuggingFace, server: HfServer) -> None:
    """What is made from a commit has the same manifest each time, and a pin to it holds until files change."""
    first = resolve(source, "hf.co/org/m").manifest
    assert first == resolve(source, "hf.co/org/m").manifest
    pinned = f"hf.co/org/m@{digest_of(first or b'')}"
    assert resolve(source, pinned).manifest == first
    server.repos["org/m"].files["LICENSE"] = b"not free"
    with pytest.raises(DigestMismatch, match="is now sha256:"):
        resolve(source, pinned)


def test_content_is_pinned_to_the_commit_that_was_resolved(source: HuggingFace, server: HfServer) -> None:
    """After resolving, everything is asked for at the commit and no more at the branch."""
    model = resolve(source, "hf.co/org/m")
    read(by_title(model)["m-Q4_K_M.gguf"])
    of_branch = [path for path in server.paths() if "/main" in path]
    assert of_branch == ["/api/models/org/m/revision/main"]
    assert f"/org/m/resolve/{'1' * 40}/m-Q4_K_M.gguf" in server.paths()


def test_revision_is_honoured(source: HuggingFace, server: HfServer) -> None:
    """A branch behind @ is resolved to its commit; one that is not there is refused by name."""
    server.repos["org/m"].revisions = ("main", "v2")
    assert "v2 is commit 111111111111" in resolve(source, "hf.co/org/m@v2").notes
    with pytest.raises(NotInRegistry, match="Invalid rev id: v3") as caught:
        resolve(source, "hf.co/org/m@v3")
    assert "branch" in caught.value.hint


def test_one_file_of_a_repository(source: HuggingFace) -> None:
    """A path in the repository takes that file, whatever the default is."""
    assert artifact(resolve(source, "hf.co/org/m/m-Q8_0.gguf")).of("weights")[0].path == "m-Q8_0.gguf"


def test_shards_are_all_there_under_their_names(source: HuggingFace, server: HfServer) -> None:
    """A split model has all its files, named so that an engine finds them, without their folder."""
    parts = {f"Q6_K/m-Q6_K-{number:05}-of-00003.gguf": bytes([number]) * 2000 for number in (1, 2, 3)}
    server.repos["org/big"] = Repo(parts)
    found = artifact(resolve(source, "hf.co/org/big"))
    assert [(file.role, file.path) for file in found.files] == [
        ("weights", "m-Q6_K-00001-of-00003.gguf"),
        ("shard", "m-Q6_K-00002-of-00003.gguf"),
        ("shard", "m-Q6_K-00003-of-00003.gguf"),
    ]


def test_safetensors_repository_is_a_directory(source: HuggingFace, server: HfServer) -> None:
    """Safetensors come with their configuration, each under its path."""
    files = {"model.safetensors": Q4, "config.json": b"{}", "tokenizer.json": Q8, "same.json": b"{}"}
    server.repos["org/s"] = Repo(files)
    model = resolve(source, "hf.co/org/s")
    found = artifact(model)
    assert found.format == "safetensors"
    assert {file.path for file in found.files} == set(files)
    assert by_title(model)["same.json"].data == b"{}"


def test_small_files_are_checked_by_git_hash(source: HuggingFace, server: HfServer) -> None:
    """Git's own files have no SHA-256 there: they come while resolving, and must be what the commit says."""
    template = by_title(resolve(source, "hf.co/org/m"))["chat_template.jinja"]
    assert template.data == TEMPLATE
    assert template.digest == digest_of(TEMPLATE)
    server.corrupt = True
    with pytest.raises(DigestMismatch, match="not what its commit says"):
        resolve(source, "hf.co/org/m")


def test_listing_goes_on_over_its_pages(source: HuggingFace, server: HfServer) -> None:
    """A long listing is read to its end."""
    server.repos["org/long"] = Repo({f"n{n:03}.txt": b"x" for n in range(42)} | {"z-Q4_K_M.gguf": Q4})
    assert "z-Q4_K_M.gguf" in by_title(resolve(source, "hf.co/org/long"))
    assert sum("/tree/" in path for path in server.paths()) == 9


# Who is asking -------------------------------------------------------------------------------------------------------


def test_token_is_sent_to_the_server_and_not_to_its_storage(
    source: HuggingFace, server: HfServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """HF_TOKEN opens a private, gated repository; the storage that the server redirects to never sees it."""
    server.repos["org/m"].hidden = server.repos["org/m"].gated = True
    with pytest.raises(NotInRegistry) as caught:
        resolve(source, "hf.co/org/m")
    assert "HF_TOKEN" in caught.value.hint
    monkeypatch.setenv("HF_TOKEN", server.token)
    assert read(by_title(resolve(source, "hf.co/org/m"))["m-Q4_K_M.gguf"]) == Q4
    assert server.stored
    assert not any("authorization" in head for _, head in server.stored)


def test_gated_repository_says_what_to_do(source: HuggingFace, server: HfServer) -> None:
    """A repository with conditions is refused with the way to accept them."""
    server.repos["org/m"].gated = True
    with pytest.raises(NotAllowedThere) as caught:
        resolve(source, "hf.co/org/m")
    assert "accept its conditions" in caught.value.hint


def test_login_file_is_read_at_each_use(
    source: HuggingFace, server: HfServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What `hf auth login` stored is used, from the moment it is there."""
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    server.repos["org/m"].hidden = True
    with pytest.raises(NotInRegistry):
        resolve(source, "hf.co/org/m")
    (tmp_path / "token").write_text(f"{server.token}\n")
    assert resolve(source, "hf.co/org/m").manifest
    monkeypatch.setenv("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")
    with pytest.raises(NotInRegistry):
        resolve(source, "hf.co/org/m")


@pytest.mark.parametrize("text", ["", " ", "a b", "a\nHost: evil", "ä", "x" * 4097 + " y"])
def test_damaged_token_is_no_token(text: str) -> None:
    """A token that cannot stand in a header is not used."""
    found = hub_account.token({"HF_TOKEN": text, "HF_TOKEN_PATH": "/nonexistent/token"})
    assert found is None


def test_token_file_is_where_its_tools_have_it() -> None:
    """The login file is found by HF_TOKEN_PATH, HF_HOME, XDG_CACHE_HOME or in the home directory, in that order."""
    env = {"HOME": "/h"}
    assert hub_account.token_file(env) == Path("/h/.cache/huggingface/token")
    env["XDG_CACHE_HOME"] = "/c"
    assert hub_account.token_file(env) == Path("/c/huggingface/token")
    env["HF_HOME"] = "/f"
    assert hub_account.token_file(env) == Path("/f/token")
    env["HF_TOKEN_PATH"] = "/t"
    assert hub_account.token_file(env) == Path("/t")


# Nothing but what was asked for --------------------------------------------------------------------------------------


def test_nothing_is_told_about_this_machine(
    source: HuggingFace, server: HfServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Requests carry our name and version and nothing of this machine, and no other request is made."""
    monkeypatch.setenv("AI_AGENT", "somebody")
    resolve(source, "hf.co/org/m")
    assert all(path.startswith(("/api/models/org/m", "/org/m/resolve/")) for path in server.paths())
    assert {head["user-agent"].split("/")[0] for _, head in server.asked} == {"corral"}


def test_policy_decides_about_every_request(server: HfServer) -> None:
    """With an allow-list that lacks the server, nothing is asked of it."""
    with Egress(EgressPolicy(allow=("ghcr.io",)), env={}) as egress, pytest.raises(EgressRefused):
        resolve(HuggingFace(egress), "hf.co/org/m")
    assert server.asked == []


def test_offline_switch_of_its_tools_is_honoured(
    source: HuggingFace, server: HfServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """HF_HUB_OFFLINE keeps Corral from asking, with the reason."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(EgressRefused, match="HF_HUB_OFFLINE"):
        resolve(source, "hf.co/org/m")
    assert server.asked == []


# A server that lies or is out of order -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "kind"), [(429, RateLimited), (500, Unavailable), (503, Unavailable), (418, CorralError)]
)
def test_refusals_are_passed_on_at_once(
    source: HuggingFace, server: HfServer, status: int, kind: type[CorralError]
) -> None:
    """A server that is busy or out of order is reported with when to come back, not waited for in here."""
    server.status = status
    server.headers = {"Retry-After": "99999"}
    with pytest.raises(kind) as caught:
        resolve(source, "hf.co/org/m")
    assert caught.value.hint
    assert len(server.asked) == 1
    if status != 418:
        assert caught.value.retry_after_s == 3600


def _with(name: str, value: Any) -> Any:
    """A change to each file of a listing."""

    def change(path: str, answer: Any) -> Any:
        if isinstance(answer, list):
            for entry in answer:
                if name in entry and entry["type"] == "file":
                    entry[name] = value
        return answer

    return change


@pytest.mark.parametrize(
    "change",
    [
        _with("path", "../../etc/passwd.gguf"),
        _with("path", "/etc/passwd.gguf"),
        _with("path", "a\\b.gguf"),
        _with("path", "m\u202efugg.gguf"),
        _with("path", "x/" * 600 + "m.gguf"),
        _with("path", None),
        _with("path", 5),
        _with("size", "many"),
        _with("lfs", {"oid": "0" * 63, "size": 5, "pointerSize": 1}),
        _with("lfs", {"oid": "../../../x", "size": 5, "pointerSize": 1}),
        _with("lfs", {"oid": "0" * 64, "size": -1, "pointerSize": 1}),
        _with("lfs", {"oid": "0" * 64, "size": 1 << 60, "pointerSize": 1}),
        _with("lfs", {"oid": "0" * 64, "size": True, "pointerSize": 1}),
        _with("lfs", {}),
        _with("lfs", "x"),
        _with("oid", "zz"),
        lambda path, answer: {"error": "x"},
        lambda path, answer: [answer],
        lambda path, answer: [[[]]],
        lambda path, answer: [None],
        lambda path, answer: "text",
        lambda path, answer: None,
        lambda path, answer: {**answer, "sha": "main"} if isinstance(answer, dict) else answer,
        lambda path, answer: {**answer, "sha": "../" + "1" * 37} if isinstance(answer, dict) else answer,
        lambda path, answer: {**answer, "sha": None} if isinstance(answer, dict) else answer,
        lambda path, answer: {**answer, "lastModified": "never"} if isinstance(answer, dict) else answer,
    ],
)
def test_absurd_answers_are_refused(source: HuggingFace, server: HfServer, change: Any) -> None:
    """Whatever is not as the API says is refused with a reason, and no file's content is asked for."""
    server.change = change
    with pytest.raises((ManifestError, NotInRegistry)) as caught:
        resolve(source, "hf.co/org/m")
    assert caught.value.hint
    assert not any("/resolve/" in path for path in server.paths())


def test_next_page_elsewhere_is_refused(source: HuggingFace, server: HfServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A link to another server's page is not followed, with or without a token."""
    monkeypatch.setenv("HF_TOKEN", server.token)
    server.headers = {"Link": f'<{server.storage}/api/models/org/m/tree/x>; rel="next"'}
    with pytest.raises(EgressRefused, match="another place"):
        resolve(source, "hf.co/org/m")
    assert server.stored == []


def test_pages_without_an_end_are_refused(source: HuggingFace, server: HfServer) -> None:
    """A listing that always has a next page ends after a bounded number."""
    server.headers = {"Link": f'<{server.endpoint}/api/models/org/m/tree/{"1" * 40}>; rel="next"'}
    with pytest.raises(ManifestError, match="no end"):
        resolve(source, "hf.co/org/m")
    assert len(server.asked) == 1 + 100


def test_endless_answer_is_refused(source: HuggingFace, server: HfServer) -> None:
    """An answer far larger than any real one is refused before it is read."""
    server.change = lambda path, answer: ["x" * (17 << 20)]
    with pytest.raises(ManifestError, match="too long"):
        resolve(source, "hf.co/org/m")


def test_redirect_to_a_private_address_is_refused(server: HfServer) -> None:
    """A server on this machine may be named, but it cannot send us to another port of it."""
    with Egress(EgressPolicy(), env={}) as egress:
        model = resolve(HuggingFace(egress), "hf.co/org/m")
        with pytest.raises(EgressRefused):
            by_title(model)["m-Q4_K_M.gguf"].open(0, None)
    assert server.stored == []


def test_redirect_to_a_file_is_refused(source: HuggingFace, server: HfServer) -> None:
    """A redirect to file:// is refused."""
    server.redirect = "file:///etc/passwd"
    with pytest.raises(EgressRefused):
        resolve(source, "hf.co/org/m")


def test_git_file_of_a_size_that_cannot_be_is_refused(source: HuggingFace, server: HfServer) -> None:
    """A file without a SHA-256 that says it is huge is refused before it is fetched."""
    server.change = _with("size", 1 << 40)
    with pytest.raises(ManifestError, match="has no SHA-256"):
        resolve(source, "hf.co/org/m")


def test_names_that_cannot_be_are_not_asked_for(source: HuggingFace, server: HfServer) -> None:
    """A repository whose name breaks Hugging Face's rules is refused without a request."""
    with pytest.raises(NotInRegistry):
        resolve(source, "hf.co/org/a--b")
    assert server.asked == []


def test_many_threads_each_under_their_own_policy(server: HfServer, egress: Egress) -> None:
    """Calls at the same time keep to the egress they were made with."""
    with Egress(EgressPolicy(allow=("ghcr.io",)), env={}) as closed, ThreadPoolExecutor(8) as pool:
        jobs = [pool.submit(resolve, HuggingFace(each), "hf.co/org/m") for each in [egress, closed] * 8]
        outcomes = [type(job.exception()) for job in jobs]
    assert outcomes == [type(None), EgressRefused] * 8


def test_library_is_loaded_only_when_something_is_asked() -> None:
    """The source itself costs nothing: its library is not loaded with it."""
    script = "import sys, corral.registry.search; sys.exit('huggingface_hub' in sys.modules or 'httpx2' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
