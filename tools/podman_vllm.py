"""vLLM's image for the tests of containers: Corral's Containerfile over the environment that `make vllm` installed.

The environment is taken as it is, as llama.cpp's image takes the programs that `make engines` compiled: one tar of the
base system and of it becomes the image that the Containerfile calls BUILD_BASE. It goes into Podman while it is made,
for it has gigabytes.
"""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tools.install_podman_user import run_as

from corral.engines.vllm_builds import build_in, installed
from corral.errors import EngineMissing

_PYTHON = "/usr/bin/python3"
_SKIPPED = ("pip",)  # of its packages; not setuptools and what it loads, which torch loads in turn


def environment(cache: Path) -> Path | None:
    """The one that `make vllm` made; None where it did not."""
    found = installed(cache / "tests")
    if found is None:
        return None
    try:
        build = build_in(found)
    except EngineMissing:
        return None
    return build.folder if build.variant == "cpu" else None


def import_with(base: Path, folder: Path, name: str, made_of: str) -> None:
    """Makes the image `name`: the system in the tar `base`, and the environment `folder` in it at /opt/vllm."""
    reading, writing = os.pipe()

    def write() -> None:
        with os.fdopen(writing, "wb") as out, tarfile.open(fileobj=out, mode="w|", bufsize=1 << 20) as tar:
            _copy(base, tar)
            for path, inside in _files(folder):
                tar.add(path, inside, recursive=False, filter=_everybody_s)
            _link(tar, "opt/vllm/bin/python", _PYTHON)
            _text(tar, "opt/vllm/pyvenv.cfg", "home = /usr/bin\ninclude-system-site-packages = false\n")

    with ThreadPoolExecutor(1) as pool:
        written = pool.submit(write)
        with os.fdopen(reading, "rb") as data:
            run_as(["podman", "import", "--quiet", "--change", f"LABEL made-of={made_of}", "-", name], stdin=data)
        written.result()


def _copy(archive: Path, into: tarfile.TarFile) -> None:
    with tarfile.open(archive) as tar:
        for member in tar:
            into.addfile(member, tar.extractfile(member) if member.isreg() else None)


def _files(folder: Path) -> Iterator[tuple[Path, str]]:
    """Its packages, the libraries beside them and programs that are no scripts: those name a Python of this machine."""
    yield folder / "lib", "opt/vllm/lib"
    for top, folders, names in os.walk(folder / "lib"):
        if Path(top).name == "site-packages":
            folders[:] = [each for each in folders if each not in _SKIPPED and not each.startswith("pip-")]
        for name in sorted((*folders, *names)):
            path = Path(top, name)
            yield path, f"opt/vllm/{path.relative_to(folder)}"
    yield folder / "bin", "opt/vllm/bin"
    for path in sorted((folder / "bin").iterdir()):
        if path.is_file() and not path.is_symlink() and path.read_bytes()[:4] == b"\x7fELF":
            yield path, f"opt/vllm/bin/{path.name}"


def _everybody_s(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = "root"
    member.mode |= 0o555 if member.isdir() else 0o444
    return member


def _link(tar: tarfile.TarFile, name: str, to: str) -> None:
    member = tarfile.TarInfo(name)
    member.type, member.linkname, member.mode = tarfile.SYMTYPE, to, 0o777
    tar.addfile(member)


def _text(tar: tarfile.TarFile, name: str, text: str) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode = len(text.encode()), 0o644
    tar.addfile(member, io.BytesIO(text.encode()))
