"""Tiny Hugging Face models for tests: a folder with config, tokenizer and safetensors, written with numpy alone."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from corral.models.making.hf_tokenizer import SPLITS
from support.ggufs import CHAT_TEMPLATE, _byte_alphabet

Array = NDArray[Any]
SPECIAL = ("<|begin|>", "<|end|>", "<|pad|>")
WIDTH, FF, LAYERS, HEADS, KV_HEADS = 64, 96, 2, 4, 2


def write_hf(
    folder: Path, architecture: str = "LlamaForCausalLM", *, kind: str = "BF16", seed: int = 0, **config: Any
) -> dict[str, Array]:
    """A random model in `folder`; its weights by Hugging Face's names, as they are stored but in 32 bits."""
    folder.mkdir(parents=True, exist_ok=True)
    tokens = write_tokenizer(folder)
    family = architecture.removesuffix("ForCausalLM").lower()
    whole: dict[str, Any] = {
        "architectures": [architecture], "model_type": family, "hidden_size": WIDTH, "intermediate_size": FF,
        "num_hidden_layers": LAYERS, "num_attention_heads": HEADS, "num_key_value_heads": KV_HEADS,
        "max_position_embeddings": 256, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "vocab_size": tokens,
        "hidden_act": "silu", "tie_word_embeddings": False, "bos_token_id": tokens - 3, "eos_token_id": tokens - 2,
        "torch_dtype": "bfloat16",
        **config,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(whole))
    weights = _weights(np.random.default_rng(seed), architecture, whole)
    return write_safetensors(folder / "model.safetensors", weights, kind)


def _weights(rng: np.random.Generator, architecture: str, config: dict[str, Any]) -> dict[str, Array]:
    size = config.get("head_dim", WIDTH // HEADS)
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (config["vocab_size"], WIDTH)}
    for layer in range(LAYERS):
        at = f"model.layers.{layer}."
        for name, rows in (("q", HEADS), ("k", KV_HEADS), ("v", KV_HEADS)):
            shapes[f"{at}self_attn.{name}_proj.weight"] = (rows * size, WIDTH)
            if architecture == "Qwen2ForCausalLM":
                shapes[f"{at}self_attn.{name}_proj.bias"] = (rows * size,)
        if architecture == "Qwen3ForCausalLM":
            shapes[f"{at}self_attn.q_norm.weight"] = shapes[f"{at}self_attn.k_norm.weight"] = (size,)
        shapes[f"{at}self_attn.o_proj.weight"] = (WIDTH, HEADS * size)
        shapes |= {f"{at}mlp.{name}_proj.weight": (FF, WIDTH) for name in ("gate", "up")}
        shapes[f"{at}mlp.down_proj.weight"] = (WIDTH, FF)
        shapes |= {f"{at}{name}_layernorm.weight": (WIDTH,) for name in ("input", "post_attention")}
    shapes["model.norm.weight"] = (WIDTH,)
    if not config["tie_word_embeddings"]:
        shapes["lm_head.weight"] = (config["vocab_size"], WIDTH)
    return {name: rng.standard_normal(shape, dtype=np.float32) * 0.1 for name, shape in shapes.items()}


def write_safetensors(path: Path, weights: dict[str, Array], kind: str) -> dict[str, Array]:
    """The file, and what it holds in 32 bits. Source: the safetensors format's README."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    data, held = b"", {}
    for name, array in weights.items():
        if kind == "BF16":
            half = (array.view(np.uint32) >> 16).astype(np.uint16)
            raw, held[name] = half.tobytes(), (half.astype(np.uint32) << 16).view(np.float32)
        else:
            typed = array.astype({"F16": np.float16, "F32": np.float32}[kind])
            raw, held[name] = typed.tobytes(), typed.astype(np.float32)
        header[name] = {"dtype": kind, "shape": list(array.shape), "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return held


def write_tokenizer(folder: Path) -> int:
    """Byte-level BPE, split as Llama 3's is; how many tokens it has."""
    letters = list(_byte_alphabet().values())
    words = [*letters, "he", "ll", "hell"]
    first = len(words)
    split = next(pattern for pattern, name in SPLITS.items() if name == "llama-bpe")
    data = {
        "version": "1.0",
        "added_tokens": [
            {"id": first + at, "content": text, "special": True, "single_word": False, "lstrip": False,
             "rstrip": False, "normalized": False}
            for at, text in enumerate(SPECIAL)
        ],
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": split}, "behavior": "Isolated", "invert": False},
            {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False},
        ]},
        "post_processor": None,
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
                  "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
                  "vocab": {word: at for at, word in enumerate(words)}, "merges": ["h e", "l l", "he ll"]},
    }  # fmt: skip
    (folder / "tokenizer.json").write_text(json.dumps(data))
    (folder / "tokenizer_config.json").write_text(
        json.dumps(
            {
                "tokenizer_class": "PreTrainedTokenizerFast",
                "bos_token": SPECIAL[0],
                "eos_token": SPECIAL[1],
                "pad_token": SPECIAL[2],
                "add_bos_token": True,
                "chat_template": CHAT_TEMPLATE,
            }
        )
    )
    return first + len(SPECIAL)
