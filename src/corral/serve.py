"""Running a server: from its flags to the daemon, in an order in which nothing waits that need not.

The daemon's modules take longest to load. The configuration is looked at before, so that a bad one is told at once; its
addresses listen already, so that a client waits for its answer instead of being refused; and the warden, a process of
its own, comes up meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import importlib
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from corral.config.load import Loaded, load
from corral.config.paths import Paths, find_paths
from corral.config.settings import Listen, Settings
from corral.gateway.http.sockets import bound
from corral.serve_options import ServeOptions
from corral.state_lock import hold_state

if TYPE_CHECKING:
    from corral.handover.take import Taken

WARDEN_WITHIN_S = 5.0
_SWITCH_S = 0.0005
"""For how long a thread that reads or writes something may keep the event loop waiting before it has to yield. With
Python's own 5 ms, all streams would pause for that long again and again."""


def serve(options: ServeOptions) -> int:
    """Runs a server in the foreground until a signal, or until it was idle long enough; the exit code.

    Raises ConfigError, StateInUse, PortInUse before anything is served.
    """
    gc.disable()  # what is loaded now stays: looking through it again and again would only cost time
    paths = find_paths()
    flags: dict[str, Any] = {"listen": list(options.listen)} if options.listen else {}

    def load_again(in_use: Path | None) -> Loaded:
        return load(options.config, flags=flags, insecure=options.insecure, keyed=_has_keys, paths=paths, in_use=in_use)

    loaded = load_again(None)
    if loaded.settings.traces is not None:
        from corral.observability.traces import check_installed  # for the few servers that send any

        check_installed()
    paths.make()
    taken = _take_over(paths) if options.handover else None
    opened = taken.listening if taken is not None else {}
    try:
        with hold_state(paths) as lock:
            if taken is None:
                _listen(loaded.settings, paths, opened)
            warden = _begin_warden(paths)
            from corral.daemon import Daemon  # only now, see above
            from corral.tasks import loop_factory

            if warden is not None:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    warden.wait(WARDEN_WITHIN_S)  # the process that we started ends once the lasting one listens
            gc.freeze()
            gc.enable()
            sys.setswitchinterval(_SWITCH_S)
            with asyncio.Runner(loop_factory=loop_factory()) as runner:
                return runner.run(Daemon(options, paths, loaded, load_again, lock, taken, opened).run())
    finally:
        for each in (sock for group in opened.values() for sock in group):
            each.close()
        if taken is not None:
            taken.close()


def _has_keys(file: Path) -> bool:
    from corral.access.book import has_keys  # for the few servers that listen beyond this machine

    return has_keys(file)


def _listen(settings: Settings, paths: Paths, opened: dict[str, list[socket.socket]]) -> None:
    """Opens the addresses of the configuration into `opened`. The control socket comes first: who sees a port open and
    gives a command must find it, or the command would start a server of its own."""
    for where in (Listen(path=paths.control_socket), *settings.listen):
        opened[str(where)] = bound(where)


def _take_over(paths: Paths) -> Taken | None:
    """Everything is loaded before the running server is disturbed."""
    importlib.import_module("corral.daemon")
    from corral.handover.take import take_over

    return take_over(paths)


def _begin_warden(paths: Paths) -> subprocess.Popen[bytes] | None:
    """Starts one where there seems to be none. What goes wrong is told by whoever connects to it, and tries again."""
    from corral.runners.launch import begin_warden

    if paths.warden_socket.exists():
        return None
    with contextlib.suppress(OSError):
        return begin_warden(paths)
    return None
