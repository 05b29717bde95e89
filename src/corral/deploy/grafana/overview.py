"""The dashboard to begin with: is anything wrong, since when, and where to look next. Pure data."""

from __future__ import annotations

from typing import Final

from corral.deploy.grafana.board import INSTANCE, Board
from corral.deploy.grafana.panels import (
    BLUE,
    GREEN,
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

_W: Final = 'instance=~"$instance"'
_ERRORS: Final = f"corral_request_errors_total{{{_W}}}"
_EVENTS: Final = f"corral_events_total{{{_W}}}"
_ALL: Final = f'job="corral", {_W}'

_NOW: Final[tuple[Panel, ...]] = (
    stat(
        "Servers that answer", "Scrapes that succeed. 0: the server is down, or refuses Prometheus's key.", "none",
        f"sum(up{{{_ALL}}})", limits=((0, RED), (1, GREEN)),
    ),
    stat(
        "Alerts that fire", "The table below names them; docs/operate.md says what to do about each.", "none",
        'count(ALERTS{alertname=~"Corral.*", alertstate="firing"}) or vector(0)', limits=((1, RED),),
    ),
    stat(
        "Engines given up or waiting to be tried again", "In the states failed and backoff.", "none",
        f'sum(corral_units{{{_W}, state=~"failed|backoff"}}) or vector(0)', limits=((1, RED),),
    ),
    stat(
        "Engines without their GPU", "They answer, many times slower. See the dashboard of their model.", "none",
        f"sum(corral_unit_degraded{{{_W}}}) or vector(0)", limits=((1, YELLOW),),
    ),
    stat(
        "Requests that fail", "Share answered with 5xx, in five minutes.", "percentunit",
        f"(sum(model:corral_requests_failed:increase5m{{{_W}}}) or vector(0)) "
        f"/ sum(model:corral_requests:increase5m{{{_W}}})",
        limits=((0.01, YELLOW), (0.05, RED)),
    ),
    stat(
        "Up for", "Since the server started. Short after an incident: it was started again.", "s",
        f"time() - min(corral_start_time_seconds{{{_W}}})", limits=((0, BLUE),),
    ),
)  # fmt: skip

_TRAFFIC: Final[tuple[Panel, ...]] = (
    row("What is asked and answered"),
    lines(
        "Requests by model", "Which model the load is on. A line that ends: nobody asks, or nobody is let in.", "reqps",
        Query(f"sum by (model) (rate(corral_requests_total{{{_W}}}[$__rate_interval]))", "{{model}}"), stack=True,
    ),
    lines(
        "Requests by status", "429: limits of keys. 499: clients that gave up waiting. 5xx: something is broken.",
        "reqps", Query(f"sum by (status) (rate(corral_requests_total{{{_W}}}[$__rate_interval]))", "{{status}}"),
        stack=True,
    ),
    lines(
        "Errors by code, and clients that left", "What went wrong, in Corral's own words: docs/api.md has them all.",
        "none", Query(f"sum by (code) ({grown(_ERRORS, RATE)})", "{{code}}"),
        Query(f"sum(increase(corral_requests_left_total{{{_W}}}[$__rate_interval]))", "client left"),
    ),
    lines(
        "Tokens per second", "Read and written by all engines. Written falls while requests wait: look at devices.",
        TOKENS_PER_S,
        Query(f"sum(rate(corral_completion_tokens_total{{{_W}}}[$__rate_interval]))", "written"),
        Query(f"sum(rate(corral_prompt_tokens_total{{{_W}}}[$__rate_interval]))", "read"),
        Query(f"sum(rate(corral_cached_tokens_total{{{_W}}}[$__rate_interval]))", "read before (cached)"),
    ),
    lines(
        "In work and waiting", "Waiting above nothing for long: too few slots, or a model that cannot come up.", "none",
        Query(f"sum(corral_requests_in_flight{{{_W}}})", "in work"),
        Query(f"sum by (model) (corral_requests_waiting{{{_W}}})", "waiting for {{model}}"),
    ),
    lines(
        "Time to the first token", "What people feel. Waiting and loading are part of it.", "s",
        *quantiles("corral_time_to_first_token_seconds", _W),
    ),
    heat("Time in the queue", "How long requests waited for their lease. A cloud that rises: the queue grows.",
         "corral_queue_seconds", _W, width=12),
    lines(
        "Between two tokens", "The speed of running answers: of each its mean, once for each token. It rises with more "
        "answers at once, or a slower device.", "s",
        *quantiles("corral_inter_token_seconds", _W, shares=(0.5, 0.95)), width=12,
    ),
)  # fmt: skip

_ENGINES: Final[tuple[Panel, ...]] = (
    row("Engines"),
    table(
        "Alerts that fire now", "Empty is good.", "none", 'ALERTS{alertname=~"Corral.*"}',
        {"alertname": "Alert", "alertstate": "State", "severity": "Severity", "model": "Model", "device": "Device",
         "instance": "Server"}, width=12,
    ),
    table(
        "Engines now", "Each engine and the state it is in.", "none", f"corral_unit_state{{{_W}}} == 1",
        {"model": "Model", "unit": "Engine", "state": "State", "instance": "Server"}, width=12,
    ),
    lines(
        "Engines by state", "ready and sleeping are well. Loading that lasts: a slow disk, or a large model.", "none",
        Query(f"sum by (state) (corral_units{{{_W}}})", "{{state}}"), stack=True,
    ),
    lines(
        "Failures, restarts, evictions, fall-backs", "Failures: crashes, hangs, loads that broke off; restarts are "
        "those that were tried again. Evictions that alternate: two models fight for room.", "none",
        Query(f"sum by (model, reason) (increase(corral_engine_failures_total{{{_W}}}[$__rate_interval]))",
              "{{model}} failed: {{reason}}"),
        Query(f"sum by (model, reason) (increase(corral_restarts_total{{{_W}}}[$__rate_interval]))",
              "{{model}} restarted: {{reason}}"),
        Query(f"sum by (model, reason) (increase(corral_evictions_total{{{_W}}}[$__rate_interval]))",
              "{{model}} stopped: {{reason}}"),
        Query(f"sum by (model, reason) (increase(corral_fallbacks_total{{{_W}}}[$__rate_interval]))",
              "{{model}} smaller: {{reason}}"),
    ),
    lines(
        "Retries and resumes", "Requests that an engine's end cost only time. Many: an engine is not well.", "none",
        Query(f"sum by (model, reason) (increase(corral_retries_total{{{_W}}}[$__rate_interval]))",
              "{{model}} sent again: {{reason}}"),
        Query(f"sum by (model, reason) (increase(corral_resumes_total{{{_W}}}[$__rate_interval]))",
              "{{model}} went on: {{reason}}"),
    ),
)  # fmt: skip

_SERVER: Final[tuple[Panel, ...]] = (
    row("The server itself"),
    lines(
        "How late its loop wakes", "Above 50 ms every stream stutters: something on this machine takes the processor.",
        "s", Query(f"max by (instance) (corral_loop_lag_seconds{{{_W}}})", "{{instance}}"), limits=((0.05, YELLOW),),
        width=6,
    ),
    lines(
        "Its processor", "1 is a whole core. Corral relays on one.", "percentunit",
        Query(f"sum by (instance) (rate(process_cpu_seconds_total{{{_ALL}}}[$__rate_interval]))", "{{instance}}"),
        width=6,
    ),
    lines(
        "Its memory", "Of the server without its engines. It should stay level.", "bytes",
        Query(f"sum by (instance) (process_resident_memory_bytes{{{_ALL}}})", "{{instance}}"), width=6,
    ),
    lines(
        "Its open files", "Connections, mostly. A rise without traffic is a leak: please report it.", "none",
        Query(f"sum by (instance) (process_open_fds{{{_ALL}}})", "{{instance}}"), width=6,
    ),
    lines(
        "What happened, by kind", "Entries of `corral events`. A burst says what kind of trouble it is.", "none",
        Query(f"sum by (kind) ({grown(_EVENTS, RATE)})", "{{kind}}"), width=12,
        stack=True,
    ),
    lines(
        "Requests that could not be counted", "Anything but 0: figures here are too low by so many.", "none",
        Query(f"sum by (instance) (corral_records_lost_total{{{_W}}})", "{{instance}}"), width=6,
    ),
    table(
        "Versions", "Which Corral each server is.", "none", f"corral_build_info{{{_W}}}",
        {"instance": "Server", "version": "Corral", "python": "Python", "platform": "Platform"}, width=6,
    ),
)  # fmt: skip

OVERVIEW: Final = Board(
    "corral-overview",
    "Corral: overview",
    "Is anything wrong, since when, and where to look next.",
    (INSTANCE,),
    (*_NOW, *_TRAFFIC, *_ENGINES, *_SERVER),
)
