"""Which files of a repository make the model that was asked for. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

from corral.errors import ManifestError, NotInRegistry
from corral.lazy_dataclass import dataclass
from corral.registry.hub_files import MAX_SHARDS, HubFile, Shard, shard_of
from corral.registry.quants import quant_of, rank, told

_LICENSES = ("license", "license.txt", "license.md", "licence", "licence.txt", "licence.md")
_CONFIGS = (".json", ".txt", ".model", ".jinja", ".tiktoken", ".vocab", ".yaml")
_NOT_A_MODEL = ("mmproj", "imatrix")  # GGUF files too, which belong to a model or were used to make it


@dataclass(frozen=True, slots=True)
class Picked:
    """The files of one model. `weights` are in their order; `others` keep their paths in a directory."""

    format: Literal["gguf", "safetensors"]
    weights: tuple[HubFile, ...]
    quantization: str = ""
    mmproj: HubFile | None = None
    template: HubFile | None = None
    license: HubFile | None = None
    others: tuple[HubFile, ...] = ()
    notes: tuple[str, ...] = ()

    def files(self) -> tuple[HubFile, ...]:
        extra = (self.mmproj, self.template, self.license)
        return (*self.weights, *self.others, *(file for file in extra if file is not None))


def pick(files: Sequence[HubFile], *, where: str, wish: str = "", path: str = "") -> Picked:
    """The model in `files` by its quantization (`wish`) or one file's `path`, else the documented default.

    `where` names the repository in errors. Raises NotInRegistry when nothing there is meant, ManifestError when what
    is meant is incomplete.
    """
    files = sorted(files, key=lambda file: file.path)
    wish = "" if wish.lower() == "latest" else wish
    models = _models(file for file in files if _is(file, ".gguf") and not _companion(file))
    if path:
        return _by_path(files, models, path, where)
    if models:
        return _gguf(files, models, wish, where)
    weights = [file for file in files if _is(file, ".safetensors")]
    if not weights:
        held = ", ".join(sorted({kind for file in files if (kind := _kind(file.name))})[:8]) or "nothing"
        hint = f"it holds {held}; look for the model's name with GGUF, as in: corral search NAME"
        raise NotInRegistry(f"{where} has neither GGUF nor safetensors files", hint=hint)
    if wish:
        hint = f"it holds safetensors, of which there is one form; ask for {where} alone"
        raise NotInRegistry(f"{where} has no GGUF files, so no quantization {wish}", hint=hint)
    return _directory(files, weights, where)


@dataclass(frozen=True, slots=True)
class _Model:
    """One GGUF model: a file, or the shards of one name."""

    name: str
    files: tuple[HubFile, ...]
    missing: int = 0

    def order(self) -> tuple[int, int, str]:
        return (rank(self.name), len(self.name), self.name)


def _models(files: Iterable[HubFile]) -> list[_Model]:
    whole: list[_Model] = []
    parts: dict[tuple[str, int], dict[int, HubFile]] = {}
    for file in files:
        shard = shard_of(file.path)
        if shard is None:
            whole.append(_Model(file.path, (file,)))
        elif 1 <= shard.number <= shard.count <= MAX_SHARDS:
            parts.setdefault((shard.whole, shard.count), {})[shard.number] = file
    for (name, count), found in parts.items():
        whole.append(_Model(name, tuple(found[number] for number in sorted(found)), count - len(found)))
    return sorted(whole, key=_Model.order)


def _gguf(files: Sequence[HubFile], models: list[_Model], wish: str, where: str) -> Picked:
    notes = []
    fitting = [model for model in models if not wish or told(_bare(model.name), wish) == 0]
    fitting = fitting or [model for model in models if told(_bare(model.name), wish) == 1]
    fitting = _named(models, wish) or fitting
    if not fitting:
        hint = f"there is: {_listed(models)}"
        raise NotInRegistry(f"{where} has no file for {wish}", hint=hint, available=[m.name for m in models[:100]])
    complete = [model for model in fitting if not model.missing]
    if not complete:
        lost = fitting[0]
        count = len(lost.files) + lost.missing
        hint = "the upload there is incomplete; choose another quantization or ask its owner"
        raise ManifestError(f"{where}: {lost.missing} of the {count} files of {lost.name} are not there", hint=hint)
    chosen = complete[0]
    label = quant_of(chosen.name)
    if not wish and len(complete) > 1:
        notes.append(f"took {label or chosen.name} by default; there is also {_listed(complete[1:])}")
    elif len(complete) > 1:
        notes.append(f"{wish} fits several files; took {chosen.name}, not {_listed(complete[1:], names=True)}")
    return _with_companions(files, chosen, notes)


def _by_path(files: Sequence[HubFile], models: list[_Model], path: str, where: str) -> Picked:
    for model in models:
        if any(file.path == path for file in model.files):
            if model.missing:
                raise ManifestError(f"{where}: files of {path} are not there", hint="the upload there is incomplete")
            return _with_companions(files, model, [])
    found = next((file for file in files if file.path == path), None)
    if found is None:
        raise NotInRegistry(f"{where} has no file {path}", hint=f"there is: {_listed(models, names=True)}")
    if not _is(found, ".safetensors"):
        hint = "name a .gguf or .safetensors file, or the repository alone"
        raise NotInRegistry(f"{path} of {where} is not a model", hint=hint)
    part = shard_of(path)
    weights = [found] if part is None else [file for file in files if _same_model(file, part)]
    return _directory(files, weights, where)


def _same_model(file: HubFile, part: Shard) -> bool:
    shard = shard_of(file.path)
    return shard is not None and (shard.whole, shard.count) == (part.whole, part.count)


def _with_companions(files: Sequence[HubFile], model: _Model, notes: list[str]) -> Picked:
    folder = model.files[0].folder
    projectors = [file for file in files if _is(file, ".gguf") and "mmproj" in file.name.lower()]
    projectors = [file for file in projectors if file.folder == folder] or projectors
    projectors.sort(key=lambda file: (_PROJECTORS.get(quant_of(file.path), 9), len(file.path), file.path))
    if len(projectors) > 1:
        notes = [*notes, f"took the projector {projectors[0].name} of {len(projectors)}"]
    return Picked(
        "gguf",
        model.files,
        quantization=quant_of(model.name),
        mmproj=projectors[0] if projectors else None,
        template=_template(files),
        license=_license(files),
        notes=tuple(notes),
    )


_PROJECTORS = {"F16": 0, "BF16": 1, "Q8_0": 2, "F32": 3}  # f16: every engine reads it, and projectors are small


def _directory(files: Sequence[HubFile], weights: list[HubFile], where: str) -> Picked:
    """A safetensors repository's top folder; what is below is for other tools, save for a diffusion pipeline."""
    notes = []
    pipeline = any(file.path == "model_index.json" for file in files)
    if not pipeline and len(weights) > 1:
        weights = [file for file in weights if not file.folder] or weights
        # Some repositories hold the same weights twice, in their maker's own layout too.
        weights = [file for file in weights if not file.name.startswith("consolidated")] or weights
    folders = {file.folder for file in weights} | {""}
    _check_whole(weights, where)
    others = [
        file
        for file in files
        if file.name.lower().endswith(_CONFIGS) and (pipeline or file.folder in folders) and not _is_license(file)
    ]
    code = [file.name for file in files if file.name.endswith(".py")]
    if code:
        notes.append(f"left out the code that comes with it ({', '.join(code[:3])}): Corral runs no model's own code")
    return Picked("safetensors", tuple(weights), license=_license(files), others=tuple(others), notes=tuple(notes))


