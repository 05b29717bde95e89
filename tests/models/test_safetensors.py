"""Reading safetensors headers, sound and hostile."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral.errors import ModelFileError
from corral.models.formats.safetensors import MAX_HEADER_BYTES, read_alone, read_directory, read_safetensors
from support.artifacts import safetensors

SOUND = safetensors(
    {"a": ("F16", [2, 3], b"\0" * 12), "b": ("F32", [4], b"\0" * 16), "s": ("F32", [], b"\0" * 4)},
    __metadata__={"format": "pt"},
)


def raw(header: Any, data: bytes = b"", length: int | None = None) -> bytes:
    encoded = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(encoded) if length is None else length) + encoded + data


def tensor(kind: Any = "F16", shape: Any = (2,), span: Any = (0, 4)) -> dict[str, Any]:
    return {"dtype": kind, "shape": shape, "data_offsets": span}


def test_sound(tmp_path: Path) -> None:
    """A header's tensors are counted, and all of them summed up by type."""
    (tmp_path / "m.safetensors").write_bytes(SOUND)
    shape = read_safetensors(tmp_path / "m.safetensors")
    assert (shape.tensors, shape.parameters, shape.weights_bytes) == (3, 11, 32)
    assert shape.types == {"F16": 6, "F32": 5}
    assert shape.file_bytes == len(SOUND)


HOSTILE: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "it is empty"),
    "a few bytes": (b"abc", "cut short"),
    "a page": (b"<!doctype html><html>" + b" " * 600, "it is an HTML page"),
    "GGUF": (b"GGUF\x03\0\0\0" + b"\1" * 100, "its header claims"),
    "header of 2 GB": (raw(b"{}", length=2 << 30), "its header claims"),
    "header of 2^64": (raw(b"{}", length=(1 << 64) - 1), "is no usable safetensors"),
    "header longer than the file": (raw(b"{}", length=100), "its header claims 100 bytes"),
    "no JSON": (raw(b"{" + b"x" * 20), "no JSON"),
    "no object": (raw(b"[1, 2, 3, 4]"), "is no usable safetensors"),
    "nested": (raw(b'{"a":' * 100_000), "no JSON"),
    "tensor is a number": (raw({"a": 3}), "unknown type"),
    "no dtype": (raw({"a": {"shape": [], "data_offsets": [0, 0]}}), "unknown type"),
    "unknown dtype": (raw({"a": tensor("F17")}, b"1234"), "unknown type 'F17'"),
    "dtype is a list": (raw({"a": tensor(["F16"])}, b"1234"), "unknown type"),
    "negative shape": (raw({"a": tensor(shape=[-1, -2])}, b"1234"), "absurd shape"),
    "huge shape": (raw({"a": tensor(shape=[1 << 60])}, b"1234"), "absurd shape"),
    "shape of text": (raw({"a": tensor(shape=["2"])}, b"1234"), "absurd shape"),
    "shape of truth": (raw({"a": tensor(shape=[True])}, b"1234"), "absurd shape"),
    "many dimensions": (raw({"a": tensor(shape=[1] * 99)}, b"1234"), "absurd shape"),
    "overflowing product": (raw({"a": tensor(shape=[1 << 40] * 4)}, b"1234"), "does not fill its place"),
    "no place": (raw({"a": tensor(span=None)}, b"1234"), "does not say where"),
    "place of one": (raw({"a": tensor(span=[0])}, b"1234"), "does not say where"),
    "negative place": (raw({"a": tensor(span=[-4, 0])}, b"1234"), "does not say where"),
    "place after the end": (raw({"a": tensor(span=[0, 4])}, b"12"), "it is truncated"),
    "place backwards": (raw({"a": tensor(span=[4, 0])}, b"1234"), "does not fill"),
    "shape and place differ": (raw({"a": tensor(shape=[3])}, b"1234"), "does not fill"),
    "overlap": (raw({"a": tensor(), "b": tensor(span=[2, 6])}, b"123456"), "overlap"),
    "gap": (raw({"a": tensor(span=[2, 6])}, b"123456"), "leave a gap"),
}  # fmt: skip


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile(tmp_path: Path, case: str) -> None:
    """A damaged or lying header is refused with the reason and the next step."""
    data, why = HOSTILE[case]
    path = tmp_path / "m.safetensors"
    path.write_bytes(data)
    with pytest.raises(ModelFileError, match=why) as caught:
        read_safetensors(path)
    assert caught.value.hint


