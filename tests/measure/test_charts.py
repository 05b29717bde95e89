"""Charts: what is drawn of a report, as characters, as a page and as a picture."""

from __future__ import annotations

import io
import re
import sys
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from corral.errors import CallerError
from corral.measure import page, plot, png
from corral.measure.chart import HIGH, WIDE, Chart, Disc, Dot, Line, charts, colours_of, marks, short, ticks
from corral.measure.figures import DEPTH, REQUESTS, figure
from corral.measure.report import Report

DOTS = st.builds(
    lambda at, value, more: Dot(at, value, max(0.0, value - more), value + more),
    st.sampled_from([1.0, 4.0, 16.0, 256.0]), st.floats(0, 1e7), st.floats(0, 1e5),
)  # fmt: skip
CHARTS = st.dictionaries(st.sampled_from("abc"), st.lists(DOTS, min_size=1, max_size=4), min_size=1).map(
    lambda series: Chart("ttft_p50_ms", "time", "ms", "at once", series)
)


def a_report(*names: str) -> Report:
    figures = [
        figure(name, part, at, kind, (value, value * 1.1))
        for number, name in enumerate(names, 1)
        for part, kind, places in (
            (REQUESTS, "output_tokens_per_s", (1.0, 4.0, 16.0)), (DEPTH, "prompt_per_s", (0.0, 512.0)),
        )
        for at, value in zip(places, (10.0 * number, 20.0 * number, 25.0 * number), strict=False)
    ]  # fmt: skip
    subjects = {name: {"engine": name} for name in names}
    return Report("model", "m", 1e9, 2.0, "1", {"cores": 2}, {"runs": 2}, subjects, tuple(figures), ("noted <b>",))


@given(st.floats(1e-6, 1e12))
def test_ticks_are_round_and_reach_the_top(most: float) -> None:
    """From 0, evenly, at most a handful, and the last one no lower than what is drawn, nor more than one step above."""
    found = ticks(most)
    step = found[1]
    assert found[0] == 0 and 2 <= len(found) <= 6 and found[-1] >= most * (1 - 1e-6) and found[-1] - step < most
    assert re.fullmatch(r"(1|2|2\.5|5)(\.0+\d?)?e.*", f"{step:.6e}".replace("2.500000", "2.5"))


@given(CHARTS)
def test_every_mark_is_within_the_chart(chart: Chart) -> None:
    """Whatever was measured."""
    for mark in marks(chart, dict.fromkeys("abc", "#123456")):
        if isinstance(mark, Line):
            assert 0 <= mark.x1 <= WIDE and 0 <= mark.x2 <= WIDE and -1 <= mark.y1 <= HIGH and -1 <= mark.y2 <= HIGH
        else:
            assert 0 <= mark.x <= WIDE and -1 <= mark.y <= HIGH


@given(CHARTS, st.integers(20, 120))
def test_plots_fit_and_show_every_subject(chart: Chart, width: int) -> None:
    """No line is wider than asked; signs, not colours, tell who is who."""
    lines = plot.lines(chart, width)
    assert all(len(line) <= max(width, 34) for line in lines)
    drawn = "".join(lines[1:-2])
    assert plot.TOGETHER in drawn or all(plot.MARKS[number] in drawn for number in range(len(chart.series)))


def test_a_plot() -> None:
    """As it looks."""
    chart = Chart("output_tokens_per_s", "tokens", "tokens/s", "at once", {
        "one": [Dot(1, 10, 10, 10), Dot(4, 40, 40, 40)], "two": [Dot(1, 10, 10, 10), Dot(4, 20, 20, 20)],
    })  # fmt: skip
    assert plot.lines(chart, 34, 5) == [
        "tokens (tokens/s)",
        " 40 │                     ●",
        " 30 │",
        " 20 │                     ▲",
        " 10 │       ✳",
        "  0 │",
        "    └─────────────────────────────",
        "            1             4",
        "     at once   ● one  ▲ two",
    ]


def test_what_is_worth_a_chart() -> None:
    """What has several places, or several subjects; single values are in the tables alone."""
    assert [each.name for each in charts(a_report("a"))] == ["output_tokens_per_s", "prompt_per_s"]
    single = Report("m", "m", 0, 0, "", {}, {}, {"a": {}}, (figure("a", REQUESTS, 1.0, "ttft_p50_ms", [1.0]),))
    assert charts(single) == []
    assert (short(1234567), short(12.34), short(0.123), short(5.0), short(2048, "bytes")) == (
        "1 234 567", "12.3", "0.12", "5", "2.0 KiB",
    )  # fmt: skip
    assert len({*colours_of(a_report(*"abcdefgh")).values()}) == 8


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_a_page_needs_nothing_else() -> None:
    """Every tag is closed, nothing is fetched and nothing runs; what servers are called stays text."""
    found = _Page()
    text = page.html(a_report("a", '<script>alert("x")</script>'))
    found.feed(text)
    found.close()
    assert found.open == [] and "<script" not in text and "noted &lt;b&gt;" in text
    tags = {tag for tag, _ in found.seen}
    assert tags.isdisjoint({"script", "link", "img", "iframe", "object", "form", "a"}) and "circle" in tags
    addresses = {v for _, attrs in found.seen for v in attrs.values() if v and "://" in v}
    assert addresses == {"http://www.w3.org/2000/svg"}
    assert len([tag for tag, _ in found.seen if tag == "svg"]) == 2


def test_a_picture() -> None:
    """Two charts beside each other, with each subject's colour in it."""
    report = a_report("a", "b")
    image = Image.open(io.BytesIO(png.png(report))).convert("RGB")
    assert image.size == (WIDE * 2 * png.SCALE, HIGH * png.SCALE)
    inks = {colour for _, colour in image.getcolors(1 << 24) or ()}
    for name in colours_of(report).values():
        assert tuple(bytes.fromhex(name[1:])) in inks
    discs = [mark for mark in marks(charts(report)[0], colours_of(report)) if isinstance(mark, Disc)]
    assert image.getpixel((round(discs[0].x * png.SCALE), round(discs[0].y * png.SCALE))) == (0x1F, 0x77, 0xB4)
    with pytest.raises(CallerError, match="no chart"):
        png.png(Report("m", "m", 0, 0, "", {}, {}, {}, ()))


def test_without_pillow_it_is_said_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """With what to install, and what needs nothing."""
    monkeypatch.setitem(sys.modules, "PIL.ImageDraw", None)
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(CallerError, match="needs Pillow") as caught:
        png.ready()
    assert "corral[bench]" in caught.value.hint and "--html" in caught.value.hint
