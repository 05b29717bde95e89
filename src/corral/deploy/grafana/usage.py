"""The dashboard of keys: who uses how much, and who runs out. Pure data."""

from __future__ import annotations

from typing import Final

from corral.deploy.grafana.board import INSTANCE, Board, Variable
from corral.deploy.grafana.panels import RED, TOKENS_PER_S, YELLOW, Query, lines, row, stat, table
from corral.deploy.grown import grown

_I: Final = 'instance=~"$instance"'
_W: Final = f'{_I}, key=~"$key"'
_REQUESTS: Final = f"corral_requests_total{{{_W}}}"
_REFUSED: Final = f'corral_requests_total{{{_W}, status="429"}}'
_TOKENS: Final = f"corral_key_tokens_total{{{_W}}}"
_RATE: Final = "[$__rate_interval]"

USAGE: Final = Board(
    "corral-usage",
    "Corral: keys and usage",
    "Who uses how much of what, whose requests are refused, and whose budget ends.",
    (INSTANCE, Variable("key", "Key", f"corral_key_tokens_total{{{_I}}}")),
    (
        stat("Tokens in this time", "By the chosen keys, prompts and answers.", "short",
             f"sum({grown(_TOKENS, '$__range')})", width=6),
        stat("Requests in this time", "Answered in any way.", "short",
             f"sum({grown(_REQUESTS, '$__range')})", width=6),
        stat("Refused by limits", "Share of requests answered with 429, in five minutes.", "percentunit",
             f"(sum({grown(_REFUSED, '5m')}) or vector(0)) / sum({grown(_REQUESTS, '5m')})",
             limits=((0.01, YELLOW), (0.2, RED)), width=6),
        stat("Fullest budget", "Of any chosen key.", "percentunit", f"max(key:corral_key_budget_used:ratio{{{_W}}})",
             limits=((0.8, YELLOW), (1, RED)), width=6),
        row("Who"),
        lines("Requests by key", "Who the load comes from.", "reqps",
              Query(f"sum by (key) (rate(corral_requests_total{{{_W}}}{_RATE}))", "{{key}}"), stack=True),
        lines("Tokens by key", "Prompts and answers. Who the devices work for.", TOKENS_PER_S,
              Query(f"sum by (key, kind) (rate(corral_key_tokens_total{{{_W}}}{_RATE}))", "{{key}} {{kind}}"),
              stack=True),
        lines("Refused, by key and status", "401 and 403: a wrong key, or not good for it. 429: a limit.", "reqps",
              Query(f'sum by (key, status) (rate(corral_requests_total{{{_W}, status=~"4.."}}{_RATE}))',
                    "{{key}} {{status}}")),
        table("Tokens by key in this time", "The same as `corral usage --by key`.", "short",
              f"sum by (key, kind) ({grown(_TOKENS, '$__range')})",
              {"key": "Key", "kind": "Kind", "Value": "Tokens"}),
        table("Requests by key and model in this time", "Who uses which model.", "short",
              f"sum by (key, model) ({grown(_REQUESTS, '$__range')})",
              {"key": "Key", "model": "Model", "Value": "Requests"}),
        table("Requests by dialect", "Which APIs are in use.", "short",
              f"sum by (key, dialect) ({grown(_REQUESTS, '$__range')})",
              {"key": "Key", "dialect": "Dialect", "Value": "Requests"}),
        row("Budgets"),
        table("Budgets now", "What each key may use, and has.", "percentunit",
              f"key:corral_key_budget_used:ratio{{{_W}}}", {"key": "Key", "period": "Period", "Value": "Used"},
              limits=((0.8, YELLOW), (1, RED))),
        lines("Budget used", "A steep line ends before the day does: CorralKeyBudgetLow tells in time.", "percentunit",
              Query(f"key:corral_key_budget_used:ratio{{{_W}}}", "{{key}} by {{period}}"), limits=((0.9, RED),)),
        lines("Tokens of budgets", "Used or set aside, and the bound.", "short",
              Query(f"sum by (key, period) (corral_key_budget_used_tokens{{{_W}}})", "{{key}} used by {{period}}"),
              Query(f"sum by (key, period) (corral_key_budget_tokens{{{_W}}})", "{{key}} may use by {{period}}")),
    ),
    span="now-24h",
)  # fmt: skip
