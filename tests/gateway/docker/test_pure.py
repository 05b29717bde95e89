"""The pure side of Docker's dialect: spellings, shapes, lines, and what `_configure` may set."""

from __future__ import annotations

import html
import json
import math
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral.api_store import BlobInfo, DownloadInfo
from corral.config.tuning import Tuning
from corral.errors import CallerError, CorralError, EngineFlagError, NotOffered
from corral.gateway.dialects.docker import configure, shapes
from corral.gateway.dialects.docker.lines import PullLines, success, wants_plain, written
from corral.gateway.dialects.docker.names import brief, shown, wanted

ID = "9f0d" * 16
SMOL = "docker.io/ai/smollm2:latest"


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("smollm2", SMOL),
        ("smollm2:360M-Q4_K_M", "docker.io/ai/smollm2:360M-Q4_K_M"),
        ("ai/smollm2", SMOL),
        ("AI/SmolLM2", SMOL),
        ("ai/smollm2:latest", SMOL),
        ("docker.io/ai/smollm2", SMOL),
        ("index.docker.io/ai/smollm2:latest", SMOL),
        ("me/coder:v2", "docker.io/me/coder:v2"),
        ("ghcr.io/org/coder", "ghcr.io/org/coder:latest"),
        ("localhost:5000/org/coder:v2", "localhost:5000/org/coder:v2"),
        ("hf.co/Org/Repo-GGUF:Q4_K_M", "hf.co/Org/Repo-GGUF:Q4_K_M"),
        ("huggingface.co/Org/Repo-GGUF", "hf.co/Org/Repo-GGUF"),
    ],
)
def test_a_name_in_every_spelling(text: str, name: str) -> None:
    """Each means the same name of the store, and the text itself comes first: a model of models.yaml may have it."""
    assert wanted(text).names == tuple(dict.fromkeys((text, name)))
    assert wanted(text).digest == ""


@pytest.mark.parametrize(
    "text", [ID, ID[:12], f"sha256:{ID}", f"sha256:{ID[:12]}", ID.upper(), f"ai/smollm2@sha256:{ID}"]
)
def test_an_id_in_every_spelling(text: str) -> None:
    """Twelve digits, all of them, with and without the algorithm, and behind a name."""
    assert ID.startswith(wanted(text).digest) and len(wanted(text).digest) in (12, 64)


@given(st.text(max_size=80))
def test_no_text_breaks_the_reader(text: str) -> None:
    """A model may be called anything."""
    assert all(wanted(text).names)


def test_how_names_are_shown() -> None:
    """As `ps` and the tables have them."""
    assert (shown(SMOL), brief(SMOL), shown("demo")) == ("ai/smollm2", "smollm2", "demo")
    assert brief("hf.co/Org/Repo:Q4") == "hf.co/Org/Repo:Q4"


def test_figures_are_written_as_docker_does() -> None:
    """Binary sizes, decimal transfers, counts of parameters, Go's durations."""
    assert (shapes.size(268_803_506), shapes.size(512)) == ("256.35MiB", "512.00B")
    assert shapes.moved(12_000_000) == "12.00 MB"
    assert (shapes.parameters(361_821_120), shapes.parameters(None)) == ("361.82M", "")
    assert [shapes.duration(each) for each in (300, 5400, 0, 1.5)] == ["5m0s", "1h30m0s", "0s", "1.5s"]


def test_a_model_has_the_recorded_shape() -> None:
    """Every scalar of the file as a text, no arrays."""
    entry = shapes.Entry(
        ID, (SMOL,), 268_803_506, 1742816981.0, architecture="llama", parameters=361_821_120, quantization="Q4_K_M",
        context=8192, metadata={"general.name": "x", "a.b": 3, "tokenizer.x": True, "tokenizer.ggml.tokens": []},
    )  # fmt: skip
    assert shapes.model(entry) == {
        "id": f"sha256:{ID}", "tags": [SMOL], "created": 1742816981,
        "config": {
            "format": "gguf", "quantization": "Q4_K_M", "parameters": "361.82M", "architecture": "llama",
            "size": "256.35MiB", "gguf": {"general.name": "x", "a.b": "3", "tokenizer.x": "true"}, "context_size": 8192,
        },
    }  # fmt: skip
    assert shapes.openai_model(entry, SMOL)["dmr"]["context_window"] == 8192


