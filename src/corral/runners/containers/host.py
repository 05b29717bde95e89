"""What a container engine says of itself and of its containers, read from its JSON. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal

from corral.lazy_dataclass import dataclass

Kind = Literal["podman", "docker"]

ROOT: Final = "0:0"


@dataclass(frozen=True, slots=True)
class Host:
    """One container engine."""

    kind: Kind
    version: str
    rootless: bool
    enforces: frozenset[str] = frozenset()  # of "memory" and "pids": limits that the kernel really keeps
    why_not: str = ""  # why the others are not enforced
    selinux: bool = False
    runtime: str = ""
    subuids: bool = False  # as root: there are ids for user namespaces of their own
    init: bool = True  # has a small first process that reaps and passes signals on
    remote: bool = False  # containers do not run on this machine's own kernel
    owner: str = "0:0"  # Corral's own user and group
    emulated: bool = False  # Docker's API, answered by Podman


@dataclass(frozen=True, slots=True)
class Image:
    """One image that is here."""

    id: str
    digests: tuple[str, ...] = ()
    entrypoint: tuple[str, ...] = ()
    bytes: int = 0


@dataclass(frozen=True, slots=True)
class Seen:
    """One container as it is now."""

    id: str
    name: str
    running: bool
    pid: int | None
    exit_code: int | None
    started: str = ""  # as the container engine writes it; "" = it never did
    oom_killed: bool = False


def podman_host(info: Mapping[str, Any], *, subuids: bool, init: bool, owner: str) -> Host:
    """From `podman info` (or the API's /libpod/info)."""
    host = info.get("host") or {}
    security = host.get("security") or {}
    rootless = bool(security.get("rootless"))
    v1 = str(host.get("cgroupVersion", "")) == "v1"
    controllers = set() if rootless and v1 else set(host.get("cgroupControllers") or ())
    if rootless and v1:
        why = "rootless containers cannot have limits on cgroup v1"
    elif "memory" not in controllers or "pids" not in controllers:
        why = "the cgroup controllers memory and pids are not delegated to this user"
    else:
        why = ""
    return Host(
        kind="podman",
        version=str((info.get("version") or {}).get("Version", "")),
        rootless=rootless,
        enforces=frozenset(controllers & {"memory", "pids"}),
        why_not=why,
        selinux=bool(security.get("selinuxEnabled")),
        runtime=str((host.get("ociRuntime") or {}).get("name", "")),
        subuids=subuids,
        init=init,
        remote=bool(host.get("serviceIsRemote")) and host.get("os") != "linux",
        owner=owner,
    )


def docker_host(info: Mapping[str, Any], server: Mapping[str, Any], *, owner: str) -> Host:
    """From `docker info` and the server's part of `docker version`, of Docker itself or of Podman's imitation."""
    options = [str(each) for each in info.get("SecurityOptions") or ()]
    emulated = any("podman" in str(each.get("Name", "")).lower() for each in server.get("Components") or ())
    # Podman does not tell Docker's clients whether it is rootless; where it keeps its images does.
    by_place = emulated and not str(info.get("DockerRootDir", "")).startswith("/var/")
    rootless = by_place or any("rootless" in each for each in options)
    v1 = str(info.get("CgroupVersion", "")) != "2"
    told = {"memory": info.get("MemoryLimit"), "pids": info.get("PidsLimit")}
    enforces = frozenset() if rootless and v1 else frozenset(name for name, can in told.items() if can)
    why = "rootless containers cannot have limits on cgroup v1" if rootless and v1 else "its kernel cannot"
    return Host(
        kind="docker",
        version=str(info.get("ServerVersion", "")),
        rootless=rootless,
        enforces=enforces,
        why_not="" if len(enforces) == 2 else why,
        selinux=any("selinux" in each for each in options),
        runtime=str(info.get("DefaultRuntime", "")),
        init=True,
        remote="Docker Desktop" in str(info.get("OperatingSystem", "")),
        owner=ROOT if emulated else owner,
        emulated=emulated,
    )


def image_of(data: Mapping[str, Any]) -> Image:
    """From one entry of `image inspect`."""
    config = data.get("Config") or {}
    entrypoint = config.get("Entrypoint") or ()
    if isinstance(entrypoint, str):
        entrypoint = (entrypoint,)
    digests = [str(each) for each in data.get("RepoDigests") or ()]
    return Image(
        id=str(data.get("Id", "")).removeprefix("sha256:"),
        digests=tuple(digests),
        entrypoint=tuple(str(each) for each in entrypoint),
        bytes=int(data.get("Size") or 0),
    )


def seen_of(data: Mapping[str, Any]) -> Seen:
    """From one entry of `container inspect`."""
    state = data.get("State") or {}
    status = str(state.get("Status", "")).lower()
    running = bool(state.get("Running")) or status in ("running", "paused", "stopping")
    started = str(state.get("StartedAt") or "")
    never = started.startswith("0001-") or not started
    pid = int(state.get("Pid") or 0)
    return Seen(
        id=str(data.get("Id", "")),
        name=str(data.get("Name", "")).lstrip("/"),
        running=running,
        pid=pid if running and pid > 0 else None,
        exit_code=None if running or never else int(state.get("ExitCode") or 0),
        started="" if never else started,
        oom_killed=bool(state.get("OOMKilled")),
    )


def ended_as(code: int) -> tuple[int | None, int | None]:
    """Exit code and signal, from the one number that a container ends with: 128 and more is a signal's."""
    return (None, code - 128) if 128 < code < 128 + 65 else (code, None)
