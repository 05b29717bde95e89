"""`corral bench` with real servers and engines: what is measured, saved, compared and drawn."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import uvloop

from corral.cli.main import run as corral
from corral.config.paths import Paths
from corral.connection import Address
from corral.demo.where import demo_model
from corral.measure.load import run
from corral.measure.work import Work
from support.llama import llama_server
from support.server import Server, until

CONFIG = """
models:
  - {name: demo, source: 'builtin:demo', parallel: 2, context: 512, executable: embedded, args: [--threads, '1']}
  - {name: other, source: 'builtin:demo', context: 512, executable: embedded}
max_active: 1
"""
SMALL = ["--runs", "2", "--each", "1", "--prompt-tokens", "40", "--output-tokens", "16"]
LONGER = ["--prompt-tokens", "40", "--output-tokens", "150"]
"""Answers that do not come all at once on a busy machine either, whose rate of writing is measured."""


@pytest.fixture(autouse=True, scope="module")
def _loops_have_been_made() -> None:
    """libuv makes a pipe with the first loop of a process and keeps it: before anybody counts what is left."""
    uvloop.new_event_loop().close()


def said(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> Any:
    """What the command printed as JSON, or with another code its error."""
    capsys.readouterr()
    assert corral(["--json", "bench", *words]) == code, capsys.readouterr().err
    out = capsys.readouterr()
    return json.loads(out.out if code == 0 else out.err)


def figures(found: Any, **wanted: Any) -> list[Any]:
    return [each for each in found["figures"] if all(each[name] == value for name, value in wanted.items())]


@pytest.mark.timeout(900)
def test_a_model_from_cold_to_many(
    paths: Paths, corral_env: dict[str, str], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Everything of one model: starts, swaps, depths, levels, memory; saved, compared, and drawn."""
    with Server(paths, CONFIG):
        asked = ["demo", "--concurrency", "1,2", "--depths", "0,60,100000", *SMALL[:4], *LONGER]
        found = said(capsys, *asked, "--swap", "other", "--html", str(tmp_path / "a.html"))
        for name, part in (("cold_first_token_ms", "cold"), ("swap_first_token_ms", "swap")):
            (waited,) = figures(found, name=name, part=part)
            (load,) = figures(found, name="load_ms", part=part)
            assert len(waited["values"]) == 2 and 0 < load["median"] < waited["median"]
        (swap,) = figures(found, name="swap_ms")
        assert min(swap["values"]) > 0
        at_once = {
            at for at in (0, 60) if any(f"depth of {at} an answer came all at once" in n for n in found["notes"])
        }
        for at in (0, 60):
            names = ["prompt_per_s", "engine_prompt_per_s", "engine_generation_per_s"]
            for name in names if at in at_once else ["generation_per_s", *names]:
                (rate,) = figures(found, part="depth", at=at, name=name)
                assert len(rate["values"]) == 2 and min(rate["values"]) > 0
        assert any("no depth of 100000" in note for note in found["notes"])
        for at in (1, 2):
            (prompts,) = figures(found, part="at once", at=at, name="prompt_tokens")
            assert prompts["values"] == [40.0, 40.0]  # exactly, as the engine counts them
            (failed,) = figures(found, part="at once", at=at, name="failed")
            assert failed["values"] == [0.0, 0.0]
            assert figures(found, part="at once", at=at, name="ttft_p95_ms")
        assert figures(found, name="memory_bytes")[0]["median"] > 1 << 20
        facts = found["subjects"]["demo"]
        assert (facts["engine"], facts["slots"], facts["context"]) == ("llama.cpp", 2, 512)
        assert facts["prompts"].startswith("exactly") and found["machine"]["cores"] > 0
        assert found["compared"] is None and json.loads(Path(found["file"]).read_text())["id"] == found["id"]
        assert "<svg" in (tmp_path / "a.html").read_text()
        again = said(capsys, *asked, "--no-cold", "--csv", str(tmp_path / "a.csv"))
        assert again["compared"]["before"] == found["id"] and again["compared"]["rows"]
        missing = {"depth"} if any("came all at once" in note for note in again["notes"]) else set()
        assert {key[1] for key in again["compared"]["only_before"]} - missing == {"cold", "swap"}
        assert "demo,at once,2,ttft_p50_ms,ms,1," in (tmp_path / "a.csv").read_text()
    # What is saved needs no server.
    assert [each["id"] for each in said(capsys, "list")] == [found["id"], again["id"]]
    changed = said(capsys, "diff", found["id"], "latest")
    assert changed["before"] == found["id"] and changed["after"] == again["id"]
    assert corral(["bench", "diff", found["id"], again["id"], "--all"]) == 0
    shown = capsys.readouterr()
    assert "figures of both" in shown.out and "only before" in shown.err
    assert corral(["bench", "show", "latest", "--charts", "--png", str(tmp_path / "a.png")]) == 0
    shown = capsys.readouterr()
    assert "AT ONCE" in shown.out and "DEPTH" in shown.out and "●" in shown.out
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    assert said(capsys, "show", "nothing", code=2)["error"]["hint"] == "list those there are: corral bench list"


