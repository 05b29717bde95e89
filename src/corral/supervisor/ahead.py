"""What can be done for a start before it may happen: the plan made, the log prepared, the model's file pulled in."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from corral import clock
from corral.config.settings import ModelSettings
from corral.engines.plan import LaunchPlan
from corral.supervisor.prefetch import Prefetch

FRESH_S = 10.0
"""An older plan is made again: the files that it was made from may have changed."""


class Ahead:
    """The preparation of one start: of one unit, with one model's settings and one generation.

    Whoever makes it has `run` run as a task, and calls `drop` in the end.
    """

    def __init__(
        self,
        model: ModelSettings,
        generation: int,
        make: Callable[[], tuple[LaunchPlan, Path]],
        forgone: Callable[[], None],
        after: Ahead | None = None,
        planned: Callable[[LaunchPlan], None] = lambda plan: None,
    ) -> None:
        """`make` blocks; it runs once `after`, an earlier preparation of the same unit, is through with its own.
        `forgone` is called when it turns out that nobody starts what was made, `planned` as soon as there is a plan."""
        self._model, self._generation = model, generation
        self._make, self._forgone, self._after, self._planned = make, forgone, after, planned
        self._made: asyncio.Future[tuple[LaunchPlan, Path]] = asyncio.get_running_loop().create_future()
        self._made_at = 0.0
        self._prefetch: Prefetch | None = None
        self._taken = self._dropped = False

    def serves(self, model: ModelSettings, generation: int) -> bool:
        """Whether a start with these can use it."""
        if self._dropped or self._generation != generation or self._model != model:
            return False
        return not self._made.done() or (
            self._made.exception() is None and clock.monotonic() - self._made_at <= FRESH_S
        )

    async def take(self) -> tuple[LaunchPlan, Path]:
        """The plan and the log's file, once they are there; they belong to the caller then. Raises what making them
        raised."""
        self._taken = True
        return await asyncio.shield(self._made)

    async def is_made(self) -> bool:
        """Whether there is a plan, once that is known; False where making it failed."""
        await asyncio.wait([self._made])
        return not self._made.cancelled() and self._made.exception() is None

    async def run(self) -> None:
        """Makes the plan, then has the files read. Raises nothing: `take` tells."""
        if self._after is not None:
            await asyncio.wait([self._after._made])
            self._after = None
        try:
            plan, log = await asyncio.to_thread(self._make)
        except asyncio.CancelledError:
            self._made.cancel()
            raise
        except Exception as error:  # noqa: BLE001 - it is told to whoever starts
            self._made.set_exception(error)
            self._made.exception()  # and when nobody does, it is of no interest
            return
        self._made.set_result((plan, log))
        self._made_at = clock.monotonic()
        if self._dropped:
            self._clear()
            return
        self._planned(plan)
        self._prefetch = Prefetch([mount.source for mount in plan.mounts])
        await asyncio.to_thread(self._prefetch.run)

    def drop(self) -> None:
        """Nothing more is to be read: the engine is up, or nobody wants it any more. A second call does nothing."""
        if self._dropped:
            return
        self._dropped = True
        if self._prefetch is not None:
            self._prefetch.cancel()
        if self._made.done():
            self._clear()

    def _clear(self) -> None:
        if self._taken:
            return
        if not self._made.cancelled() and self._made.exception() is None:
            with suppress(OSError):
                self._made.result()[1].unlink()
        self._forgone()