@given(st.binary(max_size=400) | st.builds(raw, st.dictionaries(st.text(max_size=5), st.builds(tensor), max_size=3)))
def test_any_bytes(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    """Any bytes are read or refused, never more."""
    path = tmp_path_factory.mktemp("fuzz") / "m.safetensors"
    path.write_bytes(data)
    try:
        assert read_safetensors(path).weights_bytes <= len(data)
    except ModelFileError as error:
        assert error.hint


def test_header_limit_is_the_formats(tmp_path: Path) -> None:
    """A sparse file that is as large as its header claims is refused by the limit, without reading it."""
    path = tmp_path / "m.safetensors"
    with path.open("wb") as file:
        file.write(struct.pack("<Q", MAX_HEADER_BYTES + 1))
        file.truncate(MAX_HEADER_BYTES * 2)
    with pytest.raises(ModelFileError, match="is no usable safetensors"):
        read_safetensors(path)


def directory(path: Path) -> Path:
    """A model in two files, with an index and a config."""
    path.mkdir()
    for number in (1, 2):
        name = f"model-0000{number}-of-00002.safetensors"
        (path / name).write_bytes(safetensors({f"w{number}": ("BF16", [8], b"\0" * 16)}))
    index = {"metadata": {}, "weight_map": {f"w{n}": f"model-0000{n}-of-00002.safetensors" for n in (1, 2)}}
    (path / "model.safetensors.index.json").write_text(json.dumps(index))
    config = {"model_type": "qwen3", "max_position_embeddings": 40960}
    (path / "config.json").write_text(json.dumps(config))
    return path


def test_directory(tmp_path: Path) -> None:
    """A directory's files are joined by its index, and its config says the rest."""
    model = read_directory(directory(tmp_path / "m"))
    assert [file.name for file in model.files] == [f"model-0000{n}-of-00002.safetensors" for n in (1, 2)]
    assert (model.shape.parameters, model.architecture, model.context_length) == (16, "qwen3", 40960)
    assert model.quantization == "bf16"


def test_directory_lacks_a_file(tmp_path: Path) -> None:
    """A file that the index names and that is not there is named."""
    path = directory(tmp_path / "m")
    (path / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(ModelFileError, match="lacks 1 of its 2") as caught:
        read_directory(path)
    assert "model-00002-of-00002.safetensors" in caught.value.hint


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", 3, None, "a\\b"])
def test_hostile_index(tmp_path: Path, name: object) -> None:
    """An index cannot name files outside its directory."""
    path = directory(tmp_path / "m")
    (path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": name}}))
    with pytest.raises(ModelFileError, match="is refused"):
        read_directory(path)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"weight_map": []}', '{"weight_map": {}}'])
def test_damaged_index(tmp_path: Path, text: str) -> None:
    """A damaged index is said to be one."""
    path = directory(tmp_path / "m")
    (path / "model.safetensors.index.json").write_text(text)
    with pytest.raises(ModelFileError):
        read_directory(path)


def test_quantized_config_and_single_file(tmp_path: Path) -> None:
    """The method that a config names is the quantization; one file alone needs no index."""
    (tmp_path / "config.json").write_text(
        '{"quantization_config": {"quant_method": "awq"}, "text_config": {"max_position_embeddings": 512}}'
    )
    (tmp_path / "model.safetensors").write_bytes(SOUND)
    model = read_alone(tmp_path / "model.safetensors")
    assert (model.quantization, model.context_length, model.architecture) == ("awq", 512, "")
    with pytest.raises(ModelFileError, match="has no safetensors files"):
        (tmp_path / "empty").mkdir()
        read_directory(tmp_path / "empty")
