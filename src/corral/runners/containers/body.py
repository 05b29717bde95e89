"""A `ContainerSpec` as the body of Podman's `POST /libpod/containers/create`. Pure.

Source: Podman's specgen.SpecGenerator, as of 4.3.
"""

from __future__ import annotations

from typing import Any

from corral.runners.containers.spec import Bind, ContainerSpec, tmp_options


def create_body(spec: ContainerSpec, *, log_path: str = "", remove: bool = False) -> dict[str, Any]:
    """As JSON-ready data. `log_path` is where Podman keeps the output, "" for its own place."""
    log: dict[str, Any] = {"driver": "k8s-file"} | ({"path": log_path} if log_path else {})
    body: dict[str, Any] = {
        "name": spec.name,
        "image": spec.image,
        "entrypoint": [spec.argv[0]],
        "command": list(spec.argv[1:]),
        "env": dict(spec.env),
        "labels": dict(spec.labels),
        "mounts": [_tmp(spec), *(_mount(bind) for bind in spec.binds)],
        "devices": [{"path": device} for device in spec.devices],
        "read_only_filesystem": True,
        "read_write_tmpfs": False,
        "cap_drop": ["all"],
        "no_new_privileges": True,
        "netns": {"nsmode": "none"},
        "ipcns": {"nsmode": "private" if spec.shared_bytes else "none"},
        "user": spec.user,
        "init": spec.init,
        "image_volume_mode": "ignore",
        "httpproxy": False,
        "systemd": "false",
        "restart_policy": "no",
        "remove": remove,
        "healthconfig": {"Test": ["NONE"]},
        "log_configuration": log,
    }
    if spec.shared_bytes:
        body["shm_size"] = spec.shared_bytes
    if spec.open_sockets:
        body["umask"] = "0000"
    if spec.user_namespace:
        body["userns"] = {"nsmode": spec.user_namespace}
    if spec.own_groups:
        body["annotations"] = {"run.oci.keep_original_groups": "1"}
    if spec.workdir:
        body["work_dir"] = spec.workdir
    limits: dict[str, Any] = {}
    if spec.memory_bytes is not None:
        limits["memory"] = {"limit": spec.memory_bytes}
    if spec.pids is not None:
        limits["pids"] = {"limit": spec.pids}
    if limits:
        body["resource_limits"] = limits
    return body


def _tmp(spec: ContainerSpec) -> dict[str, Any]:
    return {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": list(tmp_options(spec))}


def _mount(bind: Bind) -> dict[str, Any]:
    options = ["rbind", "ro" if bind.read_only else "rw", "nosuid", "nodev", *filter(None, [bind.label])]
    return {"destination": bind.target, "type": "bind", "source": bind.source, "options": options}
