"""promtool's word on everything that is written: configuration, rules, their unit tests, and a server's metrics."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from corral.config.paths import Paths
from corral.deploy.grafana.engines import VLLM_PANELS
from corral.deploy.grafana.target import BOARDS
from corral.deploy.place import write
from corral.deploy.prometheus.limits import Limits
from corral.deploy.prometheus.rule_tests import Series
from corral.deploy.prometheus.scraping import Wish
from corral.deploy.prometheus.target import ALERTS, FIGURES, TESTS, prometheus
from corral.deploy.site import Site
from support.asking import ask
from support.prometheus import promtool
from support.promql import filled_in, names_in
from support.server import Server, until

pytestmark = pytest.mark.prometheus

PLAIN = Site("127.0.0.1", 8642)
KEYED = Site("box.example.org", 8643, tls=True, ca="-----BEGIN CERTIFICATE-----\n", key=True)
OTHERS = (
    Limits(
        down_s=15, failures=1, waiting=1, waiting_s=15, first_token_s=0.005, errors=0.5, memory=0.5,
        memory_free_bytes=1 << 40, disk_free=0.5, stuck_s=30, degraded_s=15, key_budget=0.01,
    ),
    Limits(
        down_s=600, failures=20, waiting=200, waiting_s=900, first_token_s=160.0, errors=0.9, memory=0.99,
        memory_free_bytes=1 << 20, disk_free=0.01, stuck_s=7200, degraded_s=1800, key_budget=0.99,
    ),
)  # fmt: skip


def written(folder: Path, limits: Limits | None = None, site: Site = PLAIN, **wish: Any) -> Path:
    write(folder, prometheus(site, Wish(limits or Limits(), **wish), str(folder)))
    return folder


@pytest.mark.parametrize("limits", [Limits(), *OTHERS], ids=["defaults", "low", "high"])
def test_rules(tmp_path: Path, limits: Limits) -> None:
    """The rules are rules, and each alert fires past its limit and not before, whatever the limits are."""
    folder = written(tmp_path, limits)
    checked = promtool("check", "rules", folder / FIGURES, folder / ALERTS)
    assert checked.returncode == 0 and "rules found" in checked.stdout, checked.stderr
    tested = promtool("test", "rules", folder / TESTS)
    assert tested.returncode == 0, tested.stdout + tested.stderr


def test_every_alert_is_tested(tmp_path: Path) -> None:
    """The unit tests have each alert fire and be quiet, and ask for each recorded figure."""
    folder = written(tmp_path)
    tests = yaml.safe_load((folder / TESTS).read_text())["tests"]
    checks = [check for each in tests for check in each.get("alert_rule_test", ())]
    alerts = {rule["alert"] for rule in yaml.safe_load((folder / ALERTS).read_text())["groups"][0]["rules"]}
    figures = {rule["record"] for rule in yaml.safe_load((folder / FIGURES).read_text())["groups"][0]["rules"]}
    assert {check["alertname"] for check in checks if check["exp_alerts"]} == alerts
    assert {check["alertname"] for check in checks if not check["exp_alerts"]} == alerts
    assert {check["expr"] for each in tests for check in each.get("promql_expr_test", ())} == figures


@pytest.mark.parametrize(
    ("file", "part", "instead"),
    [
        (ALERTS, "corral_requests_waiting) > 10", "corral_requests_waiting) > 11"),
        (ALERTS, "> 0.95", "> 0.98"),
        (ALERTS, "< 0.1\n", "< 0.05\n"),
        # Far longer: promtool takes groups in any order, so an alert's expression may be true a step sooner or later.
        (ALERTS, "for: 300s", "for: 600s"),
        (ALERTS, 'up{job="corral"} offset 16m', 'up{job="corral"}'),
        (ALERTS, "offset 16m == 1)", "offset 16m)"),
        (ALERTS, "corral_engine_failures_total offset 16m)", "corral_engine_failures_total)"),
        (ALERTS, "severity: info", "severity: warning"),
        (FIGURES, "sum by (instance, model) (rate(corral_prompt", "sum by (instance) (rate(corral_prompt"),
        (FIGURES, '{status=~"5.."} offset 6m', '{status=~"5.."}'),
        (FIGURES, 'or increase(corral_requests_total{status=~"5.."}[5m])', "or vector(0)"),
    ],
)
def test_the_tests_notice(tmp_path: Path, file: str, part: str, instead: str) -> None:
    """A rule that is another one fails its test: they are no decoration."""
    folder = written(tmp_path)
    text = (folder / file).read_text()
    assert part in text
    (folder / file).write_text(text.replace(part, instead))
    assert promtool("test", "rules", folder / TESTS).returncode != 0


@pytest.mark.parametrize("site", [PLAIN, KEYED], ids=["plain", "keyed"])
def test_the_configuration(tmp_path: Path, site: Site) -> None:
    """It is one, with and without a key, TLS and an alertmanager."""
    folder = written(tmp_path, site=site, every_s=30, alertmanager="127.0.0.1:9093")
    if site.key:
        (folder / "corral.key").write_text("ck_x\n")
    checked = promtool("check", "config", folder / "prometheus.yml")
    assert checked.returncode == 0 and "2 rule files found" in checked.stdout, checked.stdout + checked.stderr
    job = yaml.safe_load((folder / "prometheus.yml").read_text())["scrape_configs"][0]
    assert (job["scheme"], "authorization" in job, "tls_config" in job) == (site.scheme, site.key, site.tls)


def test_a_missing_key_is_noticed(tmp_path: Path) -> None:
    """promtool says so when the key's file is not there, before Prometheus does."""
    checked = promtool("check", "config", written(tmp_path, site=KEYED) / "prometheus.yml")
    assert checked.returncode != 0 and "corral.key" in checked.stderr


