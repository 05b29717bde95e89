"""The daemon's end of the connection to the warden: requests by id, exits as futures."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, cast

from corral import clock
from corral.config.paths import Paths
from corral.errors import ConfigError, EngineError
from corral.lazy_dataclass import dataclass
from corral.runners.launch import IDLE_S, LINGER_S, start_warden
from corral.runners.runner import Exit

PROTOCOL = 1
"""The warden's protocol version that this link speaks. Source: docs/warden.md."""

Born = Literal["exec", "nursery"]
"""By a plain spawn, or by a fork of a process that had the engine's library loaded. The two behave the same."""

ANSWER_WITHIN_S = 10.0
"""The warden never waits for anything before it answers; only a program on a slow disk makes `spawn` take longer."""


class WardenRefused(EngineError):
    """The warden could not do what was asked; `details['reason']` has its code, such as ENOENT."""

    code, status = "warden_refused", 502


class WardenLost(EngineError):
    """The connection to the warden ended. Its engines end with it."""

    code, status = "warden_lost", 503


@dataclass(frozen=True, slots=True)
class Known:
    """One engine as the warden lists it."""

    unit: str
    pid: int
    state: Literal["starting", "running", "stopping", "exited"]
    started_wall_s: float
    leash: str
    log: Path
    exit: Exit | None
    plan: Any  # the opaque JSON given at spawn


