"""A `ContainerSpec` as the exact command line of `podman run` or `docker run`. Pure.

Values of the environment are no arguments, which every user of a machine can read: they pass through the program's own
environment, but for names by which that program itself would be led.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Final

from corral.errors import StartFailed
from corral.lazy_dataclass import dataclass
from corral.runners.containers.host import Kind
from corral.runners.containers.spec import Bind, ContainerSpec, tmp_options

_LEADING: Final = re.compile(
    r"(PATH|HOME|USER|LOGNAME|SHELL|TMPDIR|TZ|LANG|LC_.*|LD_.*|XDG_.*|CONTAINERS?_.*|_CONTAINERS_.*|PODMAN_.*|DOCKER_.*"
    r"|BUILDAH_.*|STORAGE_.*|REGISTRY_.*|GO[A-Z]+|NOTIFY_SOCKET|LISTEN_.*|DBUS_.*|SSL_.*|SSH_.*|NETAVARK_.*"
    r"|.*_PROXY|.*_proxy|OCI_.*|CONMON_.*|DISABLE_HC_SYSTEMD|BUILDKIT_.*|MALLOC_.*|GLIBC_.*|OTEL_.*)"
)
"""Names that mean something to podman, docker or what they run."""


@dataclass(frozen=True, slots=True)
class Command:
    """A command line, and what its own environment must have besides."""

    argv: tuple[str, ...]
    env: Mapping[str, str]


def run_command(program: str, kind: Kind, spec: ContainerSpec, *, log_driver: str) -> Command:
    """Starts the container and returns. Raises StartFailed for a path that no command line can say."""
    words = [program, "run", "--detach", "--name", spec.name, *_shut_in(kind, spec), "--log-driver", log_driver]
    return _command(words, kind, spec)


def ask_command(program: str, kind: Kind, spec: ContainerSpec) -> Command:
    """Runs the container in the foreground and leaves nothing of it."""
    words = [program, "run", "--rm", *_shut_in(kind, spec)]
    return _command(words, kind, spec)


def _command(words: list[str], kind: Kind, spec: ContainerSpec) -> Command:
    carried = {}
    for name, value in spec.env.items():
        if _LEADING.fullmatch(name):
            words += ["--env", f"{name}={value}"]
        else:
            words += ["--env", name]
            carried[name] = value
    for bind in spec.binds:
        words += _bound(kind, bind)
    words += ["--entrypoint", spec.argv[0], spec.image, *spec.argv[1:]]
    return Command(tuple(words), MappingProxyType(carried))


def _shut_in(kind: Kind, spec: ContainerSpec) -> Iterator[str]:
    yield from ("--pull", "never", "--read-only", "--cap-drop", "all", "--security-opt", "no-new-privileges")
    shared = ("private", "--shm-size", f"{spec.shared_bytes}b") if spec.shared_bytes else ("none",)
    yield from ("--network", "none", "--ipc", *shared, "--no-healthcheck", "--restart", "no")
    yield from ("--tmpfs", f"/tmp:{','.join(tmp_options(spec))}")
    if kind == "podman":
        yield from ("--read-only-tmpfs=false", "--image-volume", "ignore", "--http-proxy=false", "--systemd=false")
    yield from ("--user", spec.user)
    if spec.open_sockets and kind == "podman":
        yield from ("--umask", "0000")
    if spec.user_namespace:
        yield from ("--userns", spec.user_namespace)
    if spec.own_groups and kind == "podman":
        yield from ("--group-add", "keep-groups")
    if spec.init:
        yield "--init"
    if spec.workdir:
        yield from ("--workdir", spec.workdir)
    if spec.memory_bytes is not None:
        yield from ("--memory", str(spec.memory_bytes))
    if spec.pids is not None:
        yield from ("--pids-limit", str(spec.pids))
    for device in spec.devices:
        if kind == "docker" and device.startswith("nvidia.com/gpu="):
            number = device.partition("=")[2]
            yield from ("--gpus", "all" if number == "all" else f'"device={number}"')
        else:
            yield from ("--device", device)
    for name, value in spec.labels.items():
        yield from ("--label", f"{name}={value}")


def _bound(kind: Kind, bind: Bind) -> tuple[str, str]:
    """Podman's `--mount` of these versions cannot quote a comma, and `--volume` nowhere a colon."""
    plain = ":" not in bind.source + bind.target
    if plain and not _is_odd(bind):
        options = ["ro" if bind.read_only else "rw"]
        if kind == "podman":
            options += ["nosuid", "nodev"]
        return "--volume", ":".join((bind.source, bind.target, ",".join([*options, *filter(None, [bind.label])])))
    if kind == "podman":
        if "," in bind.source + bind.target or _is_odd(bind):
            raise StartFailed(
                f"podman cannot be told to mount {bind.source!r}: its path has signs that no option can carry together",
                hint="rename it, or start Podman's API, which can: systemctl --user start podman.socket",
            )
        words = ["type=bind", f"source={bind.source}", f"target={bind.target}"]
        words += ["ro=true"] if bind.read_only else []
        words += [f"relabel={'shared' if bind.label == 'z' else 'private'}"] if bind.label else []
        return "--mount", ",".join(words)
    fields = ["type=bind", f"source={bind.source}", f"target={bind.target}", *(["readonly"] if bind.read_only else [])]
    return "--mount", ",".join(_quoted(each) for each in fields)


def _is_odd(bind: Bind) -> bool:
    return any(sign in bind.source + bind.target for sign in '"\n\r\\')


def _quoted(field: str) -> str:
    """As CSV has it."""
    return '"' + field.replace('"', '""') + '"' if any(sign in field for sign in ',"\n\r') else field
