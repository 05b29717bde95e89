"""What a server loads before anybody asked for anything."""

from __future__ import annotations

import re
import subprocess
import sys

from corral.config.paths import Paths
from support.server import Server

MOST_MODULES = 690
"""Of a server that starts and ends, the interpreter's own included. Each costs about half a millisecond of every start:
more of them need a reason."""


def test_a_server_loads_only_what_it_always_needs() -> None:
    """What few installations ever use is loaded when they do, not when the server starts: packages, and Corral's own
    modules for stored models and registries."""
    packages = ("cryptography", "huggingface_hub", "httpx2", "xllamacpp", "numpy")
    own = (
        "registry.egress",
        "api_store",
        "models.downloads",
        "models.shelf",
        "models.workshop",
        "gateway.store_control",
    )
    seldom = (*packages, *(f"corral.{each}" for each in own))
    program = f"import sys, corral.serve, corral.daemon; print([name for name in {seldom} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"


NOT_LINUX = """
import importlib, os, pkgutil, resource, select, signal, socket, sys, sysconfig, urllib.request
import uvloop
sysconfig.get_config_vars()  # what is of this platform in the standard library itself is loaded before
sys.platform = "darwin"
gone = {
    os: ("SCHED_", "CLONE_", "RWF_", "GRND_", "MFD_", "EFD_", "SPLICE_", "POSIX_FADV_", "O_DIRECT", "O_TMPFILE",
         "O_PATH", "O_NOATIME", "sched_", "pidfd_", "posix_fa", "memfd_", "eventfd", "getrandom", "splice",
         "copy_file_range", "listxattr", "getxattr", "setxattr", "getresuid", "setresuid", "fdatasync", "pipe2"),
    select: ("epoll", "EPOLL"),
    signal: ("sigwaitinfo", "sigtimedwait", "SIGPWR", "SIGSTKFLT", "SIGPOLL", "SIGRTM", "pidfd_"),
    socket: ("AF_NETLINK", "AF_PACKET", "AF_VSOCK", "AF_ALG", "SO_PEERCRED", "SO_BINDTODEVICE", "SO_MARK",
             "SOCK_CLOEXEC", "SOCK_NONBLOCK", "TCP_QUICKACK", "TCP_USER_TIMEOUT", "TCP_KEEPIDLE", "TCP_CORK"),
    resource: ("prlimit", "RLIMIT_MSGQUEUE", "RLIMIT_NICE", "RLIMIT_SIGPENDING", "RUSAGE_THREAD"),
}
for module, starts in gone.items():
    for name in [name for name in dir(module) if name.startswith(starts)]:
        delattr(module, name)

def no_proc(event, arguments):
    if event == "open" and str(arguments[0]).startswith(("/proc", "/sys/")):
        raise FileNotFoundError(2, "there is no such thing here", arguments[0])

sys.addaudithook(no_proc)
import corral
failed = {}
for found in pkgutil.walk_packages(corral.__path__, "corral."):
    if not found.name.endswith("__main__"):
        try:
            importlib.import_module(found.name)
        except Exception as error:
            failed[found.name] = repr(error)
assert not hasattr(select, "epoll") and "corral.daemon" in sys.modules and "corral.warden.server" in sys.modules
print(failed)
"""


def test_nothing_of_linux_is_needed_to_be_imported() -> None:
    """Every module of Corral loads on a system that is no Linux: without epoll, pidfds, prlimit, CPU sets, /proc and
    what else only Linux has in the standard library."""
    done = subprocess.run([sys.executable, "-c", NOT_LINUX], capture_output=True, text=True, check=False, timeout=100)
    assert (done.returncode, done.stdout.strip()) == (0, "{}"), done.stderr[-2000:]


def test_a_whole_life_loads_only_what_it_needs(paths: Paths) -> None:
    """Nor by what a server does once it is up: nothing of containers where none was made, no HTTP client."""
    with Server(paths, env={"PYTHONPROFILEIMPORTTIME": "1"}) as server:
        server.end()
        loaded = re.findall(r"^import time: .*\| +(\S+)$", server.said(), re.MULTILINE)
    assert "corral.daemon" in loaded
    own = r"corral\.(registry|environments|runners\.containers)\.(?!records$)"
    seldom = rf"{own}|http\.client|xllamacpp|cryptography"
    assert [name for name in loaded if re.match(seldom, name)] == []
    assert len(loaded) <= MOST_MODULES
