"""`predict_vllm`: the bytes that vLLM takes of each GPU for a safetensors model, and the share of it to grant it.

vLLM takes `gpu_memory_utilization` of a GPU whatever the model needs, and fills what is left with cache. So the share
is computed from what a context needs. Pure: a model's `config.json` and the size of its weights go in.

Source: vLLM's documentation of the engine's arguments, `vllm/v1/kv_cache_interface.py` (what a layer's cache takes, in
blocks), and Hugging Face's names of the keys in `config.json`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, Final

from corral.lazy_dataclass import dataclass
from corral.models.memory.predict import Parts

BLOCK: Final = 16
"""Tokens of one block of cache."""

OUTSIDE: Final = 1 << 30
"""Bytes on each GPU beside weights, cache and activations: the driver's context, captured graphs, communication."""

MOST: Final = 0.97
"""The largest share that is ever granted: the driver and others need some."""

_BYTES: Final = {
    "float32": 4, "float": 4, "float16": 2, "half": 2, "bfloat16": 2,
    "fp8": 1, "fp8_e4m3": 1, "fp8_e5m2": 1, "float8_e4m3fn": 1, "float8_e5m2": 1,
}  # fmt: skip
_WINDOWED: Final = frozenset({"sliding_attention", "local_attention", "chunked_attention"})
_STATEFUL: Final = frozenset({"linear_attention", "mamba", "mamba2", "recurrent"})


@dataclass(frozen=True, slots=True)
class VllmRun:
    """How one model is served. The defaults are vLLM's where it has any."""

    context: int  # tokens of one sequence, as `--max-model-len`
    sequences: int = 1  # that must fit at full length at once
    cache_type: str = "auto"  # as `--kv-cache-dtype`; "auto": the model's own
    gpus: int = 1  # as `--tensor-parallel-size`
    batched: int = 2048  # as `--max-num-batched-tokens`
    block: int = BLOCK


@dataclass(frozen=True, slots=True)
class _Layer:
    window: int = 0  # tokens it looks back; 0 = all
    state: int = 0  # bytes of state per sequence, instead of a cache


def predict_vllm(weights_bytes: int, config: Mapping[str, Any], run: VllmRun) -> Parts:
    """What one of the run's GPUs holds; each of several holds the same. Whatever the config says, something comes out.

    Weights are what the files' headers add up to, in the types that they are stored in.
    """
    text = text_config(config)
    sequences = max(1, run.sequences)
    per_token, cache = cache_bytes_per_token(config, run), 0
    for layer in _layers(text):
        if layer.state:
            cache += sequences * layer.state // run.gpus
            continue
        tokens = run.context
        if layer.window:
            tokens = min(tokens, layer.window - 1 + run.batched)
        blocks = math.ceil(max(1, tokens) / run.block) + bool(layer.window)
        cache += sequences * blocks * run.block * per_token
    return Parts(math.ceil(weights_bytes / run.gpus), cache, _activations(text, run))


def cache_bytes_per_token(config: Mapping[str, Any], run: VllmRun) -> int:
    """What one token takes in the cache of one layer, on one GPU."""
    text = text_config(config)
    width = _BYTES.get(run.cache_type) or _BYTES.get(_type(config), 2)
    if latent := _size(text, "kv_lora_rank"):  # every GPU keeps the one compressed vector
        return (latent + _size(text, "qk_rope_head_dim")) * width
    heads = _size(text, "num_key_value_heads") or _size(text, "num_kv_heads") or _heads(text)
    return 2 * max(1, math.ceil(heads / run.gpus)) * _head(text) * width


def utilization(parts: Parts, total_bytes: int, *, outside: int = OUTSIDE) -> float | None:
    """The `gpu_memory_utilization` with which `parts` fit a GPU of `total_bytes`; None where they do not.

    Rounded up to a hundredth, so that vLLM never finds a block too few.
    """
    if total_bytes <= 0:
        return None
    share = math.ceil(100 * (parts.total + outside) / total_bytes) / 100
    return share if share <= MOST else None


