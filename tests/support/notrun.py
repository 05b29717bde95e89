"""The last section of a test run: what was not run, and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import pytest


class NotRun:
    """A pytest plugin that counts deselected tests by tier and skipped ones by reason, xdist's workers included."""

    def __init__(self, config: pytest.Config, tiers: Mapping[str, str]) -> None:
        self._config = config
        self._tiers = tiers
        self._deselected: Counter[str] = Counter()

    def pytest_deselected(self, items: Sequence[pytest.Item]) -> None:
        for item in items:
            tiers = [tier for tier in self._tiers if item.get_closest_marker(tier)]
            self._deselected[tiers[0] if tiers else ""] += 1

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self) -> None:
        output: dict[str, Any] | None = getattr(self._config, "workeroutput", None)
        if output is not None:
            output["corral_deselected"] = dict(self._deselected)

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        # Each worker collects everything, so that their counts are the same and not a sum.
        for tier, count in getattr(node, "workeroutput", {}).get("corral_deselected", {}).items():
            self._deselected[tier] = max(self._deselected[tier], count)

    def pytest_terminal_summary(self, terminalreporter: Any, exitstatus: int) -> None:
        lines = []
        for tier, count in sorted(self._deselected.items()):
            if tier:
                lines.append(f"{count:4} of the tier {tier!r}, which needs {self._tiers[tier]}")
            else:
                lines.append(f"{count:4} not asked for on the command line")
        reasons: Counter[str] = Counter()
        for report in terminalreporter.stats.get("skipped", []):
            reasons[_reason(report.longrepr)] += 1
        lines += [f"{count:4} skipped: {reason}" for reason, count in sorted(reasons.items())]
        for report in terminalreporter.stats.get("xfailed", []):
            lines.append(f"   1 expected to fail: {report.nodeid}")
        terminalreporter.section("not run, and why")
        if exitstatus not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
            lines.append("   whatever came after the errors above")
        for line in lines or ["   everything was run"]:
            terminalreporter.write_line(line)


def _reason(longrepr: object) -> str:
    text = longrepr[2] if isinstance(longrepr, tuple) else str(longrepr)
    return str(text).removeprefix("Skipped: ")