def test_a_running_engine_has_the_recorded_shape() -> None:
    """False members are left out."""
    rows = shapes.running(
        [
            shapes.Running(SMOL, "completion", 300.0, 60.0, False, False),
            shapes.Running("m", "embedding", None, 0, True, True),
        ],
        1_800_000_060.0,
    )  # fmt: skip
    assert rows == [
        {"backend_name": "llama.cpp", "model_name": "ai/smollm2", "mode": "completion",
         "last_used": "2027-01-15T08:00:00Z", "keep_alive": "5m0s"},
        {"backend_name": "llama.cpp", "model_name": "m", "mode": "embedding", "last_used": "2027-01-15T08:01:00Z",
         "in_use": True, "loading": True, "keep_alive": "-1"},
    ]  # fmt: skip


def download(done: int, size: int = 10 << 20, state: str = "running") -> DownloadInfo:
    blob = BlobInfo("sha256:" + ID, "a", size, done, None)
    return DownloadInfo("1", "r", SMOL, state, [blob], size, done, None, None, None, [], None, None, None)


def test_lines_of_a_pull() -> None:
    """One for the first word, one for each mebibyte further, one for the end; none in between."""
    told = PullLines()
    steps = [told.more(download(done)) for done in (0, 1000, 1 << 20, (1 << 20) + 5, 10 << 20, 10 << 20)]
    assert [len(each) for each in steps] == [1, 0, 1, 0, 1, 0]
    assert steps[-2] == [
        {"type": "progress", "message": "Downloaded: 10.49 MB", "total": 10 << 20, "mode": "pull",
         "layer": {"id": f"sha256:{ID}", "size": 10 << 20, "current": 10 << 20}}
    ]  # fmt: skip


@given(st.text(max_size=40))
def test_escaped_lines_read_as_the_plain_ones(words: str) -> None:
    """Docker's command line un-escapes what it gets, and the two are then the same."""
    lines = [success(words, "pull")]
    plain, escaped = written(lines, plain=True), written(lines, plain=False)
    assert html.unescape(escaped.decode()) == plain.decode()
    assert json.loads(plain)["type"] == "success" and b'"' not in escaped
    assert (wants_plain(b"application/json"), wants_plain(b"*/*"), wants_plain(None)) == (True, False, False)


def asked(**given: Any) -> Tuning:
    return configure.read(json.dumps({"model": "m", **given}).encode()).over(Tuning())


@pytest.mark.parametrize("nothing", ["", None])
def test_what_was_configured_can_be_taken_back(nothing: Any) -> None:
    """Each by a value of its own, the others staying as they are; nothing is left when all are."""
    given = {"context-size": 512, "keep_alive": "10m", "runtime-flags": ["--temp", "0.2"]}
    tuning = asked(**given)
    for key, value, left in (
        ("keep_alive", nothing, Tuning(512, ("--temp", "0.2"))),
        ("runtime-flags", [], Tuning(512)),
        ("context-size", -1, Tuning()),
    ):
        tuning = configure.read(json.dumps({"model": "m", key: value}).encode()).over(tuning)
        assert tuning == left
    assert not tuning


