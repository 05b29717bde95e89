"""A real Prometheus scrapes a real Corral that has a hard time: every expression of dashboards and rules has data."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from corral.config.paths import Paths
from corral.deploy.grafana.engines import VLLM_PANELS
from corral.deploy.grafana.target import BOARDS
from corral.deploy.prometheus.alerts import alerts
from corral.deploy.prometheus.limits import Limits
from corral.deploy.prometheus.recording import RECORDED
from corral.metrics.catalogue import METRICS
from support.busy import Work, busy
from support.prometheus import Prometheus, deploy, has_data, is_above_zero, promtool, running
from support.promql import filled_in, names_in
from support.server import Server, until

pytestmark = [pytest.mark.prometheus, pytest.mark.timeout(1500)]

WITHIN_S = 900
NEEDS_A_GPU = {"corral_device_temperature_celsius", "corral_device_power_watts", "corral_device_power_limit_watts"}
"""Figures that a processor does not tell everywhere, a virtual one nowhere. test_promtool has series of them."""
NEEDS_VLLM = {query.expr for panel in VLLM_PANELS for query in panel.queries}
"""vLLM's own metrics: tests/vllm/test_vllm_real.py has a vLLM that tells them."""
MAY_BE_ZERO = {
    "corral_records_lost_total": "it needs 100,000 requests within a second",
    "corral_disk_free_bytes": "what a line through the last hour says may be below nothing",
}
"""Why an expression of these may show no more than 0. Of all others something has to happen, and to show."""

BUDGET = re.compile("corral_device_memory_budget_bytes|corral_budget_used")

LOW = {
    "--down-after": "1s", "--failures-from": "1", "--queue-over": "1", "--queue-for": "1s",
    "--first-token-over": "5ms", "--errors-over": "1%", "--memory-over": "0.1%", "--memory-free-under": "1000TiB",
    "--disk-free-under": "99%", "--stuck-after": "1s", "--degraded-after": "1s", "--key-budget-over": "0.001%",
}  # fmt: skip
"""Limits so low that everything counts as wrong."""
SOON = {
    "CorralEngineCrashLoop", "CorralQueueLong", "CorralEngineOnCpu", "CorralKeyBudgetLow", "CorralDown",
}  # fmt: skip
"""Alerts that need not hold for long, and are seen to fire; of the others, that they are about to is enough."""


def expected() -> dict[str, str]:
    """Each expression as Grafana sends it, with where it stands."""
    found = {rule.expr: rule.name for rule in RECORDED}
    for board in BOARDS:
        for panel in board.panels:
            for query in panel.queries:
                if query.expr not in NEEDS_VLLM and not names_in(query.expr).metrics & NEEDS_A_GPU:
                    found[filled_in(query.expr, window="2m")] = f"{board.uid}: {panel.title}"
    return found


@pytest.mark.lasts(85)
@pytest.mark.engines
def test_every_expression_has_data(paths: Paths, short_tmp: Path) -> None:
    """Under load and faults, every panel and recorded figure shows more than nothing, and every alert is about to
    fire."""
    missing, folder = expected(), short_tmp / "prometheus"
    unseen = {metric.name for metric in METRICS} - NEEDS_A_GPU
    silent = {alert.name for alert in alerts(Limits())} - {"CorralDown"}
    with busy(paths, short_tmp) as work:
        low = [word for pair in LOW.items() for word in pair]
        deploy(work.server, "prometheus", "--out", str(folder), "--make-key", *low)
        config = (folder / "prometheus.yml").read_text()
        assert "credentials_file: corral.key" in config and "ck_" not in config
        with running(folder / "prometheus.yml", short_tmp / "tsdb") as prometheus:
            began, deadline, turn = time.time(), time.monotonic() + WITHIN_S, 0
            while missing or unseen or silent:
                assert time.monotonic() < deadline, (missing, unseen, silent, prometheus.targets())
                disturb(work, turn)
                look(prometheus, missing, unseen, silent)
                turn += 1
                time.sleep(2)
            draw(prometheus, began)
            work.server.kill()
            until(lambda: "firing" in prometheus.alerts().get("CorralDown", ()), "CorralDown to fire", 60)
            work.server.start()


