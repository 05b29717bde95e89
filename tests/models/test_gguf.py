"""GGUF headers: what is read, and how each kind of wrong file is refused."""

from __future__ import annotations

import os
import struct
import tracemalloc
from pathlib import Path
from typing import Any, get_args

import gguf
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corral.errors import ModelFileError
from corral.models.formats.gguf import Header, LongArray, read_header
from corral.models.formats.gguf_types import TENSOR_TYPES
from support.ggufs import Damage, corrupt, write_chain, write_random

U32, STRING, ARRAY = 4, 8, 9


def text(value: str | bytes) -> bytes:
    data = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(data)) + data


def pair(key: str | bytes, kind: int, payload: bytes) -> bytes:
    return text(key) + struct.pack("<I", kind) + payload


ARCHITECTURE = pair("general.architecture", STRING, text("llama"))


def tensor(name: str | bytes, shape: tuple[int, ...], kind: int = 0, offset: int = 0) -> bytes:
    return text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, offset)


def file_of(
    pairs: tuple[bytes, ...] = (ARCHITECTURE,), tensors: tuple[bytes, ...] = (), data: int = 0, version: int = 3
) -> bytes:
    header = b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(pairs)) + b"".join(pairs) + b"".join(tensors)
    return header + bytes(-len(header) % 32 + data)


def parsed(folder: Path, content: bytes) -> Header:
    path = folder / "model.gguf"
    path.write_bytes(content)
    return read_header(path)


def refusal(folder: Path, content: bytes) -> str:
    with pytest.raises(ModelFileError) as caught:
        parsed(folder, content)
    assert caught.value.hint
    return caught.value.message


def test_header_agrees_with_the_reference_reader(tmp_path: Path) -> None:
    """What our reader says about a file is what PyPI's gguf says about it, tensor by tensor."""
    path = write_random(tmp_path / "m.gguf")
    ours, theirs = read_header(path), gguf.GGUFReader(path)
    assert [(t.name, t.shape, t.type, t.bytes, ours.data_offset + t.offset) for t in ours.tensors] == [
        (t.name, tuple(int(n) for n in t.shape), t.tensor_type.name, t.n_bytes, t.data_offset) for t in theirs.tensors
    ]
    for key, field in theirs.fields.items():
        if not key.startswith("GGUF."):
            value = ours.metadata[key]
            contents = field.contents()
            if isinstance(value, LongArray):
                assert value.length == len(contents)
            else:
                assert (list(value) if isinstance(value, tuple) else value) == contents


def test_header_answers_the_usual_questions(tmp_path: Path) -> None:
    """Name, architecture, context, vocabulary, quantization and parameters are there by name."""
    header = read_header(write_chain(tmp_path / "m.gguf", ["one", "two"], name="pair", context=640))
    assert (header.name, header.architecture, header.context_length) == ("pair", "llama", 640)
    assert (header.vocabulary, header.quantization) == (262, "F16")
    assert header.get("{arch}.block_count") == header.integer("llama.block_count") == 1
    assert header.chat_template is not None
    assert "<|im_start|>" in header.chat_template
    assert header.parameters == sum(tensor.elements for tensor in header.tensors)
    assert header.data_offset + header.weights_bytes <= header.file_bytes


def test_type_table_agrees_with_the_reference(tmp_path: Path) -> None:
    """Each tensor type that PyPI's gguf knows has the same name and block here."""
    for kind, (block, size) in gguf.GGML_QUANT_SIZES.items():
        if kind is not gguf.GGMLQuantizationType.Q8_1:  # never in a file; theirs has an older layout
            assert TENSOR_TYPES[int(kind)] == (kind.name, block, size)


def test_version_two_is_read(tmp_path: Path) -> None:
    """A file of version 2 differs in nothing but its number."""
    header = parsed(tmp_path, file_of(tensors=(tensor("a", (4, 2)),), data=32, version=2))
    assert (header.version, header.tensors[0].bytes) == (2, 32)


def test_alignment_moves_the_data(tmp_path: Path) -> None:
    """The data begins at a multiple of general.alignment."""
    aligned = pair("general.alignment", U32, struct.pack("<I", 256))
    assert parsed(tmp_path, file_of((ARCHITECTURE, aligned))).data_offset % 256 == 0


def test_short_arrays_are_kept_and_long_ones_measured(tmp_path: Path) -> None:
    """Per-layer figures are values; a vocabulary is only a length."""
    short = pair("llama.kv", ARRAY, struct.pack("<IQ3I", U32, 3, 8, 0, 8))
    long = pair("llama.long", ARRAY, struct.pack("<IQ", U32, 5000) + bytes(20_000))
    words = pair("llama.words", ARRAY, struct.pack("<IQ", STRING, 2) + text("a") + text("b"))
    many = pair("llama.many", ARRAY, struct.pack("<IQ", STRING, 5000) + text("word") * 5000)
    last = pair("llama.last", U32, struct.pack("<I", 7))
    header = parsed(tmp_path, file_of((ARCHITECTURE, short, long, words, many, last)))
    assert header.get("llama.kv") == (8, 0, 8)
    assert header.get("llama.long") == LongArray("uint32", 5000)
    assert header.get("llama.words") == ("a", "b")
    assert header.get("llama.many") == LongArray("string", 5000)
    assert header.get("llama.last") == 7


