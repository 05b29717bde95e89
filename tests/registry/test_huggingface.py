"""Hugging Face as a source, against a real server that speaks its API."""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from corral.artifact import read_artifact
from corral.descriptors import digest_of
from corral.errors import DigestMismatch, EgressRefused, NotAllowedThere, NotInRegistry
from corral.registry import hub_account
from corral.registry.egress import Egress, EgressPolicy
from corral.registry.huggingface import HuggingFace
from corral.registry.source import RemoteModel
from support.hf_server import GGUF_FILES, HfServer, Repo
from support.remote import by_title, read_blob, resolve

Q4, Q8 = GGUF_FILES["m-Q4_K_M.gguf"], GGUF_FILES["m-Q8_0.gguf"]


def artifact(model: RemoteModel) -> Any:
    assert model.manifest is not None
    config = next(blob for blob in model.blobs if blob.title == "config")
    assert config.data is not None
    return read_artifact(json.loads(model.manifest), json.loads(config.data))


def test_repository_becomes_a_model_with_all_its_parts(hugging_face: HuggingFace) -> None:
    """The default quantization, its projector, template and licence make one artifact of Docker's format."""
    model = resolve(hugging_face, "hf.co/org/m")
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


def test_content_comes_from_storage_in_ranges_and_matches_its_digest(hugging_face: HuggingFace, hub: HfServer) -> None:
    """Large files are opened by range at the place the server redirects to, and are what their LFS hash says."""
    weights = by_title(resolve(hugging_face, "hf.co/org/m:Q8_0"))["m-Q8_0.gguf"]
    assert weights.digest == digest_of(Q8)
    assert weights.size == 5000
    assert read_blob(weights) == Q8
    assert read_blob(weights, 10, 20) == Q8[10:30]
    body = weights.open(4000, None)
    assert (body.status, body.offset, body.total) == (206, 4000, 5000)
    body.close()
    assert [head.get("range") for _, head in hub.stored] == [None, "bytes=10-29", "bytes=4000-"]


def test_storage_that_ignores_ranges_says_where_its_bytes_belong(hugging_face: HuggingFace, hub: HfServer) -> None:
    """A whole answer to a range has the offset 0."""
    hub.ranges = False
    body = by_title(resolve(hugging_face, "hf.co/org/m"))["m-Q4_K_M.gguf"].open(4000, 100)
    assert (body.status, body.offset, body.total) == (200, 0, 5000)
    body.close()


def test_same_commit_gives_the_same_digest(hugging_face: HuggingFace, hub: HfServer) -> None:
    """What is made from a commit has the same manifest each time, and a pin to it holds until files change."""
    first = resolve(hugging_face, "hf.co/org/m").manifest
    assert first == resolve(hugging_face, "hf.co/org/m").manifest
    pinned = f"hf.co/org/m@{digest_of(first or b'')}"
    assert resolve(hugging_face, pinned).manifest == first
    hub.repos["org/m"].files["LICENSE"] = b"not free"
    with pytest.raises(DigestMismatch, match="is now sha256:"):
        resolve(hugging_face, pinned)


def test_content_is_pinned_to_the_commit_that_was_resolved(hugging_face: HuggingFace, hub: HfServer) -> None:
    """After resolving, everything is asked for at the commit and no more at the branch."""
    model = resolve(hugging_face, "hf.co/org/m")
    read_blob(by_title(model)["m-Q4_K_M.gguf"])
    of_branch = [path for path in hub.paths() if "/main" in path]
    assert of_branch == ["/api/models/org/m/revision/main"]
    assert f"/org/m/resolve/{'1' * 40}/m-Q4_K_M.gguf" in hub.paths()


