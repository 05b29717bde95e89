"""The dashboard of one model: how fast it is, what it waits for, why its engines end. Pure data."""

from __future__ import annotations

from typing import Final

from corral.deploy.grafana.board import INSTANCE, Board, Variable
from corral.deploy.grafana.panels import (
    RATE,
    RED,
    TOKENS_PER_S,
    YELLOW,
    Panel,
    Query,
    heat,
    lines,
    quantiles,
    row,
    stat,
    table,
)
from corral.deploy.grown import grown

_W: Final = 'instance=~"$instance", model=~"$model"'
_RATE: Final = f"[{RATE}]"
_ERRORS: Final = f"corral_request_errors_total{{{_W}}}"


def _rate(metric: str, by: str, legend: str) -> Query:
    return Query(f"sum by ({by}) (rate({metric}{{{_W}}}{_RATE}))", legend)


def _grown(metric: str, by: str, legend: str) -> Query:
    return Query(f"sum by ({by}) (increase({metric}{{{_W}}}{_RATE}))", legend)


_NOW: Final[tuple[Panel, ...]] = (
    stat("Ready engines", "0 while nobody asks is well: it is loaded when somebody does.", "none",
         f'sum(corral_unit_state{{{_W}, state="ready"}}) or vector(0)'),
    stat("Slots in use", "1: all are, and the next request waits.", "percentunit",
         f"sum(corral_unit_busy_slots{{{_W}}}) / sum(corral_unit_slots{{{_W}}})", limits=((0.8, YELLOW), (1, RED))),
    stat("Requests that wait", "For a slot, a load, or room in memory.", "none",
         f"sum(corral_requests_waiting{{{_W}}})", limits=((1, YELLOW), (10, RED))),
    stat("First token, p95", "Of five minutes.", "s",
         f"max(model:corral_time_to_first_token_seconds:p95_5m{{{_W}}})", limits=((5, YELLOW), (10, RED))),
    stat("Fullest conversation", "Of the context that each request can have. Near 1: answers are cut short.",
         "percentunit", f"max(corral_unit_context_used_tokens{{{_W}}} / corral_unit_context_tokens{{{_W}}})",
         limits=((0.8, YELLOW), (0.95, RED))),
    stat("Requests that fail", "With 5xx, in five minutes.", "percentunit",
         f"max(model:corral_requests_failed:ratio_rate5m{{{_W}}})", limits=((0.01, YELLOW), (0.05, RED))),
)  # fmt: skip

_SPEED: Final[tuple[Panel, ...]] = (
    row("How fast"),
    lines("Time to the first token", "Waiting, loading and reading the prompt. Against the queue below: which of them.",
          "s", *quantiles("corral_time_to_first_token_seconds", _W)),
    heat("Time to the first token, all of them", "Two clouds: one with the model loaded, one that waited for it.",
         "corral_time_to_first_token_seconds", _W),
    lines("Between two tokens", "The speed of running answers: of each its mean, once for each token.", "s",
          *quantiles("corral_inter_token_seconds", _W)),
    heat("Between two tokens, all of them", "Each answer counts with its mean. A second cloud above: answers that "
         "shared the device with others.",
         "corral_inter_token_seconds", _W),
    lines("Whole requests", "From arrival to the last byte. Long answers take long: compare with tokens.", "s",
          *quantiles("corral_request_seconds", _W)),
    lines("Tokens per second", "Written and read. Cached tokens cost nothing: more of them is better.", TOKENS_PER_S,
          _rate("corral_completion_tokens_total", "model", "{{model}} written"),
          _rate("corral_prompt_tokens_total", "model", "{{model}} read"),
          _rate("corral_cached_tokens_total", "model", "{{model}} cached")),
    lines("Over the hours: first token and between tokens, p95", "Of five minutes each; kept by recording rules, so "
          "that months can be looked at.", "s",
          Query(f"model:corral_time_to_first_token_seconds:p95_5m{{{_W}}}", "{{model}} first token"),
          Query(f"model:corral_inter_token_seconds:p95_5m{{{_W}}}", "{{model}} between tokens")),
    lines("Half of all answers are faster", "The medians of the same. Far below p95: a few requests wait, most do not.",
          "s",
          Query(f"model:corral_time_to_first_token_seconds:p50_5m{{{_W}}}", "{{model}} first token"),
          Query(f"model:corral_inter_token_seconds:p50_5m{{{_W}}}", "{{model}} between tokens")),
    lines("Share of prompts read before", "What the engine's cache saved. A fall: other conversations push it out.",
          "percentunit", Query(f"model:corral_cached_tokens:ratio_rate5m{{{_W}}}", "{{model}}"), most=1),
)  # fmt: skip

