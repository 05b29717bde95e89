"""The user as which tests run Podman: made, configured for what this machine has, and how to run something as it."""

from __future__ import annotations

import os
import pwd
import re
import subprocess
from pathlib import Path
from shutil import which
from typing import IO, Any

USER = "corral-test"
TUN = Path("/dev/net/tun")


class Failed(Exception):
    """What went wrong, and what to do about it."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.hint = hint


def make_user() -> pwd.struct_passwd:
    """The user with everything rootless Podman asks for. As root."""
    try:
        user = pwd.getpwnam(USER)
    except KeyError:
        _run(["useradd", "--create-home", "--shell", "/bin/sh", "--comment", "Corral's tests of containers", USER])
        user = pwd.getpwnam(USER)
    for file, flag in ((Path("/etc/subuid"), "--add-subuids"), (Path("/etc/subgid"), "--add-subgids")):
        if not re.search(rf"^{USER}:", file.read_text() if file.exists() else "", re.MULTILINE):
            first = _free(file)
            _run(["usermod", flag, f"{first}-{first + 65535}", USER])
    home = Path(user.pw_dir)
    home.chmod(0o755)  # the tests' own files in it are looked at by whoever runs the tests
    runtime = runtime_dir(user)
    runtime.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.chown(runtime, user.pw_uid, user.pw_gid)
    folder = home / ".config" / "containers"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "containers.conf").write_text(containers_conf())
    (folder / "storage.conf").write_text('[storage]\ndriver = "overlay"\n')
    for path in (home / ".config", folder, *folder.iterdir()):
        os.chown(path, user.pw_uid, user.pw_gid)
    if TUN.exists() and TUN.stat().st_mode & 0o006 != 0o006:
        TUN.chmod(0o666)  # as udev has it elsewhere: networks of rootless containers go through it
    return user


def _free(file: Path) -> int:
    """The first id after all ranges that are given away already."""
    lines = file.read_text().splitlines() if file.exists() else []
    ends = [int(first) + int(count) for _, first, count in (line.split(":") for line in lines if line.count(":") == 2)]
    return max([165536, *ends])


def runtime_dir(user: pwd.struct_passwd) -> Path:
    return Path("/run/user") / str(user.pw_uid)


def containers_conf() -> str:
    """Podman's settings; without systemd or a cgroup tree of its own it has to do with less."""
    runtime = next(name for name in ("crun", "runc") if which(name))
    systemd = Path("/run/systemd/system").exists()
    unified = Path("/sys/fs/cgroup/cgroup.controllers").exists()
    engine = [f'runtime = "{"runc" if not unified and which("runc") else runtime}"']
    if not (systemd and unified):
        engine.append('cgroup_manager = "cgroupfs"')
    if not systemd:
        engine.append('events_logger = "file"')
    containers = [] if systemd else ['log_driver = "k8s-file"']
    # What this process may have is the most that its containers can: asking for more fails.
    containers.append('default_ulimits = ["nofile=20000:20000", "nproc=16384:16384"]')
    return "\n".join(["[engine]", *engine, "[containers]", *containers, ""])


def environment() -> dict[str, str]:
    """The environment of the user's processes."""
    user = pwd.getpwnam(USER)
    return {
        "HOME": user.pw_dir,
        "USER": USER,
        "LANG": "C.UTF-8",
        "PATH": "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin",
        "XDG_RUNTIME_DIR": str(runtime_dir(user)),
    }


def run_as(
    words: list[str],
    *,
    check: bool = True,
    stdin: IO[bytes] | None = None,
    stdout: IO[bytes] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Runs `words` as the user, in its home."""
    user = pwd.getpwnam(USER)
    options: dict[str, Any] = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": [], "cwd": user.pw_dir}
    done = subprocess.run(
        words,
        env=environment(),
        stdin=stdin or subprocess.DEVNULL,
        stdout=stdout or subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        **options,
    )
    if check and done.returncode:
        raise Failed(f"{' '.join(words)}: exit code {done.returncode}\n{done.stderr.strip()}", f"as {USER}: the same")
    return done


def _run(words: list[str]) -> None:
    done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Failed(f"{' '.join(words)}: {done.stderr.strip()}", "as root: make podman")
