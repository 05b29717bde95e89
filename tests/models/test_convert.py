"""Converting Hugging Face folders to GGUF: every weight held against the original, and what is refused.

The files of all but the Qwen2 model were once held, byte by byte, against those of llama.cpp's own
convert_hf_to_gguf.py (docs/quantize.md says how): that script needs torch and transformers, which no test has.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

from corral.artifact.lineage import lineage_of
from corral.errors import CallerError, ModelFileError
from corral.models.content import read_content, read_stored_header
from corral.models.fetching.control import Stopped
from corral.models.making.convert import convert
from corral.models.making.package import package
from corral.models.making.quantize import Base
from corral.store.store import Store
from support.hf_models import HEADS, KV_HEADS, WIDTH, write_hf

LLAMA3 = {
    "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}  # fmt: skip
NAMES = {
    "embed_tokens": "token_embd", "q_proj": "attn_q", "k_proj": "attn_k", "v_proj": "attn_v", "o_proj": "attn_output",
    "gate_proj": "ffn_gate", "up_proj": "ffn_up", "down_proj": "ffn_down", "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm", "norm": "output_norm", "lm_head": "output", "q_norm": "attn_q_norm",
    "k_norm": "attn_k_norm",
}  # fmt: skip


@pytest.fixture
def store(tmp_path: Path) -> Store:
    found = Store(tmp_path / "store")
    found.prepare()
    return found


def quiet(text: str, done: int, total: int | None) -> None:
    """Nobody listens."""


def theirs(name: str) -> str:
    """llama.cpp's name for a Hugging Face tensor, written down apart from gguf's tables."""
    parts = name.removeprefix("model.").split(".")
    block = f"blk.{parts[1]}." if parts[0] == "layers" else ""
    return f"{block}{NAMES[parts[-2]]}.{parts[-1]}"


def paired(weights: Any, heads: int) -> Any:
    """Rows of each head, of which the two halves alternate: what belongs to one rotation is side by side."""
    size = weights.shape[0] // heads
    rows = [
        head * size + half * (size // 2) + at for head in range(heads) for at in range(size // 2) for half in (0, 1)
    ]
    return weights[rows]


@pytest.mark.parametrize(
    ("architecture", "stored", "to", "config"),
    [
        ("LlamaForCausalLM", "BF16", "BF16", {}),
        ("LlamaForCausalLM", "F32", "F16", {}),
        ("LlamaForCausalLM", "BF16", "Q8_0", {"rope_scaling": LLAMA3}),
        ("LlamaForCausalLM", "F32", "F32", {"tie_word_embeddings": True}),
        ("MistralForCausalLM", "F16", "F16", {}),
        ("Qwen2ForCausalLM", "BF16", "BF16", {}),
        ("Qwen3ForCausalLM", "BF16", "Q8_0", {"head_dim": 32}),
    ],
)
def test_every_weight_is_the_originals(
    store: Store, tmp_path: Path, architecture: str, stored: str, to: str, config: dict[str, Any]
) -> None:
    """Under llama.cpp's names, in the order that its graphs expect, and as near as the type allows."""
    original = write_hf(tmp_path / "tiny", architecture, kind=stored, **config)
    done = convert(store, Base("tiny", file=tmp_path / "tiny"), "me/tiny", to, quiet)
    content = read_content(store, done.digest)
    header = read_stored_header(store, content.artifact)
    assert header is not None and header.quantization == to
    path = store.blob(content.artifact.of("weights")[0].descriptor.digest).path
    made = {
        each.name: gguf.quants.dequantize(each.data, each.tensor_type).reshape(tuple(each.shape)[::-1])
        for each in gguf.GGUFReader(path).tensors
    }
    factors = made.pop("rope_freqs.weight", None)
    assert set(made) == {theirs(name) for name in original}
    pairs = architecture in ("LlamaForCausalLM", "MistralForCausalLM")
    for name, weights in original.items():
        heads = HEADS if ".q_proj." in name else KV_HEADS if ".k_proj." in name else 0
        wanted = paired(weights, heads) if heads and pairs else weights
        near = {"F32": 0.0, "F16": 1e-3, "BF16": 0.0 if stored == "BF16" else 8e-3, "Q8_0": 1e-2}[to]
        error = np.abs(made[theirs(name)].astype(np.float32) - wanted).max()
        assert error <= near * np.abs(wanted).max(), name
    if config.get("rope_scaling"):
        assert factors is not None and factors.shape == (WIDTH // HEADS // 2,)
        assert factors[0] == 1.0 and factors[-1] == 8.0 and (np.diff(factors) >= 0).all()
    else:
        assert factors is None
    lineage = lineage_of(store.manifest(done.digest))
    assert lineage is not None and (lineage.how, lineage.to) == ("converted", to)
    assert lineage.file_digest.startswith("sha256:") and "gguf" in lineage.tool
    assert store.verify() == []


def test_a_stored_model_is_converted_with_its_licence(store: Store, tmp_path: Path) -> None:
    """Its digest is the origin; the licence goes along, the files that only Hugging Face's tools read do not."""
    write_hf(tmp_path / "tiny")
    (tmp_path / "tiny" / "LICENSE").write_text("MIT\n")
    made = package(store, tmp_path / "tiny", "docker.io/me/tiny:hf")
    done = convert(store, Base("docker.io/me/tiny:hf", made.digest), "docker.io/me/tiny:gguf", "BF16", quiet)
    content = read_content(store, done.digest)
    assert content.licenses == ("MIT\n",)
    assert {file.role for file in content.artifact.files} == {"weights", "license"}
    lineage = lineage_of(store.manifest(done.digest))
    assert lineage is not None and lineage.base_digest == made.digest
    header = read_stored_header(store, content.artifact)
    assert header is not None and header.chat_template is not None
    with pytest.raises(CallerError, match="no safetensors model but gguf"):
        convert(store, Base("docker.io/me/tiny:gguf", done.digest), "me/x", "F16", quiet)


def test_what_it_does_not_know_is_refused(store: Store, tmp_path: Path) -> None:
    """Other architectures, tokenizers, splitting rules, scalings and tensors: each said, nothing left behind."""
    folder = tmp_path / "tiny"

    def refused(match: str, to: str = "BF16") -> None:
        with pytest.raises((ModelFileError, CallerError), match=match):
            convert(store, Base("tiny", file=folder), "me/x", to, quiet)

    write_hf(folder, architectures=["GemmaForCausalLM"])
    refused("GemmaForCausalLM; it knows Llama")
    write_hf(folder, rope_scaling={"rope_type": "yarn", "factor": 2})
    refused("'yarn'")
    write_hf(folder, quantization_config={"quant_method": "gptq"})
    refused("quantized already")
    write_hf(folder)
    refused("no conversion to 'Q4_K_M'", to="Q4_K_M")
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    for change, why in (
        ({"pre_tokenizer": {"type": "Whitespace"}}, "splits texts by a rule"),
        ({"model": {**tokenizer["model"], "byte_fallback": True}}, "SentencePiece"),
        ({"model": {"type": "WordPiece", "vocab": {}}}, "WordPiece"),
    ):
        (folder / "tokenizer.json").write_text(json.dumps({**tokenizer, **change}))
        refused(why)
    (folder / "tokenizer.json").unlink()
    refused("there is no tokenizer.json")
    assert store.lookup("me/x") is None and list(store.layout.scratch.iterdir()) == []


def test_ended_in_the_middle_it_leaves_nothing(store: Store, tmp_path: Path) -> None:
    """Whoever is told of progress may end it."""
    write_hf(tmp_path / "tiny")

    def end(text: str, done: int, total: int | None) -> None:
        if "tensor 5" in text:
            raise Stopped("cancelled")

    with pytest.raises(Stopped):
        convert(store, Base("tiny", file=tmp_path / "tiny"), "me/tiny", "BF16", end)
    assert store.lookup("me/tiny") is None
    assert list(store.layout.scratch.iterdir()) == [] and list(store.layout.blobs.iterdir()) == []
