"""GGUF files of many architectures with random weights, each loaded by the real engine: `write(path, "llama", MID)`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np
from gguf import GGUFWriter, TokenType

from support.architectures import ARCHITECTURES, Shape, Size
from support.ggufs import Array, _add_tokenizer, _finish, _vocabulary


def write(path: Path, name: str, size: Size, *, seed: int = 0) -> Path:
    """Write the architecture `name` at `path` in F16, norms and one-dimensional tensors in F32."""
    model = ARCHITECTURES[name](size)
    writer = GGUFWriter(path, model.arch)
    writer.add_name(f"width {size.width}")  # llama.cpp looks for "phi3" and the like in names
    for key, value in model.keys.items():
        _add(writer, f"{model.arch}.{key}", value)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    if model.arch == "bert":
        _word_pieces(writer, size.vocabulary)
    else:
        tokens = _vocabulary(())
        _add_tokenizer(writer, tokens + [f"<{number}>" for number in range(size.vocabulary - len(tokens))])
    noise = np.random.default_rng(seed).standard_normal(1 << 16, dtype=np.float32)
    for tensor, shape in model.tensors.items():
        writer.add_tensor(tensor, _weights(tensor, shape, noise))
    _finish(writer)
    return path


def write_adapter(path: Path, name: str, size: Size, rank: int = 8) -> Path:
    """Write a LoRA for the queries and the feed-forward inputs of the architecture `name`."""
    model = ARCHITECTURES[name](size)
    writer = GGUFWriter(path, model.arch)
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", 16.0)
    noise = np.random.default_rng(1).standard_normal(1 << 12, dtype=np.float32)
    for tensor, shape in model.tensors.items():
        if tensor.endswith(("attn_q.weight", "ffn_up.weight")):
            writer.add_tensor(f"{tensor}.lora_a", _weights("lora_a.weight", (rank, shape[1]), noise).astype(np.float32))
            writer.add_tensor(f"{tensor}.lora_b", _weights("lora_b.weight", (shape[0], rank), noise).astype(np.float32))
    _finish(writer)
    return path


def write_projector(path: Path, *, width: int, image: int, out: int, patch: int = 14, layers: int = 2) -> Path:
    """Write a vision encoder and projector (mmproj) for a model whose vectors are `out` long."""
    writer, ff = GGUFWriter(path, "clip"), 4 * width
    writer.add_bool("clip.has_vision_encoder", True)
    writer.add_bool("clip.use_gelu", True)
    writer.add_string("clip.projector_type", "mlp")
    sizes = {"image_size": image, "patch_size": patch, "embedding_length": width, "feed_forward_length": ff,
             "block_count": layers, "projection_dim": out, "attention.head_count": 4}  # fmt: skip
    for key, value in sizes.items():
        writer.add_uint32(f"clip.vision.{key}", value)
    writer.add_float32("clip.vision.attention.layer_norm_epsilon", 1e-5)
    for key in ("image_mean", "image_std"):
        writer.add_array(f"clip.vision.{key}", [0.5, 0.5, 0.5])
    shapes: dict[str, Shape] = {
        "v.patch_embd.weight": (width, 3, patch, patch), "v.position_embd.weight": ((image // patch) ** 2, width),
        "v.pre_ln.weight": (width,), "v.pre_ln.bias": (width,), "mm.0.weight": (out, width), "mm.0.bias": (out,),
        "mm.2.weight": (out, out), "mm.2.bias": (out,),
    }  # fmt: skip
    block: dict[str, Shape] = {"ffn_up": (ff, width), "ffn_down": (width, ff), "ln1": (width,), "ln2": (width,)}
    block |= dict.fromkeys(("attn_q", "attn_k", "attn_v", "attn_out"), (width, width))
    for number in range(layers):
        for name, shape in block.items():
            shapes |= {f"v.blk.{number}.{name}.weight": shape, f"v.blk.{number}.{name}.bias": shape[:1]}
    for name, shape in shapes.items():
        writer.add_tensor(name, np.full(shape, 0.01, dtype=np.float32))
    _finish(writer)
    return path


def _weights(name: str, shape: Shape, noise: Array) -> Array:
    scale = 1 / np.sqrt(shape[-1])
    values = np.resize(noise * scale, shape)
    if "norm" in name and not name.endswith(".bias"):
        return np.ones(shape, dtype=np.float32)
    if name.endswith("ssm_a"):
        return -np.abs(values).astype(np.float32) - 0.1
    plain = len(shape) == 1 or name.endswith((".bias", "ssm_d", "ssm_conv1d.weight", "ffn_gate_inp.weight"))
    plain = plain or name in ("token_types.weight", "position_embd.weight")
    return values.astype(np.float32 if plain else np.float16)


def _add(writer: GGUFWriter, key: str, value: Any) -> None:
    if isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, int):
        writer.add_uint32(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    else:
        writer.add_array(key, value)


def _word_pieces(writer: GGUFWriter, count: int) -> None:
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"▁{letter}" for letter in "abcdefghijklmnopqrstuvwxyz")]
    tokens += [f"▁w{number}" for number in range(count - len(tokens))]
    writer.add_tokenizer_model("bert")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens)
    writer.add_token_types([TokenType.CONTROL] * 5 + [TokenType.NORMAL] * (len(tokens) - 5))
    writer.add_token_type_count(2)
    for special, number in (("padding", 0), ("unknown", 1), ("cls", 2), ("bos", 2), ("seperator", 3), ("eos", 3)):
        writer.add_uint32(f"tokenizer.ggml.{special}_token_id", number)
