"""What the faults are done to: a daemon in a process of its own, four models on two kinds of engine, its clients."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from chaos.clients import Clients, Outcome, get
from chaos.feed import Feed, Late
from corral.config.paths import Paths
from support.ggufs import write_chain
from support.server import Server

WORDS = {
    "ea": [f"east{i}" for i in range(10)],
    "eb": [f"ember{i}" for i in range(11)],
    "sa": [f"salt{i}" for i in range(12)],
    "sb": [f"stone{i}" for i in range(13)],
}
"""Each model's words. Of `ea` and `eb` (embedded) one is resident at a time, of `sa` and `sb` (llama-server) too."""

PARTNER = {"ea": "eb", "eb": "ea", "sa": "sb", "sb": "sa"}
SLOTS = 8
CONTEXT = 768
MODEL_MIB = 2
STATE_BYTES = 512 << 20
"""The size of the file system that holds the state directory, where one may be mounted: more than all logs may take."""

START_S, STOP_S, HANG_S = 8, 3, 2

CONFIG = """
timeouts: {{start: {start}, stop: {stop}, hang: {hang}, queue: 50s, drain: 5s}}
models:
{models}
"""
MODEL = """
  - name: {name}
    source: {source}
    executable: {executable}
    group: {group}
    context: {context}
    parallel: {slots}
    gpu_layers: 0
    idle_timeout: never
    args: [--threads, 1]
"""