def test_revision_is_honoured(hugging_face: HuggingFace, hub: HfServer) -> None:
    """A branch behind @ is resolved to its commit; one that is not there is refused by name."""
    hub.repos["org/m"].revisions = ("main", "v2")
    assert "v2 is commit 111111111111" in resolve(hugging_face, "hf.co/org/m@v2").notes
    with pytest.raises(NotInRegistry, match="Invalid rev id: v3") as caught:
        resolve(hugging_face, "hf.co/org/m@v3")
    assert "branch" in caught.value.hint


def test_one_file_of_a_repository(hugging_face: HuggingFace) -> None:
    """A path in the repository takes that file, whatever the default is."""
    assert artifact(resolve(hugging_face, "hf.co/org/m/m-Q8_0.gguf")).of("weights")[0].path == "m-Q8_0.gguf"


def test_shards_are_all_there_under_their_names(hugging_face: HuggingFace, hub: HfServer) -> None:
    """A split model has all its files, named so that an engine finds them, without their folder."""
    parts = {f"Q6_K/m-Q6_K-{number:05}-of-00003.gguf": bytes([number]) * 2000 for number in (1, 2, 3)}
    hub.repos["org/big"] = Repo(parts)
    found = artifact(resolve(hugging_face, "hf.co/org/big"))
    assert [(file.role, file.path) for file in found.files] == [
        ("weights", "m-Q6_K-00001-of-00003.gguf"),
        ("shard", "m-Q6_K-00002-of-00003.gguf"),
        ("shard", "m-Q6_K-00003-of-00003.gguf"),
    ]


def test_safetensors_repository_is_a_directory(hugging_face: HuggingFace, hub: HfServer) -> None:
    """Safetensors come with their configuration, each under its path."""
    files = {"model.safetensors": Q4, "config.json": b"{}", "tokenizer.json": Q8, "same.json": b"{}"}
    hub.repos["org/s"] = Repo(files)
    model = resolve(hugging_face, "hf.co/org/s")
    found = artifact(model)
    assert found.format == "safetensors"
    assert {file.path for file in found.files} == set(files)
    assert by_title(model)["same.json"].data == b"{}"


def test_small_files_are_checked_by_git_hash(hugging_face: HuggingFace, hub: HfServer) -> None:
    """Git's own files have no SHA-256 there: they come while resolving, and must be what the commit says."""
    template = by_title(resolve(hugging_face, "hf.co/org/m"))["chat_template.jinja"]
    assert template.data == GGUF_FILES["chat_template.jinja"]
    assert template.digest == digest_of(GGUF_FILES["chat_template.jinja"])
    hub.corrupt = True
    with pytest.raises(DigestMismatch, match="not what its commit says"):
        resolve(hugging_face, "hf.co/org/m")


def test_listing_goes_on_over_its_pages(hugging_face: HuggingFace, hub: HfServer) -> None:
    """A long listing is read to its end."""
    hub.repos["org/long"] = Repo({f"n{n:03}.txt": b"x" for n in range(42)} | {"z-Q4_K_M.gguf": Q4})
    assert "z-Q4_K_M.gguf" in by_title(resolve(hugging_face, "hf.co/org/long"))
    assert sum("/tree/" in path for path in hub.paths()) == 9


# Who is asking -------------------------------------------------------------------------------------------------------


