"""Reading a manifest and its config: `read_artifact`. Nothing in either is believed before it is checked."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, cast, get_args

from corral.artifact import media
from corral.artifact.files import Artifact, File, Flavour, Packing, Role, safe_path
from corral.descriptors import Descriptor, descriptor_from
from corral.errors import ManifestError

MAX_LAYERS: Final = 4096
MAX_CONTEXT: Final = (1 << 31) - 1
_SHARD = re.compile(r"(?P<stem>.+)-(?P<number>[0-9]{5})-of-(?P<count>[0-9]{5})\.gguf", re.IGNORECASE)
_LICENSE = re.compile(r"(?:licen[cs]e|copying|notice|use_policy)(?:[._-].*)?", re.IGNORECASE)
_MMPROJ = re.compile(r"(?:^|[._/-])mmproj(?=[._-]|$)", re.IGNORECASE)
_ADAPTER = re.compile(r"(?:^|[._/-])(?:lora|adapter)(?=[._-]|$)", re.IGNORECASE)
_USUAL_NAMES: Final[dict[str, str]] = {
    "mmproj": "mmproj.gguf",
    "adapter": "adapter.gguf",
    "draft": "draft.gguf",
    "template": "template.jinja",
    "license": "LICENSE",
    "params": "params.json",
    "system": "system.txt",
    "messages": "messages.json",
    "config": "config.bin",
    "other": "file.bin",
}


def read_artifact(manifest: Mapping[str, Any], config: Mapping[str, Any]) -> Artifact:
    """The model that `manifest` describes; `config` is its decoded config blob, `{}` where that is no JSON object.

    Raises ManifestError when it holds no model, or one that nobody here understands.
    """
    descriptor = _config_of(manifest)
    layers = manifest.get("layers")
    if not isinstance(layers, list) or not layers:
        raise _fault("it has no layers", hint="an index of several manifests is resolved to one of them first")
    if len(layers) > MAX_LAYERS:
        raise _fault(f"it has {len(layers)} layers and {MAX_LAYERS} are allowed")
    found = [descriptor_from(layer) for layer in layers]
    flavour = _flavour(descriptor, found)
    read = _READERS[flavour]
    known = read(config)
    files = [_file(layer, flavour, alone=len(found) == 1) for layer in found]
    if flavour == "ollama" and any(";" in layer.media_type and "tensor" in layer.media_type for layer in found):
        raise _fault(
            "its weights are single tensors for Ollama's own engine", hint="pull the GGUF variant of the model"
        )
    form = known.format or _format_of(files)
    named = _named(with_shards(files, flavour), form)
    context = known.context_size or _annotated_context(manifest)
    artifact = replace(known, format=form, files=tuple(named), config=descriptor, context_size=context)
    if not artifact.of("weights") and not artifact.packed:
        raise _fault("none of its layers is a model", hint="is this a container image or another kind of artifact?")
    return artifact


def _config_of(manifest: Mapping[str, Any]) -> Descriptor | None:
    return descriptor_from(manifest["config"]) if manifest.get("config") is not None else None


def _flavour(config: Descriptor | None, layers: Sequence[Descriptor]) -> Flavour:
    kind = config.media_type if config is not None else ""
    if kind in (media.DOCKER_CONFIG_V01, media.DOCKER_CONFIG_V02):
        return "docker"
    if kind in media.CNCF_CONFIGS:
        return "cncf"
    if any(media.OLLAMA_LAYER.fullmatch(layer.media_type) for layer in layers):
        return "ollama"
    return "plain"


# Configs -------------------------------------------------------------------------------------------------------------


def _docker(config: Mapping[str, Any]) -> Artifact:
    inner = _object(config, "config")
    return Artifact(
        "docker",
        _text(inner, "format").lower(),
        (),
        context_size=_context(inner.get("context_size")),
        parameters=_text(inner, "parameters"),
        quantization=_text(inner, "quantization"),
        architecture=_text(inner, "architecture"),
        created=_text(_object(config, "descriptor"), "created"),
    )


def _cncf(config: Mapping[str, Any]) -> Artifact:
    about, inner = _object(config, "descriptor"), _object(config, "config")
    able = _object(inner, "capabilities")
    claims = {
        "tools": able.get("toolUsage") is True,
        "thinking": able.get("reasoning") is True,
        "vision": "image" in _texts(able, "inputTypes"),
        "embedding": "embedding" in _texts(able, "outputTypes"),
    }
    return Artifact(
        "cncf",
        _text(inner, "format").lower(),
        (),
        parameters=_text(inner, "paramSize"),
        quantization=_text(inner, "quantization") or _text(inner, "precision"),
        architecture=_text(inner, "architecture"),
        name=_text(about, "name"),
        created=_text(about, "createdAt"),
        licenses=_texts(about, "licenses"),
        capabilities=tuple(name for name, claimed in claims.items() if claimed),
    )


def _ollama(config: Mapping[str, Any]) -> Artifact:
    if _text(config, "remote_host"):
        raise _fault("it only names a model on another server", hint="pull one whose name does not end in -cloud")
    return Artifact(
        "ollama",
        _text(config, "model_format").lower(),
        (),
        parameters=_text(config, "model_type"),
        quantization=_text(config, "file_type"),
        architecture=_text(config, "model_family"),
        capabilities=_texts(config, "capabilities"),
    )


def _plain(config: Mapping[str, Any]) -> Artifact:
    return Artifact("plain", "", ())


_READERS: Final[dict[Flavour, Callable[[Mapping[str, Any]], Artifact]]] = {
    "docker": _docker,
    "cncf": _cncf,
    "ollama": _ollama,
    "plain": _plain,
}


def _object(data: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = data.get(key)
    return value if isinstance(value, Mapping) else {}


def _text(data: Mapping[str, Any], key: str) -> str:
    value = data.get(key)
    return value if isinstance(value, str) and len(value) <= 200 and value.isprintable() else ""


def _texts(data: Mapping[str, Any], key: str) -> tuple[str, ...]:
    value = data.get(key)
    items = value[:64] if isinstance(value, list) else []
    return tuple(item for item in items if isinstance(item, str) and len(item) <= 200 and item.isprintable())


def _context(value: object) -> int | None:
    if value is None or value == 0:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or not 0 < value <= MAX_CONTEXT:
        raise _fault(f"its context size is {repr(value)[:40]}")
    return value


def _annotated_context(manifest: Mapping[str, Any]) -> int | None:
    value = _object(manifest, "annotations").get(media.CONTEXT_SIZE)
    return _context(int(value)) if isinstance(value, str) and value.isdecimal() and len(value) < 12 else None


# Layers --------------------------------------------------------------------------------------------------------------


def _file(layer: Descriptor, flavour: Flavour, *, alone: bool) -> File:
    """The layer with its role, the packing its media type tells, and its own path; "" where it has none."""
    given = next(
        (layer.annotations[key] for key in (*media.FILEPATHS, media.OCI_TITLE) if key in layer.annotations), ""
    )
    path = safe_path(given.rstrip("/")) if given else ""
    packing = _packing(layer, path)
    stated = layer.annotations.get(media.ROLE, "")
    if stated in get_args(Role):
        return File(cast(Role, stated), path, layer, packing)
    role = ""
    if flavour == "docker":
        role = media.ROLE_OF_DOCKER_TYPE.get(layer.media_type, "")
    elif match := media.OLLAMA_LAYER.fullmatch(layer.media_type):
        role = media.ROLE_OF_OLLAMA_KIND.get(match["kind"], "other")
    elif match := media.CNCF_LAYER.fullmatch(layer.media_type):
        role = _cncf_role(match["kind"], path)
    if role:
        return File(cast(Role, role), path, layer, packing)
    if not path and alone and packing == "raw":
        return File("weights", "", layer)
    return File(role_by_name(path), path, layer, packing)


def _cncf_role(kind: str, path: str) -> Role:
    if kind == "weight":
        by_name = role_by_name(path)
        return by_name if by_name in ("mmproj", "adapter") else "weights"
    if kind == "weight.config":
        by_name = role_by_name(path)
        return by_name if by_name in ("template", "license") else "config"
    return "license" if role_by_name(path) == "license" else "other"


def role_by_name(path: str) -> Role:
    """What a file is for, where only its name can tell."""
    name = path.rsplit("/", 1)[-1]
    lower = name.lower()
    if lower.endswith(".gguf"):
        stem = name[: -len(".gguf")]
        if _MMPROJ.search(stem):
            return "mmproj"
        return "adapter" if _ADAPTER.search(stem) else "weights"
    if lower.endswith(".mmproj"):
        return "mmproj"
    if lower.endswith((".safetensors", ".dduf")):
        return "adapter" if lower.startswith("adapter_model") else "weights"
    if lower.endswith(".jinja"):
        return "template"
    if _LICENSE.fullmatch(name):
        return "license"
    return "config" if lower.endswith((".json", ".model", ".txt", ".tiktoken")) else "other"


def _packing(layer: Descriptor, path: str) -> Packing:
    kind = layer.media_type.split(";", 1)[0]
    if kind.startswith(media.IMAGE_LAYERS) and path and layer.annotations.get(media.ORAS_UNPACK) != "true":
        return "raw"  # oras gives any plain file this type, and marks the archives
    if kind in media.DOCKER_TARS or kind.endswith((".tar", "/x-tar")):
        return "tar"
    if kind.endswith((".tar+gzip", ".tar.gzip")):
        return "tar+gzip"
    return "tar+zstd" if kind.endswith(".tar+zstd") else "raw"


def _format_of(files: Sequence[File]) -> str:
    """The format, by names and media types, where no config says it."""
    for file in files:
        if file.role != "weights" or file.packing != "raw":
            continue
        kind, path = file.descriptor.media_type, file.path.lower()
        for form in ("gguf", "safetensors", "dduf"):
            if path.endswith(f".{form}") or form in kind:
                return form
    alone = [file for file in files if file.role == "weights" and file.packing == "raw"]
    return "gguf" if len(alone) == 1 else ""


def with_shards(files: list[File], flavour: Flavour) -> list[File]:
    """`files` with the further ones of a split GGUF model told from its first, all named so that an engine finds them.

    Raises ManifestError for several GGUF files that are not the pieces of one model.
    """
    pieces = [file for file in files if file.role in ("weights", "shard") and file.packing == "raw" and _is_gguf(file)]
    if len(pieces) < 2:
        return files
    matches = [_SHARD.fullmatch(file.path) for file in pieces]
    counts = {(match["stem"], int(match["count"])) if match else None for match in matches}
    numbers = sorted(int(match["number"]) for match in matches if match)
    if len(counts) == 1 and None not in counts and numbers == list(range(1, len(pieces) + 1)):
        if {count[1] for count in counts if count} != {len(pieces)}:
            raise _fault("some files of its split model are missing", hint="the packager left them out")
        pieces.sort(key=lambda file: file.path)
        renamed = pieces
    elif flavour in ("docker", "ollama"):  # one model each, its pieces in order
        count = len(pieces)
        renamed = [replace(file, path=f"model-{at:05}-of-{count:05}.gguf") for at, file in enumerate(pieces, 1)]
    else:
        names = ", ".join(file.path or "(unnamed)" for file in pieces[:4])
        raise _fault(f"it holds several models: {names}", hint="package one model in one artifact")
    rest = [file for file in files if all(file is not piece for piece in pieces)]
    first, *further = renamed
    return [replace(first, role="weights"), *(replace(file, role="shard") for file in further), *rest]


def _is_gguf(file: File) -> bool:
    return not file.path.lower().endswith((".safetensors", ".dduf")) and not (
        file.descriptor.media_type in (media.DOCKER_SAFETENSORS, media.DOCKER_DDUF)
        or file.descriptor.media_type.endswith(".v1.safetensors")
    )


def _named(files: Sequence[File], form: str) -> list[File]:
    """`files`, each with a path: its own or the usual one for its role. No two may clash.

    Raises ManifestError.
    """
    taken: dict[str, str] = {}
    named: list[File] = []
    for file in sorted(files, key=lambda file: not file.path):  # those with names of their own keep them
        path = file.path
        if file.packing != "raw":
            named.append(file if path else replace(file, path="archive"))  # a label; what is inside has the paths
            continue
        if not path:
            usual = f"model.{form or 'bin'}" if file.role == "weights" else _USUAL_NAMES.get(file.role, "file.bin")
            path = _free(usual, taken)
        elif path in taken:
            if taken[path] != file.descriptor.digest:
                raise _fault(f"two of its files have the path {path!r}")
            continue  # the same file said twice
        taken[path] = file.descriptor.digest
        named.append(replace(file, path=path))
    raw = {file.path for file in named if file.packing == "raw"}
    for path in raw:
        parts = path.split("/")
        if any("/".join(parts[:depth]) in raw for depth in range(1, len(parts))):
            raise _fault(f"the path {path!r} goes through another of its files")
    order = {id(file.descriptor): at for at, file in enumerate(files)}
    return sorted(named, key=lambda file: order[id(file.descriptor)])


def _free(name: str, taken: Mapping[str, str]) -> str:
    if name not in taken:
        return name
    stem, dot, ending = name.partition(".")
    return next(new for at in range(2, MAX_LAYERS + 3) if (new := f"{stem}-{at}{dot}{ending}") not in taken)


def _fault(what: str, *, hint: str = "the manifest is damaged, or its packager made a mistake") -> ManifestError:
    return ManifestError(f"the manifest is no usable model: {what}", hint=hint)
