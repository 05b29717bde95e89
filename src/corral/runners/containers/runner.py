"""The container runner: engines in containers of Podman or Docker. They outlive Corral by themselves."""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

from corral import __version__, clock
from corral.engines.plan import LaunchPlan
from corral.errors import CorralError, EngineError, EngineMissing, StartFailed
from corral.runners import memory
from corral.runners.containers import argv, naming
from corral.runners.containers.containers import Containers
from corral.runners.containers.host import ended_as
from corral.runners.containers.local import readable_by_all
from corral.runners.containers.records import Record
from corral.runners.containers.running import ContainerRunning, process_here, whole
from corral.runners.containers.spec import ContainerSpec, spec_of
from corral.runners.environment import container_environment
from corral.runners.runner import Departed, Exit, Preview, Running, Survivor


class ContainerRunner:
    """The `Runner` of one kind of container engine. It belongs to the event loop."""

    def __init__(self, containers: Containers, say: Callable[[str], None] = lambda text: None) -> None:
        self._containers, self._say = containers, say
        self._running: set[ContainerRunning] = set()

    async def start(self, plan: LaunchPlan, log: Path) -> Running:
        engine = self._containers.engine
        try:
            spec = await asyncio.to_thread(self._prepare, plan, log)
            await whole(asyncio.to_thread(engine.run, spec, log))
            pid = await self._pid_of(spec.name, plan)
        except BaseException as error:
            name = naming.container_name(self._containers.state, plan.unit)
            with suppress(CorralError, OSError):
                await whole(asyncio.to_thread(self._clean, name, plan, None))
            if isinstance(error, EngineError) and not error.details.get("model"):
                raise _of_model(error, plan) from error
            raise
        return self._watch(plan, spec.name, pid, log, since="")

    async def survivors(self) -> Sequence[Survivor]:
        found: list[Survivor] = []
        for record in await asyncio.to_thread(self._containers.records.all):
            with self._told(record):
                seen = await asyncio.to_thread(self._containers.engine.inspect, record.name)
                leashed = record.plan is not None and record.plan.leash == "die-with-daemon"
                if seen is not None and seen.running and record.plan is not None and not leashed:
                    pid = await self._pid_of(record.name, record.plan)
                    running = self._watch(record.plan, record.name, pid, record.log, since=_since(record.log))
                    found.append(Survivor(running, record.plan, record.log, record.started_wall_s))
                elif seen is None or not seen.running or record.plan is None or leashed:
                    # Only a server can end a container: of one that was to go with its server, this is the first.
                    await whole(asyncio.to_thread(self._clean, record.name, record.plan, None))
        return found

    async def departed(self) -> Sequence[Departed]:
        """Those that ended while nobody looked. What is left of them, and of any that was never started, is removed."""
        records = await asyncio.to_thread(self._containers.records.all)
        found: list[Departed] = []
        for record in records:
            with self._told(record):
                seen = await asyncio.to_thread(self._containers.engine.inspect, record.name)
                if seen is not None and seen.running:
                    continue
                if seen is not None and seen.exit_code is not None and record.plan is not None:
                    code, signal = ended_as(seen.exit_code)
                    reached = _limit(record.plan) if seen.oom_killed else 0
                    exit_ = Exit(code, signal, record.started_wall_s, limit_bytes=reached)
                    found.append(Departed(record.plan.unit, record.plan, record.log, exit_))
                await whole(asyncio.to_thread(self._clean, record.name, record.plan, None))
        if records:
            await self._remove_unknown({record.name for record in records})
        return found

    def memory_bytes(self, running: Running) -> int | None:
        return None if running.pid is None else memory.resident_bytes(running.pid)

    def preview(self, plan: LaunchPlan) -> Preview:
        kind = self._containers.kind
        driver = "passthrough" if kind == "podman" else "json-file"
        command = argv.run_command(kind, kind, self._spec(plan), log_driver=driver)
        return Preview(command.argv, command.env)

    async def aclose(self) -> None:
        """Looks at no container any more; they go on. What has ended is removed first."""
        for running in list(self._running):
            await running.let_go()

    async def _pid_of(self, name: str, plan: LaunchPlan) -> int | None:
        """Of its first process, where that is one of this machine."""

        def look() -> int | None:
            engine = self._containers.engine
            seen = engine.inspect(name)
            return None if seen is None or engine.host().remote else seen.pid

        return await process_here(await asyncio.to_thread(look), plan.argv[0])

    def _spec(self, plan: LaunchPlan) -> ContainerSpec:
        return spec_of(
            plan,
            self._containers.engine.host(),
            state=self._containers.state,
            version=__version__,
            env=container_environment(plan.env),
            readable=readable_by_all(mount.source for mount in plan.mounts),
        )

    def _prepare(self, plan: LaunchPlan, log: Path) -> ContainerSpec:
        """Everything that has to be there before the container is."""
        spec = self._spec(plan)
        if plan.endpoint.socket is not None:
            folder = plan.endpoint.socket.parent
            folder.mkdir(mode=0o700, exist_ok=True)
            # Nobody else gets to it: the folder above is this user's alone.
            folder.chmod(0o777 if spec.open_sockets else 0o700)
            plan.endpoint.socket.unlink(missing_ok=True)
        # What runs a container gives its output to the container's user: ours reads it by its group.
        log.touch()
        log.chmod(0o660)
        self._containers.records.write(spec.name, plan, log, clock.wall())
        return spec

    def _watch(self, plan: LaunchPlan, name: str, pid: int | None, log: Path, *, since: str) -> ContainerRunning:
        engine = self._containers.engine
        follower = None if engine.keeps_logs else engine.follow(name, log, since)
        running = ContainerRunning(
            self._containers, plan.unit, name, pid, clean=partial(self._clean, name, plan, follower), follower=follower,
            limit_bytes=_limit(plan),
        )  # fmt: skip
        self._running.add(running)
        running.when_gone(lambda: self._running.discard(running))
        return running

    def _clean(self, name: str, plan: LaunchPlan | None, follower: Callable[[float], None] | None) -> None:
        """Removes the container and what was made for it; its record last, so that a failure is tried again."""
        if follower is not None:
            follower(2.0)
        self._containers.engine.remove(name)
        if plan is not None and (socket := plan.endpoint.socket) is not None:
            with suppress(OSError):
                socket.unlink(missing_ok=True)
            with suppress(OSError):
                socket.parent.rmdir()  # its own folder; that of all units is not empty, or is made again
        self._containers.records.forget(name)

    async def _remove_unknown(self, known: set[str]) -> None:
        """Containers with our label that no record has any more."""
        with suppress(CorralError):
            label = f"{naming.STATE}={self._containers.state}"
            for name in set(await asyncio.to_thread(self._containers.engine.ours, label)) - known:
                await asyncio.to_thread(self._containers.engine.remove, name)

    def _told(self, record: Record) -> _Told:
        return _Told(lambda why: self._say(f"the container {record.name} of an earlier server is left as it is: {why}"))


class _Told:
    """Says what went wrong inside it, and goes on."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        if not isinstance(error, (CorralError, OSError)):
            return False
        self._say(str(error))
        return True


def _limit(plan: LaunchPlan) -> int:
    return 0 if plan.limits is None else plan.limits.memory_bytes


def _since(log: Path) -> str:
    """When the log was last written to: what came later is still to be had."""
    try:
        at = log.stat().st_mtime
    except OSError:
        return ""
    return datetime.datetime.fromtimestamp(at, datetime.UTC).isoformat()


def _of_model(error: EngineError, plan: LaunchPlan) -> EngineError:
    kind = EngineMissing if isinstance(error, EngineMissing) else StartFailed
    text = f"{plan.model} could not be started: {error.message}"
    return kind(text, hint=error.hint, **{**error.details, "model": plan.model})