def test_large_vocabulary_takes_no_memory(tmp_path: Path) -> None:
    """A header with 150,000 tokens is read within a mebibyte of memory."""
    tokens = pair("tokenizer.ggml.tokens", ARRAY, struct.pack("<IQ", STRING, 150_000) + text("token!") * 150_000)
    scores = pair("tokenizer.ggml.scores", ARRAY, struct.pack("<IQ", 6, 150_000) + bytes(600_000))
    path = tmp_path / "m.gguf"
    path.write_bytes(file_of((ARCHITECTURE, tokens, scores)))
    tracemalloc.start()
    try:
        header = read_header(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert header.vocabulary == 150_000
    assert peak < 1 << 20


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("wrong magic", "begins with b'JUNK'"),
        ("html", "an HTML page"),
        ("git-lfs pointer", "a git-lfs pointer"),
        ("empty", "empty"),
        ("truncated header", "truncated: its header needs at least"),
        ("truncated tensors", "truncated: its tensors need"),
        ("big-endian", "big-endian"),
        ("unknown version", "version 9"),
        ("absurd pairs", "metadata entries"),
        ("absurd tensors", "tensors"),
        ("absurd string", "bytes long"),
        ("flipped middle", "dimensions"),
    ],
)
def test_damage_is_named(tmp_path: Path, how: Damage, words: str) -> None:
    """Each way to damage a file is refused with its own words and a hint."""
    path = corrupt(write_chain(tmp_path / "m.gguf", ["a"]), how)
    assert words in refusal(tmp_path, path.read_bytes())


def test_every_damage_has_a_test() -> None:
    """No way to damage a file goes without words of its own."""
    marks: list[Any] = test_damage_is_named.pytestmark  # type: ignore[attr-defined]
    assert {how for how, _ in marks[0].args[1]} == set(get_args(Damage))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"PK\x03\x04" + bytes(40), "zip archive"),
        (struct.pack("<Q", 60) + b'{"__metadata__":{}}' + bytes(60), "safetensors"),
        (b"\x80\x02}q\x00", "pickle"),
        (b'{"architectures": ["LlamaForCausalLM"]}', "JSON"),
        (b"tjgg\x03\x00\x00\x00" + bytes(40), "GGJT"),
        ("Grüße, dies ist kein Modell".encode(), "text that begins"),
        (bytes(4096), "zeros"),
        (bytes(range(128, 200)), "instead of b'GGUF'"),
        (b"GGUF", "truncated"),
        (file_of(version=1), "early version 1"),
        (file_of((pair(b"\xff\xfe", U32, bytes(4)),)), "not UTF-8"),
        (file_of((pair("", U32, bytes(4)),)), "empty"),
        (file_of((ARCHITECTURE, ARCHITECTURE)), "twice"),
        (file_of((pair("a", 77, bytes(8)),)), "unknown value type 77"),
        (file_of((pair("a", ARRAY, struct.pack("<IQ", ARRAY, 1)),)), "array of the unknown type"),
        (file_of((pair("a", ARRAY, struct.pack("<IQ", U32, 1 << 61)),)), "truncated"),
        (file_of((pair("a", ARRAY, struct.pack("<IQ", STRING, 1 << 61)),)), "strings"),
        (file_of((pair("a", ARRAY, struct.pack("<IQQ", STRING, 65, 1 << 63) + bytes(2000)),)), "truncated"),
        (file_of((pair("a", STRING, struct.pack("<Q", 1 << 20)),)), "truncated"),
        (file_of((pair("general.alignment", U32, bytes(4)),)), "alignment"),
        (file_of((pair("general.alignment", U32, struct.pack("<I", 48)),)), "alignment"),
        (file_of(()), "which architecture"),
        (file_of(tensors=(tensor("a", (4,)), tensor("a", (4,), offset=32)), data=64), "twice"),
        (file_of(tensors=(tensor(b"\xff", (4,)),), data=64), "not UTF-8"),
        (file_of(tensors=(tensor("a", ()),), data=64), "0 dimensions"),
        (file_of(tensors=(tensor("a", (4, 0)),), data=64), "absurd shape"),
        (file_of(tensors=(tensor("a", (1 << 40, 1 << 40)),), data=64), "absurd shape"),
        (file_of(tensors=(tensor("a", (33,), kind=8),), data=64), "no multiple of 32 as Q8_0 needs"),
        (file_of(tensors=(tensor("a", (32,), kind=4),), data=64), "unknown type 4"),
        (file_of(tensors=(tensor("a", (4,)), tensor("b", (4,), offset=16)), data=64), "instead of 32"),
        (file_of(tensors=(tensor("a", (64,)),), data=64), "its tensors need"),
    ],
)
def test_wrong_content_is_named(tmp_path: Path, content: bytes, words: str) -> None:
    """A file that is something else, or contradicts itself, is refused with the reason."""
    assert words in refusal(tmp_path, content)


