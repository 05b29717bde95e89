"""A plan under bwrap: what it comes to, and what a program inside can really see and do."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from corral.config.settings import ModelSettings
from corral.engines import bubblewrap, embedded_host
from corral.engines.adapter import Start
from corral.engines.bubblewrap import Host
from corral.engines.confined import Confined, own_folder
from corral.engines.llamacpp import LlamaCpp
from corral.engines.plan import Endpoint, LaunchPlan
from corral.errors import EngineMissing
from corral.hardware import confinement
from support import sandboxes
from support.engines import plan_of
from support.ggufs import write_chain

HOST = Host("/usr/bin/bwrap", "/usr/bin/env", ("--unshare-net",), (Path("/opt/engine"), Path("/usr/lib/python3")))

PROBE = """
import json, os, socket, sys
home, model, elsewhere, mine = sys.argv[1:]
def tries(what):
    try:
        return str(what())
    except OSError as error:
        return type(error).__name__ + " " + os.strerror(error.errno)
def connect(family, address):
    with socket.socket(family) as each:
        each.settimeout(2)
        each.connect(address)
def write(path):
    with open(path, "w") as file:
        file.write("x")
status = dict(line.split(":", 1) for line in open("/proc/self/status").read().splitlines())
print(json.dumps({
    "interfaces": [line.split(":")[0].strip() for line in open("/proc/net/dev").read().splitlines()[2:]],
    "connect": tries(lambda: connect(socket.AF_INET, ("127.0.0.1", int(elsewhere)))),
    "home": tries(lambda: os.listdir(home)),
    "secret": tries(lambda: open(os.path.join(home, "secret")).read()),
    "model": tries(lambda: open(model, "rb").read(4)),
    "beside": os.listdir(os.path.dirname(model)),
    "write model": tries(lambda: write(model)),
    "write root": tries(lambda: write("/x")),
    "write usr": tries(lambda: write("/usr/x")),
    "write etc": tries(lambda: write("/etc/x")),
    "write tmp": tries(lambda: write("/tmp/x")),
    "write mine": tries(lambda: write(os.path.join(mine, "x"))),
    "sockets": os.listdir(os.path.dirname(mine)),
    "processes": sorted(int(each) for each in os.listdir("/proc") if each.isdigit()),
    "capabilities": [status[each].strip() for each in ("CapEff", "CapPrm", "CapBnd")],
    "sysctl": tries(lambda: write("/proc/sys/kernel/hostname")),
    "devices": sorted(os.listdir("/dev")),
    "etc": sorted(os.listdir("/etc")),
    "passwd": tries(lambda: open("/etc/passwd").read()),
}))
"""


def words(plan: LaunchPlan) -> list[tuple[str, ...]]:
    """bwrap's words, an option with what belongs to it each."""
    found: list[tuple[str, ...]] = []
    for word in plan.argv[3 : plan.argv.index("--")]:
        if word.startswith("--"):
            found.append((word,))
        else:
            found[-1] = (*found[-1], word)
    return found


def test_a_plan_is_wrapped_whole() -> None:
    """The engine's own arguments stay the last; programs, the model and what the arguments name are read-only, the
    socket's folder and the slots can be written, and nothing is bound twice or inside of what is there already."""
    argv = ("/opt/engine/server", "--model", "/m/a.gguf", "--mmproj=/m/p.gguf", "--host", "/run/u/a.1/s.sock",
            "--slot-save-path", "/state/slots", "--chat-template-file", "/usr/share/t.jinja")  # fmt: skip
    plan = plan_of(*argv, endpoint=Endpoint(socket=Path("/run/u/a.1/s.sock")))
    wrapped = bubblewrap.wrap(plan, HOST, {"LD_LIBRARY_PATH": "/cuda/lib:relative"})
    assert wrapped.sandbox == "bubblewrap"
    assert wrapped.argv[-len(argv) :] == argv
    assert wrapped.argv[:3] == ("/usr/bin/env", "--ignore-signal=TERM,INT", "/usr/bin/bwrap")
    said = words(wrapped)
    bound = {each[1]: each[0] for each in said if "bind" in each[0]}
    for path in ("/opt/engine", "/m/a.gguf", "/m/p.gguf", "/cuda/lib"):
        assert bound[path] == "--ro-bind-try"
    assert bound["/run/u/a.1"] == bound["/state/slots"] == "--bind-try"
    assert "/usr/lib/python3" not in bound and "/usr/share/t.jinja" not in bound and "/opt/engine/server" not in bound
    assert "/run/u/a.1/s.sock" not in bound and not any(each.startswith("/dev") for each in bound)
    assert said.index(("--tmpfs", "/tmp")) < min(said.index(each) for each in said if "/m/a.gguf" in each)
    assert said.index(("--remount-ro", "/")) > max(at for at, each in enumerate(said) if "bind" in each[0])
    assert bubblewrap.wrap(plan, HOST, {}) == bubblewrap.wrap(plan, HOST, {})


