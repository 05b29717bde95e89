"""A model's folder in Hugging Face's layout, as vLLM opens it: everything that can be wrong with it before a start."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from corral.config.settings import ModelSettings, Quantization
from corral.config.sources import check_inside
from corral.engines.vllm_builds import VllmBuild, knows
from corral.errors import ModelFileError, UnknownArchitecture
from corral.lazy_dataclass import dataclass
from corral.models.formats.safetensors import SafetensorsModel, read_directory
from corral.models.memory.vllm import text_config

_TOKENIZERS: Final = (
    "tokenizer.json", "tokenizer.model", "tokenizer_config.json", "vocab.json", "tekken.json", "spiece.model",
)  # fmt: skip
_SHOWN: Final = 3


@dataclass(frozen=True, slots=True)
class Folder:
    """A model that vLLM can open, as far as its files tell."""

    path: Path
    model: SafetensorsModel
    classes: tuple[str, ...]  # as `architectures` in its config.json names them

    @property
    def config(self) -> Mapping[str, Any]:
        return self.model.config

    @property
    def context_length(self) -> int | None:
        """Tokens that it was made for."""
        return self.model.context_length

    @property
    def generates(self) -> bool:
        """Whether it writes text; the others give vectors, scores or classes."""
        return any(
            word in name for name in self.classes for word in ("CausalLM", "ConditionalGeneration", "LMHead", "Chat")
        )

    def weights_bytes(self, quantization: Quantization | None) -> int:
        """What its weights take once loaded: with FP8, a byte for each but those of the vocabulary."""
        shape = self.model.shape
        if quantization is None:
            return shape.weights_bytes
        text = text_config(self.config)
        sizes = [text.get("vocab_size"), text.get("hidden_size")]
        vocabulary = sizes[0] * sizes[1] * 2 if all(isinstance(each, int) for each in sizes) else 0  # type: ignore[operator]
        return min(shape.weights_bytes, shape.parameters + min(shape.parameters, vocabulary))


def read_folder(model: ModelSettings) -> Folder:
    """The folder that `model` names. Raises ModelFileError that says what it lacks."""
    path = model.source
    check_inside(path, model.roots)  # once more: a link may have changed since the file was read
    if path.is_file():
        hint = "name the folder, with its config.json, its *.safetensors and its tokenizer"
        if path.suffix.lower() == ".gguf":
            hint = "GGUF files are llama.cpp's: take `engine: vllm` away"
        raise ModelFileError(f"{path} is a file, and vLLM opens folders", hint=hint)
    if not path.is_dir():
        raise ModelFileError(f"there is no folder {path}", hint="correct `source` of this model in models.yaml")
    if not (path / "config.json").is_file():
        raise ModelFileError(
            f"{path} has no config.json, so it is no model in Hugging Face's layout",
            hint="name the folder that config.json is in, or download the whole model",
        )
    if not any(path.glob("*.safetensors")) and (others := sorted(path.glob("*.bin"))[:_SHOWN]):
        raise ModelFileError(
            f"{path} has its weights in {', '.join(each.name for each in others)}, and only safetensors are opened",
            hint="other formats can run code while they are loaded; look for the model's safetensors",
        )
    found = read_directory(path)
    names = found.config.get("architectures")
    classes = tuple(each for each in names if isinstance(each, str)) if isinstance(names, list) else ()
    if not classes:
        raise ModelFileError(
            f"{path / 'config.json'} names no architectures",
            hint="an adapter or a part of a model cannot be served alone; name the whole model's folder",
        )
    if not any((path / each).is_file() for each in _TOKENIZERS) and "--tokenizer" not in model.args:
        raise ModelFileError(
            f"{path} has no tokenizer ({', '.join(_TOKENIZERS[:_SHOWN])} …)",
            hint="download the model's tokenizer files too, or name another folder: args: [--tokenizer, FOLDER]",
        )
    return Folder(path, found, classes)


def check_known(build: VllmBuild, folder: Folder, name: str) -> None:
    """Raises UnknownArchitecture where `build` cannot serve the folder's model."""
    if any(knows(build, each, folder.config) for each in folder.classes):
        return
    shown = ", ".join(folder.classes[:_SHOWN])
    raise UnknownArchitecture(
        f"{build} does not know the architecture {shown!r} of {name}",
        hint="a newer vLLM may: corral engine install vllm --version …",
        architecture=shown,
        version=build.version,
    )
