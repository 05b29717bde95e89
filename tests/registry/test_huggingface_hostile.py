"""Hugging Face's server lying or out of order: nothing it says is believed before it is checked."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from corral.errors import CorralError, EgressRefused, ManifestError, NotInRegistry, RateLimited, Unavailable
from corral.registry.egress import Egress, EgressPolicy
from corral.registry.huggingface import HuggingFace
from support.hf_server import HfServer
from support.remote import by_title, resolve


@pytest.mark.parametrize(
    ("status", "kind"), [(429, RateLimited), (500, Unavailable), (503, Unavailable), (418, CorralError)]
)
def test_refusals_are_passed_on_at_once(
    hugging_face: HuggingFace, hub: HfServer, status: int, kind: type[CorralError]
) -> None:
    """A server that is busy or out of order is reported with when to come back, not waited for in here."""
    hub.status = status
    hub.headers = {"Retry-After": "99999"}
    with pytest.raises(kind) as caught:
        resolve(hugging_face, "hf.co/org/m")
    assert caught.value.hint
    assert len(hub.asked) == 1
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
def test_absurd_answers_are_refused(hugging_face: HuggingFace, hub: HfServer, change: Any) -> None:
    """Whatever is not as the API says is refused with a reason, and no file's content is asked for."""
    hub.change = change
    with pytest.raises((ManifestError, NotInRegistry)) as caught:
        resolve(hugging_face, "hf.co/org/m")
    assert caught.value.hint
    assert not any("/resolve/" in path for path in hub.paths())


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.just("file") | st.just("0" * 64),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["path", "size", "type", "oid", "lfs", "pointerSize", "sha", "id"]), inner)
    ),
    max_leaves=12,
)


@given(answer=_JSON | st.lists(_JSON, max_size=3))
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_json_is_a_listing_or_an_error_of_ours(hugging_face: HuggingFace, hub: HfServer, answer: Any) -> None:
    """No answer of a server, whatever JSON it is, becomes an error that is not Corral's own."""
    hub.change = lambda path, listed: answer if "/tree/" in path else listed
    with pytest.raises((ManifestError, NotInRegistry)):
        resolve(hugging_face, "hf.co/org/m")
    hub.change = lambda path, listed: answer
    with pytest.raises((ManifestError, NotInRegistry)):
        resolve(hugging_face, "hf.co/org/m")


def test_next_page_elsewhere_is_refused(
    hugging_face: HuggingFace, hub: HfServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A link to another server's page is not followed, with or without a token."""
    monkeypatch.setenv("HF_TOKEN", hub.token)
    hub.headers = {"Link": f'<{hub.storage}/api/models/org/m/tree/x>; rel="next"'}
    with pytest.raises(EgressRefused, match="another place"):
        resolve(hugging_face, "hf.co/org/m")
    assert hub.stored == []


def test_pages_without_an_end_are_refused(hugging_face: HuggingFace, hub: HfServer) -> None:
    """A listing that always has a next page ends after a bounded number."""
    hub.headers = {"Link": f'<{hub.endpoint}/api/models/org/m/tree/{"1" * 40}>; rel="next"'}
    with pytest.raises(ManifestError, match="no end"):
        resolve(hugging_face, "hf.co/org/m")
    assert len(hub.asked) == 1 + 100


def test_endless_answer_is_refused(hugging_face: HuggingFace, hub: HfServer) -> None:
    """An answer far larger than any real one is refused before it is read."""
    hub.change = lambda path, answer: ["x" * (17 << 20)]
    with pytest.raises(ManifestError, match="too long"):
        resolve(hugging_face, "hf.co/org/m")


def test_redirect_to_a_private_address_is_refused(hub: HfServer) -> None:
    """A server on this machine may be named, but it cannot send us to another port of it."""
    with Egress(EgressPolicy(), env={}) as egress:
        model = resolve(HuggingFace(egress), "hf.co/org/m")
        with pytest.raises(EgressRefused):
            by_title(model)["m-Q4_K_M.gguf"].open(0, None)
    assert hub.stored == []


def test_redirect_to_a_file_is_refused(hugging_face: HuggingFace, hub: HfServer) -> None:
    """A redirect to file:// is refused."""
    hub.redirect = "file:///etc/passwd"
    with pytest.raises(EgressRefused):
        resolve(hugging_face, "hf.co/org/m")


def test_git_file_of_a_size_that_cannot_be_is_refused(hugging_face: HuggingFace, hub: HfServer) -> None:
    """A file without a SHA-256 that says it is huge is refused before it is fetched."""
    hub.change = _with("size", 1 << 40)
    with pytest.raises(ManifestError, match="has no SHA-256"):
        resolve(hugging_face, "hf.co/org/m")
