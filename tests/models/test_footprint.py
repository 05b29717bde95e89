"""The memory estimate of a header, and models that are split over several files."""

from __future__ import annotations

import struct
from pathlib import Path
from types import MappingProxyType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral.errors import ModelFileError
from corral.models.footprint import estimate, slot_cells
from corral.models.formats.gguf import Header, Tensor, Value, read_header
from corral.models.formats.shards import read_model
from support.ggufs import write_bert


def header_of(**metadata: Value) -> Header:
    named = {f"llama.{key.replace('__', '.')}": value for key, value in metadata.items()}
    tensors = (Tensor("blk.0.attn_q.weight", (64, 64), "F16", 0, 8192), Tensor("blk.1.x", (64,), "F32", 8192, 256))
    return Header(3, "llama", tensors, 32, 8480, MappingProxyType(named))


LLAMA = header_of(
    block_count=4, embedding_length=256, feed_forward_length=512, attention__head_count=8, attention__head_count_kv=2
)


def test_encoder_has_no_cache(tmp_path: Path) -> None:
    """A model that looks at its whole input at once keeps no KV cache."""
    assert estimate(read_header(write_bert(tmp_path / "m.gguf")), context=512, slots=1).kv_bytes == 0


def test_cache_counts_heads_of_keys_and_values() -> None:
    """KV bytes are layers × cells × KV heads × (key bits + value bits), with the head's own width when it is given."""
    assert estimate(LLAMA, context=1024, slots=1).kv_bytes == 4 * 1024 * 2 * (32 + 32) * 2
    assert estimate(LLAMA, context=1024, slots=1, type_k="Q8_0", type_v="Q8_0").kv_bytes == 4 * 1024 * 2 * 64 * 17 // 16
    wide = header_of(
        block_count=1, embedding_length=64, attention__head_count=4, attention__head_count_kv=1,
        attention__key_length=192, attention__value_length=128,
    )  # fmt: skip
    assert estimate(wide, context=256, slots=1).kv_bytes == 256 * (192 + 128) * 2


def test_cache_follows_heads_by_layer() -> None:
    """Where the file gives KV heads by layer, each layer counts with its own; none means no cache there."""
    header = header_of(block_count=3, embedding_length=64, attention__head_count=4, attention__head_count_kv=(4, 0, 2))
    assert estimate(header, context=256, slots=1).kv_bytes == 256 * 6 * (16 + 16) * 2


def test_recurrent_state_does_not_grow_with_the_context() -> None:
    """A recurrent model's state depends on its slots and not on the context."""
    header = header_of(block_count=2, embedding_length=64, ssm__inner_size=128, ssm__state_size=16, ssm__conv_kernel=4)
    short, long = (estimate(header, context=context, slots=1).kv_bytes for context in (256, 65_536))
    assert short == long == 2 * 4 * (128 * 16 + 3 * 128)
    assert estimate(header, context=256, slots=2).kv_bytes == 2 * short


@given(context=st.integers(1, 1 << 20), slots=st.integers(1, 64))
def test_slots_hold_what_was_asked(context: int, slots: int) -> None:
    """The slots together hold at least the context that was asked for, in steps of 256 each."""
    cells = slot_cells(context, slots)
    assert cells % 256 == 0
    assert context <= cells * slots < context + 256 * (slots + 1)


@given(
    st.dictionaries(
        st.sampled_from(["block_count", "embedding_length", "attention.head_count", "attention.head_count_kv",
                         "attention.key_length", "feed_forward_length", "ssm.inner_size", "expert_used_count"]),
        st.one_of(st.integers(-(1 << 63), 1 << 64), st.text(max_size=3), st.floats(), st.booleans(),
                  st.lists(st.integers(-5, 1 << 32), max_size=4).map(tuple)),
    )
)  # fmt: skip
def test_odd_figures_give_an_estimate(metadata: dict[str, Value]) -> None:
    """Whatever a file claims about its sizes, an estimate comes out, and it is not below the weights."""
    header = Header(3, "x", LLAMA.tensors, 32, 8480, MappingProxyType({f"x.{k}": v for k, v in metadata.items()}))
    result = estimate(header, context=4096, slots=2)
    assert result.total_bytes >= result.weights_bytes == 8448
    assert result.kv_bytes >= 0


def shard(path: Path, number: int, count: int, tensors: int, total: int) -> Path:
    """One file of a split model with `tensors` tensors of 64 bytes."""

    def pair(key: str, kind: int, payload: bytes) -> bytes:
        return struct.pack("<Q", len(key)) + key.encode() + struct.pack("<I", kind) + payload

    pairs = [
        pair("split.no", 2, struct.pack("<H", number)),
        pair("split.count", 2, struct.pack("<H", count)),
        pair("split.tensors.count", 5, struct.pack("<i", total)),
    ]
    if number == 0:
        pairs.append(pair("general.architecture", 8, struct.pack("<Q", 5) + b"llama"))
    names = [f"blk.{number}.t{i}.weight".encode() for i in range(tensors)]
    infos = [
        struct.pack("<Q", len(name)) + name + struct.pack("<IQIQ", 1, 16, 0, 64 * i) for i, name in enumerate(names)
    ]
    header = b"GGUF" + struct.pack("<IQQ", 3, tensors, len(pairs)) + b"".join(pairs + infos)
    path.write_bytes(header + bytes(-len(header) % 32 + 64 * tensors))
    return path


def test_split_model_is_one_model(tmp_path: Path) -> None:
    """The files of a split model count together, and the first one names it."""
    files = [shard(tmp_path / f"big-0000{i + 1}-of-00003.gguf", i, 3, 2, 6) for i in range(3)]
    header = read_model(files[0])
    assert (header.architecture, len(header.tensors), header.weights_bytes) == ("llama", 6, 384)
    assert header.file_bytes == sum(file.stat().st_size for file in files)


def test_split_model_must_be_whole(tmp_path: Path) -> None:
    """A missing file, a later file as the source, a changed name and foreign files are refused."""
    files = [shard(tmp_path / f"big-0000{i + 1}-of-00002.gguf", i, 2, 1, 2) for i in range(2)]
    with pytest.raises(ModelFileError, match="not the first") as caught:
        read_model(files[1])
    assert files[0].name in caught.value.hint
    renamed = shard(tmp_path / "big.gguf", 0, 2, 1, 2)
    with pytest.raises(ModelFileError, match="not named like one"):
        read_model(renamed)
    shard(files[1], 1, 2, 2, 3)
    with pytest.raises(ModelFileError, match="does not fit its other files"):
        read_model(files[0])
    files[1].unlink()
    with pytest.raises(ModelFileError, match="1 are not there") as caught:
        read_model(files[0])
    assert files[1].name in caught.value.hint
