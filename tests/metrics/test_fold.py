"""Records in, sums out: what is counted, that nothing is counted twice, and that series stay few."""

from __future__ import annotations

from collections import Counter
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from corral.gateway.dialects.usage import Usage, usage_of
from corral.metrics.catalogue import METRICS, REASONS, STATUSES
from corral.metrics.fold import MOST_BEGUN, MOST_CODES, MOST_KEYS, NO_KEY, Fold, Knows
from corral.metrics.record import MOST, Record, Recorder
from corral.metrics.sums import OTHER, Sums

MODELS = ("demo", "big")
KNOWS = Knows(lambda name: name in MODELS, lambda key: f"name of {key}", usage_of)


def ending(prompt: int, completion: int, cached: int = 0) -> bytes:
    """The end of an answer as an engine sends it."""
    return (
        b'"usage":{"completion_tokens":%d,"prompt_tokens":%d,"total_tokens":%d,"prompt_tokens_details":{"cached_tokens"'
        b":%d}}}" % (completion, prompt, prompt + completion, cached)
    )


def record(**more: Any) -> Record:
    given = {
        "began": 10.0, "ended": 12.0, "granted": 10.0, "first": 10.5, "model": "demo", "unit": "demo.1",
        "dialect": "openai", "route": "/v1/chat/completions", "status": 200, "outcome": "", "key": "", "stream": True,
        "chunks": 4, "end": b"",
    }  # fmt: skip
    return Record(**{**given, **more})


def folded(*records: Record, knows: Knows = KNOWS) -> Fold:
    fold = Fold(knows, Sums())
    fold.take(records)
    return fold


def counters(fold: Fold, metric: str) -> dict[tuple[str, ...], float]:
    return fold._sums.counters.get(metric, {})


def happened(fold: Fold, metric: str) -> dict[tuple[str, ...], float]:
    """Without those of which there was none."""
    return {labels: count for labels, count in counters(fold, metric).items() if count}


def test_a_request_is_counted_by_model_dialect_status_and_the_name_of_its_key() -> None:
    fold = folded(record(), record(key="k1", status=429, outcome="limit_reached"), record(key="k1", dialect="ollama"))
    assert happened(fold, "corral_requests_total") == {
        ("demo", "openai", "200", NO_KEY): 1,
        ("demo", "openai", "429", "name of k1"): 1,
        ("demo", "ollama", "200", "name of k1"): 1,
    }
    assert counters(fold, "corral_request_errors_total") == {("demo", "limit_reached"): 1}


def test_what_may_go_wrong_is_there_before_it_does() -> None:
    """A series that is born with its first value shows no increase: statuses begin at nothing with the first request
    of a key in a dialect, reasons with the model."""
    fold = folded(record(key="k1"))
    found = counters(fold, "corral_requests_total")
    assert {labels[2]: count for labels, count in found.items()} == {**dict.fromkeys(STATUSES, 0), "200": 1}
    assert {labels[:2] + labels[3:] for labels in found} == {("demo", "openai", "name of k1")}
    for _ in range(2):
        fold.begin("big")
    for metric, reasons in REASONS.items():
        assert counters(fold, metric) == {("big", reason): 0 for reason in reasons}


def test_of_thousands_of_models_only_some_are_there_before_anything_happens() -> None:
    fold = Fold(Knows(lambda name: True, lambda key: key, usage_of), Sums())
    for number in range(2 * MOST_BEGUN):
        fold.begin(f"m{number}")
    assert len({model for model, _ in counters(fold, "corral_restarts_total")}) == MOST_BEGUN
    assert len(counters(fold, "corral_prompt_tokens_total")) == 2 * MOST_BEGUN


def test_engines_that_were_lost_are_counted_by_why() -> None:
    fold = folded(record(retries=2, resumes=1, lost=("refused", "gone", "memory")), record(resumes=1, lost=("gone",)))
    assert counters(fold, "corral_retries_total") == {("demo", "refused"): 1, ("demo", "gone"): 1}
    assert counters(fold, "corral_resumes_total") == {("demo", "memory"): 1, ("demo", "gone"): 1}


def test_a_client_that_left_is_no_error() -> None:
    fold = folded(record(outcome="left"), record(outcome="left", status=499, granted=None, first=None, unit=""))
    assert counters(fold, "corral_requests_left_total") == {("demo",): 2}
    assert not counters(fold, "corral_request_errors_total")


def test_the_mean_gap_counts_once_for_each_token_after_the_first() -> None:
    fold = folded(record(first=10.0, ended=11.0, end=ending(3, 11)))
    histogram = fold._sums.histograms["corral_inter_token_seconds"]["demo",]
    assert (histogram.count, round(histogram.sum, 9)) == (10, 1.0)
    at = histogram.bounds.index(0.1)
    assert histogram.counts[at] == 10  # a bound is in its own bucket


def test_pieces_stand_for_tokens_where_the_engine_does_not_say() -> None:
    fold = folded(record(first=10.0, ended=11.0, chunks=5))
    assert fold._sums.histograms["corral_inter_token_seconds"]["demo",].count == 4
    assert not counters(fold, "corral_completion_tokens_total")  # only what engines counted


def test_a_plain_answer_has_no_first_token() -> None:
    fold = folded(record(stream=False, end=ending(5, 7, 2)))
    assert "corral_time_to_first_token_seconds" not in fold._sums.histograms
    assert counters(fold, "corral_cached_tokens_total") == {("demo",): 2}
    assert fold.whole_tokens == {"demo": 7}


