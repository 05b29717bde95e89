"""Time to the first token: a cold model and a ready one, through Corral and straight from the engine."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from bench.frame import Figure, main, median, percentile, sized
from bench.serving import Corral, bare, corral, scratch
from bench.wire import chat, connect, request_bytes
from corral.config.paths import find_paths
from corral.config.settings import ModelSettings
from corral.demo.where import demo_model
from corral.engines.adapter import Start
from corral.engines.llamacpp import LlamaCpp
from corral.engines.plan import Endpoint

WHAT = (
    "Time to the first token of a streamed chat with the demo model. Cold: from the request (bare: from spawning the "
    "engine, which is asked for its health every millisecond) to the first token. Ready: what Corral adds over TCP to "
    "the same engine asked directly on its unix socket, one request at a time, fresh connections on both sides; "
    "`kept`: the client keeps its connection to Corral."
)
EMBEDDED, BUILT = "embedded", "llama-server"


def engines() -> dict[str, str]:
    """Executables by the name their figures have."""
    found = {EMBEDDED: "embedded"}
    built = sorted((find_paths().cache_dir / "engines" / "llama.cpp").glob("*/bin/llama-server"))
    if built:
        found[BUILT] = str(built[-1])
    else:
        print("without llama-server: `make engines` builds it", file=sys.stderr)
    return found


def models_yaml(executables: dict[str, str]) -> str:
    lines = ["models:"]
    for name, executable in executables.items():
        lines += [f"  - name: {name}", "    source: builtin:demo", f"    executable: {executable}"]
        lines += ["    idle_timeout: never", "    context: 512"]
    return "\n".join(lines) + "\n"


def cold(server: Corral, place: Path, name: str, executable: str, rounds: int) -> list[Figure]:
    """Alternating cold starts, bare and through Corral, of the same plan."""
    settings = ModelSettings(name=name, source=demo_model(), executable=executable, context=512)
    plan = LlamaCpp().plan(Start(settings, generation=1, endpoint=Endpoint(socket=place / "bare.sock")))
    request = request_bytes(name)
    times: dict[str, list[float]] = {"bare": [], "corral": []}

    def one_bare() -> None:
        began = time.perf_counter()
        with bare(plan, place / "bare.log") as address:
            ready_s = time.perf_counter() - began
            times["bare"].append(ready_s + chat(address, request).first_token_s)

    def one_corral() -> None:
        server.stop(name)
        times["corral"].append(chat(server.address, request).first_token_s)

    one_bare()  # both sides once for the page cache
    one_corral()
    times = {"bare": [], "corral": []}
    for number in range(rounds):
        for side in (one_bare, one_corral) if number % 2 else (one_corral, one_bare):
            side()
    suffix = "" if name == EMBEDDED else "_llama_server"
    bare_s, corral_s = median(times["bare"]), median(times["corral"])
    return [
        Figure(f"cold_ratio{suffix}", corral_s / bare_s, "≤ 1.25", f"medians of {rounds} rounds"),
        Figure(f"cold_corral_ms{suffix}", corral_s * 1000),
        Figure(f"cold_bare_ms{suffix}", bare_s * 1000),
    ]


def ready(server: Corral, name: str, rounds: int) -> list[Figure]:
    """Interleaved requests to one ready engine, straight and through Corral."""
    request = request_bytes(name, max_tokens=4)
    chat(server.address, request)
    engine = server.endpoint(name)
    kept = connect(server.address)
    times: dict[str, list[float]] = {"direct": [], "corral": [], "kept": []}
    sides = [
        lambda: times["direct"].append(chat(engine, request).first_token_s),
        lambda: times["corral"].append(chat(server.address, request).first_token_s),
        lambda: times["kept"].append(chat(server.address, request, kept).first_token_s),
    ]
    try:
        for number in range(rounds + 10):
            if number == 10:
                for values in times.values():
                    values.clear()  # ten rounds to warm up
            for turn in range(3):
                sides[(number + turn) % 3]()
    finally:
        kept.close()
    ms = {side: {p: percentile(values, p) * 1000 for p in (50, 99)} for side, values in times.items()}
    suffix = "" if name == EMBEDDED else "_llama_server"
    return [
        Figure(f"ready_added_p50_ms{suffix}", ms["corral"][50] - ms["direct"][50], "≤ 0.6", f"{rounds} rounds"),
        Figure(f"ready_added_p99_ms{suffix}", ms["corral"][99] - ms["direct"][99]),
        Figure(f"ready_added_kept_p50_ms{suffix}", ms["kept"][50] - ms["direct"][50]),
        Figure(f"ready_direct_p50_ms{suffix}", ms["direct"][50]),
        Figure(f"ready_corral_p50_ms{suffix}", ms["corral"][50]),
    ]


def measure(quick: bool) -> list[Figure]:
    executables = engines()
    figures: list[Figure] = []
    with scratch() as place:
        accepts, answers = [], []
        for number in range(sized(quick, 9, 3)):
            with corral(place / f"s{number}", models_yaml(executables)) as server:
                accepts.append(server.accept_s * 1000)
                answers.append(server.answer_s * 1000)
        with corral(place / "main", models_yaml(executables)) as server:
            fresh_mb = server.rss_mb
            for name, executable in executables.items():
                figures += cold(server, place, name, executable, sized(quick, 41, 5))
                figures += ready(server, name, sized(quick, 1000, 100, 3))
            ps = [server.cli_s("ps") * 1000 for _ in range(sized(quick, 21, 5))]
            figures += [
                Figure("serve_accept_ms", median(accepts), "≤ 1000", "the first accepted connection"),
                Figure("serve_answer_ms", median(answers), "≤ 1000", "the first answer"),
                Figure("serve_rss_mb", fresh_mb, "≤ 90", "at the first answer"),
                Figure("serve_rss_after_mb", server.rss_mb, "", "after all of the above"),
                Figure("ps_ms", median(ps), "≤ 250", "the whole process"),
            ]
    return figures


if __name__ == "__main__":
    sys.exit(main("first_token", WHAT, measure))
