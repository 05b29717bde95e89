"""What a kept conversation belongs to: the model's files, the engine, and the settings that shape its state."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

from corral.engines.plan import LaunchPlan
from corral.lazy_dataclass import dataclass

SAVE_FLAG = "--slot-save-path"

_ELSEWHERE = {
    "--model", "-m", "--host", "--port", "--alias", "-a", SAVE_FLAG, "--gpu-layers", "--n-gpu-layers", "-ngl",
    "--threads", "-t", "--threads-batch", "-tb", "--batch-size", "-b", "--ubatch-size", "-ub", "--fit", "-fit",
    "--tensor-split", "-ts", "--device", "-dev", "--split-mode", "-sm", "--main-gpu", "-mg", "--override-tensor", "-ot",
    "--n-cpu-moe", "-ncmoe", "--fit-target", "-fitt", "--fit-ctx", "-fitc",
    "--log-verbosity", "--verbosity", "-lv", "--log-file",
}  # fmt: skip
"""Flags with a value that says where or how fast something runs, not what the state is like."""
_BARE = {"--metrics", "--slots", "--no-ui", "--no-webui", "--verbose", "-v", "--log-prefix", "--log-timestamps"}


@dataclass(frozen=True, slots=True)
class Identity:
    build: str  # of the model's files and the engine's version
    key: str  # of these and the settings: only what has the same key can be put back
    files: tuple[tuple[str, int, int], ...]  # the model's: resolved path, size, modification time in ns


def identify(plan: LaunchPlan) -> Identity:
    """The identity of what `plan` runs. Blocks for a look at each file. Raises OSError when one is gone."""
    files = tuple(stamp(mount.source) for mount in plan.mounts)
    build = _digest(plan.engine, plan.engine_version, *(str(part) for file in files for part in file))
    settings = [part for each in _settings(plan.argv) for part in (each, *_stamped(each))]
    env = [f"{name}={value}" for name, value in sorted(plan.env.items())]
    return Identity(build, _digest(build, *settings, "", *env), files)


def save_dir(plan: LaunchPlan) -> Path | None:
    """Where the engine of `plan` saves slots; None where it does not."""
    where = None
    for flag, value in zip(plan.argv, plan.argv[1:], strict=False):
        if flag == SAVE_FLAG:
            where = Path(value)
    return where


def stamp(path: Path) -> tuple[str, int, int]:
    """A file as it is now. Raises OSError."""
    real = path.resolve()
    found = real.stat()
    return str(real), found.st_size, found.st_mtime_ns


def _settings(argv: tuple[str, ...]) -> Iterator[str]:
    words = iter(argv[next((i for i, word in enumerate(argv) if word.startswith("--model")), 0) :])
    for word in words:
        flag, sep, _ = word.partition("=")
        if flag in _ELSEWHERE:
            if not sep:
                next(words, None)
        elif word not in _BARE:
            yield word


def _stamped(word: str) -> Iterator[str]:
    """Of a flag's value that is a file, such as an adapter: what it is now."""
    if "/" in word and not word.startswith("-"):
        try:
            yield from (str(part) for part in stamp(Path(word)))
        except (OSError, ValueError):
            return


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogateescape")).hexdigest()[:32]