def test_devices_come_with_a_plan_for_a_gpu() -> None:
    """Only an engine that is to use one sees GPUs."""
    plan = replace(plan_of("/opt/engine/server"), devices=("cpu", "gpu0"))
    bound = {each[1] for each in words(bubblewrap.wrap(plan, HOST, {})) if each[0] == "--dev-bind-try"}
    assert {"/dev/dri", "/dev/kfd", "/dev/nvidiactl", "/dev/nvidia0"} <= bound


@pytest.mark.parametrize(
    ("code", "means"), [(0, (0, None)), (1, (1, None)), (137, (None, 9)), (139, (None, 11)), (128, (128, None))]
)
def test_a_signal_is_told_from_bwraps_exit_code(code: int, means: tuple[int | None, int | None]) -> None:
    """Bubblewrap ends with 128 and the signal's number where its child was ended by one."""
    assert bubblewrap.exit_of(code) == means


def test_a_socket_gets_a_folder_of_its_own() -> None:
    """So that no engine reaches another's socket; doing it twice changes nothing."""
    once = own_folder(Endpoint(socket=Path("/run/u/a.12.sock")))
    assert once.socket == Path("/run/u/a.12/s.sock")
    assert own_folder(once) == once


def test_without_bubblewrap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`bubblewrap` is then an error with what to install, `auto` a warning; `off` says nothing."""
    model = ModelSettings("m", write_chain(tmp_path / "m.gguf", ["a"]), executable="embedded")
    monkeypatch.setenv("PATH", str(tmp_path))

    def plan(**more: Any) -> LaunchPlan:
        socket = Endpoint(socket=tmp_path / "m.1.sock")
        return Confined(LlamaCpp()).plan(Start(replace(model, **more), generation=1, endpoint=socket))

    with pytest.raises(EngineMissing, match="cannot be sandboxed: bwrap is not on PATH") as caught:
        plan(sandbox="bubblewrap")
    assert "install the package bubblewrap" in caught.value.hint
    loose = plan(sandbox="auto")
    assert "not sandboxed: bwrap is not on PATH" in loose.warnings and loose.sandbox == ""
    assert loose.argv[: len(embedded_host.command())] == embedded_host.command()
    assert plan(sandbox="off").warnings == ()
    bad = tmp_path / "bwrap"
    bad.write_text("#!/bin/sh\necho 'bwrap: No permissions to create new namespace' >&2\nexit 1\n")
    bad.chmod(0o755)
    (tmp_path / "env").symlink_to("/usr/bin/env")
    with pytest.raises(EngineMissing, match="No permissions to create new namespace") as refused:
        plan(sandbox="bubblewrap")
    assert "sysctl" in refused.value.hint


def test_what_reaches_out_cannot_be_sandboxed(tmp_path: Path) -> None:
    """Devices of other machines need the network that a sandbox has not."""
    sandboxes.bubblewrap()
    source = write_chain(tmp_path / "m.gguf", ["a"])
    model = ModelSettings("m", source, executable="embedded", args=("--rpc", "h:1"), sandbox="bubblewrap")
    with pytest.raises(EngineMissing, match="--rpc"):
        Confined(LlamaCpp()).plan(Start(model, generation=1, endpoint=Endpoint(socket=tmp_path / "m.1.sock")))


@pytest.fixture
def open_tmp() -> Iterator[Path]:
    """A directory that other users may look into, as the usual ones of tests may not be."""
    root = Path(tempfile.mkdtemp(prefix="co-"))
    root.chmod(0o755)
    yield root
    shutil.rmtree(root)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="bubblewrap is for Linux only")
@pytest.mark.parametrize("unprivileged", [False, True])
def test_from_inside(open_tmp: Path, unprivileged: bool) -> None:
    """In the very sandbox of a real plan: no network, no home, no other process or socket, no capability, nothing to
    write to but its own folder and /tmp, and the model there to be read. As this user, and as one without rights."""
    import socket as sockets

    sandboxes.bubblewrap()
    home = open_tmp / "home"
    home.mkdir()
    (home / "secret").write_text("hidden")
    models, units = open_tmp / "models", open_tmp / "u"
    models.mkdir()
    units.mkdir()
    source = write_chain(models / "m.gguf", ["a"])
    (models / "other.gguf").write_text("not mine")
    (units / "other.1.sock").write_text("")
    model = ModelSettings("m", source, executable="embedded", sandbox="bubblewrap")
    plan = Confined(LlamaCpp()).plan(Start(model, generation=1, endpoint=Endpoint(socket=units / "m.1.sock")))
    assert plan.endpoint.socket is not None
    own = plan.endpoint.socket.parent
    own.mkdir()
    if unprivileged:  # who may not read this environment's Python: the system's does without
        bare = plan_of("/usr/bin/python3", "--model", str(source), endpoint=plan.endpoint)
        plan = bubblewrap.wrap(bare, Host(*confinement.find_bwrap(), confinement.APART, ()), {})
    inside = plan.argv[: plan.argv.index("--default-signal=TERM,INT") + 1]
    if unprivileged and os.geteuid() != 0:
        pytest.skip("this user has no rights to give up")
    as_nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--no-new-privs"]
    if unprivileged:
        for each in (own, units):
            os.chown(each, 65534, 65534)
    with sockets.create_server(("127.0.0.1", 0)) as listening:
        port = str(listening.getsockname()[1])
        python = "/usr/bin/python3" if unprivileged else sys.executable
        if unprivileged and not Path(python).exists():
            pytest.skip("the system has no Python of its own")
        asked = [*inside, python, "-I", "-c", PROBE, str(home), str(source), port, str(own)]
        command = [*as_nobody, *asked] if unprivileged else asked
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, cwd="/")
    if unprivileged and "namespace" in done.stderr:
        pytest.skip(f"users without rights may make no namespaces here: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert seen["interfaces"] == ["lo"]
    assert "refused" in seen["connect"] or "unreachable" in seen["connect"], seen["connect"]
    assert seen["home"] == "FileNotFoundError No such file or directory"
    assert "hidden" not in seen["secret"]
    assert seen["model"] == str(b"GGUF") and seen["beside"] == ["m.gguf"]
    for place in ("model", "root", "usr", "etc"):
        assert "Error" in seen[f"write {place}"], place
    assert "Read-only file system" in seen["write usr"] and "Read-only file system" in seen["write root"]
    assert seen["write tmp"] == seen["write mine"] == "None"
    assert seen["sockets"] == ["m.1"] and (own / "x").read_text() == "x"
    assert seen["processes"] == [1, 2]
    assert set(seen["capabilities"][:2]) == {"0" * 16}
    assert "Error" in seen["sysctl"]
    assert not {"sda", "vda", "mem", "kmsg", "dri"} & set(seen["devices"])
    assert set(seen["etc"]) <= {"ld.so.cache", "ld.so.conf", "ld.so.conf.d", "alternatives", "localtime"}
    assert "Error" in seen["passwd"]


def test_trying_is_remembered(tmp_path: Path) -> None:
    """Bubblewrap is tried once for each program as it is, not at every start."""
    counted = tmp_path / "count"
    fake = tmp_path / "bwrap"
    fake.write_text(f'#!/bin/sh\necho x >>{counted}\nwhile [ "$1" != -- ]; do shift; done\nshift\nexec "$@"\n')
    fake.chmod(0o755)
    for _ in range(3):
        confinement.check(str(fake), "/usr/bin/env")
    assert counted.read_text() == "x\n"
