"""A detector's folder as Hugging Face keeps it: what its two JSON files say, and where its weights are, as safetensors
or as ONNX already."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from corral.errors import ModelFileError
from corral.lazy_dataclass import dataclass

MODEL_TYPE: Final = "rt_detr_v2"
EXPORT_VERSION: Final = 1
"""Part of what an exported file is found by: raised when `corral.detector.export` writes something else."""

PIXEL_BYTES: Final = 250
"""What each further picture of a batch takes in memory, for each pixel that the model sees of it.

Measured with RT-DETRv2 R18 at 640 x 640 and onnxruntime 1.31 on a processor: 340 for the first, 250 for each of 8."""

_ONNX: Final = ("model.onnx", "onnx/model.onnx")
_WEIGHTS: Final = "model.safetensors"
_MOST_JSON_BYTES: Final = 4 << 20
_MOST_SIDE: Final = 4096
_RESAMPLING: Final = (0, 1, 2, 3, 4, 5)  # Pillow's numbers
_BILINEAR: Final = 2


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """What is done to a picture before the model sees it."""

    height: int
    width: int
    resample: int = _BILINEAR
    factor: float = 1 / 255
    mean: tuple[float, ...] = ()  # () = it is not normalised
    std: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Detector:
    """One folder, read. `onnx` or `weights` is there."""

    folder: Path
    labels: tuple[str, ...]
    preprocessing: Preprocessing
    focal: bool  # scores are of single classes; otherwise the last one means "nothing"
    queries: int
    onnx: Path | None
    weights: Path | None

    @property
    def weights_bytes(self) -> int:
        """What its weights take in memory, as 32-bit numbers. Raises ModelFileError."""
        try:
            if self.onnx is not None:
                beside = self.onnx.with_name(self.onnx.name + "_data")
                return self.onnx.stat().st_size + (beside.stat().st_size if beside.is_file() else 0)
            assert self.weights is not None
            return _as_floats(self.weights)
        except OSError as exc:
            raise ModelFileError(f"cannot read the weights in {self.folder}: {exc.strerror}") from exc


def read_detector(folder: Path) -> Detector:
    """`folder` as a detector. Blocks for small file reads. Raises ModelFileError that says what is wrong with it."""
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "is not there"
        raise ModelFileError(
            f"{folder} {what}, and a detector is a folder",
            hint="give `source` the folder with config.json, preprocessor_config.json and model.safetensors in it",
        )
    config = _json(folder / "config.json")
    if (kind := config.get("model_type")) != MODEL_TYPE:
        raise ModelFileError(
            f"{folder} holds a model of type {kind!r}, and the detector serves {MODEL_TYPE!r} only",
            hint="RT-DETRv2 models are published as PekingU/rtdetr_v2_r18vd and alike",
        )
    onnx = next((path for name in _ONNX if (path := folder / name).is_file()), None)
    weights = folder / _WEIGHTS
    if onnx is None and not weights.is_file():
        raise ModelFileError(
            f"{folder} has neither {_WEIGHTS} nor {_ONNX[0]}",
            hint="fetch the model again; weights as .bin files are not read, because they are programs",
        )
    return Detector(
        folder=folder,
        labels=_labels(folder, config),
        preprocessing=_preprocessing(folder, _json(folder / "preprocessor_config.json")),
        focal=config.get("use_focal_loss", True) is not False,
        queries=_number(config.get("num_queries", 300), 1, 10_000, "num_queries", folder),
        onnx=onnx,
        weights=weights if weights.is_file() else None,
    )


def exported(detector: Detector, cache: Path) -> Path:
    """Where `detector` is, or will be once it is exported, as ONNX. Blocks: the weights are read whole, once."""
    if detector.onnx is not None:
        return detector.onnx
    assert detector.weights is not None
    parts = [str(EXPORT_VERSION)]
    for path in (detector.folder / "config.json", detector.weights):
        try:
            seen = path.stat()
            parts.append(_digest(str(path.resolve()), seen.st_size, seen.st_mtime_ns, seen.st_ino))
        except OSError as exc:
            raise ModelFileError(f"cannot read {path}: {exc.strerror}") from exc
    return cache / f"{hashlib.sha256(' '.join(parts).encode()).hexdigest()}.onnx"


@functools.lru_cache(maxsize=64)
def _digest(path: str, size: int, mtime_ns: int, inode: int) -> str:
    """The content's digest; the other arguments say that it is still the same."""
    with open(path, "rb") as file:  # noqa: PTH123 - the path is a key here
        return hashlib.file_digest(file, "sha256").hexdigest()