_WAITING: Final[tuple[Panel, ...]] = (
    row("What is waited for"),
    lines("Time in the queue", "From arrival to a lease: others' turns, loads and swaps are in it.", "s",
          *quantiles("corral_queue_seconds", _W)),
    lines("In work and waiting", "In work at the number of slots and others waiting: raise `parallel` or `replicas`.",
          "none", Query(f"sum by (model) (corral_requests_in_flight{{{_W}}})", "{{model}} in work"),
          Query(f"sum by (model) (corral_requests_waiting{{{_W}}})", "{{model}} waiting"),
          Query(f"sum by (model) (corral_unit_slots{{{_W}}})", "{{model}} slots"),
          Query(f"sum by (model) (corral_unit_busy_slots{{{_W}}})", "{{model}} slots in use")),
    lines("Loads and swaps, p95", "Swaps far above loads: what is stopped for it takes long to end.", "s",
          *quantiles("corral_load_seconds", _W, shares=(0.95,), what="load"),
          *quantiles("corral_swap_seconds", _W, shares=(0.95,), what="swap")),
    lines("Requests by status", "499: clients that gave up. 429: their keys' limits. 5xx: see errors.", "reqps",
          _rate("corral_requests_total", "status", "{{status}}"), stack=True),
    lines("Requests by dialect", "Which API its clients speak.", "reqps",
          _rate("corral_requests_total", "dialect", "{{dialect}}"), stack=True),
    lines("Errors by code", "docs/api.md has each code and what it means.", "none",
          Query(f"sum by (code) ({grown(_ERRORS, RATE)})", "{{code}}"),
          _grown("corral_requests_left_total", "model", "client left")),
    lines("Waiting and whole requests, p95 over the hours", "Kept by recording rules.", "s",
          Query(f"model:corral_queue_seconds:p95_5m{{{_W}}}", "{{model}} in the queue"),
          Query(f"model:corral_request_seconds:p95_5m{{{_W}}}", "{{model}} whole")),
    lines("Requests over the hours", "Kept by a recording rule.", "reqps",
          Query(f"model:corral_requests:rate5m{{{_W}}}", "{{model}}")),
    lines("Tokens over the hours", "Kept by recording rules.", TOKENS_PER_S,
          Query(f"model:corral_completion_tokens:rate5m{{{_W}}}", "{{model}} written"),
          Query(f"model:corral_prompt_tokens:rate5m{{{_W}}}", "{{model}} read")),
)  # fmt: skip

_ENGINES: Final[tuple[Panel, ...]] = (
    row("Its engines"),
    table("Engines now", "Each one's state. `corral story MODEL` tells how it came to it.", "none",
          f"corral_unit_state{{{_W}}} == 1",
          {"model": "Model", "unit": "Engine", "state": "State", "instance": "Server"}),
    lines("Failures and restarts by reason", "A row of them is a crash loop: `corral logs MODEL` has the engine's last "
          "words.", "none", _grown("corral_engine_failures_total", "reason", "failed: {{reason}}"),
          _grown("corral_restarts_total", "reason", "started again: {{reason}}")),
    lines("Stopped, by why", "Evictions for others' sake again and again: two models fight for one room.", "none",
          _grown("corral_evictions_total", "reason", "{{reason}}"),
          _grown("corral_fallbacks_total", "reason", "started smaller: {{reason}}")),
    lines("Without its GPU", "1 while an engine computes on the processor although it should have a GPU.", "none",
          Query(f"max by (model, unit) (corral_unit_degraded{{{_W}}})", "{{model}} {{unit}}"), most=1),
    lines("Context: what there is and what is used", "The longest conversation of the last minute against the bound.",
          "none", Query(f"max by (model) (corral_unit_context_tokens{{{_W}}})", "{{model}} there is"),
          Query(f"max by (model) (corral_unit_context_used_tokens{{{_W}}})", "{{model}} used")),
    lines("Memory: predicted, measured, held", "Of its load as predicted and as measured, and what it holds now. Held "
          "far above both: plans are too small, and the next start may fail.", "bytes",
          Query(f"sum by (model, origin) (corral_footprint_bytes{{{_W}}})", "{{model}} load: {{origin}}"),
          Query(f"sum by (model) (corral_unit_memory_bytes{{{_W}}})", "{{model}} held")),
    lines("Sent again, went on", "Requests that outlived their engine.", "none",
          _grown("corral_retries_total", "model, reason", "{{model}} sent again: {{reason}}"),
          _grown("corral_resumes_total", "model, reason", "{{model}} went on: {{reason}}")),
)  # fmt: skip

MODEL: Final = Board(
    "corral-model",
    "Corral: one model",
    "How fast a model is, what its requests wait for, and why its engines end.",
    (INSTANCE, Variable("model", "Model", 'corral_unit_state{instance=~"$instance"}')),
    (*_NOW, *_SPEED, *_WAITING, *_ENGINES),
)
