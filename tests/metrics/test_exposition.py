"""What is written is what other programs read: held against the readers of prometheus-client, in both formats."""

from __future__ import annotations

import math
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral.metrics.catalogue import METRICS, Metric
from corral.metrics.exposition import Writer
from corral.metrics.sums import Histogram, Labels
from support.exposition import read

COUNTER = Metric("corral_things_total", "counter", 'Things: "all" of \\ them\nand more.', ("name", "kind"))
GAUGE = Metric("corral_level", "gauge", "How much.", ("name",))
INFO = Metric("corral_thing_info", "info", "What it is.", ("name",))
TIMES = Metric("corral_wait_seconds", "histogram", "How long.", ("name",), (0.001, 1.0, 20.0))


def samples(text: str, openmetrics: bool, name: str) -> dict[tuple[str, ...], float]:
    """The values of one kind of sample, by the values of its labels in the order in which they are written."""
    return {
        tuple(each.labels.values()): each.value
        for family in read(text, openmetrics)
        for each in family.samples
        if each.name == name
    }


def text_of(pieces: Iterable[str], writer: Writer) -> str:
    return "".join(pieces) + writer.end()


@pytest.mark.parametrize("openmetrics", [False, True])
@given(
    st.dictionaries(
        st.tuples(st.text(max_size=8), st.text(max_size=4)),
        st.integers(0, 2**53) | st.floats(0, allow_infinity=False, allow_nan=False),
        max_size=5,
    )
)
def test_any_label_and_any_number_is_read_back(openmetrics: bool, values: dict[tuple[str, ...], float]) -> None:
    values = {tuple(each.replace("\r", "").replace("\x85", "") for each in key): value for key, value in values.items()}
    writer = Writer(openmetrics=openmetrics)
    written = text_of(writer.samples(COUNTER, values), writer)
    # Readers go by lines as Python splits them; in the formats themselves a line ends with \n alone.
    if any(len(part.splitlines()) > 1 for key in values for part in key):
        return
    assert samples(written, openmetrics, COUNTER.name) == pytest.approx(values)


@pytest.mark.parametrize("openmetrics", [False, True])
def test_a_family_is_described_with_its_kind(openmetrics: bool) -> None:
    writer = Writer(openmetrics=openmetrics)
    pieces = [
        *writer.samples(COUNTER, {("a", "b"): 1}), *writer.samples(GAUGE, {("a",): -1.5}),
        *writer.samples(INFO, {("a",): 1}),
    ]  # fmt: skip
    kinds = {family.name: family.type for family in read(text_of(pieces, writer), openmetrics)}
    info = {"corral_thing": "info"} if openmetrics else {"corral_thing_info": "gauge"}
    assert kinds == {"corral_things": "counter", "corral_level": "gauge", **info}
    assert read(text_of(pieces, writer), openmetrics)[0].documentation == COUNTER.words


@pytest.mark.parametrize("openmetrics", [False, True])
@given(st.lists(st.sampled_from((0.0, 0.001, 0.5, 1.0, 19.0, 20.0, 21.0)), max_size=20))
def test_a_histogram_has_what_is_below_each_bound(openmetrics: bool, seen: list[float]) -> None:
    writer, histogram = Writer(openmetrics=openmetrics), Histogram(TIMES.buckets)
    for at, value in enumerate(seen):
        if at == 3:  # a text that is kept from before must not be shown again
            text_of(writer.histograms(TIMES, {("a",): histogram}), writer)
        histogram.add(value)
    written = text_of(writer.histograms(TIMES, {("a",): histogram}), writer)
    buckets = samples(written, openmetrics, "corral_wait_seconds_bucket")
    assert {float(le): count for (_, le), count in buckets.items()} == {
        bound: sum(value <= bound for value in seen) for bound in (*TIMES.buckets, math.inf)
    }
    assert samples(written, openmetrics, "corral_wait_seconds_count") == {("a",): len(seen)}
    assert samples(written, openmetrics, "corral_wait_seconds_sum")["a",] == pytest.approx(sum(seen))


@pytest.mark.parametrize("openmetrics", [False, True])
def test_odd_numbers_are_written_as_the_formats_have_them(openmetrics: bool) -> None:
    writer = Writer(openmetrics=openmetrics)
    values: dict[Labels, float] = {("a",): math.inf, ("b",): -math.inf, ("c",): math.nan, ("d",): 1e-9, ("e",): 1e30}
    found = samples(text_of(writer.samples(GAUGE, values), writer), openmetrics, GAUGE.name)
    assert math.isnan(found.pop(("c",)))
    assert found == {("a",): math.inf, ("b",): -math.inf, ("d",): 1e-9, ("e",): 1e30}


def test_thousands_of_series_come_in_small_pieces() -> None:
    writer = Writer(openmetrics=False)
    values: dict[Labels, float] = {(f"name {number}",): float(number) for number in range(5000)}
    pieces = list(writer.samples(GAUGE, values))
    assert len(pieces) > 70 and samples("".join(pieces), False, GAUGE.name) == values


def test_every_metric_of_the_catalogue_can_be_written() -> None:
    assert len({metric.name for metric in METRICS}) == len(METRICS)
    for openmetrics in (False, True):
        writer, pieces = Writer(openmetrics=openmetrics), list[str]()
        for metric in METRICS:
            assert (metric.kind == "counter") == metric.name.endswith("_total"), metric.name
            assert list(metric.buckets) == sorted(set(metric.buckets)), metric.name
            labels = tuple(f"a {name}" for name in metric.labels)
            if metric.kind == "histogram":
                pieces += writer.histograms(metric, {labels: Histogram(metric.buckets)})
            else:
                pieces += writer.samples(metric, {labels: 1})
        assert len(read(text_of(pieces, writer), openmetrics)) == len(METRICS)
