"""`ContainerSpec`: one engine's container as data, with everything it may and nothing else. Pure.

The engine is shut in whatever its image says: nothing can be written but its socket's folder and /tmp, there is no
network, no capability, no way to more rights, and of this machine's files only what its plan names.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from types import MappingProxyType
from typing import Final

from corral.engines.plan import LaunchPlan, Mount
from corral.lazy_dataclass import dataclass
from corral.runners.containers import naming
from corral.runners.containers.host import ROOT, Host

NOBODY: Final = "65532:65532"
"""Whom an engine runs as where it can: nobody's user of the image, and outside one of our subordinate ids."""
TMP_BYTES: Final = 512 << 20
"""For drivers' caches of compiled shaders; in memory, and counted there."""


@dataclass(frozen=True, slots=True)
class Bind:
    """A file or folder of this machine, seen inside at `target`."""

    source: str
    target: str
    read_only: bool = True
    label: str = ""  # SELinux: "z" shared, "Z" private, "" where nothing enforces it


@dataclass(frozen=True, slots=True)
class ContainerSpec:
    """One container."""

    name: str
    image: str
    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    binds: tuple[Bind, ...] = ()
    devices: tuple[str, ...] = ()  # nodes such as /dev/kfd, and CDI names such as nvidia.com/gpu=0
    memory_bytes: int | None = None
    pids: int | None = None
    labels: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    user: str = NOBODY
    open_sockets: bool = False  # what it makes may be used by every user: its folder is ours alone
    user_namespace: str = ""  # "" = as the container engine does by itself
    own_groups: bool = False  # keeps Corral's groups, which GPUs' nodes belong to
    init: bool = True
    workdir: str = ""
    tmp_bytes: int = TMP_BYTES
    shared_bytes: int = 0  # of a /dev/shm of its own; 0 = it has none
    runs_tmp: bool = False  # what it puts into /tmp may be run and loaded


def spec_of(
    plan: LaunchPlan, host: Host, *, state: str, version: str, env: Mapping[str, str], readable: bool
) -> ContainerSpec:
    """The container of `plan`. `env` is its whole environment beside the image's; `readable`: any user may read its
    files."""
    limits = plan.limits
    folder = () if plan.endpoint.socket is None else (Mount(plan.endpoint.socket.parent, "", read_only=False),)
    user, namespace = identity(host, readable=readable, devices=bool(plan.nodes))
    return ContainerSpec(
        name=naming.container_name(state, plan.unit),
        image=plan.image_id or plan.image,
        argv=plan.argv,
        env=MappingProxyType(dict(sorted(env.items()))),
        binds=tuple(_bind(mount, host) for mount in (*plan.mounts, *folder)),
        devices=plan.nodes,
        memory_bytes=limits.memory_bytes if limits is not None and "memory" in host.enforces else None,
        pids=limits.pids if limits is not None and "pids" in host.enforces else None,
        labels=naming.labels(state, plan.unit, version),
        user=user,
        open_sockets=user == NOBODY,
        user_namespace=namespace,
        own_groups=bool(plan.nodes) and host.rootless and host.runtime == "crun",
        init=host.init,
        workdir="" if plan.cwd is None else str(plan.cwd),
        shared_bytes=plan.shared_bytes,
        runs_tmp=plan.makes_code,
    )


def tmp_options(spec: ContainerSpec) -> tuple[str, ...]:
    """How its /tmp is mounted."""
    return (
        "rw", "exec" if spec.runs_tmp else "noexec", "nosuid", "nodev", f"size={spec.tmp_bytes}", "mode=1777",
    )  # fmt: skip


def identity(host: Host, *, readable: bool, devices: bool) -> tuple[str, str]:
    """Whom the engine runs as, and in which user namespace.

    `nobody` is neither root inside nor our own user outside, and no image has to be copied for it, as `keep-id` does.
    Files or devices that only our own user may open need that user: root inside a rootless container, without any
    capability. Docker has no umask for the socket, which must be ours then.
    """
    if host.kind == "docker":
        return (ROOT if host.rootless else host.owner), ""
    if host.rootless:
        return (NOBODY if readable and not devices else ROOT), ""
    if readable and not devices:
        return NOBODY, "auto" if host.subuids else ""
    return ROOT, ""


def _bind(mount: Mount, host: Host) -> Bind:
    source = str(mount.source)
    label = "" if not host.selinux else "z" if mount.read_only else "Z"
    return Bind(source, mount.target or source, mount.read_only, label)


def doubts(host: Host, spec_user: str, namespace: str) -> tuple[str, ...]:
    """What whoever runs the server should know of this: bounds that are not kept."""
    found = []
    if host.why_not and len(host.enforces) < 2:
        missing = " and ".join(name for name in ("memory", "pids") if name not in host.enforces)
        found.append(f"limits not enforced ({missing}: {host.why_not})")
    if host.kind == "podman" and not host.rootless and not namespace:
        if not host.subuids:
            found.append("no user namespace: root has no subordinate ids for `containers`; see `corral doctor`")
        elif spec_user == ROOT:
            found.append("no user namespace: its files or devices are root's alone")
    return tuple(found)
