"""Figures of runs, reports on disk, what changed from one to the next, and tables for other programs."""

from __future__ import annotations

import csv as csvlib
import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral.errors import CallerError
from corral.measure.answer import Shot
from corral.measure.curve import Late, Run
from corral.measure.difference import difference
from corral.measure.figures import KINDS, REQUESTS, Figure, figure, of_runs
from corral.measure.report import Report, csv, parse, plain
from corral.measure.shelf import Shelf

NAMES = st.sampled_from(sorted(KINDS))
NUMBERS = st.floats(-1e12, 1e12)
FIGURES = st.builds(
    Figure,
    st.text(max_size=8),
    st.sampled_from(["at once", "depth", "cold"]),
    st.none() | st.floats(0, 1e6),
    NAMES,
    st.lists(NUMBERS, min_size=1, max_size=5).map(tuple),
)


def a_report(*figures: Figure, subjects: tuple[str, ...] = ("m",), began: float = 1e9, **settings: object) -> Report:
    what = {name: {"engine": "llama.cpp"} for name in subjects}
    return Report("model", "m", began, 1.5, "1.0", {"cores": 2}, settings, what, figures, ("a note",))


def speeds(*values: float, name: str = "output_tokens_per_s", subject: str = "m", at: float = 4.0) -> Figure:
    return figure(subject, REQUESTS, at, name, values)


def test_figures_of_runs() -> None:
    """By hand: two requests of one run, one of 3 tokens and one of 5, and one that failed."""
    shots = (
        Shot(0.0, 2.1, 0.5, 3, last=2.0, gaps=(1.0, 0.5), prompt=10, text=0.6, connect=0.001),
        Shot(1.0, 5.0, 1.5, 5, last=3.5, gaps=(0.5, 0.5, 0.5, 0.5), prompt=10, text=1.5, connect=0.003),
        Shot(2.0, 4.0, problem="cut"),
    )
    found = {each.name: each.values for each in of_runs("m", [Run(2, shots, late=Late(0.1, 0.2, 0.3, 0.4))], tokens=5)}
    assert found["output_tokens_per_s"] == (8 / 5,) and found["requests_per_s"] == (2 / 5,)
    assert found["total_tokens_per_s"] == (28 / 5,)
    assert found["ttft_p50_ms"] == (500.0,) and found["ttft_mean_ms"] == (500.0,)
    assert found["tpot_p50_ms"][0] == pytest.approx((750 + 500) / 2)  # (2.0 − 0.5) / 2 and (3.5 − 1.5) / 4
    assert found["itl_mean_ms"][0] == pytest.approx(3500 / 6) and found["itl_p50_ms"] == (500.0,)
    assert found["e2e_p50_ms"] == (2250.0,) and found["e2e_p99_ms"][0] == pytest.approx(2495.0)
    assert (found["failed"], found["short"], found["peak_requests"]) == ((1.0,), (1.0,), (3.0,))
    assert found["text_p50_ms"][0] == pytest.approx(550.0) and found["connect_p50_ms"] == (2.0,)
    assert found["late_p95_ms"] == (0.2,) and "sent_late_p95_ms" not in found and "cached_tokens" not in found


def test_runs_in_which_all_failed_have_few_figures() -> None:
    """What nobody knows is not there, and no zero stands for it."""
    found = {each.name: each.values for each in of_runs("m", [Run(1, (Shot(0.0, 1.0, problem="no"),))])}
    assert found["output_tokens_per_s"] == (0.0,) and found["failed"] == (1.0,)
    assert not any(name.startswith(("ttft", "tpot", "itl", "e2e")) for name in found)


@given(st.lists(FIGURES, max_size=6))
def test_reports_come_back_as_they_were_written(figures: list[Figure]) -> None:
    """Through JSON, whatever subjects are called."""
    report = a_report(*figures, depth=[0, 512])
    assert parse(json.loads(json.dumps(plain(report))), "it") == report


