"""A Corral at work, with things going wrong on purpose: traffic that waits, swaps, crashes, a hang, refused keys, a
model that cannot start, a lost GPU, a download that is stuck.

    with busy(paths, place) as work:
        …                          # it goes on until the block is left
        work.break_something()     # now and then
"""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from corral.api_access import KeyAsk
from corral.api_store import PullAsk
from corral.config.paths import Paths
from corral.errors import CorralError
from support.faulty_registry import Fault, FaultyRegistry, noise, serving
from support.ggufs import corrupt, write_chain, write_random
from support.llama import llama_server
from support.rpc import free_port, rpc_server
from support.server import Server

CHAT = "/v1/chat/completions"
_GONE = (OSError, http.client.HTTPException, ValueError)


@dataclass
class Work:
    """What runs, and the ways to disturb it."""

    server: Server
    keys: dict[str, str]  # secrets by name
    gpu: subprocess.Popen[bytes]
    ended: threading.Event = field(default_factory=threading.Event)

    def ask(self, model: str, key: str, tokens: int = 16, *, stream: bool = True, leave: bool = False) -> int:
        """One chat to its end, or until its first bytes came and its client leaves. The status; 0 for none."""
        where = urlsplit(self.server.url)
        connection = http.client.HTTPConnection(where.hostname or "", where.port, timeout=120)
        said = [{"role": "user", "content": "the same words again and again, so that they are kept"}]
        body = {"model": model, "messages": said, "max_tokens": tokens, "stream": stream}
        fields = {"Authorization": f"Bearer {self.keys[key]}", "Content-Type": "application/json"}
        try:
            connection.request("POST", CHAT, json.dumps(body), fields)
            answer = connection.getresponse()
            if leave:
                answer.read1(1)
            else:
                while not self.ended.is_set() and answer.read1(65536):
                    pass
            return answer.status
        except _GONE:
            return 0
        finally:
            connection.close()

    def kill(self, model: str) -> bool:
        """kill -9 of the model's engine while it answers; whether there was one."""
        for unit in self.server.client.units():
            if unit.model == model and unit.busy and unit.pid is not None:
                with suppress(ProcessLookupError):
                    os.kill(unit.pid, signal.SIGKILL)
                    return True
        return False

    def freeze(self, model: str) -> bool:
        """Stops the model's engine without ending it, as a driver that hangs would."""
        for unit in self.server.client.units():
            if unit.model == model and unit.state == "ready" and unit.pid is not None:
                os.kill(unit.pid, signal.SIGSTOP)
                return True
        return False

    def pause_server(self, seconds: float) -> None:
        """The server itself gets no processor for so long."""
        os.kill(self.server.pid, signal.SIGSTOP)
        try:
            time.sleep(seconds)
        finally:
            os.kill(self.server.pid, signal.SIGCONT)


CONFIG = """
    require_keys: true
    memory: {{cpu: 2GiB}}
    timeouts: {{hang: 6s, drain: 1s}}
    registries: {{"{registry}": {{insecure: true, private: true}}}}
    models:
      - {{name: talk, source: {talk}, executable: embedded, args: [--threads, "1"]}}
      - {{name: left, source: {left}, executable: embedded, args: [--threads, "1"], group: pair}}
      - {{name: right, source: {right}, executable: embedded, args: [--threads, "1"], group: pair}}
      - {{name: broken, source: {broken}, executable: embedded}}
      - name: far
        source: {far}
        executable: {program}
        context: 512
        args: [--rpc, "127.0.0.1:{port}", --no-warmup]
      - name: farther
        source: {far}
        executable: {program}
        context: 512
        gpu_layers: 99
        cpu_fallback: false
        args: [--rpc, "127.0.0.1:{port}", --no-warmup]
"""


@contextmanager
def busy(paths: Paths, place: Path) -> Iterator[Work]:
    """Everything above, until the block is left. Needs a built llama-server: skips the test without one."""
    program, port = llama_server(), free_port()
    talk, far = write_random(place / "talk.gguf"), write_random(place / "far.gguf", 1)
    left, right = write_chain(place / "left.gguf", ["to", "be"]), write_chain(place / "right.gguf", ["or", "not"])
    broken = write_random(place / "broken.gguf", 2)
    corrupt(broken, "truncated tensors")
    with ExitStack() as stack:
        registry = stack.enter_context(serving())
        stuck(registry)
        gpu = stack.enter_context(rpc_server(program, port))
        config = CONFIG.format(
            registry=registry.host,
            talk=talk,
            left=left,
            right=right,
            broken=broken,
            far=far,
            program=program,
            port=port,
        )
        server = stack.enter_context(Server(paths, config))
        asks = [
            KeyAsk("laptop", tokens_per_day=100_000_000), KeyAsk("batch", tokens_per_month=100_000_000),
            KeyAsk("tight", requests_per_minute=1),
        ]  # fmt: skip
        work = Work(server, {ask.name: server.client.create_key(ask).secret for ask in asks}, gpu)
        threads = [threading.Thread(target=each, args=(work,)) for each in (*(_talk,) * 6, _plain, _swap, _mischief)]
        for thread in threads:
            thread.start()
            stack.callback(thread.join)
        stack.callback(registry.let_go.set)
        stack.callback(work.ended.set)
        server.client.pull(PullAsk(f"{registry.host}/me/large"))
        yield work


def stuck(registry: FaultyRegistry) -> None:
    """A model that comes slowly at first, and then not at all, however often it is asked for."""
    registry.model("me/large", b"GGUF" + noise(32 << 20))
    registry.faults = [Fault(times=-1, pace_s=0.2, stall_after=2 << 20)]


def _repeat(work: Work, once: Callable[[], object], pause_s: float) -> None:
    while not work.ended.is_set():
        with suppress(CorralError):
            once()
        work.ended.wait(pause_s)


def _talk(work: Work) -> None:
    _repeat(work, lambda: work.ask("talk", "laptop", 600), 0.0)


def _plain(work: Work) -> None:
    _repeat(work, lambda: work.ask("talk", "batch", 48, stream=False), 0.5)


def _swap(work: Work) -> None:
    _repeat(work, lambda: [work.ask(model, "batch", 4) for model in ("left", "right")], 6.0)


def _mischief(work: Work) -> None:
    """Clients that leave, keys that have had enough, models that are not there or cannot start."""

    def once() -> None:
        work.ask("talk", "laptop", 64, leave=True)
        work.ask("right", "tight", 2)
        work.ask("nobody", "batch", 2)
        work.ask("broken", "batch", 2)
        work.ask("far", "batch", 2)
        work.ask("farther", "batch", 2)  # with its GPU lost, an error each time

    _repeat(work, once, 5.0)