def test_replicas_count_as_their_model_and_each_for_itself_of_late() -> None:
    fold = folded(record(unit="demo.3", end=ending(5, 7)), record(unit="demo~2.1", end=ending(9, 7)))
    assert counters(fold, "corral_prompt_tokens_total") == {("demo",): 14}
    assert (fold.by_unit["demo"].fill(12.0), fold.by_unit["demo~2"].fill(12.0)) == (12, 16)
    assert fold.all.fill(12.0) == 16


def test_what_is_not_known_is_other() -> None:
    fold = folded(record(model="../../etc", dialect="of mine", status=7), record(model=""))
    assert happened(fold, "corral_requests_total") == {
        (OTHER, OTHER, OTHER, NO_KEY): 1, (OTHER, "openai", "200", NO_KEY): 1,
    }  # fmt: skip


def test_series_stay_few_whatever_comes() -> None:
    many = [
        record(model=f"m{number}", key=f"k{number}", outcome=f"code{number}", status=number, unit=f"m{number}.1")
        for number in range(3000)
    ]
    fold = folded(*many, knows=Knows(lambda name: True, lambda key: key, usage_of))
    models, keys = ({labels[at] for labels in counters(fold, "corral_requests_total")} for at in (0, 3))
    assert len(models) == 1001 - 1 and OTHER in models
    assert len(keys) <= MOST_KEYS and OTHER in keys
    assert len({code for _, code in counters(fold, "corral_request_errors_total")}) <= MOST_CODES
    assert sum(counters(fold, "corral_requests_total").values()) == 3000
    assert len(fold.by_unit) <= 2000


times = st.floats(0, 400, allow_nan=False)


@st.composite
def records(draw: st.DrawFn) -> Record:
    began, queue_s, first_s, rest_s = draw(times), draw(times), draw(times), draw(times)
    granted = began + queue_s if draw(st.booleans()) else None
    first = granted + first_s if granted is not None and draw(st.booleans()) else None
    counted = draw(st.none() | st.tuples(st.integers(0, 5000), st.integers(0, 5000), st.integers(0, 100)))
    return record(
        began=began,
        granted=granted,
        first=first,
        ended=(first or granted or began) + rest_s,
        model=draw(st.sampled_from((*MODELS, "gone", ""))),
        unit=draw(st.sampled_from(("demo.1", "demo~2.4", ""))) if granted is not None else "",
        status=draw(st.sampled_from((200, 404, 499, 503))),
        outcome=draw(st.sampled_from(("", "left", "engine_gone"))),
        key=draw(st.sampled_from(("", "a", "b"))),
        stream=draw(st.booleans()),
        chunks=draw(st.integers(0, 50)),
        end=b"" if counted is None else ending(*counted),
        retries=(retries := draw(st.integers(0, 2))),
        resumes=(resumes := draw(st.integers(0, 2))),
        lost=("gone",) * (retries + resumes),
    )


@given(st.lists(records(), max_size=30))
def test_sums_are_those_of_adding_up_by_hand(many: list[Record]) -> None:
    sums = folded(*many)._sums
    assert sum(sums.counters.get("corral_requests_total", {}).values()) == len(many)
    usages = [usage_of(each.end) or Usage(0, 0, 0) for each in many if each.granted is not None]
    for metric, field in (("prompt", "prompt"), ("completion", "completion"), ("cached", "cached")):
        counted = sums.counters.get(f"corral_{metric}_tokens_total", {})
        assert sum(counted.values()) == sum(getattr(each, field) for each in usages)
    for metric in ("retries", "resumes"):
        counts = Counter[str]()
        for each in many:
            if getattr(each, metric):
                counts[each.model if each.model in MODELS else OTHER] += getattr(each, metric)
        assert {key[0]: value for key, value in sums.counters.get(f"corral_{metric}_total", {}).items()} == counts
    granted = [each for each in many if each.granted is not None]
    whole = sums.histograms.get("corral_request_seconds", {})
    assert sum(each.count for each in whole.values()) == len(granted)
    total = sum(each.ended - each.began for each in granted)
    assert abs(sum(each.sum for each in whole.values()) - total) <= 1e-6 * max(1.0, total)
    first = [each for each in granted if each.stream and each.first is not None]
    assert sum(each.count for each in sums.histograms.get("corral_time_to_first_token_seconds", {}).values()) == len(
        first
    )
    for metric, series in sums.histograms.items():
        buckets = next(each.buckets for each in METRICS if each.name == metric)
        for histogram in series.values():
            assert histogram.bounds == buckets and len(histogram.counts) == len(buckets) + 1


@given(st.lists(records(), max_size=20), st.integers(1, 5))
def test_it_does_not_matter_in_which_pieces_records_come(many: list[Record], size: int) -> None:
    whole, parts = folded(*many), Fold(KNOWS, Sums())
    for at in range(0, len(many), size):
        parts.take(many[at : at + size])
    assert parts._sums.counters == whole._sums.counters
    assert parts.ended == whole.ended == len(many)


@given(st.lists(st.integers(0, 3), max_size=20))
def test_a_record_is_drained_once(adds: list[int]) -> None:
    recorder, drained = Recorder(), 0
    for count in adds:
        for _ in range(count):
            recorder.add(record())
        drained += len(recorder.drain())
    assert drained == sum(adds) and recorder.drain() == [] and recorder.lost == 0


def test_records_that_nobody_drains_are_lost_and_counted() -> None:
    recorder, one = Recorder(), record()
    for _ in range(MOST + 3):
        recorder.add(one)
    assert (len(recorder.drain()), recorder.lost) == (MOST, 3)