@given(st.lists(FIGURES, max_size=6))
def test_tables_hold_each_value(figures: list[Figure]) -> None:
    """One line a value; no cell begins as a formula does."""
    rows = list(csvlib.reader(io.StringIO(csv(figures), newline="")))
    assert [float(row[6]) for row in rows[1:]] == [value for each in figures for value in each.values]
    assert not any(row[0].startswith(("=", "+", "-", "@")) for row in rows[1:])


def test_a_shelf_keeps_all(tmp_path: Path) -> None:
    """Each under an id of its own; found by it, by its beginning, by file and as the latest; broken ones left out."""
    shelf = Shelf(tmp_path / "bench")
    assert shelf.all() == []
    first, path = shelf.save(a_report(speeds(1.0), began=1e9))
    second, _ = shelf.save(a_report(speeds(2.0), began=1e9))
    third, _ = shelf.save(replace(a_report(speeds(3.0), began=2e9), title="../../etc/x y"))
    assert second.id == f"{first.id}-2" and third.id.startswith("etc-x-y-")
    (tmp_path / "bench" / "broken.json").write_text("{")
    assert [each.id for each in shelf.all()] == [first.id, second.id, third.id]
    assert shelf.find(first.id) == first and shelf.find("etc") == third and shelf.find("latest") == third
    assert shelf.find(str(path)) == first and path.parent.stat().st_mode & 0o777 == 0o700
    for name in ("m-", "nothing", str(tmp_path / "bench" / "broken.json")):
        with pytest.raises(CallerError):
            shelf.find(name)


def test_the_one_before_was_asked_the_same(tmp_path: Path) -> None:
    """Same kind, title and settings, and the newest of those that are older."""
    shelf = Shelf(tmp_path)
    kept = [shelf.save(a_report(began=1e9 + number, tokens=tokens))[0] for number, tokens in enumerate([8, 8, 9, 8])]
    assert shelf.before(kept[3]) == kept[1] and shelf.before(kept[2]) is None and shelf.before(kept[0]) is None


def test_of_another_format_is_said() -> None:
    """A newer Corral's report is not misread."""
    with pytest.raises(CallerError, match="format 2"):
        parse({**plain(a_report()), "corral_bench": 2}, "it")
    with pytest.raises(CallerError, match="no saved benchmark"):
        parse([], "it")


def test_what_changed() -> None:
    """Better and worse by what each figure means; what only one has, and what about the two is unlike."""
    before = a_report(speeds(10, 11, 12), speeds(50, 51, 52, name="ttft_p50_ms"), speeds(5, 5, 5, name="prompt_tokens"))
    after = replace(
        a_report(
            speeds(20, 21, 22), speeds(90, 91, 92, name="ttft_p50_ms"), speeds(9, 9, 9, name="prompt_tokens"),
            speeds(1, 1, 1, at=8.0), tokens=8,
        ),
        version="1.1",
    )  # fmt: skip
    found = difference(before, after)
    assert [row.judged for row in found.rows] == ["better", "worse", "differs"]
    assert [each.at for each in found.only_after] == [8.0] and found.only_before == ()
    assert found.unlike == ("Corral version 1.0 → 1.1", "the settings' tokens none → 8")
    back = difference(after, before)
    assert [row.judged for row in back.rows] == ["worse", "better", "differs"] and len(back.only_before) == 1
    assert {row.judged for row in difference(before, before).rows} == {"same"}


def test_single_subjects_are_the_same_one() -> None:
    """A model that has another name now is compared all the same; of several, only those of one name."""
    one, other = a_report(speeds(1, 1, 1)), a_report(speeds(2, 2, 2, subject="n"), subjects=("n",))
    assert [row.judged for row in difference(one, other).rows] == ["better"]
    two = a_report(speeds(2, 2, 2, subject="n"), speeds(2, 2, 2), subjects=("n", "m"))
    assert [row.after.subject for row in difference(one, two).rows] == ["m"]