def _check_whole(weights: list[HubFile], where: str) -> None:
    parts: dict[tuple[str, int], set[int]] = {}
    for file in weights:
        if shard := shard_of(file.path):
            parts.setdefault((shard.whole, shard.count), set()).add(shard.number)
    for (name, count), found in parts.items():
        if len(found) < count:
            hint = "the upload there is incomplete; ask its owner"
            raise ManifestError(
                f"{where}: {count - len(found)} of the {count} files of {name} are not there", hint=hint
            )


def _named(models: list[_Model], wish: str) -> list[_Model]:
    """A whole file name in the place of a quantization, with or without its ending."""
    names = {wish.lower(), f"{wish.lower()}.gguf"}
    return [m for m in models if any(f.name.lower() in names or f.path.lower() in names for f in m.files)]


def _listed(models: Sequence[_Model], *, names: bool = False) -> str:
    found = dict.fromkeys(model.name if names else quant_of(model.name) or model.name for model in models)
    shown = ", ".join(list(found)[:12])
    return f"{shown} and {len(found) - 12} more" if len(found) > 12 else shown or "none"


def _template(files: Sequence[HubFile]) -> HubFile | None:
    found = [file for file in files if not file.folder and _is(file, ".jinja")]
    named = [file for file in found if file.name.lower() == "chat_template.jinja"]
    return named[0] if named else found[0] if len(found) == 1 else None


def _license(files: Sequence[HubFile]) -> HubFile | None:
    return next((file for file in files if _is_license(file)), None)


def _is_license(file: HubFile) -> bool:
    return not file.folder and file.name.lower() in _LICENSES


def _companion(file: HubFile) -> bool:
    return any(word in file.name.lower() for word in _NOT_A_MODEL)


def _bare(name: str) -> str:
    return name[: -len(".gguf")] if name.lower().endswith(".gguf") else name


def _is(file: HubFile, kind: str) -> bool:
    return file.name.lower().endswith(kind)


def _kind(name: str) -> str:
    return "." + name.rpartition(".")[2].lower() if "." in name.strip(".") else ""
