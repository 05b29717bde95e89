"""promtool's unit tests of the rules, made from the same limits: each alert fires past its limit, and not before. Pure.

Source of the templates' words (`humanizeDuration` …): Prometheus 2.42, template/template.go.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import field
from typing import Any, Final

from corral.deploy.grown import JOB
from corral.deploy.prometheus.alerts import Alert, alerts
from corral.deploy.prometheus.limits import Limits
from corral.lazy_dataclass import dataclass
from corral.metrics.catalogue import FIRST_TOKEN

STEP_S: Final = 15
AT: Final = {"instance": "box:8642", "job": JOB}
_MODEL: Final = {"model": "demo"}
_UNIT: Final = {**_MODEL, "unit": "demo.1"}
_LONG: Final = "x240"  # an hour
_NOTHING: Final = "_x80"  # for 20 minutes


@dataclass(frozen=True, slots=True)
class Series:
    """A metric's samples, each STEP_S, in promtool's notation."""

    metric: str
    values: str
    labels: Mapping[str, str] = field(default_factory=dict)

    def data(self) -> dict[str, str]:
        return {"series": f"{self.metric}{{{_labels({**AT, **self.labels})}}}", "values": self.values}


@dataclass(frozen=True, slots=True)
class Case:
    """Series with which an alert fires, by which labels, saying which value; and others with which it is quiet."""

    alert: str
    fires: Sequence[Series]
    labels: Mapping[str, str]
    quiet: Sequence[Series]
    value: str = ""
    at_s: int = 0  # 0: soon after it must fire
    words: str = ""


def rule_tests(limits: Limits) -> dict[str, Any]:
    """The tests as promtool reads them, for a file in a folder beside that of the rules."""
    known = {each.name: each for each in alerts(limits)}
    made: list[dict[str, Any]] = []
    for case in _cases(limits):
        made += _tests(known[case.alert], case)
    return {
        "rule_files": ["../rules/corral-figures.yml", "../rules/corral-alerts.yml"],
        "evaluation_interval": f"{STEP_S}s",
        "tests": [*made, _figures()],
    }


def _tests(alert: Alert, case: Case) -> list[dict[str, Any]]:
    at_s = case.at_s or alert.for_s + 120
    labels = {**case.labels, "severity": alert.severity}
    said = {"summary": alert.summary, "description": alert.description, "page": alert.anchor}
    expected = {
        "exp_labels": labels,
        "exp_annotations": {name: _rendered(text, labels, case.value) for name, text in said.items()},
    }
    checks: list[dict[str, Any]] = [{"eval_time": f"{at_s}s", "alertname": alert.name, "exp_alerts": [expected]}]
    if alert.for_s:
        early = {"eval_time": f"{alert.for_s - STEP_S}s", "alertname": alert.name, "exp_alerts": []}
        checks.insert(0, early)
    words = f" {case.words}" if case.words else ""
    return [
        _test(f"{alert.name} fires{words}", case.fires, alert_rule_test=checks),
        _test(
            f"{alert.name} is quiet{words}",
            case.quiet,
            alert_rule_test=[{"eval_time": f"{at_s}s", "alertname": alert.name, "exp_alerts": []}],
        ),
    ]


def _test(name: str, series: Sequence[Series], **checks: Any) -> dict[str, Any]:
    return {"name": name, "interval": f"{STEP_S}s", "input_series": [each.data() for each in series], **checks}


def _rendered(text: str, labels: Mapping[str, str], value: str) -> str:
    text = re.sub(r"\{\{ \$labels\.(\w+) \}\}", lambda found: labels[found[1]], text)
    return re.sub(r"\{\{ \$value[^}]*\}\}", value, text)


def _labels(labels: Mapping[str, str]) -> str:
    return ", ".join(f'{name}="{value}"' for name, value in labels.items())


def duration(seconds: float) -> str:
    """As `humanizeDuration` says it."""
    if seconds < 1:
        return f"{seconds * 1000:.4g}ms"
    if seconds < 60:
        return f"{seconds:.4g}s"
    whole = int(seconds)
    parts = [(whole // 86400, "d"), (whole // 3600 % 24, "h"), (whole // 60 % 60, "m"), (whole % 60, "s")]
    first = next(number for number, (count, _) in enumerate(parts) if count)
    return " ".join(f"{count}{unit}" for count, unit in parts[first:])


def percentage(share: float) -> str:
    """As `humanizePercentage` says it."""
    return f"{share * 100:.4g}%"


def binary(count: float) -> str:
    """As `humanize1024` says it."""
    for prefix in ("", "ki", "Mi", "Gi", "Ti"):
        if count < 1024:
            return f"{count:.4g}{prefix}"
        count /= 1024
    return f"{count:.4g}Pi"


def _cases(limits: Limits) -> list[Case]:
    here, model, unit = {"instance": AT["instance"]}, {"instance": AT["instance"], **_MODEL}, {**_UNIT, **AT}
    unit.pop("job")
    return [
        Case("CorralDown", [Series("up", f"0{_LONG}")], dict(AT), [Series("up", f"1{_LONG}")]),
        Case(
            "CorralStalls", [Series("corral_loop_lag_seconds", f"2{_LONG}")], dict(AT),
            [Series("corral_loop_lag_seconds", f"0.5{_LONG}")], "2s",
        ),
        *_crash_loops(limits, model),
        Case(
            "CorralEngineFailed", [Series("corral_unit_state", f"1{_LONG}", {**_UNIT, "state": "failed"})], unit,
            [Series("corral_unit_state", f"1{_LONG}", {**_UNIT, "state": "backoff"})],
        ),
        Case(
            "CorralEngineOnCpu", [Series("corral_unit_degraded", f"1{_LONG}", _UNIT)], unit,
            [Series("corral_unit_degraded", f"0{_LONG}", _UNIT)],
        ),
        Case(
            "CorralQueueLong", [Series("corral_requests_waiting", f"{limits.waiting + 1}{_LONG}", _MODEL)], model,
            [Series("corral_requests_waiting", f"{limits.waiting}{_LONG}", _MODEL)], str(limits.waiting + 1),
        ),
        _slow(limits, model),
        *_failures(limits, model),
        *_rooms(limits, here),
    ]  # fmt: skip


def _crash_loops(limits: Limits, model: Mapping[str, str]) -> list[Case]:
    labels = {**_MODEL, "reason": "signal"}
    up, counter = Series("up", f"1{_LONG}"), "corral_engine_failures_total"
    born = limits.failures + 3
    late = Series(counter, f"{_NOTHING} {born}{_LONG}", labels)
    other = Series(counter, f"7{_LONG}", {**_MODEL, "reason": "memory"})  # long ago, for another reason
    return [
        Case(
            "CorralEngineCrashLoop",
            [up, Series(counter, f"0+{limits.failures}{_LONG}", labels)], model,
            [up, Series(counter, f"{limits.failures + 20}{_LONG}", labels)],
            str(limits.failures * 900 // STEP_S), 1800, "by a counter that grows",
        ),
        Case(
            "CorralEngineCrashLoop", [up, other, late], model, [Series("up", f"{_NOTHING} 1{_LONG}"), late], str(born),
            1230, "by a counter that begins, of a server seen before",
        ),
        Case(
            "CorralEngineCrashLoop", [up, late], model, [Series("up", f"0x79 1{_LONG}"), late], str(born), 1230,
            "by a counter that begins, of a server that answered before",
        ),
    ]  # fmt: skip


def _failures(limits: Limits, model: Mapping[str, str]) -> list[Case]:
    up, counter = Series("up", f"1{_LONG}"), "corral_requests_total"
    failed, other = {**_MODEL, "status": "502"}, {**_MODEL, "status": "404"}
    well = Series(counter, f"100{_LONG}", {**_MODEL, "status": "200"})
    burst = Series(counter, f"{_NOTHING} 200{_LONG}", failed)
    return [
        Case(
            "CorralRequestsFail", [Series(counter, f"0+1{_LONG}", failed)], model,
            [Series(counter, f"0+1{_LONG}", other)], "100%", 600, "by a counter that grows",
        ),
        *(
            Case(
                "CorralRequestsFail", [up, well, burst], model, [Series("up", f"{_NOTHING} 1{_LONG}"), well, burst],
                "100%", 1200 + later_s, f"{later_s // 60} minutes after one burst, of a status never seen before",
            )
            for later_s in (180, 300)
        ),
    ]  # fmt: skip


def _slow(limits: Limits, model: Mapping[str, str]) -> Case:
    below = max(bound for bound in FIRST_TOKEN if bound <= limits.first_token_s)
    lower, upper = [bound for bound in FIRST_TOKEN if bound >= limits.first_token_s][:2]
    return Case(
        "CorralFirstTokenSlow", _histogram("corral_time_to_first_token_seconds", upper), model,
        _histogram("corral_time_to_first_token_seconds", below), duration(lower + (upper - lower) * 0.95), 600,
    )  # fmt: skip


def _histogram(metric: str, bound: float, bounds: Sequence[float] = FIRST_TOKEN) -> list[Series]:
    """One observation a second, each just below `bound`."""
    texts = [(each, f"{each:g}") for each in bounds] + [(float("inf"), "+Inf")]
    return [
        Series(f"{metric}_bucket", f"0+{STEP_S if each >= bound else 0}{_LONG}", {**_MODEL, "le": text})
        for each, text in texts
    ]


def _rooms(limits: Limits, here: Mapping[str, str]) -> list[Case]:
    key = {"key": "laptop", "period": "day"}
    device, place = {"device": "gpu0"}, {"place": "store"}
    budget = Series("corral_device_memory_budget_bytes", f"100000{_LONG}", device)
    allowed = Series("corral_key_budget_tokens", f"100000{_LONG}", key)
    size = Series("corral_disk_total_bytes", f"100000{_LONG}", place)
    held, used, free = (1 + limits.memory) / 2, (1 + limits.key_budget) / 2, limits.disk_free / 2

    def share(metric: str, part: float, labels: Mapping[str, str]) -> Series:
        return Series(metric, f"{round(part * 100000)}{_LONG}", labels)

    return [
        Case(
            "CorralKeyBudgetLow", [allowed, share("corral_key_budget_used_tokens", used, key)], {**here, **key},
            [allowed, share("corral_key_budget_used_tokens", limits.key_budget / 2, key)], percentage(used),
        ),
        Case(
            "CorralMemoryNearBudget", [budget, share("corral_unit_memory_bytes", held, {**_UNIT, **device})],
            {**here, **device}, [budget, share("corral_unit_memory_bytes", limits.memory / 2, {**_UNIT, **device})],
            percentage(held),
        ),
        Case(
            "CorralDeviceMemoryLow",
            [Series("corral_device_memory_free_bytes", f"{limits.memory_free_bytes // 2}{_LONG}", device)],
            {**AT, **device},
            [Series("corral_device_memory_free_bytes", f"{limits.memory_free_bytes}{_LONG}", device)],
            binary(limits.memory_free_bytes // 2),
        ),
        Case(
            "CorralDiskNearFull", [size, share("corral_disk_free_bytes", free, place)], {**here, **place},
            [size, share("corral_disk_free_bytes", (1 + limits.disk_free) / 2, place)], percentage(free),
        ),
        Case(
            "CorralDownloadStuck", [Series("corral_download_stalled_seconds", f"{limits.stuck_s + 1}{_LONG}")],
            dict(AT), [Series("corral_download_stalled_seconds", f"{limits.stuck_s}{_LONG}")],
            duration(limits.stuck_s + 1),
        ),
    ]  # fmt: skip


def _figures() -> dict[str, Any]:
    """What the recording rules make of one hour of known series."""
    each, used = f"0+{STEP_S}{_LONG}", f"500{_LONG}"
    series = [
        Series("corral_requests_total", each, {**_MODEL, "status": "200"}),
        Series("corral_requests_total", each, {**_MODEL, "status": "502"}),
        Series("corral_prompt_tokens_total", f"0+{4 * STEP_S}{_LONG}", _MODEL),
        Series("corral_cached_tokens_total", each, _MODEL),
        Series("corral_completion_tokens_total", f"0+{8 * STEP_S}{_LONG}", _MODEL),
        Series("corral_device_memory_free_bytes", used, {"device": "cpu"}),
        Series("corral_device_memory_total_bytes", f"2000{_LONG}", {"device": "cpu"}),
        Series("corral_device_memory_budget_bytes", f"1000{_LONG}", {"device": "cpu"}),
        Series("corral_unit_memory_bytes", used, {**_UNIT, "device": "cpu"}),
        Series("corral_disk_free_bytes", used, {"place": "store"}),
        Series("corral_disk_total_bytes", f"1000{_LONG}", {"place": "store"}),
        Series("corral_key_budget_used_tokens", used, {"key": "laptop", "period": "day"}),
        Series("corral_key_budget_tokens", f"2000{_LONG}", {"key": "laptop", "period": "day"}),
    ]
    histograms = (
        "corral_time_to_first_token_seconds", "corral_inter_token_seconds", "corral_queue_seconds",
        "corral_request_seconds",
    )  # fmt: skip
    for metric in histograms:
        series += _histogram(metric, 0.5, (0.25, 0.5))
    model, device = _MODEL, {"device": "cpu"}
    expected: list[tuple[str, Mapping[str, str], float]] = [
        ("model:corral_requests:increase5m", model, 600.0),
        ("model:corral_requests_failed:increase5m", model, 300.0),
        ("model:corral_requests:rate5m", model, 2.0),
        ("model:corral_requests_failed:ratio_rate5m", model, 0.5),
        ("model:corral_prompt_tokens:rate5m", model, 4.0),
        ("model:corral_completion_tokens:rate5m", model, 8.0),
        ("model:corral_cached_tokens:ratio_rate5m", model, 0.25),
        ("device:corral_device_memory_used:ratio", device, 0.75),
        ("device:corral_budget_used:ratio", device, 0.5),
        ("place:corral_disk_free:ratio", {"place": "store"}, 0.5),
        ("key:corral_key_budget_used:ratio", {"key": "laptop", "period": "day"}, 0.25),
        *((f"model:{metric}:p95_5m", model, 0.25 + 0.25 * 0.95) for metric in histograms),
        *((f"model:{metric}:p50_5m", model, 0.375) for metric in histograms[:2]),
    ]
    checks = [
        {
            "expr": name,
            "eval_time": "30m",
            "exp_samples": [{"labels": f"{name}{{{_labels({'instance': AT['instance'], **labels})}}}", "value": value}],
        }
        for name, labels, value in expected
    ]
    return _test("figures", series, promql_expr_test=checks)
