"""Asking the child that asks the GPUs' drivers: once, or again and again of one that stays.

Whatever a driver does, the answer comes within a deadline; a child that hangs or crashed is replaced at a later look,
the later the more often it happened.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from corral import clock
from corral.hardware.devices import Answer
from corral.hardware.gpus import Gpu

FIRST_WITHIN_S: Final = 10.0
"""How long a child may take over its first answer: a driver that has to be loaded takes seconds."""
WITHIN_S: Final = 2.0
"""How long over each later one."""
LONGEST_PAUSE_S: Final = 60.0
UNUSED_S: Final = 60.0
"""After so long without a question the child ends: an open driver keeps a GPU from going to sleep."""
_REAPED_WITHIN_S: Final = 0.5  # a process that hangs in the kernel is not even ended by KILL: it is left alone then
_LONGEST_ANSWER: Final = 1 << 20
_HOLDERS: Final = ("dev/nvidiactl", "dev/dxg", "dev/kfd")


def worth_asking(gpus: Iterable[Gpu], root: Path = Path("/")) -> bool:
    """Whether a driver is there that could be asked: without one no child is started."""
    return any(gpu.problem is None for gpu in gpus) or any((root / name).exists() for name in _HOLDERS)


def command(root: Path = Path("/"), library: Path | None = None, patience_s: float = 3 * FIRST_WITHIN_S) -> list[str]:
    """The argv of a child. `library` is a folder to import NVIDIA's library from first."""
    program = str(Path(__file__).with_name("gpu_child.py").resolve())
    argv = [sys.executable, "-I", program, "--root", str(root), "--patience", str(patience_s)]
    return argv if library is None else [*argv, "--library", str(library)]


def ask_once(argv: list[str], pids: Iterable[int] = (), within_s: float = FIRST_WITHIN_S) -> Answer:
    """One look by a child that ends with it. Blocks, `within_s` at most and a moment. Never raises: what went wrong is
    among the notes."""
    try:
        child = subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True
        )
    except OSError as error:
        return Answer(notes=(f"GPUs cannot be asked for their memory: {error}",))
    try:
        said, _ = child.communicate(_request(pids), timeout=within_s)
        return _read(said, _how(child.returncode))
    except subprocess.TimeoutExpired:
        return Answer(notes=(_hangs(within_s),))
    finally:
        for pipe in (child.stdin, child.stdout):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()
        child.kill()
        with suppress(subprocess.TimeoutExpired):
            child.wait(_REAPED_WITHIN_S)


class Asker:
    """A child that stays, and the replacements it needs. One event loop; one question at a time. Close it."""

    def __init__(
        self,
        argv: list[str],
        *,
        first_within_s: float = FIRST_WITHIN_S,
        within_s: float = WITHIN_S,
        unused_s: float = UNUSED_S,
    ) -> None:
        self._argv, self._first_s, self._within_s, self._unused_s = argv, first_within_s, within_s, unused_s
        self._timer: asyncio.TimerHandle | None = None
        self._ending: asyncio.Task[None] | None = None
        self._child: asyncio.subprocess.Process | None = None
        self._asking = asyncio.Lock()
        self._failures = 0
        self._not_before = 0.0
        self._fault = ""
        self._answered = False

    @property
    def pid(self) -> int | None:
        """Of the child that would be asked next."""
        return None if self._child is None else self._child.pid

    async def ask(self, pids: Iterable[int] = ()) -> Answer:
        """What the drivers say now; after a failure, for a while, only a note that says so. Bounded."""
        async with self._asking:
            self._stop_timer()
            if clock.monotonic() < self._not_before:
                return Answer(notes=(self._fault,))
            limit = self._within_s if self._answered else self._first_s
            try:
                async with asyncio.timeout(limit):
                    answer = await self._asked(_request(pids))
            except TimeoutError:
                return await self._failed(_hangs(limit))
            except (OSError, ValueError) as error:
                return await self._failed(f"GPUs cannot be asked for their memory: {error}")
            except asyncio.CancelledError:
                await self._end()  # its answer would be taken for the next one's
                raise
            self._failures, self._answered = 0, True
            self._timer = asyncio.get_running_loop().call_later(self._unused_s, self._unused)
            return answer

    async def _asked(self, request: bytes) -> Answer:
        if self._child is None:
            self._child = await asyncio.create_subprocess_exec(
                *self._argv,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
                limit=_LONGEST_ANSWER,
            )
        child = self._child
        assert child.stdin is not None and child.stdout is not None
        with suppress(ConnectionError):  # it has ended: the empty answer says so too
            child.stdin.write(request)
            await child.stdin.drain()
        line = await child.stdout.readline()
        if not line:
            raise OSError(_how(await child.wait()))
        return _read(line, "")

    async def _failed(self, fault: str) -> Answer:
        await self._end()
        self._failures += 1
        self._fault = fault
        self._not_before = clock.monotonic() + min(LONGEST_PAUSE_S, 0.5 * 2.0**self._failures)
        return Answer(notes=(fault,))

    async def _end(self) -> None:
        child, self._child, self._answered = self._child, None, False
        if child is None:
            return
        with suppress(ProcessLookupError):
            child.kill()
        if child.stdin is not None:
            child.stdin.close()
        with suppress(TimeoutError):
            async with asyncio.timeout(_REAPED_WITHIN_S):
                await child.wait()

    def _unused(self) -> None:
        self._timer = None  # it has run; whoever asks before the end comes about makes another
        self._ending = asyncio.create_task(self._end_unused(), name="end the child that asks GPUs")

    async def _end_unused(self) -> None:
        async with self._asking:
            if self._timer is None:  # nobody asked meanwhile
                await self._end()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    async def aclose(self) -> None:
        """Ends the child. Waits for a question that is being asked."""
        async with self._asking:
            self._stop_timer()
            await self._end()
        if self._ending is not None:
            await asyncio.wait({self._ending})


def _request(pids: Iterable[int]) -> bytes:
    return json.dumps({"pids": list(pids)}).encode() + b"\n"


def _read(line: bytes, otherwise: str) -> Answer:
    try:
        said: Any = json.loads(line)
        return Answer(tuple(said["gpus"]), tuple(map(str, said["notes"])))
    except (ValueError, KeyError, TypeError):
        return Answer(notes=(f"GPUs cannot be asked for their memory: {otherwise or 'the answer makes no sense'}",))


def _how(code: int | None) -> str:
    return (
        f"the child that asks their drivers ended by signal {-code}"
        if code and code < 0
        else (f"the child that asks their drivers ended with exit code {code}")
    )


def _hangs(seconds: float) -> str:
    return f"GPUs cannot be asked for their memory: their drivers did not answer within {seconds:g} s"
