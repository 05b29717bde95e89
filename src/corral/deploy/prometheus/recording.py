"""The recording rules: figures that dashboards and alerts share, so that both mean the same. Pure data."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from corral.deploy.grown import grown_in


class Recorded(NamedTuple):
    """One rule. Its name says by what it is summed, of what it is made, and how: `level:metric:operation`."""

    name: str
    expr: str
    labels: tuple[str, ...]


def _quantile(share: float, metric: str) -> str:
    return f"histogram_quantile({share}, sum by (instance, model, le) (rate({metric}_bucket[5m])))"


_MODEL: Final = ("instance", "model")
_REQUESTS: Final = "model:corral_requests:increase5m"
FAILED: Final = "model:corral_requests_failed:increase5m"
_BROKEN: Final = 'corral_requests_total{status=~"5.."}'
_TTFT: Final = "corral_time_to_first_token_seconds"
_ITL: Final = "corral_inter_token_seconds"

RECORDED: Final = (
    Recorded(_REQUESTS, f"sum by (instance, model) ({grown_in('corral_requests_total', 5)})", _MODEL),
    Recorded(FAILED, f"sum by (instance, model) ({grown_in(_BROKEN, 5)})", _MODEL),
    Recorded("model:corral_requests:rate5m", f"{_REQUESTS} / 300", _MODEL),
    Recorded(
        "model:corral_requests_failed:ratio_rate5m",
        # A model without a failure has no such series: that is a share of 0, not none.
        f"{FAILED} / ({_REQUESTS} > 0)\nor ({_REQUESTS} > 0) * 0",
        _MODEL,
    ),
    Recorded(f"model:{_TTFT}:p50_5m", _quantile(0.5, _TTFT), _MODEL),
    Recorded(f"model:{_TTFT}:p95_5m", _quantile(0.95, _TTFT), _MODEL),
    Recorded(f"model:{_ITL}:p50_5m", _quantile(0.5, _ITL), _MODEL),
    Recorded(f"model:{_ITL}:p95_5m", _quantile(0.95, _ITL), _MODEL),
    Recorded("model:corral_queue_seconds:p95_5m", _quantile(0.95, "corral_queue_seconds"), _MODEL),
    Recorded("model:corral_request_seconds:p95_5m", _quantile(0.95, "corral_request_seconds"), _MODEL),
    Recorded(
        "model:corral_prompt_tokens:rate5m", "sum by (instance, model) (rate(corral_prompt_tokens_total[5m]))", _MODEL
    ),
    Recorded(
        "model:corral_completion_tokens:rate5m",
        "sum by (instance, model) (rate(corral_completion_tokens_total[5m]))",
        _MODEL,
    ),
    Recorded(
        "model:corral_cached_tokens:ratio_rate5m",
        "sum by (instance, model) (rate(corral_cached_tokens_total[5m]))\n"
        "  / (sum by (instance, model) (rate(corral_prompt_tokens_total[5m])) > 0)",
        _MODEL,
    ),
    Recorded(
        "device:corral_device_memory_used:ratio",
        "1 - max by (instance, device) (corral_device_memory_free_bytes)\n"
        "  / max by (instance, device) (corral_device_memory_total_bytes)",
        ("instance", "device"),
    ),
    Recorded(
        "device:corral_budget_used:ratio",
        # What engines really hold, not what was planned: the plan never passes the budget.
        "sum by (instance, device) (corral_unit_memory_bytes)\n"
        "  / max by (instance, device) (corral_device_memory_budget_bytes)",
        ("instance", "device"),
    ),
    Recorded(
        "place:corral_disk_free:ratio",
        "min by (instance, place) (corral_disk_free_bytes / corral_disk_total_bytes)",
        ("instance", "place"),
    ),
    Recorded(
        "key:corral_key_budget_used:ratio",
        "max by (instance, key, period) (corral_key_budget_used_tokens / corral_key_budget_tokens)",
        ("instance", "key", "period"),
    ),
)


def recording_rules() -> dict[str, Any]:
    """The rules as Prometheus reads them. One group: later rules are made of earlier ones."""
    return {"groups": [{"name": "corral-figures", "rules": [{"record": r.name, "expr": r.expr} for r in RECORDED]}]}
