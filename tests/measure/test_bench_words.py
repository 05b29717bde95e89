"""What `corral bench` says of results and refuses at once: of saved reports, without a server."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import uvloop

from corral.cli import bench_compare, bench_concurrency
from corral.cli.bench_report import FOLDER
from corral.cli.main import run as corral
from corral.config.paths import Paths
from corral.measure import depth
from corral.measure.figures import COLD, REQUESTS, figure
from corral.measure.report import Report
from corral.measure.shelf import Shelf
from corral.measure.target import Target, WrongTarget, settled
from support.sse_server import Manner, serving


@pytest.fixture(autouse=True, scope="module")
def _loops_have_been_made() -> None:
    """libuv makes a pipe with the first loop of a process and keeps it: before anybody counts what is left."""
    uvloop.new_event_loop().close()


Said = pytest.CaptureFixture[str]


def saved(paths: Paths, *values: float, began: float) -> str:
    figures = (
        figure("m", REQUESTS, 4.0, "output_tokens_per_s", values),
        figure("m", COLD, None, "load_ms", [10 * each for each in values]),
    )
    made = Report("model", "m", began, 1.5, "1.0", {"cores": 2}, {}, {"m": {}}, figures, ())
    return Shelf(paths.state_dir / FOLDER).save(made)[0].id


def test_single_runs_are_shown_and_not_judged(paths: Paths, corral_env: dict[str, str], capsys: Said) -> None:
    """Of one run on a side both medians are in the table, and a sentence says why nothing is judged."""
    one, other = saved(paths, 123.0, began=1e9), saved(paths, 246.0, began=1e9 + 60)
    assert corral(["bench", "diff", one, other]) == 0
    shown = capsys.readouterr()
    (row,) = [line for line in shown.out.splitlines() if "123" in line and "246" in line]
    assert "+100 %" in row and "unknown" in row
    assert "one run says nothing" in shown.err and "--runs" in shown.err
    one, other = saved(paths, 1, 2, 3, began=1e9 + 120), saved(paths, 1, 2, 3, began=1e9 + 180)
    assert corral(["bench", "diff", one, other]) == 0
    shown = capsys.readouterr()
    assert "2 figures of both: 2 same" in shown.out and "one run" not in shown.err and "BEFORE" not in shown.out


def test_what_can_be_written_is(paths: Paths, corral_env: dict[str, str], capsys: Said, tmp_path: Path) -> None:
    """A picture that cannot be drawn keeps neither page nor table from being written, and is still an error."""
    pytest.importorskip("PIL")
    name = saved(paths, 123.0, began=1e9)
    files = {ending: tmp_path / f"a.{ending}" for ending in ("html", "png", "csv")}
    asked = [word for ending, file in files.items() for word in (f"--{ending}", str(file))]
    code = corral(["bench", "show", name, *asked])
    shown = capsys.readouterr()
    assert code == 2 and "there is no chart to draw" in shown.err
    assert "123" in shown.out
    assert "<html" in files["html"].read_text() and "123" in files["csv"].read_text() and not files["png"].exists()


@pytest.fixture
def no_such_host(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    def refuse(host: Any, *rest: Any, **more: Any) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    yield


def test_a_host_that_is_not_is_refused_at_once(
    corral_env: dict[str, str], capsys: Said, monkeypatch: pytest.MonkeyPatch, no_such_host: None
) -> None:
    """Beside a model too, before it is started."""

    def never(*args: Any) -> Any:
        raise AssertionError("the model was started first")

    monkeypatch.setattr(bench_compare, "_own", never)
    assert corral(["bench", "compare", "coder", "--target", "foo"]) == 2
    said = capsys.readouterr().err
    assert "no host 'foo'" in said and "NAME=" in said


async def test_several_models_and_none_named_cannot_be_meant() -> None:
    """It is the command that is wrong, not the server, also where there is more to compare; so is a model it lacks."""
    async with serving(Manner(models=("one", "two"))) as address:
        with pytest.raises(WrongTarget, match="2 models"):
            await settled(Target("t", address))


def test_what_is_down_is_said_before_anything_is_measured(
    corral_env: dict[str, str], capsys: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A target that does not answer is left out, and a line says so at once."""
    said: list[str] = []

    def own(*args: Any) -> Any:
        said.append(capsys.readouterr().err)
        return None, []

    monkeypatch.setattr(bench_compare, "_own", own)
    assert corral(["bench", "compare", "coder", "--target", "down=http://127.0.0.1:1"]) == 3
    assert "left out: down" in said[0]


def test_one_set_of_words(corral_env: dict[str, str], capsys: Said) -> None:
    """The columns of `concurrency` are called as those of `model`; `--each` says of what."""
    row = bench_concurrency.heads()
    assert {"WHO", "AT ONCE", "TOKENS/S", "TTFT P50", "TPOT P50"} <= set(row)
    assert "FIRST TOKEN" not in row and "WAY" not in row
    for command in ("model", "compare", "concurrency"):
        assert corral(["bench", command, "--help"]) == 0
        shown = " ".join(capsys.readouterr().out.split())
        assert "of each line" not in shown.lower() and "for each" in shown


async def test_what_is_not_measured_has_no_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    """One answer of three that came all at once: the note says that writing is not measured, and no figure does."""
    rates = iter([20.0, None, 30.0])
    monkeypatch.setattr(depth, "_write", lambda shot: next(rates))
    async with serving(Manner()) as address:
        found, notes = await depth.depths(await settled(Target("t", address)), [0], prompt_tokens=8, tokens=2, runs=3)
    assert any("writing is not measured" in note for note in notes)
    assert [each.name for each in found if each.name == "generation_per_s"] == []