class WardenLink(asyncio.Protocol):
    """One connection. Use `connect`; leaving `async with` closes it, which to the warden is a daemon that went away.

    `pid` is the warden's. All of it belongs to one event loop; it has no task of its own.
    """

    pid: int = 0

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._inbox = bytearray()
        self._next_id = 1
        self._replies: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._exits: dict[str, asyncio.Future[Exit]] = {}
        self._lost: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    # What the rest of the daemon uses.

    @classmethod
    async def connect(
        cls,
        paths: Paths,
        *,
        role: Literal["daemon", "observer"] = "daemon",
        linger_s: float = LINGER_S,
        idle_s: float = IDLE_S,
        within_s: float = 15.0,
    ) -> WardenLink:
        """A link to the warden of this state directory; one is started when none answers, with `linger_s` and `idle_s`.

        Raises ConfigError when none can be reached or started.
        """
        deadline = clock.monotonic() + within_s
        while True:
            link = await cls._try(paths, role)
            if link is not None:
                return link
            # One that has the lock and does not answer is starting or ending: both are over in a moment.
            started = await start_warden(paths, linger_s=linger_s, idle_s=idle_s)
            # It listens by now: on a machine that is short of time its start may have taken all that there was.
            if started and (link := await cls._try(paths, role)) is not None:
                return link
            if clock.monotonic() > deadline:
                raise ConfigError(
                    f"a warden has locked {paths.warden_dir} but does not answer on {paths.warden_socket}",
                    hint=f"`pgrep -fa {paths.warden_dir}` finds it; ending it ends its engines",
                )
            if not started:
                await asyncio.sleep(0.02)

    @classmethod
    async def _try(cls, paths: Paths, role: Literal["daemon", "observer"]) -> WardenLink | None:
        """A link, or None when no warden is there or the one that is there is just ending."""
        loop = asyncio.get_running_loop()
        try:
            _, link = await loop.create_unix_connection(cls, str(paths.warden_socket))
        except (FileNotFoundError, ConnectionError):
            return None
        except OSError as error:
            raise ConfigError(
                f"cannot reach the warden at {paths.warden_socket}: {error.strerror or error}",
                hint="the socket's directory must belong to this user, and its path have 103 bytes at most",
            ) from error
        try:
            await link.greet(role)
        except BaseException as error:
            await link.aclose()
            if isinstance(error, WardenLost) or (
                isinstance(error, WardenRefused) and error.details["reason"] == "shutting_down"
            ):
                return None
            raise
        return link

    @property
    def is_lost(self) -> bool:
        """The connection has ended, by whichever side."""
        return self._lost.done()

    async def lost(self) -> str:
        """Returns, in words, once the connection has ended. Every unit's exit has then been told, unseen ones too."""
        return await asyncio.shield(self._lost)

    async def spawn(
        self,
        unit: str,
        argv: Sequence[str],
        *,
        env: Mapping[str, str],
        cwd: Path,
        log: Path,
        leash: str = "survive",
        plan: Any = None,
    ) -> tuple[int, Born]:
        """Starts an engine: its pid, and how it came to be. From here on `exit_of(unit)` will be told. `env` is all it
        gets.

        Raises WardenRefused (`reason`: ENOENT, EACCES, unit_exists …) or WardenLost.
        """
        future = self._exits[unit] = asyncio.get_running_loop().create_future()
        request = {"unit": unit, "argv": list(argv), "env": dict(env), "cwd": str(cwd), "log": str(log)}
        try:
            reply = await self._ask("spawn", **request, leash=leash, plan=plan)
        except WardenRefused:
            if self._exits.get(unit) is future:
                del self._exits[unit]
            raise
        return int(reply["pid"]), reply.get("born", "exec")

    def exit_of(self, unit: str) -> asyncio.Future[Exit]:
        """A future for the unit's exit; shield it before awaiting. One for a unit that nobody started never ends,
        unless the warden is lost."""
        future = self._exits.get(unit)
        if future is None:
            future = self._exits[unit] = asyncio.get_running_loop().create_future()
            if self.is_lost:
                future.set_result(Exit(at_wall_s=clock.wall()))
        return future

    async def signal(self, unit: str, number: int) -> None:
        """Sends a signal to the engine's group. Raises WardenRefused (`exited`, `unknown_unit`) or WardenLost."""
        await self._ask("signal", unit=unit, signal=number)

    async def stop(self, unit: str, grace_s: float) -> None:
        """Has the warden send TERM now and KILL after `grace_s`, which it does even when we end meanwhile. Returns at
        once; `exit_of` tells the end. Raises WardenRefused or WardenLost."""
        await self._ask("stop", unit=unit, grace_s=grace_s)

    def stop_soon(self, unit: str, grace_s: float) -> None:
        """`stop` without waiting for the answer. Does nothing once lost."""
        if not self.is_lost:
            self._send({"op": "stop", "unit": unit, "grace_s": grace_s})

    async def list(self) -> list[Known]:
        """Every engine that was not forgotten, ended ones included. Raises WardenLost."""
        return [_known(entry) for entry in (await self._ask("list"))["engines"]]

    async def forget(self, unit: str) -> None:
        """Removes an ended engine's record. Raises WardenRefused (`alive`, `unknown_unit`) or WardenLost."""
        await self._ask("forget", unit=unit)
        self._exits.pop(unit, None)

    def forget_soon(self, unit: str) -> None:
        """`forget` without waiting for the answer; a refusal is of no consequence. Does nothing once lost."""
        self._exits.pop(unit, None)
        if not self.is_lost:
            self._send({"op": "forget", "unit": unit})

    async def nursery(self, argv: Sequence[str], stands_for: Sequence[str], env: Mapping[str, str]) -> None:
        """Has the warden start a nursery in the background, for engines whose argv begins with `stands_for` and whose
        environment is `env`; nothing when it has it. Raises WardenRefused (`unknown_op` of an old warden) or
        WardenLost."""
        await self._ask("nursery", argv=list(argv), stands_for=list(stands_for), env=dict(env))

    async def nursery_state(self) -> Mapping[str, Any]:
        """`state` (`none`, `starting`, `ready`, `unfit`), `pid`, `why` and `pss_kb`. Raises WardenRefused or
        WardenLost."""
        state: Mapping[str, Any] = await self._ask("nursery")
        return state

    async def bye(self) -> None:
        """Tells the warden that we leave on purpose: engines go on, whatever their leash, until it lingered long
        enough. Raises WardenLost."""
        await self._ask("bye")

    async def shutdown(self, grace_s: float) -> None:
        """Has the warden end all engines and then itself; returns once it did, or `grace_s` and some seconds later."""
        try:
            await self._ask("shutdown", grace_s=grace_s)
            async with asyncio.timeout(grace_s + ANSWER_WITHIN_S):
                await self.lost()
        except (WardenLost, WardenRefused, TimeoutError):
            return

    async def aclose(self) -> None:
        if self._transport is not None:
            self._transport.close()
            await self.lost()

    async def __aenter__(self) -> WardenLink:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def greet(self, role: Literal["daemon", "observer"]) -> None:
        """The first request. Raises WardenRefused (`shutting_down`, `protocol`) or WardenLost."""
        reply = await self._ask("hello", role=role)
        if reply.get("protocol") != PROTOCOL:
            raise WardenRefused(
                f"the running warden speaks protocol {reply.get('protocol')}, this Corral speaks {PROTOCOL}",
                hint=f"it belongs to another version of Corral; end it, and its engines, with: kill {reply.get('pid')}",
                reason="protocol",
            )
        self.pid = int(reply["pid"])

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one in all but ancestry

    def data_received(self, data: bytes) -> None:
        self._inbox += data
        while (end := self._inbox.find(b"\n")) >= 0:
            line = bytes(self._inbox[:end])
            del self._inbox[: end + 1]
            self._take(json.loads(line))

    def connection_lost(self, error: Exception | None) -> None:
        why = f"the connection to the warden broke: {error}" if error else "the connection to the warden ended"
        if not self._lost.done():
            self._lost.set_result(why)
        for reply in self._replies.values():
            if not reply.done():
                reply.set_exception(_lost(why))
        for told in self._exits.values():
            if not told.done():
                told.set_result(Exit(at_wall_s=clock.wall()))

    def _take(self, message: dict[str, Any]) -> None:
        if message.get("event") == "exited":
            future = self.exit_of(message["unit"])
            if not future.done():
                future.set_result(_exit(message))
            return
        reply = self._replies.pop(message.get("id") or 0, None)
        if reply is not None and not reply.done():
            reply.set_result(message)

    def _send(self, request: dict[str, Any]) -> None:
        assert self._transport is not None
        self._transport.write(json.dumps(request, separators=(",", ":")).encode("ascii") + b"\n")

    async def _ask(self, op: str, **arguments: Any) -> dict[str, Any]:
        if self.is_lost:
            raise _lost(self._lost.result())
        number, self._next_id = self._next_id, self._next_id + 1
        reply = self._replies[number] = asyncio.get_running_loop().create_future()
        self._send({"id": number, "op": op, **arguments})
        try:
            async with asyncio.timeout(ANSWER_WITHIN_S):
                message: dict[str, Any] = await reply
        except TimeoutError:
            raise WardenRefused(
                f"the warden (process {self.pid}) did not answer {op!r} within {ANSWER_WITHIN_S:.0f} s",
                hint="it may be stopped, or the machine out of memory; look at warden.log in the state directory",
                reason="no_answer",
            ) from None
        finally:
            self._replies.pop(number, None)
        if not message["ok"]:
            error = message["error"]
            hint = "warden.log in the state directory may say more"
            raise WardenRefused(error["text"], hint=hint, reason=error["code"], about=error.get("about", ""))
        return message


def _lost(why: str) -> WardenLost:
    return WardenLost(why, hint="Corral starts another one; warden.log in the state directory may say why")


def _exit(data: Mapping[str, Any]) -> Exit:
    return Exit(code=data["code"], signal=data["signal"], at_wall_s=data["at"], asked=data["asked"])


def _known(entry: Mapping[str, Any]) -> Known:
    return Known(
        unit=entry["unit"],
        pid=entry["pid"],
        state=entry["state"],
        started_wall_s=entry["started_wall_s"],
        leash=entry["leash"],
        log=Path(entry["log"]),
        exit=None if entry["exit"] is None else _exit(entry["exit"]),
        plan=entry["plan"],
    )