def longest(weights_bytes: int, config: Mapping[str, Any], run: VllmRun, room_bytes: int) -> int | None:
    """The longest context, up to `run`'s, with which `room_bytes` of each GPU are enough; None for none."""
    first, last = 1, max(1, run.context // run.block)

    def fits(blocks: int) -> bool:
        tried = VllmRun(blocks * run.block, run.sequences, run.cache_type, run.gpus, run.batched, run.block)
        return predict_vllm(weights_bytes, config, tried).total + OUTSIDE <= room_bytes

    if not fits(first):
        return None
    while last > first:
        middle = (first + last + 1) // 2
        first, last = (middle, last) if fits(middle) else (first, middle - 1)
    return first * run.block


def text_config(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The part about the language model: models that see or hear have it inside."""
    for name in ("text_config", "llm_config", "language_config"):
        if isinstance(inner := config.get(name), Mapping):
            return inner
    return config


def _layers(text: Mapping[str, Any]) -> Iterator[_Layer]:
    count = _size(text, "num_hidden_layers") or _size(text, "n_layer")
    window = _size(text, "sliding_window")
    kinds = text.get("layer_types")
    pattern = _size(text, "sliding_window_pattern")
    for number in range(count):
        if isinstance(kinds, list) and number < len(kinds):
            kind = str(kinds[number])
            yield _Layer(window if kind in _WINDOWED else 0, _state(text) if kind in _STATEFUL else 0)
        elif pattern and window:
            yield _Layer(window if (number + 1) % pattern else 0)  # each last of `pattern` looks back at all
        else:
            yield _Layer(window if text.get("use_sliding_window", True) else 0)


def _state(text: Mapping[str, Any]) -> int:
    """What one layer keeps of a sequence instead of a cache: a state in float32, and what its convolution looks at."""
    keys = _size(text, "linear_num_key_heads") * _size(text, "linear_key_head_dim")
    value_heads, value = _size(text, "linear_num_value_heads"), _size(text, "linear_value_head_dim")
    if keys and value_heads:
        kernel = _size(text, "linear_conv_kernel_dim") or 4
        return 4 * value_heads * value * _size(text, "linear_key_head_dim") + 2 * (kernel - 1) * (
            2 * keys + value_heads * value
        )
    heads, head = _size(text, "mamba_n_heads") or _size(text, "num_heads"), _size(text, "mamba_d_head")
    head = head or _size(text, "head_dim")
    kept = _size(text, "mamba_d_state") or _size(text, "state_size") or _size(text, "ssm_state_size")
    groups = _size(text, "mamba_n_groups") or _size(text, "n_groups") or 1
    kernel = _size(text, "mamba_d_conv") or _size(text, "conv_kernel") or 4
    return 4 * heads * head * kept + 2 * (kernel - 1) * (heads * head + 2 * groups * kept)


def _activations(text: Mapping[str, Any], run: VllmRun) -> int:
    """The peak of one pass over a full batch: a layer's widest step, and the logits that are sampled from."""
    hidden, inner = _size(text, "hidden_size"), _size(text, "intermediate_size")
    experts = _size(text, "num_experts_per_tok")
    wide = max(inner, experts * _size(text, "moe_intermediate_size"))
    queries = _heads(text) * _head(text)
    one = 2 * (4 * hidden + (3 * wide + 2 * queries) // run.gpus)
    return run.batched * one + run.sequences * _size(text, "vocab_size") * 4 * 2


def _heads(text: Mapping[str, Any]) -> int:
    return _size(text, "num_attention_heads") or _size(text, "n_head") or 1


def _head(text: Mapping[str, Any]) -> int:
    return _size(text, "head_dim") or (_size(text, "hidden_size") or _size(text, "n_embd")) // _heads(text)


def _type(config: Mapping[str, Any]) -> str:
    for part in (text_config(config), config):
        if isinstance(found := part.get("dtype") or part.get("torch_dtype"), str):
            return found.removeprefix("torch.")
    return "float16"


def _size(config: Mapping[str, Any], key: str) -> int:
    value = config.get(key)
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0