@pytest.mark.timeout(600)
def test_both_ways_are_measured(paths: Paths, corral_env: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    """Each level through Corral and straight to its engine, all tokens made and no request failed."""
    with Server(paths, CONFIG):
        asked = ["concurrency", "demo", "--most", "2", "--runs", "2", "--each", "1", "--words", "8", "--tokens", "3"]
        found = said(capsys, *asked)
        assert set(found["points"]) == {"corral", "direct"}
        for points in found["points"].values():
            assert [each["level"] for each in points] == [1, 2]
            assert [each["requests"] for each in points] == [2, 4]
            assert all(each["failed"] == 0 and each["tokens_per_s"] > 0 for each in points)
        assert corral(["bench", *asked, "--no-direct", "--no-save"]) == 0
        shown = capsys.readouterr().out
        assert "AT ONCE" in shown and "corral: " in shown and "direct" not in shown
        assert [each["kind"] for each in said(capsys, "list")] == ["concurrency"]


@pytest.mark.timeout(300)
async def test_what_fails_is_in_its_shot(paths: Paths) -> None:
    """A model that is not there, and a server that is not: the shots say so, and nothing is counted as a token."""
    with Server(paths, CONFIG) as server:
        refused = await run(Address(port=int(server.url.rpartition(":")[2])), Work("nope"), 2, 3)
        assert len(refused.shots) == 3 and not refused.good and "404" in refused.shots[0].problem
    nobody = await run(Address(socket=Path("/nonexistent.sock")), Work("demo"), 1, 1)
    assert "FileNotFoundError" in nobody.shots[0].problem and nobody.tokens_per_s == 0.0


@pytest.mark.timeout(600)
def test_a_model_is_compared_with_itself_over_tcp(
    paths: Paths, corral_env: dict[str, str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Corral's own model and a target, at a rate too; a target that is down is left out, and said so."""
    monkeypatch.setenv("SOME_KEY", "not-asked-for")
    with Server(paths, CONFIG) as server:
        targets = [
            "--target",
            f"tcp={server.url}/v1#demo",
            "--key",
            "tcp=env:SOME_KEY",
            "--target",
            "down=http://127.0.0.1:1",
        ]
        found = said(capsys, "compare", "demo", *targets, "--concurrency", "2", *SMALL)
        assert list(found["subjects"]) == ["demo", "tcp"] and "not-asked-for" not in json.dumps(found)
        assert any(note.startswith("left out: down") for note in found["notes"])
        for name in ("demo", "tcp"):
            (speed,) = figures(found, subject=name, name="output_tokens_per_s")
            assert len(speed["values"]) == 2 and min(speed["values"]) > 0
        rated = said(capsys, "compare", "demo", "--rate", "10", "--seconds", "1", *SMALL[:-1], "4")
        (sent,) = figures(rated, part="a second", at=10.0, name="requests_per_s")
        assert len(sent["values"]) == 2 and figures(rated, name="sent_late_p95_ms")
        assert said(capsys, "compare", *targets[-2:], *SMALL, code=3)["error"]["code"] == "unreachable"
        assert said(capsys, "compare", code=2)["error"]["message"] == "nothing to compare"


def test_what_cannot_be_is_refused_before_anything_is_measured(
    corral_env: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Lists that are none, keys on the command line, names given twice."""
    for words, told in (
        (["demo", "--concurrency", "1,x"], "not a list"),
        (["demo", "--concurrency", "0"], "must be from"),
        (["compare", "--target", "a=http://h", "--key", "a=sk-1"], "never given on the command line"),
        (["compare", "--target", "a=http://h", "--target", "a=http://i"], "two targets are called a"),
        (["diff", "one", "two"], "no saved benchmark"),
    ):
        assert told in said(capsys, *words, code=2)["error"]["message"]
    assert corral(["bench", "--help"]) == 0
    assert "compare" in capsys.readouterr().out


@contextmanager
def llama(folder: Path, *flags: str) -> Iterator[str]:
    """A `llama-server` of its own on the demo model; its address."""
    log = folder / "llama-server.log"
    argv = [str(llama_server()), "--model", str(demo_model()), "--host", "127.0.0.1", "--port", "0"]
    with log.open("w") as out:
        process = subprocess.Popen([*argv, "--threads", "1", *flags], stdout=out, stderr=out, stdin=subprocess.DEVNULL)
    try:
        found = until(
            lambda: re.search(r"listening on (http://\S+)", log.read_text(errors="replace")), "llama-server", 120
        )
        yield found[1].rstrip("/")
    finally:
        process.terminate()
        process.wait(60)


@pytest.mark.engines
@pytest.mark.timeout(900)
def test_beside_a_real_llama_server(
    paths: Paths, corral_env: dict[str, str], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """The same load to Corral's model and to a plain llama-server: prompts of the same length, all tokens made."""
    (tmp_path / "key").write_text("s3cret\n")
    with Server(paths, CONFIG), llama(tmp_path, "--api-key", "s3cret", "-np", "2", "-c", "1024") as url:
        asked = ["compare", "demo", "--target", f"llama={url}", "--concurrency", "1,4", *SMALL]
        refused = said(capsys, *asked)
        assert list(refused["subjects"]) == ["demo"]
        assert any(note.startswith("left out: llama does not") and ": 401: " in note for note in refused["notes"])
        found = said(capsys, *asked, "--key", f"llama=file:{tmp_path / 'key'}", "--html", str(tmp_path / "c.html"))
        for name in ("demo", "llama"):
            assert found["subjects"][name]["prompts"].startswith("exactly")
            for at in (1, 4):
                assert figures(found, subject=name, at=at, name="prompt_tokens")[0]["values"] == [40.0, 40.0]
                assert figures(found, subject=name, at=at, name="short")[0]["values"] == [0.0, 0.0]
                assert figures(found, subject=name, at=at, name="failed")[0]["values"] == [0.0, 0.0]
        assert (tmp_path / "c.html").read_text().count("<svg") >= 5


@pytest.mark.engines
@pytest.mark.timeout(900)
def test_devices_without_a_gpu(paths: Paths, corral_env: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    """Each program that reaches no GPU is no way of its own; the processor is measured, in a server of its own."""
    with Server(paths, CONFIG) as server:
        found = said(capsys, "devices", "demo", "--executable", str(llama_server()), *SMALL[:2], *LONGER)
        assert list(found["subjects"]) == ["cpu"] and found["subjects"]["cpu"]["program"] == "embedded"
        assert figures(found, subject="cpu", name="engine_generation_per_s")[0]["median"] > 0
        assert not [each for each in server.client.units() if each.state == "ready"]
