"""Swapping models: with A resident and idle, how long a request for B waits, against a script that does only that."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import mmap
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from bench.first_token import EMBEDDED, engines
from bench.frame import Figure, main, median, sized
from bench.serving import START_S, Corral, corral, free_port, scratch
from bench.wire import Address, chat, healthy, request_bytes
from corral.config.paths import Paths, find_paths
from corral.config.settings import ModelSettings
from corral.demo.where import demo_model
from corral.engines.adapter import Start
from corral.engines.llamacpp import LlamaCpp
from corral.engines.plan import Endpoint, LaunchPlan
from corral.runners.link import WardenLink
from corral.runners.process import ProcessRunner, ProcessRunning
from support import ggufs

WHAT = (
    "A swap under `max_active: 1`: model A is resident and idle, a streamed chat with B is asked for, and the clock "
    "runs until B's first token. Against an ideal script in the same minutes: TERM to A, B's engine started at once "
    "with the same arguments, its health asked for every millisecond, the same request. Warm: B's file is in the page "
    "cache; cold: it was dropped from it just before. `vs_llama_router`: Corral with `llama-server` against "
    "llama-server's own router mode with the same files and context. `born`: from asking the warden for an embedded "
    "engine on the demo model to its first healthy answer, forked from the nursery or spawned plainly."
)
CONTEXT = 512
IDLE_S = 0.25
"""How long A has been idle when B is asked for."""

Side = Callable[[bool], float]
"""One swap, cold or not: seconds to the first token."""


def models_yaml(executables: Mapping[str, str], files: Mapping[str, Path]) -> str:
    lines = ["max_active: 1", "timeouts: {queue: 10m, start: 10m}", "models:"]
    for engine, executable in executables.items():
        for letter, file in files.items():
            lines += [f"  - name: {engine}-{letter}", f"    source: {file}", f"    executable: {executable}"]
            lines += ["    idle_timeout: never", f"    context: {CONTEXT}"]
    return "\n".join(lines) + "\n"


def drop(file: Path) -> None:
    """Takes `file` out of the page cache, where nobody maps it."""
    if not hasattr(os, "posix_fadvise"):
        return
    fd = os.open(file, os.O_RDONLY)
    try:
        os.fsync(fd)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(fd)


def cached(file: Path) -> float:
    """How much of `file` is in the page cache, from 0 to 1. Reading to find out, even what may not wait (RWF_NOWAIT),
    would have the system read ahead."""
    with file.open("rb") as content, mmap.mmap(content.fileno(), 0, mmap.MAP_PRIVATE) as mapped:
        flags = (ctypes.c_ubyte * -(-len(mapped) // mmap.PAGESIZE))()
        address = ctypes.addressof(ctypes.c_char.from_buffer(mapped))
        if ctypes.CDLL(None).mincore(ctypes.c_void_p(address), ctypes.c_size_t(len(mapped)), flags) != 0:
            raise OSError("this system does not tell what is in the page cache")
        gc.collect()  # the view of the mapping that `from_buffer` made
    return sum(flag & 1 for flag in bytes(flags)) / len(flags)


def prepare(file: Path, cold: bool) -> None:
    if not hasattr(os, "posix_fadvise"):
        return
    if cold:
        deadline = time.perf_counter() + START_S
        drop(file)
        while cached(file) > 0.01 and time.perf_counter() < deadline:
            time.sleep(0.1)  # an engine that had it mapped has been told to end, and is not quite gone
            drop(file)
    else:
        buffer = bytearray(1 << 20)
        with file.open("rb", buffering=0) as content:
            while content.readinto(buffer):
                pass
    there = cached(file)
    if there > 0.01 if cold else there < 0.99:
        raise RuntimeError(f"{there:.0%} of {file} is in the page cache")


def swap_through(address: Address, names: tuple[str, str], file: Path, cold: bool) -> float:
    """From the first of `names` to the second, of a server that swaps by itself."""
    a, b = (request_bytes(name) for name in names)
    chat(address, a)
    prepare(file, cold)
    time.sleep(IDLE_S)
    took = chat(address, b).first_token_s
    chat(address, a)  # or B would stay mapped, and in the page cache, in the other sides' turns
    return took


def ideal(plans: tuple[LaunchPlan, LaunchPlan], file: Path, log: Path, cold: bool) -> float:
    """The script: kill A, start B at once, ask it until it is healthy, then ask it the real thing."""
    with ExitStack() as stack:
        a, b = plans
        stack.enter_context(ending(first := start(a, log)))
        until_healthy(first, a, log)
        chat(address_of(a), request_bytes(a.model))
        prepare(file, cold)
        time.sleep(IDLE_S)
        began = time.perf_counter()
        first.terminate()
        stack.enter_context(ending(second := start(b, log)))
        until_healthy(second, b, log)
        ready_s = time.perf_counter() - began
        return ready_s + chat(address_of(b), request_bytes(b.model)).first_token_s


def address_of(plan: LaunchPlan) -> Path:
    assert plan.endpoint.socket is not None
    return plan.endpoint.socket


def start(plan: LaunchPlan, log: Path) -> subprocess.Popen[bytes]:
    address_of(plan).unlink(missing_ok=True)
    with log.open("ab") as out:
        return subprocess.Popen(plan.argv, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True)


def until_healthy(process: subprocess.Popen[bytes], plan: LaunchPlan, log: Path) -> None:
    deadline = time.perf_counter() + START_S
    while not healthy(address_of(plan)):
        if process.poll() is not None or time.perf_counter() > deadline:
            raise RuntimeError(f"{plan.unit} did not start: {log.read_text(errors='replace')[-2000:]}")
        time.sleep(0.001)


@contextmanager
def ending(process: subprocess.Popen[bytes]) -> Iterator[None]:
    try:
        yield
    finally:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(20)
        process.kill()
        process.wait()


@contextmanager
def router(executable: str, files: Mapping[str, Path], place: Path) -> Iterator[Address | None]:
    """llama-server in its router mode, with room for one model; None when this build has no such mode."""
    told = subprocess.run([executable, "--help"], capture_output=True, text=True, check=False).stdout
    if "--models-dir" not in told:
        yield None
        return
    folder = place / "models"
    folder.mkdir()
    for letter, file in files.items():
        os.link(file, folder / f"{letter}.gguf")
    port, log = free_port(), place / "router.log"
    command = [executable, "--models-dir", str(folder), "--models-max", "1", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--ctx-size", str(CONTEXT), "--parallel", "1"]
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True)
    with ending(process):
        while not healthy(("127.0.0.1", port)):
            if process.poll() is not None:
                raise RuntimeError(f"the router did not start: {log.read_text(errors='replace')[-2000:]}")
            time.sleep(0.01)
        yield ("127.0.0.1", port)


def plan_of(name: str, file: Path, executable: str, place: Path) -> LaunchPlan:
    settings = ModelSettings(name=name, source=file, executable=executable, context=CONTEXT)
    return LlamaCpp().plan(Start(settings, generation=1, endpoint=Endpoint(socket=place / f"{name}.sock")))


def swaps(server: Corral, executables: Mapping[str, str], files: Mapping[str, Path], place: Path) -> dict[str, Side]:
    """Every side by its name."""
    log, b = place / "ideal.log", files["b"]
    sides: dict[str, Side] = {}
    for engine, executable in executables.items():
        one, other = (plan_of(f"i-{engine[:2]}-{letter}", file, executable, place) for letter, file in files.items())
        sides[f"corral {engine}"] = partial(swap_through, server.address, (f"{engine}-a", f"{engine}-b"), b)
        sides[f"ideal {engine}"] = partial(ideal, (one, other), b, log)
    return sides


def timed(sides: Mapping[str, Side], cold: bool, rounds: int) -> dict[str, float]:
    """The median of each side, in turns."""
    times: dict[str, list[float]] = {name: [] for name in sides}
    names = list(sides)
    for number in range(rounds):
        for turn in range(len(names)):
            name = names[(number + turn) % len(names)]
            times[name].append(sides[name](cold))
    return {name: median(values) for name, values in times.items()}


def ratios(found: Mapping[str, float], executables: Mapping[str, str], how: str, rounds: int) -> list[Figure]:
    figures: list[Figure] = []
    for engine in executables:
        suffix = how if engine == EMBEDDED else f"{how}_llama_server"
        corral_s, ideal_s = found[f"corral {engine}"], found[f"ideal {engine}"]
        figures += [
            Figure(f"vs_ideal_{suffix}", corral_s / ideal_s, "≤ 1.05", f"medians of {rounds} rounds"),
            Figure(f"corral_{suffix}_ms", corral_s * 1000),
            Figure(f"ideal_{suffix}_ms", ideal_s * 1000),
        ]
    if "router" in found:
        ours = next(engine for engine in executables if engine != EMBEDDED)
        ratio = found[f"corral {ours}"] / found["router"]
        if how == "warm":  # what is meant where nobody says which
            figures.append(Figure("vs_llama_router", ratio, "≤ 1.05", "the warm one"))
        figures += [
            Figure(f"vs_llama_router_{how}", ratio, "≤ 1.05"),
            Figure(f"llama_router_{how}_ms", found["router"] * 1000),
        ]
    return figures


async def births(place: Path, rounds: int) -> list[Figure]:
    """How long an embedded engine on the demo model takes to answer, of the nursery and spawned plainly, in turns."""
    os.environ |= {f"CORRAL_{name.upper()}_DIR": str(place / name) for name in ("config", "state", "cache", "runtime")}
    paths = find_paths()
    paths.make()
    link = await WardenLink.connect(paths, idle_s=0.2)
    runner = ProcessRunner(link, paths)
    said: list[str] = []
    runner.expect_embedded()
    keeping = asyncio.create_task(runner.keep_nursery(said.append))
    times: dict[str, list[float]] = {"nursery": [], "exec": []}
    for number in range(2 * rounds + 2):
        while not said and (state := await link.nursery_state())["state"] != "ready":  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        await asyncio.sleep(IDLE_S)
        plan = plan_of(f"d{number}", demo_model(), "embedded", paths.units_dir)
        if number % 2:
            plan = replace(plan, env={"SPAWNED": "plainly"})
        took, born = await birth(runner, plan, paths)
        if number > 1:
            times[born].append(took)
    keeping.cancel()
    await link.shutdown(5.0)
    await link.aclose()
    spawned = median(times["exec"]) * 1000
    if not times["nursery"]:
        print(f"no nursery: {', '.join(said)}", file=sys.stderr)
        return [Figure("born_exec_ms", spawned)]
    best = f"best {min(times['nursery']) * 1000:.1f} against {min(times['exec']) * 1000:.1f}"
    return [
        Figure("born_nursery_ms", median(times["nursery"]) * 1000, "≤ 25", f"medians of {rounds} rounds; {best}"),
        Figure("born_exec_ms", spawned),
        Figure("nursery_pss_mb", state["pss_kb"] / 1000, "≤ 40", "its share of memory when it is up"),
    ]


async def birth(runner: ProcessRunner, plan: LaunchPlan, paths: Paths) -> tuple[float, str]:
    began = time.perf_counter()
    running = await runner.start(plan, paths.logs_dir / f"{plan.model}.log")
    assert isinstance(running, ProcessRunning)
    while not await asyncio.to_thread(healthy, address_of(plan)):  # noqa: ASYNC110
        await asyncio.sleep(0.001)
    took = time.perf_counter() - began
    await running.stop(5.0)
    return took, running.born


def measure(quick: bool) -> list[Figure]:
    executables = engines()
    rounds = {False: sized(quick, 5, 5), True: sized(quick, 3, 3)}
    with scratch() as place, ExitStack() as stack:
        figures = asyncio.run(births(place / "births", sized(quick, 31, 5)))
        mib = float(sized(quick, 1908, 16, 2))  # 2 GB
        words = ["the", "gate", "is", "open"]
        files = {letter: ggufs.write_chain(place / f"{letter}.gguf", words, mib=mib) for letter in "ab"}
        size = files["b"].stat().st_size / 1e6
        server = stack.enter_context(corral(place / "main", models_yaml(executables, files)))
        sides = swaps(server, executables, files, place)
        built = next((each for each in executables.values() if each != EMBEDDED), None)
        if built is not None and (address := stack.enter_context(router(built, files, place))) is not None:
            sides["router"] = partial(swap_through, address, ("a", "b"), files["b"])
        timed(sides, False, 1)  # for the page cache, and for what each side finds out once
        for cold in (False, True):
            found = timed(sides, cold, rounds[cold])
            figures += ratios(found, executables, "cold" if cold else "warm", rounds[cold])
        return [*figures, Figure("file_mb", size)]


if __name__ == "__main__":
    sys.exit(main("swap", WHAT, measure))
