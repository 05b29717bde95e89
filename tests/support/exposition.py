"""What Corral writes at `/metrics`, read by prometheus-client, whose readers of both formats are not ours."""

from __future__ import annotations

from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_openmetrics
from prometheus_client.parser import text_string_to_metric_families as read_plain


def read(text: str, openmetrics: bool = False) -> list[Metric]:
    """The families in `text`. Raises ValueError for what is not of the format."""
    return list(read_openmetrics(text) if openmetrics else read_plain(text))  # type: ignore[no-untyped-call]
