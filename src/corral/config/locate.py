"""Which models.yaml is used: the search order, with what was found at each step."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from corral.config.paths import Paths
from corral.config.problem import Place, Problem
from corral.config.trust import file_fault, is_trusted
from corral.errors import ConfigError
from corral.lazy_dataclass import dataclass

FILE_NAME = "models.yaml"

Step = Literal["--config", "CORRAL_CONFIG", "working directory", "user", "system", "built-in"]
Finding = Literal["used", "absent", "not trusted", "after the one used"]


@dataclass(frozen=True, slots=True)
class Candidate:
    """One place that was looked at; `file` is None for the built-in default."""

    step: Step
    file: Path | None
    finding: Finding


@dataclass(frozen=True, slots=True)
class Located:
    """The file to use (None = the built-in default), the whole search, and what to tell about it."""

    file: Path | None
    step: Step
    candidates: tuple[Candidate, ...]
    directory_trusted: bool  # the working directory's files may be used
    problems: tuple[Problem, ...] = ()


def locate(paths: Paths, config: Path | None, env: Mapping[str, str], cwd: Path) -> Located:
    """The first of `--config`, `CORRAL_CONFIG`, the working directory's (if trusted), the user's, the machine's and
    the built-in configuration. A file that was named is used even when it is missing, so that this is an error."""
    problems: list[Problem] = []
    local = cwd / FILE_NAME
    trusted = _trusted(paths, cwd, problems)
    steps: list[tuple[Step, Path | None]] = []
    if config is not None:
        steps.append(("--config", _absolute(config, cwd)))
    if env.get("CORRAL_CONFIG"):
        steps.append(("CORRAL_CONFIG", _absolute(Path(env["CORRAL_CONFIG"]), cwd)))
    if not (local == paths.user_config or _same(local, paths.user_config)):
        steps.append(("working directory", local))
    steps += [("user", paths.user_config), ("system", paths.system_config), ("built-in", None)]

    used: tuple[Step, Path | None] | None = None
    candidates = []
    for step, file in steps:
        finding: Finding
        if used is not None:
            finding = "after the one used"
        elif step in ("--config", "CORRAL_CONFIG", "built-in"):
            finding = "used"
        elif file is None or not _exists(file):
            finding = "absent"
        elif step == "working directory" and not _may_use(file, trusted, cwd, problems):
            finding = "not trusted"
        else:
            finding = "used"
        if finding == "used":
            used = (step, file)
        candidates.append(Candidate(step, file, finding))
    assert used is not None  # the built-in default is always used when nothing else was
    return Located(used[1], used[0], tuple(candidates), trusted, tuple(problems))


def unusable(in_use: Path, candidates: Sequence[Candidate]) -> Problem | None:
    """What is wrong when the file that a running server has is passed over now: without it another file, or none, would
    be taken for what the server should have, and everything dropped that only this one has. An editor may do that for
    a moment: it removes the file and writes it anew."""
    finding = next((each.finding for each in candidates if each.file == in_use), None)
    if finding in ("used", "after the one used") or (finding is None and _exists(in_use)):
        return None
    if finding == "not trusted":
        hint = f"`corral config check` in {in_use.parent} says why; to go on without it, restart Corral"
        return Problem("this file is in use, and may not be used any more", hint, Place(str(in_use)))
    hint = "put it back; to go on without it, restart Corral"
    return Problem("this file is in use, and is gone", hint, Place(str(in_use)))


def _trusted(paths: Paths, cwd: Path, problems: list[Problem]) -> bool:
    try:
        return is_trusted(paths, cwd)
    except ConfigError as error:
        problems.append(Problem(error.message, error.hint, Place(str(paths.trust_file)), level="warning"))
        return False
    except OSError:
        return False


def _may_use(file: Path, trusted: bool, cwd: Path, problems: list[Problem]) -> bool:
    if not trusted:
        problems.append(
            Problem(
                "found in the working directory, but not trusted, so not used",
                f"to use it, read it and run: corral trust {cwd}",
                Place(str(file)),
                level="warning",
            )
        )
        return False
    if (fault := file_fault(file)) is not None:
        problems.append(
            Problem(f"{fault}, so not used", f"to use it, run: chmod o-w {file}", Place(str(file)), level="warning")
            if "changed" in fault
            else Problem(
                f"{fault}, so not used", "to use it, make a copy of your own", Place(str(file)), level="warning"
            )
        )
        return False
    return True


def _absolute(file: Path, cwd: Path) -> Path:
    with contextlib.suppress(RuntimeError):  # no home directory: the ~ stays, and the file is reported as missing
        file = file.expanduser()
    return file if file.is_absolute() else cwd / file


def _exists(file: Path) -> bool:
    # A file that is there but may not be looked at counts: its error must be seen, not passed over.
    try:
        file.stat()
    except (FileNotFoundError, NotADirectoryError):
        return file.is_symlink()
    except OSError:
        return True
    return True


def _same(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:
        return False
