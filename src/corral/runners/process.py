"""The process runner: engines as plain processes of this machine, owned by the warden."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from corral import clock
from corral.config.paths import Paths
from corral.engines import embedded_host
from corral.engines.plan import LaunchPlan
from corral.errors import EngineMissing, StartFailed
from corral.runners import confinement, memory, nursery
from corral.runners.environment import engine_environment
from corral.runners.link import Born, Known, WardenLink, WardenLost, WardenRefused
from corral.runners.record import dump_plan, load_plan
from corral.runners.runner import Departed, Exit, Preview, Running, Survivor

AFTER_KILL_S = 5.0
"""How long `stop` waits for what KILL should have ended."""


class ProcessRunning:
    """One engine of the warden's. Its exit is remembered here, so the warden is told to forget it at once."""

    def __init__(
        self, link: WardenLink, unit: str, pid: int, born: Born = "exec", plan: LaunchPlan | None = None
    ) -> None:
        self._link, self._unit, self._pid, self.born = link, unit, pid, born
        self._exit = link.exit_of(unit)
        self._plan = plan
        self._boxed = plan is not None and bool(plan.sandbox)
        self._limit_bytes = 0
        if self._exit.done():
            self._ended(self._exit)
        else:
            self._exit.add_done_callback(self._ended)

    def __repr__(self) -> str:
        return f"<ProcessRunning {self._unit} pid={self._pid} {'ended' if self._exit.done() else 'running'}>"

    @property
    def unit(self) -> str:
        return self._unit

    @property
    def pid(self) -> int | None:
        return self._pid

    async def wait(self) -> Exit:
        exit = await asyncio.shield(self._exit)  # after `_ended`, which was added before
        exit = confinement.exit_of(exit) if self._boxed else exit
        return replace(exit, limit_bytes=self._limit_bytes) if self._limit_bytes else exit

    def _ended(self, _: asyncio.Future[Exit]) -> None:
        if self._plan is not None:
            self._limit_bytes = confinement.leave(self._plan)
        self._link.forget_soon(self._unit)

    async def stop(self, grace_s: float) -> Exit:
        """An exit with neither code nor signal means: not even KILL ended it in time (it hangs in the kernel), or the
        warden was lost. `wait` goes on in the first case."""
        try:
            if not self._exit.done():
                await self._link.stop(self._unit, grace_s)
        except WardenLost:
            return await self.wait()
        except WardenRefused:
            if not self._exit.done():
                return Exit(at_wall_s=clock.wall(), asked=True)
        try:
            async with asyncio.timeout(grace_s + AFTER_KILL_S):
                return await self.wait()
        except TimeoutError:
            return Exit(at_wall_s=clock.wall(), asked=True)