def _as_floats(weights: Path) -> int:
    """The size of the tensors as 32-bit floats, from the header of a safetensors file.

    Source: the format's description, safetensors 0.8: eight bytes of length, then that much JSON.
    """
    with weights.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > 64 << 20:
            raise ModelFileError(f"{weights} is no safetensors file", hint="fetch it again")
        try:
            header = json.loads(file.read(length))
            shapes = [each["shape"] for name, each in header.items() if name != "__metadata__"]
            total = 0
            for shape in shapes:
                count = 4
                for side in shape:
                    count *= int(side)
                total += count
        except (ValueError, KeyError, TypeError, AttributeError) as exc:
            raise ModelFileError(f"{weights} is no safetensors file", hint="fetch it again") from exc
    return total


def _json(path: Path) -> Mapping[str, Any]:
    try:
        if path.stat().st_size > _MOST_JSON_BYTES:
            raise ModelFileError(f"{path} is too large to be a configuration", hint="fetch the model again")
        found = json.loads(path.read_bytes())
    except OSError as exc:
        raise ModelFileError(
            f"cannot read {path}: {exc.strerror}",
            hint="a detector's folder has config.json and preprocessor_config.json beside its weights",
        ) from exc
    except (ValueError, RecursionError) as exc:
        raise ModelFileError(f"{path} is no JSON", hint="fetch the model again") from exc
    if not isinstance(found, dict):
        raise ModelFileError(f"{path} is no JSON object", hint="fetch the model again")
    return found


def _labels(folder: Path, config: Mapping[str, Any]) -> tuple[str, ...]:
    found = config.get("id2label")
    if not isinstance(found, dict) or not found:
        raise ModelFileError(f"{folder / 'config.json'} names no labels (id2label)", hint="fetch the model again")
    try:
        by_number = {int(number): str(label) for number, label in found.items()}
    except ValueError:
        by_number = {}
    if sorted(by_number) != list(range(len(found))):
        raise ModelFileError(f"the labels of {folder / 'config.json'} are not numbered from 0", hint="fetch it again")
    return tuple(by_number[number] for number in range(len(by_number)))


def _preprocessing(folder: Path, said: Mapping[str, Any]) -> Preprocessing:
    path = folder / "preprocessor_config.json"
    size = said.get("size")
    if not isinstance(size, dict) or not {"height", "width"} <= size.keys() or said.get("do_resize") is False:
        raise ModelFileError(
            f"{path} has no fixed size with height and width, which the detector needs",
            hint="models that keep a picture's proportions are not served",
        )
    if said.get("do_pad"):
        raise ModelFileError(f"{path} asks for padding, which the detector does not do", hint="use another model")
    resample = said.get("resample")
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    if said.get("do_normalize"):
        mean, std = _channels(said.get("image_mean"), path), _channels(said.get("image_std"), path)
        if 0.0 in std:
            raise ModelFileError(f"{path}: image_std has a zero", hint="fetch the model again")
    factor = said.get("rescale_factor", 1 / 255)
    if said.get("do_rescale") is False:
        factor = 1.0
    if not isinstance(factor, (int, float)) or (resample is not None and resample not in _RESAMPLING):
        raise ModelFileError(f"{path}: rescale_factor or resample is not right", hint="fetch the model again")
    return Preprocessing(
        _number(size["height"], 32, _MOST_SIDE, "size.height", path),
        _number(size["width"], 32, _MOST_SIDE, "size.width", path),
        _BILINEAR if resample is None else int(resample),
        float(factor),
        mean,
        std,
    )


def _channels(found: Any, path: Path) -> tuple[float, ...]:
    if not isinstance(found, list) or len(found) != 3 or not all(isinstance(each, (int, float)) for each in found):
        raise ModelFileError(f"{path}: image_mean and image_std must be three numbers each", hint="fetch it again")
    return tuple(float(each) for each in found)


def _number(found: Any, least: int, most: int, name: str, path: Path) -> int:
    if isinstance(found, bool) or not isinstance(found, int) or not least <= found <= most:
        raise ModelFileError(f"{path}: {name} must be from {least} to {most}, not {str(found)[:40]}")
    return found
