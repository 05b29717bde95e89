"""What of a model's `args` every start would refuse, found without a start, for `corral config check`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from corral.config.paths import Paths
from corral.config.settings import ModelSettings
from corral.engines import llamacpp
from corral.engines.rooms import Machine
from corral.errors import EngineError, EngineFlagError


def _llamacpp(model: ModelSettings, paths: Paths) -> list[EngineError]:
    return llamacpp.refusals(model)


def _vllm(model: ModelSettings, paths: Paths) -> list[EngineError]:
    from corral.engines.vllm import Vllm
    from corral.engines.vllm_builds import installed

    def nothing() -> Machine:
        raise AssertionError("flags say nothing of memory")

    return Vllm(nothing, lambda: installed(paths.data_dir), paths.cache_dir / "engines").refusals(model)


def _detector(model: ModelSettings, paths: Paths) -> list[EngineError]:
    from corral.engines import detector_flags

    try:
        detector_flags.parse(model.args, detector_flags.FREE)
    except EngineFlagError as error:
        return [error]
    return []


REFUSALS: Final[Mapping[str, Callable[[ModelSettings, Paths], list[EngineError]]]] = {
    "llama.cpp": _llamacpp,
    "detector": _detector,
    "vllm": _vllm,
}
"""By the value of the `engine` key. Where a build must be asked for its flags, that is a child process at most."""
