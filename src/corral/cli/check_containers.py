"""The doctor's look at Podman and Docker: whether engines can run in containers here, and which limits are kept."""

from __future__ import annotations

import getpass
import json
import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from corral.cli.finding import Finding, install
from corral.lazy_dataclass import dataclass

AREA = "containers"
DEADLINE_S = 30.0
_DELEGATE = (
    "sudo mkdir -p /etc/systemd/system/user@.service.d && printf '[Service]\\nDelegate=cpu cpuset io memory pids\\n' | "
    "sudo tee /etc/systemd/system/user@.service.d/delegate.conf && sudo systemctl daemon-reload   (then log in again)"
)
_SUBORDINATE = "--add-subuids 100000-165535 --add-subgids 100000-165535"


@dataclass(frozen=True, slots=True)
class Here:
    """What of this machine rootless containers depend on."""

    user: str
    root: bool
    subuids: bool  # this user's; as root those of `containers`
    newuidmap: bool
    runtime_dir: bool
    init: bool


def containers() -> list[Finding]:
    """Nothing where neither program is here: the doctor's tools say that already. Blocks for two child processes."""
    found: list[Finding] = []
    if (podman := shutil.which("podman")) is not None:
        told, why = _info([podman, "info", "--format", "json"])
        found += of_podman(told, why, _here())
    if (docker := shutil.which("docker")) is not None:
        told, why = _info([docker, "info", "--format", "{{json .}}"])
        found += of_docker(told, why)
    return found


def of_podman(told: Mapping[str, Any] | None, why: str, here: Here) -> list[Finding]:
    """From `podman info`, or why it said nothing. Pure."""
    found = [] if here.root else _rootless(here)
    if told is None:
        fix = "podman info" if not any(each.level == "warn" for each in found) else "mend the above first"
        return [*found, Finding(AREA, "podman", "warn", f"does not work: {why}", fix)]
    host = told.get("host") or {}
    rootless = bool((host.get("security") or {}).get("rootless"))
    version = (told.get("version") or {}).get("Version", "")
    runtime = (host.get("ociRuntime") or {}).get("name", "")
    kind = "rootless" if rootless else "as root"
    found.append(Finding(AREA, "podman", "ok", f"{version}, {kind}, {runtime}; models with `runner: podman`"))
    found.append(_limits(host, rootless))
    if here.root and not here.subuids:
        text = "root has no subordinate ids: engines run without a user namespace"
        fix = f"useradd --system --shell /usr/sbin/nologin containers; usermod {_SUBORDINATE} containers"
        found.append(Finding(AREA, "user namespace", "warn", text, fix))
    if not here.init:
        text = "catatonit is not installed: an engine is its container's first process, and reaps no others"
        found.append(Finding(AREA, "init", "missing", text, install("catatonit")))
    return found


def of_docker(told: Mapping[str, Any] | None, why: str) -> list[Finding]:
    """From `docker info`, or why it said nothing. Pure."""
    errors = [] if told is None else told.get("ServerErrors") or []
    version = "" if told is None else str(told.get("ServerVersion") or "")
    if errors or not version:  # what the program knows by itself it prints without the engine too
        said = str(errors[0]) if errors else why
        text = (
            f"the program is here, but its engine does not answer: {said.splitlines()[0][:200] if said else 'no word'}"
        )
        fix = "sudo systemctl start docker   (for Podman instead: set `runner: podman`)"
        return [Finding(AREA, "docker", "missing", text, fix)]
    return [Finding(AREA, "docker", "ok", f"{version}; models with `runner: docker`")]


def _rootless(here: Here) -> list[Finding]:
    found = []
    if not here.newuidmap:
        text = "newuidmap is not installed: rootless containers cannot have user namespaces"
        found.append(Finding(AREA, "uidmap", "warn", text, install("uidmap")))
    if not here.subuids:
        text = f"{here.user} has no subordinate ids in /etc/subuid and /etc/subgid"
        fix = f"sudo usermod {_SUBORDINATE} {here.user} && podman system migrate"
        found.append(Finding(AREA, "subordinate ids", "warn", text, fix))
    if not here.runtime_dir:
        text = "there is no XDG_RUNTIME_DIR: Podman forgets its containers' state with each log-out"
        found.append(Finding(AREA, "runtime directory", "warn", text, f"sudo loginctl enable-linger {here.user}"))
    return found


def _limits(host: Mapping[str, Any], rootless: bool) -> Finding:
    v1 = str(host.get("cgroupVersion")) == "v1"
    missing = {"memory", "pids"} - set(host.get("cgroupControllers") or ())
    if rootless and v1:
        text = "not enforced: rootless containers have none on cgroup v1"
        fix = "start the kernel with systemd.unified_cgroup_hierarchy=1"
        return Finding(AREA, "limits", "warn", text, fix)
    if missing:
        text = f"not enforced ({' and '.join(sorted(missing))}): not delegated to this user"
        return Finding(AREA, "limits", "warn", text, _DELEGATE)
    return Finding(AREA, "limits", "ok", f"of memory and processes are enforced (cgroup {'v1' if v1 else 'v2'})")


def _here() -> Here:
    root = os.getuid() == 0
    user = getpass.getuser()
    names = ("containers",) if root else (user, str(os.getuid()))
    base = os.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.getuid()}"
    catatonit = shutil.which("catatonit") is not None or any(
        Path(each, "catatonit").exists() for each in ("/usr/libexec/podman", "/usr/lib/podman")
    )
    return Here(
        user,
        root,
        all(_has_ids(Path("/etc", name), names) for name in ("subuid", "subgid")),
        shutil.which("newuidmap") is not None,
        Path(base).is_dir(),
        catatonit,
    )


def _has_ids(path: Path, names: tuple[str, ...]) -> bool:
    try:
        return any(line.split(":")[0] in names for line in path.read_text(errors="replace").splitlines())
    except OSError:
        return False


def _info(words: list[str]) -> tuple[Mapping[str, Any] | None, str]:
    try:
        done = subprocess.run(words, capture_output=True, timeout=DEADLINE_S, stdin=subprocess.DEVNULL, text=True)
    except subprocess.TimeoutExpired:
        return None, f"no answer within {DEADLINE_S:.0f} s"
    except OSError as error:
        return None, error.strerror or str(error)
    try:
        told = json.loads(done.stdout) if done.stdout.strip() else None
    except ValueError:
        told = None
    last = ([line for line in done.stderr.splitlines() if line.strip()] or ["it said nothing"])[-1]
    if not isinstance(told, dict) or (done.returncode != 0 and not told.get("ServerErrors")):
        return None, last  # Docker prints its document with empty values where its engine does not answer
    return told, last
