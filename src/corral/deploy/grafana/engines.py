"""The dashboard of the engines' own metrics: what llama.cpp and vLLM count themselves. Pure data.

Source: llama.cpp's `tools/server/README.md` (build 11434), vLLM 0.32's "Production Metrics".
"""

from __future__ import annotations

from typing import Final

from corral.deploy.grafana.board import INSTANCE, Board, Variable
from corral.deploy.grafana.panels import RED, TOKENS_PER_S, YELLOW, Panel, Query, lines, quantiles, row, stat

_W: Final = 'instance=~"$instance", model=~"$model"'
_RATE: Final = "[$__rate_interval]"


def _by_unit(metric: str, legend: str = "{{unit}}") -> Query:
    return Query(f"max by (model, unit) ({metric}{{{_W}}})", legend)


def _rate(metric: str, legend: str = "{{unit}}") -> Query:
    return Query(f"sum by (model, unit) (rate({metric}{{{_W}}}{_RATE}))", legend)


_LLAMACPP: Final[tuple[Panel, ...]] = (
    row("llama.cpp"),
    lines("Tokens per second", "As the engine counts them. Corral's own figures differ: it did not relay them all.",
          TOKENS_PER_S, _rate("llamacpp:tokens_predicted_total", "{{unit}} written"),
          _rate("llamacpp:prompt_tokens_total", "{{unit}} read")),
    lines("Speed of one engine while it works", "Of reading and of writing. Slower than it was: a shared or hot "
          "device.", TOKENS_PER_S, _by_unit("llamacpp:predicted_tokens_seconds", "{{unit}} writes"),
          _by_unit("llamacpp:prompt_tokens_seconds", "{{unit}} reads")),
    lines("Time spent", "1: it does nothing else. Mostly reading: long prompts, or nothing is cached.", "percentunit",
          _rate("llamacpp:tokens_predicted_seconds_total", "{{unit}} writing"),
          _rate("llamacpp:prompt_seconds_total", "{{unit}} reading")),
    lines("Requests", "Deferred ones wait inside the engine: somebody asks it around Corral's slots.", "none",
          _by_unit("llamacpp:requests_processing", "{{unit}} in work"),
          _by_unit("llamacpp:requests_deferred", "{{unit}} deferred")),
    lines("Busy slots per decode", "Near the number of slots: requests share each step, which is what it is good at.",
          "none", _by_unit("llamacpp:n_busy_slots_per_decode")),
    lines("Decodes per second", "Steps of the model. Few of them with many in work: a slow device.", "ops",
          _rate("llamacpp:n_decode_total")),
    lines("Longest context seen", "In tokens, since the engine started.", "none", _by_unit("llamacpp:n_tokens_max")),
)  # fmt: skip

VLLM_PANELS: Final[tuple[Panel, ...]] = (
    row("vLLM"),
    lines("Running and waiting", "Waiting inside vLLM: its cache is full, see below.", "none",
          _by_unit("vllm:num_requests_running", "{{unit}} running"),
          _by_unit("vllm:num_requests_waiting", "{{unit}} waiting")),
    lines("Cache in use", "Of the room for what was read. At 1 requests are put off or begun again.", "percentunit",
          _by_unit("vllm:kv_cache_usage_perc"), most=1, limits=((0.9, YELLOW), (0.98, RED))),
    lines("Begun again", "Requests that lost their place in the cache. More than a few: less at once, or more memory.",
          "none", Query(f"sum by (model, unit) (increase(vllm:num_preemptions_total{{{_W}}}{_RATE}))", "{{unit}}")),
    lines("Tokens per second, by vLLM", "As it counts them.", TOKENS_PER_S,
          _rate("vllm:generation_tokens_total", "{{unit}} written"),
          _rate("vllm:prompt_tokens_total", "{{unit}} read")),
    lines("Prompts found in the cache", "Share of prompt tokens that need not be read again.", "percentunit",
          Query(f"sum by (model, unit) (rate(vllm:prefix_cache_hits_total{{{_W}}}{_RATE})) / "
                f"sum by (model, unit) (rate(vllm:prefix_cache_queries_total{{{_W}}}{_RATE}))", "{{unit}}"), most=1),
    lines("Time to the first token", "Inside vLLM. Against Corral's: the difference is Corral's queue.", "s",
          *quantiles("vllm:time_to_first_token_seconds", _W, "unit", (0.5, 0.95))),
    lines("Between two tokens", "Inside vLLM.", "s",
          *quantiles("vllm:inter_token_latency_seconds", _W, "unit", (0.5, 0.95))),
    lines("Time in vLLM's own queue", "Corral sends no more than it has slots: this should be next to nothing.", "s",
          *quantiles("vllm:request_queue_time_seconds", _W, "unit", (0.5, 0.95))),
)  # fmt: skip

ENGINES: Final = Board(
    "corral-engines",
    "Corral: engines' own metrics",
    "What llama.cpp and vLLM count themselves, by model and engine.",
    (INSTANCE, Variable("model", "Model", 'corral_unit_state{instance=~"$instance"}')),
    (
        stat("Scrapes of engines that failed", "In this time. Their panels below have gaps.", "none",
             f"sum(increase(corral_engine_scrape_errors_total{{{_W}}}[$__range])) or vector(0)", limits=((1, YELLOW),),
             width=6),
        lines("Engines whose metrics could not be read", "One that hangs does not answer this either.", "none",
              Query(f"sum by (model) (increase(corral_engine_scrape_errors_total{{{_W}}}{_RATE}))", "{{model}}"),
              width=18, height=4),
        *_LLAMACPP,
        *VLLM_PANELS,
    ),
)  # fmt: skip