def test_token_is_sent_to_the_server_and_not_to_its_storage(
    hugging_face: HuggingFace, hub: HfServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """HF_TOKEN opens a private, gated repository; the storage that the server redirects to never sees it."""
    hub.repos["org/m"].hidden = hub.repos["org/m"].gated = True
    with pytest.raises(NotInRegistry) as caught:
        resolve(hugging_face, "hf.co/org/m")
    assert "HF_TOKEN" in caught.value.hint
    monkeypatch.setenv("HF_TOKEN", hub.token)
    assert read_blob(by_title(resolve(hugging_face, "hf.co/org/m"))["m-Q4_K_M.gguf"]) == Q4
    assert hub.stored
    assert not any("authorization" in head for _, head in hub.stored)


def test_gated_repository_says_what_to_do(hugging_face: HuggingFace, hub: HfServer) -> None:
    """A repository with conditions is refused with the way to accept them."""
    hub.repos["org/m"].gated = True
    with pytest.raises(NotAllowedThere) as caught:
        resolve(hugging_face, "hf.co/org/m")
    assert "accept its conditions" in caught.value.hint


def test_login_file_is_read_at_each_use(
    hugging_face: HuggingFace, hub: HfServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What `hf auth login` stored is used, from the moment it is there."""
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    hub.repos["org/m"].hidden = True
    with pytest.raises(NotInRegistry):
        resolve(hugging_face, "hf.co/org/m")
    (tmp_path / "token").write_text(f"{hub.token}\n")
    assert resolve(hugging_face, "hf.co/org/m").manifest
    monkeypatch.setenv("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")
    with pytest.raises(NotInRegistry):
        resolve(hugging_face, "hf.co/org/m")


def test_token_is_read_again_for_each_piece(
    hugging_face: HuggingFace, hub: HfServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A token that stops working in the middle of a download is an error with what to do, and a new one goes on."""
    hub.repos["org/m"].gated = True
    monkeypatch.setenv("HF_TOKEN", hub.token)
    weights = by_title(resolve(hugging_face, "hf.co/org/m"))["m-Q4_K_M.gguf"]
    hub.token = "hf_next"
    with pytest.raises(NotAllowedThere) as caught:
        weights.open(0, 100)
    assert "hf auth login" in caught.value.hint
    monkeypatch.setenv("HF_TOKEN", hub.token)
    assert read_blob(weights) == Q4


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
    hugging_face: HuggingFace, hub: HfServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Requests carry our name and version and nothing of this machine, and no other request is made."""
    monkeypatch.setenv("AI_AGENT", "somebody")
    resolve(hugging_face, "hf.co/org/m")
    assert all(path.startswith(("/api/models/org/m", "/org/m/resolve/")) for path in hub.paths())
    assert {head["user-agent"].split("/")[0] for _, head in hub.asked} == {"corral"}


def test_policy_decides_about_every_request(hub: HfServer) -> None:
    """With an allow-list that lacks the server, nothing is asked of it."""
    with Egress(EgressPolicy(allow=("ghcr.io",)), env={}) as egress, pytest.raises(EgressRefused):
        resolve(HuggingFace(egress), "hf.co/org/m")
    assert hub.asked == []


def test_offline_switch_of_its_tools_is_honoured(
    hugging_face: HuggingFace, hub: HfServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """HF_HUB_OFFLINE keeps Corral from asking, with the reason."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(EgressRefused, match="HF_HUB_OFFLINE"):
        resolve(hugging_face, "hf.co/org/m")
    assert hub.asked == []


def test_names_that_cannot_be_are_not_asked_for(hugging_face: HuggingFace, hub: HfServer) -> None:
    """A repository whose name breaks Hugging Face's rules is refused without a request."""
    with pytest.raises(NotInRegistry):
        resolve(hugging_face, "hf.co/org/a--b")
    assert hub.asked == []


def test_many_threads_each_under_their_own_policy(hub: HfServer, hub_egress: Egress) -> None:
    """Calls at the same time keep to the egress they were made with."""
    with Egress(EgressPolicy(allow=("ghcr.io",)), env={}) as closed, ThreadPoolExecutor(8) as pool:
        jobs = [pool.submit(resolve, HuggingFace(each), "hf.co/org/m") for each in [hub_egress, closed] * 8]
        outcomes = [type(job.exception()) for job in jobs]
    assert outcomes == [type(None), EgressRefused] * 8


def test_library_is_loaded_only_when_something_is_asked() -> None:
    """The source itself costs nothing: its library is not loaded with it."""
    script = "import sys, corral.registry.search; sys.exit('huggingface_hub' in sys.modules or 'httpx2' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
