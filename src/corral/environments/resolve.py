"""What an index would install, as a lock: pip asked for its plan, nothing installed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from corral.environments import pip
from corral.environments.child import Children, Say, Step
from corral.environments.lock import Lock, Pin, lock_of, normalized
from corral.environments.variants import Variant
from corral.errors import InstallFailed

_MARK: Final = {"cpu": "cpu", "cuda": "cu", "rocm": "rocm"}


def ask_index(
    children: Children, python: Path, requirements: Sequence[str], variant: Variant, folder: Path, say: Say
) -> Lock:
    """The lock of `requirements` by the user's own pip configuration. `folder` is scratch: a pip is put there first.

    Raises InstallFailed.
    """
    say(Step("resolving", requirements[0]))
    pip.new_environment(children, python, folder)
    report = folder / "report.json"
    argv = [*pip.command(folder), "install", "--dry-run", "--ignore-installed"]
    argv += ["--only-binary", ":all:", "--report", report, *requirements]

    def line(text: str) -> None:
        if (name := pip.collected(text)) is not None:
            say(Step("resolving", name))

    ended = children.run(argv, line=line)
    if ended.code or not report.is_file():
        raise pip.failed(ended, f"pip finds no way to install {requirements[0]}", children.log, variant.hint)
    return read_report(report.read_bytes(), variant)


def read_report(report: bytes, variant: Variant) -> Lock:
    """The lock in a report of pip's. Raises InstallFailed where a file has no hash, or is for other machines."""
    pins = []
    for each in json.loads(report)["install"]:
        name, version = normalized(each["metadata"]["name"]), str(each["metadata"]["version"])
        if name in variant.dropped:
            continue
        pins.append(Pin(name, version, (_hash(each, name),)))
    lock = lock_of(pins)
    _check_build(lock, variant)
    return lock


def _hash(each: dict[str, Any], name: str) -> str:
    found = each["download_info"].get("archive_info", {}).get("hashes", {}).get("sha256")
    if not isinstance(found, str):
        raise InstallFailed(
            f"the index gives no SHA-256 of {name}: what is installed could not be checked",
            hint="use an index that gives hashes, or a folder of wheels (--wheels DIR)",
        )
    return found


def _check_build(lock: Lock, variant: Variant) -> None:
    """Raises InstallFailed where torch's own version says that it is built for something else: before gigabytes of it
    are fetched."""
    version = lock.version("torch") or ""
    local = version.partition("+")[2]
    if local.startswith(_MARK[variant.name]) if local else variant.name != "rocm":
        return
    raise InstallFailed(
        f"the index gives torch {version}, which is not built for {variant.name}",
        hint=variant.hint or "see pip's configuration: pip config list",
    )
