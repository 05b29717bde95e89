"""Every metric that Corral shows: its name, kind, labels and buckets. Data, and nothing else. Pure.

Dashboards, alert rules, the documentation and `/metrics` itself are held against this list by tests. Label values are
bounded: models are those that are configured or stored (`other` for the rest), keys have their own names, reasons are
one of a few words.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal, NamedTuple

Kind = Literal["counter", "gauge", "histogram", "info"]


class Metric(NamedTuple):
    """One family of series. A counter's name has its `_total`; an info is a gauge that is always 1."""

    name: str
    kind: Kind
    words: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()


WAIT: Final = (0.001, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 320.0)
"""Seconds of waiting in a queue, for a load, or for a swap: from none to the default deadline and past it."""
FIRST_TOKEN: Final = (
    0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0, 160.0, 320.0,
)  # fmt: skip
EACH_TOKEN: Final = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 2.5, 5.0)
WHOLE: Final = (0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 60.0, 120.0, 240.0, 480.0, 960.0)

NO_START: Final = "start"
"""The reason of an engine that did not come up, where nothing better is known."""
_FAILURES: Final = (
    "memory", "device", "hang", "signal", "exit", NO_START, "stopped", "flag", "file", "library", "architecture", "cpu",
    "address", "unseen", "server",
)  # fmt: skip
_LOST: Final = ("gone", "refused", "memory", "device")

REASONS: Final[Mapping[str, tuple[str, ...]]] = {
    "corral_engine_failures_total": _FAILURES,
    "corral_restarts_total": _FAILURES,
    "corral_evictions_total": ("idle", "room", "asked", "configuration", "ailing", "gpu"),
    "corral_fallbacks_total": ("batch", "context", "layers", "cpu"),
    "corral_retries_total": (*_LOST, "stumbled"),
    "corral_resumes_total": _LOST,
}
"""The values of `reason`, by metric. Each begins at nothing when its model is first seen: a counter that is born with
its first value shows no increase, and the first of everything would be missing from charts."""
STATUSES: Final = ("200", "429", "499", "500", "502", "503", "504", "507")
"""The statuses that begin at nothing likewise, once a key has asked for a model in a dialect."""