@dataclass
class World:
    """Entered before the first fault, left after the last one."""

    place: Path
    paths: Paths
    clients: Clients
    llama_server: Path | None
    mounted: bool = False
    outages: list[tuple[float, float]] = field(default_factory=list)
    """From when to when no daemon took requests."""
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.server = Server(self.paths)
        self.feed = Feed(self.paths.control_socket)
        self.clients.look = self.around

    @property
    def models(self) -> list[str]:
        return [name for name in WORDS if self.llama_server is not None or name.startswith("e")]

    def file(self, model: str) -> Path:
        return self.place / f"{model}.gguf"

    def spare(self, model: str) -> Path:
        return self.place / f"{model}.sound"

    def limit_file(self, model: str) -> Path:
        """While it is there, a llama-server of that model is started with so many KiB of address space."""
        return self.place / f"{model}.limit"

    async def __aenter__(self) -> World:
        try:
            await self._open()
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def _open(self) -> None:
        self.mounted = await asyncio.to_thread(_mount, self.paths.state_dir)
        entries = []
        for name in self.models:
            write_chain(self.spare(name), WORDS[name], loop=True, mib=MODEL_MIB, context=CONTEXT)
            self.restore(name)
            executable = "embedded" if name.startswith("e") else str(self._wrapper(name))
            entries.append(
                MODEL.format(
                    name=name,
                    source=self.file(name),
                    executable=executable,
                    group=name[0],
                    context=CONTEXT,
                    slots=SLOTS,
                )
            )
        config = CONFIG.format(start=START_S, stop=STOP_S, hang=HANG_S, models="".join(entries))
        self.server = Server(self.paths, config, listen=f"127.0.0.1:{_free_port()}")
        self.server.write(self.server.config)
        await self.start_daemon()
        self.clients.aims = [self.models[0]]

    async def __aexit__(self, *_: object) -> None:
        await self.clients.close()
        await self.feed.close()
        await asyncio.to_thread(self.server.__exit__, None, None, None)
        if self.server.process is not None and self.server.process.stdout is not None:
            self.server.process.stdout.close()
        if self.mounted:
            await asyncio.to_thread(_unmount, self.paths.state_dir)

    def restore(self, model: str) -> None:
        """The model's file as it should be, as a file of its own under its name."""
        fresh = self.place / f"{model}.fresh"
        fresh.write_bytes(self.spare(model).read_bytes())
        fresh.replace(self.file(model))

    def _wrapper(self, model: str) -> Path:
        script = self.place / f"llama-{model}"
        limit = self.limit_file(model)
        script.write_text(f'#!/bin/sh\n[ -f {limit} ] && ulimit -v "$(cat {limit})"\nexec {self.llama_server} "$@"\n')
        script.chmod(0o755)
        return script

    # The daemon.

    async def start_daemon(self) -> None:
        """Raises AssertionError with what it said when it does not come up."""
        began = time.time()
        try:
            await asyncio.to_thread(self.server.start)
        except AssertionError:
            process = self.server.process
            assert process is not None and process.stdout is not None
            process.stdout.close()
            await asyncio.to_thread(process.wait, 20)
            raise
        if self.outages and self.outages[-1][1] == float("inf"):
            self.outages[-1] = (self.outages[-1][0], time.time())
        host, port = str(self.server.greeting["listen"][0]).split(":")
        self.clients.address = (host, int(port))
        await self.feed.open()
        self.notes.append(f"daemon {self.server.pid} up in {time.time() - began:.2f} s")

    async def kill_daemon(self) -> None:
        self.outages.append((time.time(), float("inf")))
        await asyncio.to_thread(self.server.kill)

    def check_daemon(self) -> None:
        """Raises RuntimeError when it ended and nobody had killed it: nothing that follows would mean anything."""
        process = self.server.process
        if process is not None and process.poll() is not None and process.returncode != -signal.SIGKILL:
            said = self.server.said()[-4000:]
            raise RuntimeError(f"the daemon ended by itself, with {process.returncode}: {said}")

    @property
    def warden_pid(self) -> int:
        name = str(self.paths.warden_socket)
        found = [
            process.pid
            for process in psutil.process_iter(["cmdline"])
            if any(name in part for part in process.info["cmdline"] or ())
        ]
        return min(found)

    def descriptors(self) -> dict[int, str]:
        """What each of the daemon's descriptors leads to."""
        peers = {
            each.fd: f"socket {each.laddr} to {each.raddr}"
            for each in psutil.Process(self.server.pid).net_connections("all")
        }
        links = {}
        for path in Path(f"/proc/{self.server.pid}/fd").iterdir():
            with suppress(OSError):
                links[int(path.name)] = peers.get(int(path.name)) or str(path.readlink())
        return links

    def resident_bytes(self) -> int:
        return int(psutil.Process(self.server.pid).memory_info().rss)

    # What is going on.

    async def around(self, outcome: Outcome) -> str:
        """What goes on where `outcome`'s request waits: the units, what its model's engine says of its slots, how many
        other requests there are. Never raises but when cancelled."""
        others = [each for each in self.clients.in_flight.values() if each.model == outcome.model]
        oldest = max(time.time() - each.began for each in others or [outcome])
        said = [f"{len(others)} requests for {outcome.model}, the oldest of {oldest:.0f} s"]
        try:
            async with asyncio.timeout(5):
                for unit in await get(self.paths.control_socket, "/control/units"):
                    said.append("{unit} {state} busy {busy} queued {queued}".format(**unit))
                    if unit["model"] == outcome.model and unit["state"] in ("ready", "draining"):
                        for slot in await get(unit["endpoint"].removeprefix("unix:"), "/slots"):
                            facts = {key: slot.get(key) for key in ("id", "id_task", "is_processing", "next_token")}
                            said.append(json.dumps(facts))
        except (OSError, TimeoutError, ValueError, EOFError) as error:
            said.append(f"{type(error).__name__}: {error}")
        return ", ".join(said)

    def aim(self, models: Sequence[str]) -> None:
        self.clients.aims = models

    def other_side(self, model: str) -> list[str]:
        """A model of the other kind of engine, where there is one: the one that runs, so that nothing is swapped."""
        side = [name for name in self.models if name[0] != model[0]]
        running = [name for name in side if self.feed.states.get(name) == "ready"]
        return (running or side)[:1]

    async def retire(self, model: str) -> None:
        """Has its unit stopped once nobody waits for it."""
        await self.clients.settled(self.clients.of(model))
        if self.feed.states.get(model, "stopped") != "stopped":
            await asyncio.to_thread(self.server.client.stop, model)
            await self.feed.until(lambda: self.feed.states.get(model) == "stopped", f"{model} to stop", 20)

    async def answers(self, model: str, chance: random.Random, within_s: float) -> None:
        """Asks until an answer is whole; refusals on the way are the fault's affair. Raises Late."""
        deadline = time.monotonic() + within_s
        while (outcome := await self.clients.ask(model, self.clients.mix[0], chance)).end != "whole":
            if time.monotonic() > deadline:
                raise Late(f"{model} does not answer again: {outcome}")
            await asyncio.sleep(0.05)

    async def leftovers(self) -> list[str]:
        """What should not be there when all is quiet, in words."""
        units = await get(self.paths.control_socket, "/control/units")
        live = {unit["pid"] for unit in units if unit["pid"]}
        sockets = {Path(unit["endpoint"].removeprefix("unix:")).name for unit in units if unit["pid"]}
        found = []
        for entry in self.paths.units_dir.iterdir():
            if entry.name not in sockets:
                found.append(f"a socket of no unit: {entry.name}")
        mine = [psutil.Process(self.server.pid), psutil.Process(self.warden_pid)]
        for process in {child for parent in mine for child in parent.children(recursive=True)}:
            with suppress(psutil.Error):
                words = " ".join(process.cmdline())
                if process.status() == psutil.STATUS_ZOMBIE:
                    found.append(f"a zombie: {process.pid} {process.name()}")
                elif str(self.paths.units_dir) in words and process.pid not in live:
                    found.append(f"an engine of no unit: {process.pid} {words[:200]}")
        return found


def _mount(place: Path) -> bool:
    """A small file system of its own for `place`, where this user may mount one."""
    if not sys.platform.startswith("linux") or os.geteuid() != 0:
        return False
    options = f"size={STATE_BYTES},mode=0700"
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", place], capture_output=True, check=False)
    return done.returncode == 0


def _unmount(place: Path) -> None:
    subprocess.run(["umount", "-l", place], capture_output=True, check=False)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
