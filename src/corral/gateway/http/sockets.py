"""Opening the sockets to listen on, and saying in words why one cannot be opened."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import stat
import struct
import sys
from pathlib import Path

from corral.config.settings import Listen
from corral.errors import ConfigError, PortInUse

BACKLOG = 1024
MAX_PATH_BYTES = 103
"""A unix socket's path: 107 bytes on Linux, 103 on macOS."""


def bound(where: Listen) -> list[socket.socket]:
    """Sockets bound to `where`, not listening yet: one, or one per address of a host with several.

    Blocks shortly (a name may be looked up, and on failure the holder of a port). A unix socket that nobody listens
    on is replaced; it is made with mode 0600. Raises PortInUse, ConfigError.
    """
    return [_unix(where.path)] if where.path is not None else _tcp(where.host, where.port)


def _tcp(host: str, port: int) -> list[socket.socket]:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as exc:
        raise ConfigError(f"cannot listen on {host!r}: {exc}", hint="use an address such as 127.0.0.1 or ::1") from exc
    opened: list[socket.socket] = []
    try:
        for family, kind, proto, _, address in dict.fromkeys(found):
            sock = socket.socket(family, kind, proto)
            opened.append(sock)
            sock.setblocking(False)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            # "localhost" with port 0: the second address gets the port that the first was given.
            chosen = opened[0].getsockname()[1] if port == 0 and len(opened) > 1 else port
            sock.bind((address[0], chosen, *address[2:]))
            # Two processes may bind one port with SO_REUSEADDR; only listening tells.
            sock.listen(BACKLOG)
    except OSError as exc:
        for sock in opened:
            sock.close()
        raise _refused(exc, host, port) from exc
    return opened


def _refused(exc: OSError, host: str, port: int) -> ConfigError:
    where = str(Listen(host, port))
    if exc.errno == errno.EADDRINUSE:
        who = holder(port)
        return PortInUse(
            f"port {port} is in use" + (f" by {who}" if who else ""),
            hint=f"stop that program, or listen elsewhere (now {where})",
            port=port,
            holder=who,
        )
    if exc.errno == errno.EACCES:
        return ConfigError(
            f"not allowed to listen on {where}", hint="ports below 1024 belong to root: use a higher one"
        )
    if exc.errno == errno.EADDRNOTAVAIL:
        return ConfigError(
            f"{host} is no address of this machine", hint="use 127.0.0.1, or one that `ip address` shows"
        )
    return ConfigError(f"cannot listen on {where}: {exc.strerror}", hint="check `listen` and `port` in models.yaml")


def _unix(path: Path) -> socket.socket:
    name = str(path)
    if len(os.fsencode(name)) > MAX_PATH_BYTES:
        raise ConfigError(
            f"the socket's path is longer than {MAX_PATH_BYTES} bytes: {name}", hint="use a shorter directory"
        )
    _make_way(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.bind(name)
        # Nobody can connect before listen(), so the mode is never wider than this.
        path.chmod(0o600)
        sock.listen(BACKLOG)
    except OSError as exc:
        sock.close()
        if exc.errno == errno.EADDRINUSE:
            raise PortInUse(f"the socket {name} is in use", hint="another Corral was quicker", path=name) from exc
        raise ConfigError(
            f"cannot listen on {name}: {exc.strerror}", hint="its directory must exist and be yours"
        ) from exc
    return sock


def _make_way(path: Path) -> None:
    """Removes a socket that nobody listens on any more. Raises PortInUse, or ConfigError for what is no socket."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    except OSError as exc:
        raise ConfigError(f"cannot look at {path}: {exc.strerror}", hint="its directory must be yours") from exc
    if not stat.S_ISSOCK(mode):
        raise ConfigError(f"{path} exists and is no socket", hint="move it away, or listen elsewhere")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            path.unlink(missing_ok=True)
            return
        except OSError:
            pass  # a full backlog, or another's socket: somebody is there
    raise PortInUse(f"the socket {path} is in use", hint="another server listens there: stop it first", path=str(path))


def peer_of(transport: asyncio.BaseTransport) -> str:
    """Who is at the other end: an address, or `uid:1000` over a unix socket, where the system says that."""
    name = transport.get_extra_info("peername")
    if isinstance(name, tuple):
        return str(name[0])
    if sys.platform.startswith("linux") and (sock := transport.get_extra_info("socket")) is not None:
        with contextlib.suppress(OSError, AttributeError):
            _, uid, _ = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
            return f"uid:{uid}"
    return ""


def holder(port: int) -> str | None:
    """The process that listens on `port`, such as `llama-server (pid 4711)`, where this platform tells us."""
    if not sys.platform.startswith("linux"):
        return None
    inodes = _listening(port)
    if not inodes:
        return None
    for process in Path("/proc").iterdir():
        if not process.name.isdigit():
            continue
        with contextlib.suppress(OSError):
            for descriptor in (process / "fd").iterdir():
                with contextlib.suppress(OSError):
                    if str(descriptor.readlink()) in inodes:
                        return f"{(process / 'comm').read_text().strip()} (pid {process.name})"
    return None


def _listening(port: int) -> set[str]:
    """`socket:[inode]` of the sockets that listen on `port`. Source: Linux, Documentation/networking/proc_net_tcp."""
    found = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with contextlib.suppress(OSError):
            for line in Path(table).read_text().splitlines()[1:]:
                columns = line.split()
                if columns[3] == "0A" and int(columns[1].rpartition(":")[2], 16) == port:
                    found.add(f"socket:[{columns[9]}]")
    return found