def look(prometheus: Prometheus, missing: dict[str, str], unseen: set[str], silent: set[str]) -> None:
    """Takes away what has data by now."""
    for expr in list(missing):
        found = prometheus.query(expr)
        if is_above_zero(found) or (has_data(found) and names_in(expr).metrics & MAY_BE_ZERO.keys()):
            del missing[expr]
    names = {each["metric"]["__name__"] for each in prometheus.query('count by (__name__) ({job="corral"})')}
    unseen -= names | {name.removesuffix("_bucket") for name in names}
    for name, states in prometheus.alerts().items():
        if "firing" in states or name not in SOON:
            silent.discard(name)


def disturb(work: Work, turn: int) -> None:
    """One thing after the other, the same again and again."""
    if turn % 4 == 1:
        work.kill("talk")
    if turn % 16 == 6:  # just after it was killed, so that it is left so for three turns: somebody asks for its metrics
        work.freeze("talk")
    if turn % 16 == 14:
        work.freeze("left")
    if turn % 10 == 8:
        work.pause_server(1.5)
    if turn == 12:
        work.gpu.kill()


def test_a_server_without_budgets(paths: Paths, short_tmp: Path) -> None:
    """Most have no `memory` in their configuration: what is said of budgets is said of all memory less the headroom,
    and the alert can fire."""
    panels = [panel for board in BOARDS for panel in board.panels]
    exprs = [filled_in(query.expr, "1m") for panel in panels for query in panel.queries if BUDGET.search(query.expr)]
    assert len(exprs) >= 3
    folder = short_tmp / "prometheus"
    with Server(paths, "models: [{name: demo, source: 'builtin:demo', idle_timeout: never}]") as server:
        deploy(server, "prometheus", "--out", str(folder), "--every", "1s", "--memory-over", "0.001%")
        server.client.start("demo")
        with running(folder / "prometheus.yml", short_tmp / "tsdb") as prometheus:
            for expr in exprs:
                until(lambda expr=expr: is_above_zero(prometheus.query(expr)), f"more than nothing from {expr}", 60)  # type: ignore[misc]
            until(lambda: "CorralMemoryNearBudget" in prometheus.alerts(), "the alert to be about to fire", 60)


def draw(prometheus: Prometheus, began: float) -> None:
    """The charts of the documentation, where they are asked for."""
    folder = os.environ.get("CORRAL_TEST_CHARTS")
    if folder:
        from tools.draw_charts import draw_all

        draw_all(prometheus.between, Path(folder), began, time.time())


def test_a_server_with_a_certificate(paths: Paths, short_tmp: Path) -> None:
    """With TLS and keys, what is written for an address of all interfaces is enough: the scrape succeeds."""
    server = Server(paths, listen="")
    cli = [sys.executable, "-m", "corral"]
    subprocess.run([*cli, "tls", "init"], env=server.environment, check=True, capture_output=True, timeout=60)
    tls = paths.tls_dir
    server.config = f"""
        listen: [{{address: "0.0.0.0:0", tls: {{cert: {tls}/server.pem, key: {tls}/server-key.pem}}}}]
        models: [{{name: demo, source: 'builtin:demo'}}]
    """
    folder = short_tmp / "prometheus"
    server.write(server.config)
    subprocess.run(
        [*cli, "keys", "create", "--name", "x"], env=server.environment, check=True, capture_output=True, timeout=60
    )
    with server:
        deploy(server, "prometheus", "--out", str(folder), "--make-key", "--every", "1s")
        assert (folder / "ca.pem").read_text() == (tls / "ca.pem").read_text()
        assert promtool("check", "config", folder / "prometheus.yml").returncode == 0
        with running(folder / "prometheus.yml", short_tmp / "tsdb") as prometheus:
            until(lambda: has_data(prometheus.query("up == 1")), "a scrape to succeed", 60)
            (target,) = prometheus.targets()
            assert target["scrapeUrl"].startswith("https://127.0.0.1:")
            assert (target["health"], target["lastError"]) == ("up", "")
