"""docs/metrics.md has every metric as the catalogue has it."""

from __future__ import annotations

from tools.metrics_page import PAGE, page


def test_the_table_of_metrics_is_the_catalogues() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert text.count("| `corral_requests_total` |") == 1
    assert page(text) == text, "write it anew: python -m tools.metrics_page"
