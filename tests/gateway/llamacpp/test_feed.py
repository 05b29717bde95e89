"""The router's feed as pure functions: every way that a unit can take, and downloads in any order."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral.api import EventInfo
from corral.api_downloads import BlobInfo, DownloadInfo
from corral.gateway.dialects.llamacpp import feed, router
from corral.supervisor.machine import TABLE, State


def event(before: str, after: str) -> EventInfo:
    return EventInfo(1, 0.0, "unit.state", "m", "m.1", "", {"before": before, "after": after})


def download(state: str, done: int = 0, id: str = "d") -> DownloadInfo:
    blobs = [BlobInfo("sha256:1", "a", 10, done, None)]
    return DownloadInfo(id, "hf.co/a/b", "hf.co/a/b:q", state, blobs, 10, done, None, None, None, [], None, None, None)


def test_a_load_and_an_unload() -> None:
    """As recorded of the router: the start, a progress, loaded; and unloaded with the exit code."""
    steps = ["stopped", "starting", "loading", "ready", "draining", "stopping", "stopped"]
    told = [feed.of_event(event(before, after), ()) for before, after in pairwise(steps)]
    stage = {"stages": ["text_model"], "current": "text_model", "value": 0.0}
    assert told == [
        {"model": "m", "event": "model_status", "data": {"status": "loading"}},
        {"model": "m", "event": "status_change", "data": {"status": "loading", "progress": stage}},
        {"model": "m", "event": "status_change", "data": {"status": "loaded"}},
        None,
        None,
        {"model": "m", "event": "status_change", "data": {"status": "unloaded", "exit_code": 0}},
    ]


@pytest.mark.parametrize("after", ["backoff", "failed"])
def test_a_failed_load_is_told_once(after: str) -> None:
    """With an exit code that is not 0; that nothing is tried any more is no news."""
    told = feed.of_event(event("loading", after), ())
    assert told is not None and told["data"] == {"status": "unloaded", "exit_code": 1}
    assert feed.of_event(event(after, "stopped"), ()) is None


def test_other_engines_of_a_model_serve_it_on() -> None:
    """One of two that stops is no news either."""
    assert feed.of_event(event("stopping", "stopped"), ["m"]) is None
    assert feed.of_event(event("stopping", "stopped"), ["other"]) is not None


@given(st.lists(st.sampled_from(sorted({event for _, event in TABLE})), max_size=30))
def test_whoever_follows_knows_the_status(taken: list[Any]) -> None:
    """After any way through the states, the last that was told is what the list says, once nothing is being stopped."""
    state, known = State.STOPPED, "unloaded"
    for each in taken:
        if (after := TABLE.get((state, each))) is None:
            continue
        if (told := feed.of_event(event(str(state), str(after)), ())) is not None:
            known = told["data"]["status"]
        state = after
        if state is not State.STOPPING:
            assert known == router.value_of(str(state))


def test_the_configuration_and_removals() -> None:
    """A list that changed is fetched again; of other events there is nothing to say."""
    reloaded = EventInfo(1, 0.0, "config.reloaded", None, None, "", {})
    assert feed.of_event(reloaded, ()) == {"model": "*", "event": "models_reload"}
    assert feed.of_event(EventInfo(1, 0.0, "request.waits", "m", None, "", {}), ()) is None
    assert feed.removed(["a", "b"]) == [{"model": name, "event": "model_remove"} for name in ("a", "b")]


def test_a_download() -> None:
    """Its progress file by file, its end once; what was over before is not told."""
    downloads = feed.Downloads()
    assert downloads.more(download("done", id="old"), "a/b") == []
    (told,) = downloads.more(download("running", 4), "a/b")
    assert told["data"] == {"progress": {"sha256:1": {"done": 4, "total": 10}}}
    assert [each["event"] for each in downloads.more(download("done", 10), "a/b")] == [
        "download_finished", "models_reload",
    ]  # fmt: skip
    assert downloads.more(download("done", 10), "a/b") == []
    downloads.more(download("resolving"), "a/b")
    assert [each["event"] for each in downloads.more(download("paused"), "a/b")] == ["download_failed"]


@given(st.lists(st.sampled_from(("queued", "resolving", "running", "paused", "done", "failed", "cancelled"))))
def test_each_end_belongs_to_a_beginning(states: list[str]) -> None:
    """However a download goes."""
    downloads, going = feed.Downloads(), False
    for state in states:
        for told in downloads.more(download(state), "m"):
            if told["event"] == "download_progress":
                going = True
            elif told["event"] != "models_reload":
                assert going
                going = False


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("ggml-org/tiny-GGUF", "hf.co/ggml-org/tiny-GGUF"),
        ("ggml-org/tiny-GGUF:Q4_K_M", "hf.co/ggml-org/tiny-GGUF:Q4_K_M"),
        ("hf.co/a/b:q", "hf.co/a/b:q"),
        ("localhost:5000/a", "localhost:5000/a"),
        ("ollama://tiny", "ollama://tiny"),
        ("tiny", "tiny"),
    ],
)
def test_a_bare_name_is_of_hugging_face(said: str, meant: str) -> None:
    """As `llama-server -hf` takes it."""
    assert router.reference(said) == meant
