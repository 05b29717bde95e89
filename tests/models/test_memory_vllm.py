"""What vLLM takes for models whose formulae are well known, and the share of a GPU that follows."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral.models.memory.vllm import OUTSIDE, VllmRun, cache_bytes_per_token, longest, predict_vllm, utilization

GIB = 1 << 30
LLAMA_3_8B = {
    "model_type": "llama", "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8,
    "hidden_size": 4096, "intermediate_size": 14336, "vocab_size": 128256, "torch_dtype": "bfloat16",
}  # fmt: skip
LLAMA_2_7B = {**LLAMA_3_8B, "num_key_value_heads": 32, "torch_dtype": "float16"}
QWEN_25_7B = {
    "num_hidden_layers": 28, "num_attention_heads": 28, "num_key_value_heads": 4, "hidden_size": 3584,
    "sliding_window": 131072, "use_sliding_window": False, "torch_dtype": "bfloat16",
}  # fmt: skip
DEEPSEEK_V3 = {
    "num_hidden_layers": 61, "num_attention_heads": 128, "num_key_value_heads": 128, "kv_lora_rank": 512,
    "qk_rope_head_dim": 64, "hidden_size": 7168, "torch_dtype": "bfloat16",
}  # fmt: skip
GEMMA_3_27B = {
    "text_config": {
        "num_hidden_layers": 62, "num_attention_heads": 32, "num_key_value_heads": 16, "head_dim": 128,
        "hidden_size": 5376, "sliding_window": 1024, "sliding_window_pattern": 6,
    },
    "torch_dtype": "bfloat16",
}  # fmt: skip


@pytest.mark.parametrize(
    ("config", "per_token"),
    [
        (LLAMA_3_8B, 128 << 10),
        (LLAMA_2_7B, 512 << 10),
        (QWEN_25_7B, 56 << 10),
        (DEEPSEEK_V3, 61 * (512 + 64) * 2),
    ],
    ids=["llama-3-8b", "llama-2-7b", "qwen2.5-7b", "deepseek-v3"],
)
def test_the_cache_of_a_context(config: dict[str, Any], per_token: int) -> None:
    """Keys and values of each layer by its KV heads, one compressed vector with latent attention, in whole blocks."""
    layers = config["num_hidden_layers"]
    assert cache_bytes_per_token(config, VllmRun(1)) * layers == per_token
    assert predict_vllm(0, config, VllmRun(8192)).cache == 8192 * per_token
    assert predict_vllm(0, config, VllmRun(8193)).cache == 8208 * per_token
    assert predict_vllm(0, config, VllmRun(8192, sequences=4)).cache == 4 * 8192 * per_token


def test_layers_with_a_window_keep_the_window_and_a_batch() -> None:
    """Of Gemma 3's layers five in six look back 1024 tokens; only the others grow with the context."""
    run = VllmRun(65536, batched=2048)
    per_layer = 2 * 16 * 128 * 2
    windowed = -(-(1023 + 2048) // 16) + 1
    assert predict_vllm(0, GEMMA_3_27B, run).cache == (10 * 65536 + 52 * windowed * 16) * per_layer
    types = ["full_attention" if number % 6 == 5 else "sliding_attention" for number in range(62)]
    named = {"text_config": {**GEMMA_3_27B["text_config"], "layer_types": types}, "torch_dtype": "bfloat16"}  # type: ignore[dict-item]
    assert predict_vllm(0, named, run) == predict_vllm(0, GEMMA_3_27B, run)


def test_linear_attention_keeps_a_state_whatever_the_context() -> None:
    """Layers of Qwen3-Next without softmax attention cost the same for a token as for a million."""
    types = ["full_attention" if number % 4 == 3 else "linear_attention" for number in range(48)]
    config = {
        "num_hidden_layers": 48, "num_attention_heads": 16, "num_key_value_heads": 2, "head_dim": 256,
        "hidden_size": 2048, "layer_types": types, "linear_num_key_heads": 16, "linear_key_head_dim": 128,
        "linear_num_value_heads": 32, "linear_value_head_dim": 128, "linear_conv_kernel_dim": 4,
    }  # fmt: skip
    state = 4 * 32 * 128 * 128 + 2 * 3 * (2 * 16 * 128 + 32 * 128)
    short, long = (predict_vllm(0, config, VllmRun(context)).cache for context in (16, 16 << 16))
    assert short == 12 * 16 * 2 * 2 * 256 * 2 + 36 * state
    assert long - short == 12 * ((16 << 16) - 16) * 2 * 2 * 256 * 2


def test_several_gpus_share_weights_and_heads() -> None:
    """Tensor parallelism divides weights and KV heads, a head being the least; a compressed vector is on each GPU."""
    assert predict_vllm(16 * GIB, LLAMA_3_8B, VllmRun(8192, gpus=4)).weights == 4 * GIB
    assert predict_vllm(0, LLAMA_3_8B, VllmRun(8192, gpus=4)).cache == 8192 * (32 << 10)
    assert predict_vllm(0, LLAMA_3_8B, VllmRun(8192, gpus=16)).cache == 8192 * (16 << 10)
    assert predict_vllm(0, DEEPSEEK_V3, VllmRun(8192, gpus=8)).cache == 8192 * 61 * 576 * 2


def test_a_smaller_cache_type() -> None:
    """A cache of eight bits takes half of one of sixteen."""
    assert predict_vllm(0, LLAMA_3_8B, VllmRun(8192, cache_type="fp8")).cache == 8192 * (64 << 10)


def test_the_share_of_a_gpu_is_what_the_plan_needs() -> None:
    """`gpu_memory_utilization` covers weights, cache, activations and what is beside them, and no hundredth more."""
    parts = predict_vllm(16 * GIB, LLAMA_3_8B, VllmRun(8192))
    share = utilization(parts, 80 * GIB)
    assert share is not None
    assert parts.total + OUTSIDE <= share * 80 * GIB < parts.total + OUTSIDE + 0.01 * 80 * GIB + 1
    assert utilization(parts, 16 * GIB) is None
    assert utilization(parts, 0) is None


@given(st.integers(1, 120), st.integers(1, 8))
def test_the_longest_context_is_the_longest(room: int, sequences: int) -> None:
    """What is said to fit does, and a block more would not."""
    run = VllmRun(131072, sequences=sequences)
    found = longest(16 * GIB, LLAMA_3_8B, run, room * GIB)

    def takes(context: int) -> int:
        return predict_vllm(16 * GIB, LLAMA_3_8B, VllmRun(context, sequences=sequences)).total + OUTSIDE

    if found is None:
        assert takes(16) > room * GIB
    else:
        assert takes(found) <= room * GIB
        assert found == 131072 or takes(found + 16) > room * GIB


@given(
    st.dictionaries(st.sampled_from([*LLAMA_3_8B, *DEEPSEEK_V3, "layer_types", "head_dim"]), st.none() | st.integers())
)
def test_any_config_gives_something(config: dict[str, Any]) -> None:
    """A config that lies, or lacks what is needed, is no error here: vLLM will say."""
    config["num_hidden_layers"] = min(200, abs(config.get("num_hidden_layers") or 0))
    assert predict_vllm(1, config, VllmRun(4096)).total >= 1
