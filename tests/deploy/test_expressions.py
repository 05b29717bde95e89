"""Every expression of rules and dashboards is held against the catalogue of metrics: its names, its labels, its use."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from corral.deploy.grafana.board import ALERTS_EXPR
from corral.deploy.grafana.target import BOARDS
from corral.deploy.prometheus.alerts import alerts
from corral.deploy.prometheus.limits import Limits
from corral.deploy.prometheus.recording import RECORDED
from corral.metrics.catalogue import METRICS
from support.pages import ROOT, anchors
from support.promql import names_in

SCRAPED = {"instance", "job"}
"""Labels that Prometheus gives every series."""
ENGINES = {
    "llamacpp:prompt_tokens_total", "llamacpp:prompt_seconds_total", "llamacpp:tokens_predicted_total",
    "llamacpp:tokens_predicted_seconds_total", "llamacpp:n_decode_total", "llamacpp:n_tokens_max",
    "llamacpp:n_busy_slots_per_decode", "llamacpp:prompt_tokens_seconds", "llamacpp:predicted_tokens_seconds",
    "llamacpp:requests_processing", "llamacpp:requests_deferred",
    "vllm:num_requests_running", "vllm:num_requests_waiting", "vllm:kv_cache_usage_perc", "vllm:num_preemptions_total",
    "vllm:prompt_tokens_total", "vllm:generation_tokens_total", "vllm:prefix_cache_queries_total",
    "vllm:prefix_cache_hits_total", "vllm:time_to_first_token_seconds_bucket",
    "vllm:inter_token_latency_seconds_bucket", "vllm:request_queue_time_seconds_bucket",
}  # fmt: skip
"""Engines' own, which have `model` and `unit` when Corral passes them on. test_live holds llama.cpp's against a real
one."""


def known() -> dict[str, set[str]]:
    """Every series there can be, with its labels."""
    found = {"up": set(SCRAPED), "ALERTS": {"alertname", "alertstate", "severity"} | SCRAPED}
    for metric in METRICS:
        labels = {*metric.labels, *SCRAPED}
        if metric.kind == "histogram":
            found |= {
                f"{metric.name}_bucket": labels | {"le"},
                f"{metric.name}_sum": labels,
                f"{metric.name}_count": labels,
            }
        else:
            found[metric.name] = labels
    found |= {rule.name: set(rule.labels) for rule in RECORDED}
    return found | {name: {"model", "unit", "le"} | SCRAPED for name in ENGINES}


def expressions() -> Iterator[tuple[str, str]]:
    """All of them, each with where it stands."""
    for rule in RECORDED:
        yield rule.name, rule.expr
    for alert in alerts(Limits()):
        yield alert.name, alert.expr
    for board in BOARDS:
        for panel in board.panels:
            for query in panel.queries:
                yield f"{board.uid}: {panel.title}", query.expr
        for variable in board.variables:
            yield f"{board.uid}: ${variable.name}", variable.metric
    yield "annotations", ALERTS_EXPR


ALL = list(expressions())


@pytest.mark.parametrize(("where", "expr"), ALL, ids=[where for where, _ in ALL])
def test_names_are_known(where: str, expr: str) -> None:
    """Each metric is in the catalogue, and each label that narrows or groups is one it has."""
    named, there = names_in(expr), known()
    assert named.metrics, "an expression that names nothing"
    assert named.metrics - set(there) == set()
    for metric, labels in named.selected:
        assert set(labels) - there[metric] == set(), metric
    everything = set().union(*(there[metric] for metric in named.metrics))
    assert named.grouped - everything == set()


def test_variables_are_labels() -> None:
    """A dashboard's variable offers the values of a label that its metric has."""
    there = known()
    for board in BOARDS:
        for variable in board.variables:
            (metric,) = names_in(variable.metric).metrics
            assert variable.name in there[metric]


def test_recorded_labels() -> None:
    """A recording rule has the labels that it is said to have."""
    for rule in RECORDED:
        assert names_in(rule.expr).grouped - {"le"} <= set(rule.labels), rule.name


def test_every_metric_is_shown() -> None:
    """Each metric of the catalogue is in a panel, so that none is collected for nobody."""
    shown = {
        name
        for board in BOARDS
        for panel in board.panels
        for each in panel.queries
        for name in names_in(each.expr).metrics
    }
    bare = {re.sub(r"_(bucket|sum|count)$", "", name) for name in shown} | shown
    assert {metric.name for metric in METRICS} - bare == set()


def test_every_recorded_figure_is_used() -> None:
    """Each recording rule is in a panel or an alert."""
    used = {name for where, expr in ALL for name in names_in(expr).metrics if where not in {r.name for r in RECORDED}}
    assert {rule.name for rule in RECORDED} - used == set()


def test_every_alert_has_its_section() -> None:
    """docs/operate.md says of each alert what it means and what to do, and of no other."""
    page = ROOT / "docs" / "operate.md"
    headings = anchors(page)
    made = alerts(Limits())
    for alert in made:
        file, _, anchor = alert.anchor.partition("#")
        assert ROOT / file == page and anchor in headings, alert.name
    written = set(re.findall(r"^### (Corral\w+)", page.read_text(encoding="utf-8"), re.MULTILINE))
    assert written == {alert.name for alert in made}


def test_alerts_are_said_in_words() -> None:
    """Names are unique; each says in a sentence what is wrong and whose."""
    made = alerts(Limits())
    assert len({alert.name for alert in made}) == len(made)
    for alert in made:
        assert alert.description.endswith("."), alert.name
        assert "$labels." in alert.summary, alert.name


def test_the_parser() -> None:
    """The names and labels of expressions are found as they are meant."""
    named = names_in('sum by (a, le) (rate(x_total{b=~"u,v", c!="{}"}[5m])) / on (d) max(m:x:y) or vector(0) > 1e3')
    assert named.metrics == {"x_total", "m:x:y"}
    assert dict(named.selected)["x_total"] == ("b", "c")
    assert named.grouped == {"a", "le", "d"}
    assert names_in("up unless up offset 15m").metrics == {"up"}


def test_the_page_is_there() -> None:
    """The annotations of alerts lead to a page of the repository."""
    assert (Path(ROOT) / "docs" / "operate.md").is_file()
