"""How far below its best plan a unit starts, and why: memory that was not enough, a GPU that was lost. Pure."""

from __future__ import annotations

from dataclasses import field
from typing import Final

from corral.config.settings import ModelSettings, Rung
from corral.engines.placement import TOP, Step, next_step
from corral.engines.plan import LaunchPlan
from corral.errors import CorralError, StartFailed
from corral.lazy_dataclass import dataclass
from corral.supervisor.reasons import GPU_MEMORY

LOOK_AFTER_S: Final = 30.0
"""How long after a GPU was lost it is first looked for; twice as long after each further loss."""

LOOK_AT_MOST_S: Final = 1800.0
_FORGOTTEN_S: Final = 2 * 3600.0  # a GPU lost again after so long counts as lost for the first time

_WORDS: Final[dict[Rung, str]] = {
    "batch": "with a smaller batch",
    "context": "with a shorter context",
    "layers": "with fewer layers on GPUs",
    "cpu": "without GPUs",
}


@dataclass(slots=True)
class Fallback:
    """One unit's. It lasts until the model's configuration changes or the unit was stopped because nobody needed it."""

    step: Step = TOP
    tried: list[str] = field(default_factory=list)  # what was made smaller, in words
    rung: Rung | None = None  # what was given up last
    exhausted: bool = False  # there is nothing left to make smaller
    look_at: float | None = None  # when to look for a GPU that was lost, on `clock.monotonic`
    losses: int = 0
    _model: ModelSettings | None = None
    _lost_at: float = 0.0

    def for_start(self, model: ModelSettings) -> Step:
        """The step for the next start of `model`."""
        if self._model is not None and self._model != model:
            self.rested()
            self.losses = 0
        self._model = model
        return self.step

    def adopted(self, model: ModelSettings, plan: LaunchPlan, now: float) -> None:
        """An engine runs that another daemon started by `plan`."""
        self._model, self.step = model, plan.step
        if plan.degraded and plan.step.gpu_lost:
            self._lost(now)

    def rested(self) -> None:
        """The next start may be the best again."""
        self.step, self.exhausted, self.look_at = TOP, False, None
        self.tried.clear()

    def after(self, error: CorralError, plan: LaunchPlan | None, now: float) -> str | None:
        """What the next start does otherwise, in words, after an engine started by `plan` ended with `error`; None
        where that is no question of the plan, or nothing is left."""
        model, kind = self._model, error.details.get("kind")
        self.exhausted = False
        if plan is None or model is None:
            return None
        if kind == "memory":
            on_gpu = GPU_MEMORY in error.message
            # What leaves a GPU takes the machine's own memory.
            left = plan.left if on_gpu else [rung for rung in plan.left if rung in ("batch", "context")]
            found = next_step(self.step, left, model.on_out_of_memory, GPU_MEMORY)
            if found is None:
                self.exhausted = bool(self.tried)
                return None
            self.step, rung = found
            self.rung = rung
            self.tried.append(_WORDS[rung])
            return _WORDS[rung]
        if kind == "device" and model.cpu_fallback and plan.devices != ("cpu",) and not self.step.cpu:
            self.step = self.step.without_gpus(_short(error.message, model.name))
            self._lost(now)
            self.rung = "cpu"
            return _WORDS["cpu"]
        return None

    def told(self, error: CorralError) -> CorralError:
        """`error` with the story of what was tried before it, once nothing is left to try."""
        if not self.exhausted:
            return error
        tried = ", then ".join(self.tried)
        hint = "use a smaller quantization, or stop other models first; see `corral logs`"
        return StartFailed(f"{error.message}; tried {tried}", **{**error.details, "hint": hint})

    def gpu_missed(self, plan: LaunchPlan | None, now: float) -> None:
        """A start went without a GPU that should be there."""
        if plan is not None and plan.awaits_gpu and not plan.step.cpu and self.look_at is None:
            self._lost(now)

    def still_gone(self, now: float) -> None:
        """The GPU was looked for in vain."""
        self.look_at = now + self._pause()

    def gpu_back(self) -> None:
        """The next start may use GPUs again."""
        self.step, self.look_at = TOP, None
        self.tried.clear()

    def _lost(self, now: float) -> None:
        self.losses = 1 if now - self._lost_at > _FORGOTTEN_S else self.losses + 1
        self._lost_at = now
        self.look_at = now + self._pause()

    def _pause(self) -> float:
        return min(LOOK_AT_MOST_S, LOOK_AFTER_S * 2.0 ** min(self.losses - 1, 16)) if self.losses else LOOK_AFTER_S


def gave_up(plan: LaunchPlan) -> dict[str, Rung]:
    """What a start by `plan` tells to have given up: its GPU, where it found none. Of a step down `unit.fallback` has
    told already."""
    return {"gave_up": "cpu"} if plan.degraded and not plan.step.cpu else {}


def _short(message: str, model: str) -> str:
    return message.removeprefix(f"{model} ended: ")
