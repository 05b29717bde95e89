"""Packaging files of this machine as a model in the store: `package(store, path, name, …)`."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import field
from pathlib import Path
from typing import Final, Literal

from corral.artifact import Built, Facts, File, Role, build_cncf, build_docker, role_by_name, safe_path
from corral.descriptors import Descriptor
from corral.errors import CallerError, ModelFileError
from corral.lazy_dataclass import dataclass
from corral.models.formats.capabilities import capabilities
from corral.models.formats.gguf import Header, read_header
from corral.models.formats.safetensors import INDEX, SafetensorsModel, read_alone, read_directory
from corral.models.formats.shards import read_model, shard_paths
from corral.store.adding import How
from corral.store.store import Store

Format = Literal["docker", "cncf"]

MAX_FILES: Final = 2000
MAX_DEPTH: Final = 8
_LEFT_OUT: Final = (".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack", ".onnx", ".pkl", ".incomplete", ".part", ".lock")
"""Pickles, which may run code when loaded, other forms of the same weights, and unfinished downloads."""
_KEPT_BINS: Final = ("tokenizer.bin",)


@dataclass(frozen=True, slots=True)
class Packaged:
    """What became of the files. `how` counts the ways in which they got into the store."""

    digest: str
    name: str
    files: tuple[File, ...]
    bytes: int
    how: dict[str, int] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Source:
    role: Role
    at: Path
    path: str  # in the model


def package(
    store: Store,
    path: Path,
    name: str,
    *,
    license: Sequence[Path] = (),
    template: Path | None = None,
    mmproj: Path | None = None,
    lora: Sequence[Path] = (),
    context_size: int | None = None,
    format: Format = "docker",
    how: How = "auto",
) -> Packaged:
    """Makes a model of the file or directory `path` and names it `name`, a reference in full. Blocks: hashes it all.

    `path` is a GGUF file (of a split one the first), a safetensors file, or a directory with either. The same files
    give the same digest. `how` is `store.add_file`'s.

    Raises ModelFileError when a file is not what it should be, CallerError, StoreError, DiskFull.
    """
    if context_size is not None and not 0 < context_size < 1 << 31:
        raise CallerError(f"{context_size} is no context size", hint="it is a number of tokens, such as 8192")
    sources, left_out = _sources(path)
    weights = [source for source in sources if source.role in ("weights", "shard")]
    header, directory = _read(path, weights)
    extra = _extra(license, template, mmproj, lora)
    single = {source.role for source in extra} & {
        "template",
        "mmproj",
    }  # what is given takes the place of what is there
    sources = [source for source in sources if source.role not in single and not _same_place(source, extra)] + extra
    _check_models(header, extra)
    ways: Counter[str] = Counter()
    files = []
    with contextlib.ExitStack() as held:  # until the name points to them
        for source in sources:
            added = store.add_file(source.at, how=how)
            held.enter_context(store.hold(added.digest))
            ways[added.how] += 1
            files.append(File(source.role, source.path, Descriptor("", added.digest, added.size)))
        seeing = any(source.role == "mmproj" for source in sources)
        facts = _facts(header, directory, context_size, path, seeing)
        built = build_cncf(files, facts) if format == "cncf" else build_docker(files, facts)
        total = store_built(store, built, name)
    return Packaged(built.digest, name, tuple(files), total, dict(ways), tuple(left_out))


def store_built(store: Store, built: Built, name: str, *, why: str = "package") -> int:
    """Puts a built manifest, whose files are in the store already, under `name`; its bytes with all files."""
    store.add_bytes(built.config)
    store.add_bytes(built.manifest)
    store.set_name(name, built.descriptor, why=why)
    named = store.lookup(name)
    return named.bytes or 0 if named is not None else 0


def _sources(path: Path) -> tuple[list[_Source], list[str]]:
    """The files to take, and the names of those that are left out."""
    if not path.exists():
        raise CallerError(f"there is no file {path}", hint="check the path")
    if path.is_dir():
        return _of_directory(path)
    if path.suffix.lower() == ".safetensors":
        beside = [path.with_name(each) for each in ("config.json", "tokenizer.json", "tokenizer_config.json")]
        found = [_Source("config", each, each.name) for each in beside if each.is_file()]
        return [_Source("weights", path, _named(path)), *found], []
    count = read_header(path).integer("split.count") or 1
    if count == 1:
        return [_Source("weights", path, _named(path))], []
    read_model(path)  # says which file is missing, or is the first
    first, *rest = shard_paths(path, count)
    return [_Source("weights", first, _named(first)), *(_Source("shard", each, _named(each)) for each in rest)], []


def _of_directory(root: Path) -> tuple[list[_Source], list[str]]:
    found: list[_Source] = []
    left_out: list[str] = []
    for file in _walk(root, 0):
        relative = file.relative_to(root).as_posix()
        if len(found) >= MAX_FILES:
            raise CallerError(f"{root} has more than {MAX_FILES} files", hint="name the directory of one model")
        if relative.lower().endswith(_LEFT_OUT) and file.name not in _KEPT_BINS:
            left_out.append(relative)
            continue
        found.append(_Source(role_by_name(relative), file, safe_path(relative)))
    ggufs = [source for source in found if source.role == "weights" and source.path.lower().endswith(".gguf")]
    tensors = [source for source in found if source.role == "weights" and source not in ggufs]
    if ggufs and tensors:
        raise CallerError(
            f"{root} has GGUF and safetensors files", hint="name one of them, or a directory with one kind"
        )
    if not ggufs:
        return found, left_out
    first = min(ggufs, key=lambda source: source.path)
    split, _ = _sources(first.at)
    split_paths = {source.at for source in split}
    if others := [source.path for source in ggufs if source.at not in split_paths]:
        raise CallerError(
            f"{root} has several models: {first.path} and {', '.join(others[:4])}", hint="name the file you mean"
        )
    mmprojs = [source for source in found if source.role == "mmproj"]
    if len(mmprojs) > 1:
        raise CallerError(
            f"{root} has several projectors: {', '.join(source.path for source in mmprojs[:4])}",
            hint="name the model's file, and the projector with --mmproj",
        )
    roles = {source.at: source.role for source in split}
    return [_Source(roles.get(source.at, source.role), source.at, source.path) for source in found], left_out


def _walk(directory: Path, depth: int) -> Iterator[Path]:
    """The plain files below, links to files followed, hidden ones and links to directories left out; sorted."""
    if depth > MAX_DEPTH:
        raise CallerError(f"{directory} is nested too deep", hint="name the directory of one model")
    for each in sorted(directory.iterdir()):
        if each.name.startswith(".") or each.name == "__pycache__":
            continue
        if each.is_dir():
            if not each.is_symlink():
                yield from _walk(each, depth + 1)
        elif each.is_file():
            yield each


def _extra(license: Sequence[Path], template: Path | None, mmproj: Path | None, lora: Sequence[Path]) -> list[_Source]:
    found = [_Source("license", each, "LICENSE" if at == 0 else f"LICENSE-{at + 1}") for at, each in enumerate(license)]
    if template is not None:
        found.append(_Source("template", template, "template.jinja"))
    if mmproj is not None:
        found.append(_Source("mmproj", mmproj, "mmproj.gguf"))
    found += [
        _Source("adapter", each, "adapter.gguf" if at == 0 else f"adapter-{at + 1}.gguf")
        for at, each in enumerate(lora)
    ]
    for source in found:
        if not source.at.is_file():
            raise CallerError(f"there is no file {source.at}", hint="check the path")
        if source.role in ("license", "template"):
            _check_text(source)
    return found


def _same_place(source: _Source, extra: Sequence[_Source]) -> bool:
    return any(source.path == each.path for each in extra)


def _check_text(source: _Source) -> None:
    if source.at.stat().st_size > 2 << 20:
        raise CallerError(f"{source.at} is too large for a {source.role}", hint="it should be a text of at most 2 MiB")
    try:
        source.at.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise CallerError(f"{source.at} is no UTF-8 text", hint=f"a {source.role} is a text") from error


def _read(path: Path, weights: Sequence[_Source]) -> tuple[Header | None, SafetensorsModel | None]:
    if not weights:
        raise CallerError(f"{path} has no model in it", hint="it should have a .gguf file or safetensors files")
    first = min(weights, key=lambda source: (source.role != "weights", source.path))
    if first.path.lower().endswith(".gguf") or (path.is_file() and path.suffix.lower() != ".safetensors"):
        header = read_model(first.at)
        kind = header.text("general.type") or "model"
        if kind != "model":
            raise ModelFileError(
                f"{first.at} is no model of its own but an {kind}"
                if kind[0] in "aeiou"
                else f"{first.at} is no model of its own but a {kind}",
                hint="name the model, and this file with --lora or --mmproj",
            )
        return header, None
    if path.is_file():
        return None, read_alone(path)
    if not ((path / INDEX).exists() or list(path.glob("*.safetensors"))):
        return None, None  # single files and trees such as diffusers': taken as they are
    return None, read_directory(path)


def _check_models(header: Header | None, extra: Sequence[_Source]) -> None:
    """The projector and the adapters are what they should be, and fit the model."""
    for source in extra:
        if source.role not in ("mmproj", "adapter"):
            continue
        read = read_header(source.at)
        kind = read.text("general.type") or ("mmproj" if read.architecture == "clip" else "model")
        if kind != source.role:
            raise ModelFileError(
                f"{source.at} is a {kind} and no {'projector' if source.role == 'mmproj' else 'adapter'}",
                hint="convert_lora_to_gguf.py makes adapters, convert_hf_to_gguf.py --mmproj projectors",
            )
        if source.role == "adapter" and header is not None and read.architecture != header.architecture:
            raise ModelFileError(
                f"{source.at} is made for {read.architecture} models, and this one is {header.architecture}",
                hint="use the adapter that was trained for this model",
            )


def gguf_facts(header: Header, *, seeing: bool, context_size: int | None = None) -> Facts:
    """What a GGUF says of itself; `seeing`: a projector comes with it."""
    license = header.text("general.license")
    return Facts(
        "gguf",
        architecture=header.architecture,
        parameters=header.parameters,
        quantization=header.quantization,
        size=header.file_bytes,
        context_size=context_size,
        name=header.name or "",
        licenses=(license,) if license else (),
        capabilities=capabilities(header, vision=seeing),
    )


def _facts(
    header: Header | None, directory: SafetensorsModel | None, context_size: int | None, path: Path, seeing: bool
) -> Facts:
    if header is not None:
        return gguf_facts(header, seeing=seeing, context_size=context_size)
    if directory is not None:
        return Facts(
            "safetensors",
            architecture=directory.architecture,
            parameters=directory.shape.parameters,
            quantization=directory.quantization,
            size=directory.shape.file_bytes,
            context_size=context_size,
            name=path.name,
        )
    return Facts("safetensors", context_size=context_size, name=path.name)


def _named(path: Path) -> str:
    """The file's name in the model. A GGUF file may be called anything here; there it is told by its ending."""
    known = path.suffix.lower() in (".gguf", ".safetensors")
    return safe_path(path.name if known else f"{path.name}.gguf")