def test_what_is_configured_is_merged() -> None:
    """One thing set leaves the others as they are; -1 takes a context back."""
    first = asked(**{"context-size": 2048, "runtime-flags": ["--temp", "0.2"], "keep_alive": "10m"})
    assert first == Tuning(2048, ("--temp", "0.2"), 600.0)
    then = configure.read(b'{"model": "m", "keep_alive": "-1"}').over(first)
    assert then == Tuning(2048, ("--temp", "0.2"), math.inf)
    last = configure.read(b'{"model": "m", "context-size": -1, "mode": "embedding"}').over(then)
    assert last == Tuning(None, ("--temp", "0.2", "--embedding"), math.inf)
    assert configure.read(b'{"model": "m", "mode": "completion"}').over(last).args == ("--temp", "0.2")
    assert asked(llamacpp={"reasoning-budget": 0}).args == ("--reasoning-budget", "0")
    assert asked(**{"raw-runtime-flags": "--temp=0.7 --top-k 3"}).args == ("--temp", "0.7", "--top-k", "3")
    found = configure.shown("m", last, None)
    assert found["Mode"] == "embedding"
    assert found["Config"] == {"runtime-flags": ["--temp", "0.2", "--embedding"], "keep_alive": "-1"}


@pytest.mark.parametrize(
    "flags",
    [
        ["--log-file", "x"], ["--model", "x"], ["-m", "x"], ["--host", "0.0.0.0"], ["--lora", "x"], ["--mmproj", "x"],
        ["--chat-template-file", "x"], ["--slot-save-path", "x"], ["--temp", "/etc/passwd"], ["--samplers=a/b"],
        ["--log_file", "x"], ["--log-file=x"], ["--grammar-file", "x"], ["--api-key", "x"], ["-hf", "a"],
        ["--tools", "all"],
        ["--ctx-size", "9"], ["--temp", "\\\\x"],
    ],
)  # fmt: skip
def test_flags_that_reach_beyond_the_model_are_refused(flags: list[str]) -> None:
    """Paths, hosts, logs and what Corral itself decides: as flags, and joined to their values (CVE-2026-28400)."""
    with pytest.raises(EngineFlagError):
        asked(**{"runtime-flags": flags})
    with pytest.raises(EngineFlagError):
        asked(**{"raw-runtime-flags": " ".join(f"'{each}'" for each in flags)})


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ({"speculative": {"draft_model": "x"}}, NotOffered),
        ({"vllm": {"hf-overrides": {}}}, NotOffered),
        ({"mode": "image-generation"}, NotOffered),
        ({"mode": "dance"}, CallerError),
        ({"context-size": 0}, CallerError),
        ({"runtime-flags": [1]}, CallerError),
        ({"raw-runtime-flags": "'"}, CallerError),
        ({"keep_alive": "soon"}, CallerError),
    ],
)
def test_what_cannot_be_configured_says_why(given: dict[str, Any], error: type[CorralError]) -> None:
    """With an error and a hint."""
    with pytest.raises(error) as caught:
        asked(**given)
    assert caught.value.hint


ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=6,
)
FIELDS = st.sampled_from(
    ["model", "mode", "context-size", "runtime-flags", "raw-runtime-flags", "keep_alive", "speculative", "vllm",
     "llamacpp"]
)  # fmt: skip


@given(st.dictionaries(FIELDS, ANY | st.sampled_from(["-1", "5m", "--temp 0", "embedding"]), max_size=5))
def test_whatever_is_sent_is_read_or_refused(body: dict[str, Any]) -> None:
    """Nothing but our own errors comes of it; what is read can be kept and shown."""
    try:
        found = configure.read(json.dumps({"model": "m", **body}).encode()).over(Tuning())
    except CorralError:
        return
    json.dumps(configure.shown("m", found, None), allow_nan=False)
    assert found.context is None or found.context > 0
    assert found.args is None or not any("/" in each for each in found.args)


@given(st.binary(max_size=60))
def test_no_bytes_break_the_reader(body: bytes) -> None:
    """As little as any JSON does."""
    with suppress(CorralError):
        configure.read(body)


def test_what_is_allowed_tunes_only() -> None:
    """No allowed flag is one that takes a path, or that Corral decides."""
    from corral.engines.flags import check_allowed

    check_allowed(sorted(configure.ALLOWED))
    assert not [
        each for each in configure.ALLOWED if "file" in each or "path" in each or "log" in each or "url" in each
    ]