class ProcessRunner:
    """Starts and adopts engines through one link, and makes a new one when the warden was lost."""

    def __init__(self, link: WardenLink, paths: Paths) -> None:
        self._link, self._paths = link, paths
        self._embedded = embedded_host.command()
        self._relinking = asyncio.Lock()
        self._uses_embedded = asyncio.Event()

    @property
    def link(self) -> WardenLink:
        """The link in use. It belongs to whoever made the runner, replacements included: close this one at the end."""
        return self._link

    async def start(self, plan: LaunchPlan, log: Path) -> Running:
        link = await self._living_link(plan)
        if plan.sandbox:
            await asyncio.to_thread(confinement.prepare, plan)
        try:
            pid, born = await link.spawn(
                plan.unit,
                plan.argv,
                env=engine_environment(plan.env),
                cwd=plan.cwd or self._paths.state_dir,
                log=log,
                leash=plan.leash,
                plan=dump_plan(plan),
            )
        except WardenRefused as refusal:
            if refusal.details.get("reason") == "no_answer":
                link.stop_soon(plan.unit, 0.0)
            raise _refused(plan, refusal) from refusal
        except WardenLost as error:
            raise StartFailed(error.message, hint=error.hint, model=plan.model, kind="unseen") from error
        except asyncio.CancelledError:
            link.stop_soon(plan.unit, 0.0)  # nobody would know of what is being started
            raise
        if plan.argv[: len(self._embedded)] == self._embedded:
            self._uses_embedded.set()
        running = ProcessRunning(link, plan.unit, pid, born, plan)
        if plan.limits is not None:
            try:
                await asyncio.to_thread(confinement.bound, plan, pid)
            except BaseException:
                link.stop_soon(plan.unit, 0.0)
                raise
        return running

    def expect_embedded(self) -> None:
        """Has `keep_nursery` begin before the first embedded engine is started."""
        self._uses_embedded.set()

    async def keep_nursery(self, say: Callable[[str], None]) -> None:
        """Has the warden keep a nursery, from the first embedded engine on and for ever: a task of whoever owns this.
        `say` is told once when there can be none, and engines are then spawned plainly."""
        await self._uses_embedded.wait()
        why = await asyncio.to_thread(nursery.why_not)
        while not why:
            link = self._link
            try:
                await link.nursery(nursery.command(), nursery.stands_for(), engine_environment({}))
            except WardenLost:
                pass
            except WardenRefused as refusal:
                why = refusal.message
                break
            await link.lost()
            while self._link is link:  # until somebody starts an engine, and with it another warden
                self._uses_embedded.clear()
                await self._uses_embedded.wait()
        say(f"embedded engines are started without a nursery: {why}")

    async def survivors(self) -> Sequence[Survivor]:
        adopted, ending = [], []
        for known in await self._link.list():
            if known.state == "exited":
                continue
            plan = _readable(known)
            running = ProcessRunning(self._link, known.unit, known.pid, plan=plan)
            if plan is not None and known.state != "stopping":
                adopted.append(Survivor(running, plan, known.log, known.started_wall_s))
            else:
                ending.append(running)
        await asyncio.gather(*(running.stop(AFTER_KILL_S) for running in ending))
        return adopted

    async def departed(self) -> Sequence[Departed]:
        """Engines of an earlier daemon that ended while nobody looked, with how they ended. Told once: the warden
        forgets them."""
        found = []
        for known in await self._link.list():
            if known.exit is not None:
                plan = _readable(known)
                boxed = plan is not None and bool(plan.sandbox)
                exit = confinement.exit_of(known.exit) if boxed else known.exit
                if plan is not None and (reached := confinement.leave(plan)):
                    exit = replace(exit, limit_bytes=reached)
                found.append(Departed(known.unit, plan, known.log, exit))
                self._link.forget_soon(known.unit)
        return found

    def preview(self, plan: LaunchPlan) -> Preview:
        return Preview(plan.argv, engine_environment(plan.env))

    async def aclose(self) -> None:
        """Nothing: whoever made the link closes it."""

    def memory_bytes(self, running: Running) -> int | None:
        return None if running.pid is None else memory.resident_bytes(running.pid)

    async def _living_link(self, plan: LaunchPlan) -> WardenLink:
        async with self._relinking:
            if self._link.is_lost:
                try:
                    self._link = await WardenLink.connect(self._paths)
                except (WardenLost, WardenRefused) as error:
                    raise StartFailed(error.message, hint=error.hint, model=plan.model) from error
            return self._link


def _readable(known: Known) -> LaunchPlan | None:
    try:
        return load_plan(known.plan)
    except ValueError:
        return None


def _refused(plan: LaunchPlan, refusal: WardenRefused) -> EngineMissing | StartFailed:
    details = {"model": plan.model, "reason": refusal.details.get("reason")}
    if refusal.details.get("about") == "executable":
        hint = "install the engine, or name its executable in models.yaml; `corral doctor` shows what is here"
        return EngineMissing(f"the engine of {plan.model} cannot be run: {refusal.message}", hint=hint, **details)
    hint = "`corral doctor` checks directories, disk space and limits; warden.log in the state directory may say more"
    return StartFailed(f"{plan.model} could not be started: {refusal.message}", hint=hint, **details)