def test_paths_that_hold_no_file(tmp_path: Path) -> None:
    """A missing file, a folder, a pipe and an unreadable name are refused at once, with the nearest file as a hint."""
    write_chain(tmp_path / "llama-small.gguf", ["a"])
    (tmp_path / "zzz.gguf").mkdir()
    os.mkfifo(tmp_path / "pipe")
    for path, words, hint in (
        (tmp_path / "lama-small.gguf", "there is no file", "Did you mean llama-small.gguf"),
        (tmp_path / "zzzz.gguf", "there is no file", "Check the path"),
        (tmp_path / "nowhere" / "m.gguf", "there is no file", "does not exist either"),
        (tmp_path, "is a directory", "such as llama-small.gguf"),
        (tmp_path / "pipe", "not a regular file", ".gguf"),
        (tmp_path / "a\0b", "cannot be opened", ".gguf"),
    ):
        with pytest.raises(ModelFileError, match=words) as caught:
            read_header(path)
        assert hint in caught.value.hint


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_unreadable_file(tmp_path: Path) -> None:
    """A file that may not be read is refused with the command that changes that."""
    path = write_chain(tmp_path / "m.gguf", ["a"])
    path.chmod(0)
    with pytest.raises(ModelFileError, match="may not be read") as caught:
        read_header(path)
    assert "chmod" in caught.value.hint


SOUND = file_of(
    (
        ARCHITECTURE,
        pair("llama.kv", ARRAY, struct.pack("<IQ3I", U32, 3, 8, 0, 8)),
        pair("tokens", ARRAY, struct.pack("<IQ", STRING, 80) + text("ab") * 80),
        pair("general.alignment", U32, struct.pack("<I", 32)),
    ),
    (tensor("a", (32, 2), kind=8), tensor("b", (4,), offset=96)),
    data=128,
)
edits = st.lists(
    st.tuples(
        st.integers(0, len(SOUND) - 1),
        st.one_of(st.binary(max_size=9), st.sampled_from([b"\xff" * 8, b"\xff" * 4, bytes(8), bytes(7) + b"\x80"])),
    ),
    max_size=4,
)


@settings(max_examples=300)
@given(edits=edits, cut=st.integers(0, len(SOUND)) | st.none())
def test_mutations_parse_or_are_refused(
    tmp_path_factory: pytest.TempPathFactory, edits: list[tuple[int, bytes]], cut: int | None
) -> None:
    """Whatever happens to the bytes of a file, it is read or refused with a ModelFileError, in little memory."""
    content = bytearray(SOUND)
    for at, new in edits:
        content[at : at + len(new)] = new
    path = tmp_path_factory.getbasetemp() / "mutated.gguf"
    path.write_bytes(content[:cut])
    tracemalloc.start()
    try:
        header = read_header(path)
        assert header.weights_bytes <= len(content)
    except ModelFileError as error:
        assert error.hint
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 1 << 20


def test_numpy_arrays_written_by_the_reference_writer_are_read_back(tmp_path: Path) -> None:
    """Each kind of metadata value that the reference writer knows comes back as it was."""
    path = tmp_path / "m.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    values = {"u8": 255, "i8": -1, "u16": 65535, "i16": -2, "u32": 1 << 31, "i32": -3, "u64": 1 << 63, "i64": -4}
    for (name, value), add in zip(
        values.items(),
        (
            writer.add_uint8, writer.add_int8, writer.add_uint16, writer.add_int16,
            writer.add_uint32, writer.add_int32, writer.add_uint64, writer.add_int64,
        ),
        strict=True,
    ):  # fmt: skip
        add(f"v.{name}", value)
    writer.add_float32("v.f32", 0.5)
    writer.add_float64("v.f64", 0.1)
    writer.add_bool("v.yes", True)
    writer.add_string("v.text", "Füllen")
    writer.add_array("v.words", ["a", "b"])
    writer.add_array("v.flags", [True, False])
    writer.add_tensor("t", np.zeros((2, 32), dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    header = read_header(path)
    wanted = values | {"f32": 0.5, "f64": 0.1, "yes": True, "text": "Füllen", "words": ("a", "b")}
    assert {name: header.get(f"v.{name}") for name in wanted} == wanted
    assert header.get("v.flags") == (True, False)
    assert header.tensors[0].shape == (32, 2)