METRICS: Final = (
    # Requests.
    Metric("corral_requests_total", "counter", "Requests by what they were answered with; 499: their client left.",
           ("model", "dialect", "status", "key")),
    Metric("corral_request_errors_total", "counter", "Requests that ended with an error, by its code.",
           ("model", "code")),
    Metric("corral_requests_left_total", "counter", "Requests whose client left before the end of their answer.",
           ("model",)),
    Metric("corral_requests_in_flight", "gauge", "Requests that an engine works on.", ("model",)),
    Metric("corral_requests_waiting", "gauge", "Requests that wait for their model.", ("model",)),
    Metric("corral_queue_seconds", "histogram", "From a request's arrival to its lease.", ("model",), WAIT),
    Metric("corral_time_to_first_token_seconds", "histogram", "From a request's arrival to the first piece of its "
           "streamed answer.", ("model",), FIRST_TOKEN),
    Metric("corral_inter_token_seconds", "histogram", "Between two tokens of a streamed answer, each answer's mean "
           "counted once for each of its tokens.", ("model",), EACH_TOKEN),
    Metric("corral_request_seconds", "histogram", "From a request's arrival to the end of its answer.", ("model",),
           WHOLE),
    Metric("corral_prompt_tokens_total", "counter", "Tokens of prompts, as engines counted them.", ("model",)),
    Metric("corral_completion_tokens_total", "counter", "Tokens of answers, as engines counted them.", ("model",)),
    Metric("corral_cached_tokens_total", "counter", "Tokens of prompts that an engine had read before.", ("model",)),
    Metric("corral_retries_total", "counter", "Requests sent to another engine before their answer began, by why.",
           ("model", "reason")),
    Metric("corral_resumes_total", "counter", "Streams that went on with another engine after theirs broke, by why.",
           ("model", "reason")),
    # Units.
    Metric("corral_units", "gauge", "Engines by state.", ("state",)),
    Metric("corral_unit_state", "gauge", "1 for the state that an engine is in.", ("model", "unit", "state")),
    Metric("corral_unit_slots", "gauge", "Requests that an engine takes at once.", ("model", "unit")),
    Metric("corral_unit_busy_slots", "gauge", "Requests that it works on.", ("model", "unit")),
    Metric("corral_unit_context_tokens", "gauge", "Tokens of context that each request can have.", ("model", "unit")),
    Metric("corral_unit_context_used_tokens", "gauge", "Tokens of the longest conversation of the last minute.",
           ("model", "unit")),
    Metric("corral_unit_degraded", "gauge", "1 while an engine does without a GPU that it should have.",
           ("model", "unit")),
    Metric("corral_load_seconds", "histogram", "From an engine's start until it was ready.", ("model",), WAIT),
    Metric("corral_swap_seconds", "histogram", "The same, and the end of those that had to make room for it.",
           ("model",), WAIT),
    Metric("corral_engine_failures_total", "counter", "Engines that ended unasked, hung or did not come up, by why.",
           ("model", "reason")),
    Metric("corral_restarts_total", "counter", "Engines started again after such a failure, by why they had failed.",
           ("model", "reason")),
    Metric("corral_evictions_total", "counter", "Engines stopped, by why.", ("model", "reason")),
    Metric("corral_fallbacks_total", "counter", "Starts with less than was wished, by what was given up.",
           ("model", "reason")),
    Metric("corral_breaker_state", "gauge", "Whether a target is tried: 0 yes, 1 after a pause, 2 no more.",
           ("target",)),
    # Memory and devices.
    Metric("corral_footprint_bytes", "gauge", "What an engine was predicted to take, and was measured to.",
           ("model", "unit", "device", "origin")),
    Metric("corral_unit_memory_bytes", "gauge", "What only its end gives back: all it holds but pages of files.",
           ("model", "unit", "device")),
    Metric("corral_device_info", "info", "What a device is.", ("device", "vendor", "name")),
    Metric("corral_device_memory_total_bytes", "gauge", "All memory of a device.", ("device",)),
    Metric("corral_device_memory_free_bytes", "gauge", "What of it is free.", ("device",)),
    Metric("corral_device_memory_others_bytes", "gauge", "What others than Corral hold of it.", ("device",)),
    Metric("corral_device_memory_budget_bytes", "gauge", "What models may take of it together: the configured budget, "
           "at most all of it less the headroom.", ("device",)),
    Metric("corral_device_utilisation_ratio", "gauge", "How busy it was, 0 to 1.", ("device",)),
    Metric("corral_device_temperature_celsius", "gauge", "How hot it is.", ("device",)),
    Metric("corral_device_power_watts", "gauge", "What it draws.", ("device",)),
    Metric("corral_device_power_limit_watts", "gauge", "What it may draw.", ("device",)),
    # Models on disk.
    Metric("corral_downloads", "gauge", "Downloads by state.", ("state",)),
    Metric("corral_download_bytes_total", "counter", "Bytes that downloads brought."),
    Metric("corral_download_bytes_per_second", "gauge", "What all running downloads bring now."),
    Metric("corral_download_stalled_seconds", "gauge", "How long the most stuck running download has brought nothing."),
    Metric("corral_store_bytes", "gauge", "What the store's models take on disk."),
    Metric("corral_disk_free_bytes", "gauge", "Free on the file system of the store or the state.", ("place",)),
    Metric("corral_disk_total_bytes", "gauge", "The size of that file system.", ("place",)),
    # Keys.
    Metric("corral_key_tokens_total", "counter", "Tokens of each key's requests: prompt or completion.",
           ("key", "kind")),
    Metric("corral_key_budget_tokens", "gauge", "What a key may use.", ("key", "period")),
    Metric("corral_key_budget_used_tokens", "gauge", "What of it is used or set aside.", ("key", "period")),
    # The server itself.
    Metric("corral_build_info", "info", "Which Corral this is.", ("version", "python", "platform")),
    Metric("corral_start_time_seconds", "gauge", "When the server started, in seconds since 1970."),
    Metric("corral_events_total", "counter", "Entries of the event log, by kind.", ("kind",)),
    Metric("corral_loop_lag_seconds", "gauge", "How late the event loop woke, at worst in the last 15 seconds."),
    Metric("corral_records_lost_total", "counter", "Requests that could not be counted."),
    Metric("corral_engine_scrape_errors_total", "counter", "Engines whose own metrics could not be read.", ("model",)),
    Metric("process_resident_memory_bytes", "gauge", "Memory of the server itself."),
    Metric("process_cpu_seconds_total", "counter", "Processor time of the server itself."),
    Metric("process_open_fds", "gauge", "Its open descriptors."),
)  # fmt: skip
