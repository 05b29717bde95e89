"""The alerts: what must hold, for how long, and what is said then. Pure."""

from __future__ import annotations

from typing import Any, Final, Literal

from corral.deploy.grown import JOB, grown_in
from corral.deploy.prometheus.limits import Limits
from corral.deploy.prometheus.recording import FAILED
from corral.lazy_dataclass import dataclass

Severity = Literal["critical", "warning", "info"]

PAGE: Final = "docs/operate.md"
_L: Final = "{{ $labels.%s }}"
_MODEL, _DEVICE, _INSTANCE = _L % "model", _L % "device", _L % "instance"


@dataclass(frozen=True, slots=True)
class Alert:
    """One alert. `said` is its value in words, in Prometheus's template language."""

    name: str
    severity: Severity
    expr: str
    for_s: int
    summary: str
    description: str

    @property
    def anchor(self) -> str:
        """The heading of the page that says what to do."""
        return f"{PAGE}#{self.name.lower()}"


def alerts(limits: Limits) -> tuple[Alert, ...]:
    """Every alert, the most urgent first."""
    return (*_server(limits), *_engines(limits), *_requests(limits), *_room(limits))


def _server(limits: Limits) -> tuple[Alert, ...]:
    return (
        Alert(
            "CorralDown", "critical", f'up{{job="{JOB}"}} == 0', limits.down_s,
            f"Corral at {_INSTANCE} does not answer",
            "No scrape has succeeded. The server has ended, hangs, or refuses the key of this Prometheus.",
        ),
        Alert(
            "CorralStalls", "warning", "corral_loop_lag_seconds > 0.5", 60,
            f"Corral at {_INSTANCE} itself is slow",
            "Its event loop wakes {{ $value | humanizeDuration }} late: every stream of every model stutters.",
        ),
    )  # fmt: skip


def _engines(limits: Limits) -> tuple[Alert, ...]:
    failed = f"sum by (instance, model) ({grown_in('corral_engine_failures_total', 15)})"
    return (
        Alert(
            "CorralEngineCrashLoop", "critical",
            f"{failed} >= {limits.failures}", 0,
            f"The engine of {_MODEL} ends again and again",
            "It ended, hung or did not come up {{ $value | printf \"%.0f\" }} times in 15 minutes. Requests wait or "
            "fail meanwhile.",
        ),
        Alert(
            "CorralEngineFailed", "critical",
            'max by (instance, model, unit) (corral_unit_state{state="failed"}) == 1', 60,
            f"The engine of {_MODEL} was given up",
            "Nobody tries to start it any more, but for requests that come after its pause.",
        ),
        Alert(
            "CorralEngineOnCpu", "warning",
            "max by (instance, model, unit) (corral_unit_degraded) == 1", limits.degraded_s,
            f"{_MODEL} runs without its GPU",
            "It should have one and computes on the processor: answers are many times slower.",
        ),
    )  # fmt: skip


def _requests(limits: Limits) -> tuple[Alert, ...]:
    return (
        Alert(
            "CorralQueueLong", "warning",
            f"sum by (instance, model) (corral_requests_waiting) > {limits.waiting}", limits.waiting_s,
            f"Requests pile up before {_MODEL}",
            "{{ $value }} requests wait for it. Each has been sent by somebody who waits too.",
        ),
        Alert(
            "CorralFirstTokenSlow", "warning",
            f"model:corral_time_to_first_token_seconds:p95_5m > {limits.first_token_s:g}", 300,
            f"{_MODEL} takes long to begin its answers",
            "Of the last five minutes' streams, one in twenty had its first token after "
            "{{ $value | humanizeDuration }} or more, waiting and loading included.",
        ),
        Alert(
            "CorralRequestsFail", "critical",
            f"model:corral_requests_failed:ratio_rate5m > {limits.errors:g}\nand {FAILED} > 2", 120,
            f"Requests to {_MODEL} fail",
            "{{ $value | humanizePercentage }} of them were answered with an error of the server in five minutes.",
        ),
        Alert(
            "CorralKeyBudgetLow", "info", f"key:corral_key_budget_used:ratio > {limits.key_budget:g}", 0,
            f"The key {_L % 'key'} has used most of its budget",
            f"{{{{ $value | humanizePercentage }}}} of its tokens for this {_L % 'period'} are used or set aside.",
        ),
    )  # fmt: skip


def _room(limits: Limits) -> tuple[Alert, ...]:
    return (
        Alert(
            "CorralMemoryNearBudget", "warning", f"device:corral_budget_used:ratio > {limits.memory:g}", 300,
            f"Models hold nearly all of their budget on {_DEVICE}",
            "{{ $value | humanizePercentage }} of it is really held. Engines may be larger than was predicted.",
        ),
        Alert(
            "CorralDeviceMemoryLow", "warning",
            f"corral_device_memory_free_bytes < {limits.memory_free_bytes}", 300,
            f"{_DEVICE} has hardly any memory free",
            "{{ $value | humanize1024 }}B are free. What needs more next, an engine or another program, may fail.",
        ),
        Alert(
            "CorralDiskNearFull", "warning", f"place:corral_disk_free:ratio < {limits.disk_free:g}", 300,
            f"The disk of the {_L % 'place'} is nearly full",
            "{{ $value | humanizePercentage }} of it is free. Downloads stop when nothing is.",
        ),
        Alert(
            "CorralDownloadStuck", "warning", f"corral_download_stalled_seconds > {limits.stuck_s}", 60,
            f"A download of Corral at {_INSTANCE} brings nothing",
            "It has brought no byte for {{ $value | humanizeDuration }}.",
        ),
    )  # fmt: skip


def alert_rules(limits: Limits) -> dict[str, Any]:
    """The rules as Prometheus reads them."""
    return {
        "groups": [
            {
                "name": "corral-alerts",
                "rules": [
                    {
                        "alert": each.name,
                        "expr": each.expr,
                        **({"for": f"{each.for_s}s"} if each.for_s else {}),
                        "labels": {"severity": each.severity},
                        "annotations": {
                            "summary": each.summary, "description": each.description, "page": each.anchor,
                        },
                    }
                    for each in alerts(limits)
                ],
            }
        ]
    }  # fmt: skip