def test_a_servers_metrics(paths: Paths) -> None:
    """promtool reads what a server with an engine tells, and finds nothing wrong in it."""
    with Server(paths) as server:
        server.client.start("demo")
        text = until(lambda: _with_engine(server.url), "the engine's metrics", 60)
        checked = promtool("check", "metrics", input=text)
    # Engines' own names are theirs: llama.cpp's have colons, and counters without an ending.
    found = [line for line in (checked.stdout + checked.stderr).splitlines() if "llamacpp:" not in line]
    assert found == []


def _with_engine(url: str) -> str | None:
    text = ask(url, "/metrics").body.decode()
    return text if "llamacpp:" in text else None


# What needs a GPU, or vLLM: the same expressions, on series as those would give.

GPU = {
    "corral_device_temperature_celsius": "60", "corral_device_power_watts": "150",
    "corral_device_power_limit_watts": "300",
}  # fmt: skip
VLLM_GAUGES = ("vllm:num_requests_running", "vllm:num_requests_waiting", "vllm:kv_cache_usage_perc")
VLLM_COUNTERS = (
    "vllm:num_preemptions_total", "vllm:generation_tokens_total", "vllm:prompt_tokens_total",
    "vllm:prefix_cache_hits_total", "vllm:prefix_cache_queries_total",
)  # fmt: skip
VLLM_TIMES = (
    "vllm:time_to_first_token_seconds", "vllm:inter_token_latency_seconds", "vllm:request_queue_time_seconds",
)  # fmt: skip


def hidden_series() -> list[Series]:
    unit = {"model": "m", "unit": "m", "model_name": "m", "engine": "0"}
    made = [Series(metric, f"{value}x40", {"device": "gpu0"}) for metric, value in GPU.items()]
    made += [Series(metric, "1x40", unit) for metric in VLLM_GAUGES]
    made += [Series(metric, "0+15x40", unit) for metric in VLLM_COUNTERS]
    for metric in VLLM_TIMES:
        for bound, step in (("0.5", "15"), ("1", "15"), ("+Inf", "15")):
            made.append(Series(f"{metric}_bucket", f"0+{step}x40", {**unit, "le": bound}))
    return made


def value_of(expr: str) -> float:
    """What an expression must give on those series."""
    (metric,) = {name.removesuffix("_bucket") for name in names_in(expr).metrics if "_hits_" not in name}
    if metric in GPU:
        return float(GPU[metric])
    if metric in VLLM_TIMES:
        return 0.5 * (0.95 if "(0.95" in expr else 0.5)
    if metric in VLLM_GAUGES or "prefix_cache" in metric:
        return 1.0
    return 120.0 if "increase(" in expr else 1.0


def test_expressions_that_had_no_data(tmp_path: Path) -> None:
    """Each expression that test_live leaves out gives what it should on written series."""
    exprs = [query.expr for panel in VLLM_PANELS for query in panel.queries]
    for board in BOARDS:
        for panel in board.panels:
            exprs += [query.expr for query in panel.queries if names_in(query.expr).metrics & set(GPU)]
    assert len(exprs) >= 15
    unit = '{model="m", unit="m"}'
    checks = []
    for expr in exprs:
        labels = '{device="gpu0"}' if names_in(expr).metrics & set(GPU) else unit
        if "histogram_quantile" in expr:
            labels = '{unit="m"}'
        sample = {"labels": labels, "value": value_of(expr)}
        checks.append({"expr": filled_in(expr, "2m"), "eval_time": "8m", "exp_samples": [sample]})
    test = {
        "interval": "15s",
        "input_series": [each.data() for each in hidden_series()],
        "promql_expr_test": checks,
    }
    (tmp_path / "t.yml").write_text(yaml.safe_dump({"evaluation_interval": "15s", "tests": [test]}))
    done = promtool("test", "rules", tmp_path / "t.yml")
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_limit_makes_another_rule(tmp_path: Path) -> None:
    """A limit that is asked for stands in the rule, and in nothing else."""
    one, other = Limits(), replace(Limits(), waiting=30)
    texts = [
        (written(tmp_path / str(number), limits) / ALERTS).read_text().splitlines()
        for number, limits in enumerate((one, other))
    ]
    changed = [(a.strip(), b.strip()) for a, b in zip(*texts, strict=True) if a != b]
    assert len(changed) == 1 and changed[0][1].endswith("> 30")
