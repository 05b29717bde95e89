"""What files of many architectures hold: keys, and tensors by shape. `architecture_files.write` makes files of them.

What a file says about itself is what llama.cpp's own loader of that architecture asks for; nothing they say makes
sense, but they say it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Size:
    """How large the model is to be. `key` is a head's width."""

    width: int
    layers: int
    heads: int
    kv_heads: int
    key: int
    ff: int
    vocabulary: int
    experts: int = 8
    experts_used: int = 2


TINY = Size(width=128, layers=4, heads=4, kv_heads=2, key=32, ff=384, vocabulary=512)
MID = Size(width=512, layers=6, heads=8, kv_heads=2, key=64, ff=1536, vocabulary=4096)

Shape = tuple[int, ...]


@dataclass(slots=True)
class Model:
    """What goes into a file: keys (without the architecture's name) and tensors by shape, rows' length last."""

    arch: str
    keys: dict[str, Any] = field(default_factory=dict)
    tensors: dict[str, Shape] = field(default_factory=dict)

    def blocks(
        self, size: Size, shapes: Mapping[str, Shape], only: Callable[[int], bool] = lambda number: True
    ) -> None:
        for number in range(size.layers):
            if only(number):
                self.tensors |= {f"blk.{number}.{name}": shape for name, shape in shapes.items()}


def _start(arch: str, size: Size, *, tied: bool = False, bias: bool = False, eps: str = "_rms") -> Model:
    w, v = size.width, size.vocabulary
    model = Model(arch)
    model.keys = {
        "context_length": 8192, "embedding_length": w, "block_count": size.layers, "feed_forward_length": size.ff,
        "attention.head_count": size.heads, "attention.head_count_kv": size.kv_heads,
        f"attention.layer_norm{eps}_epsilon": 1e-5, "vocab_size": v,
    }  # fmt: skip
    model.tensors = {"token_embd.weight": (v, w), "output_norm.weight": (w,)}
    if bias:
        model.tensors["output_norm.bias"] = (w,)
    if not tied:
        model.tensors["output.weight"] = (v, w)
    return model


def _heads(size: Size, *, bias: bool = False, fused: bool = False) -> dict[str, Shape]:
    w, q, kv = size.width, size.heads * size.key, size.kv_heads * size.key
    sides = {"attn_qkv": q + 2 * kv} if fused else {"attn_q": q, "attn_k": kv, "attn_v": kv}
    found: dict[str, Shape] = {f"{name}.weight": (rows, w) for name, rows in sides.items()}
    if bias:
        found |= {f"{name}.bias": (rows,) for name, rows in sides.items()}
    return found | {"attn_output.weight": (w, q)}


def _dense(size: Size, *, gate: bool = True, ff: int | None = None) -> dict[str, Shape]:
    w, ff = size.width, ff or size.ff
    found: dict[str, Shape] = {"ffn_up.weight": (ff, w), "ffn_down.weight": (w, ff)}
    return found | ({"ffn_gate.weight": (ff, w)} if gate else {})


def _norms(size: Size, *names: str, bias: bool = False, length: int | None = None) -> dict[str, Shape]:
    shape = (length or size.width,)
    found: dict[str, Shape] = {f"{name}.weight": shape for name in names}
    return found | ({f"{name}.bias": shape for name in names} if bias else {})


def _experts(size: Size, ff: int) -> dict[str, Shape]:
    w, n = size.width, size.experts
    return {
        "ffn_gate_inp.weight": (n, w), "ffn_gate_exps.weight": (n, ff, w), "ffn_up_exps.weight": (n, ff, w),
        "ffn_down_exps.weight": (n, w, ff),
    }  # fmt: skip


def _expert_keys(size: Size, ff: int) -> dict[str, Any]:
    return {"expert_count": size.experts, "expert_used_count": size.experts_used, "expert_feed_forward_length": ff}


def _rope(model: Model, size: Size) -> None:
    model.keys |= {"rope.dimension_count": size.key, "attention.key_length": size.key,
                   "attention.value_length": size.key}  # fmt: skip


def _llama(size: Size) -> Model:
    model = _start("llama", size)
    _rope(model, size)
    model.blocks(size, _norms(size, "attn_norm", "ffn_norm") | _heads(size) | _dense(size))
    return model


def _mixtral(size: Size) -> Model:
    model = _start("llama", size)
    _rope(model, size)
    ff = size.ff // 2
    model.keys |= {"expert_count": size.experts, "expert_used_count": size.experts_used, "feed_forward_length": ff}
    model.blocks(size, _norms(size, "attn_norm", "ffn_norm") | _heads(size) | _experts(size, ff))
    return model


def _qwen2(size: Size) -> Model:
    model = _start("qwen2", size, tied=True)
    model.blocks(size, _norms(size, "attn_norm", "ffn_norm") | _heads(size, bias=True) | _dense(size))
    return model


def _qwen3(size: Size) -> Model:
    model = _start("qwen3", size)
    _rope(model, size)
    shapes = _norms(size, "attn_norm", "ffn_norm") | _norms(size, "attn_q_norm", "attn_k_norm", length=size.key)
    model.blocks(size, shapes | _heads(size) | _dense(size))
    return model


def _qwen3moe(size: Size) -> Model:
    model = _start("qwen3moe", size)
    _rope(model, size)
    ff = size.ff // 4
    model.keys |= _expert_keys(size, ff)
    shapes = _norms(size, "attn_norm", "ffn_norm") | _norms(size, "attn_q_norm", "attn_k_norm", length=size.key)
    model.blocks(size, shapes | _heads(size) | _experts(size, ff))
    return model


def _gemma(arch: str, size: Size, keys: dict[str, Any]) -> Model:
    model = _start(arch, size, tied=True)
    _rope(model, size)
    model.keys |= keys
    shapes = _norms(size, "attn_norm", "post_attention_norm", "ffn_norm", "post_ffw_norm")
    if arch == "gemma3":
        shapes |= _norms(size, "attn_q_norm", "attn_k_norm", length=size.key)
    model.blocks(size, shapes | _heads(size) | _dense(size))
    return model


def _gemma2(size: Size) -> Model:
    keys = {"attention.sliding_window": 512, "attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0}
    return _gemma("gemma2", size, keys)


def _gemma3(size: Size) -> Model:
    return _gemma("gemma3", size, {"attention.sliding_window": 512, "attention.sliding_window_pattern": 3})


def _phi3(size: Size) -> Model:
    model = _start("phi3", size)
    model.keys |= {"rope.dimension_count": size.key, "rope.scaling.original_context_length": 4096}
    shapes = _norms(size, "attn_norm", "ffn_norm") | _heads(size, fused=True)
    w, ff = size.width, size.ff
    model.blocks(size, shapes | {"ffn_up.weight": (2 * ff, w), "ffn_down.weight": (w, ff)})
    return model


def _gpt_oss(size: Size) -> Model:
    model = _start("gpt-oss", size)
    _rope(model, size)
    ff, w, n = size.ff // 2, size.width, size.experts
    model.keys |= _expert_keys(size, ff) | {"attention.sliding_window": 128}
    shapes = _norms(size, "attn_norm", "post_attention_norm") | _heads(size, bias=True) | _experts(size, ff)
    biases: dict[str, Shape] = {
        "attn_output.bias": (w,), "attn_sinks.weight": (size.heads,), "ffn_gate_inp.bias": (n,),
        "ffn_gate_exps.bias": (n, ff), "ffn_up_exps.bias": (n, ff), "ffn_down_exps.bias": (n, w),
    }  # fmt: skip
    model.blocks(size, shapes | biases)
    return model


def _deepseek2(size: Size) -> Model:
    model = _start("deepseek2", size)
    w, ff, rotated, latent, low = size.width, size.ff // 4, size.key // 2, 2 * size.key, 3 * size.key
    plain, value = size.key, size.key
    head = plain + rotated
    model.keys |= _expert_keys(size, ff) | {
        "attention.head_count_kv": 1, "attention.key_length": latent + rotated, "attention.value_length": latent,
        "attention.key_length_mla": head, "attention.value_length_mla": value, "attention.kv_lora_rank": latent,
        "attention.q_lora_rank": low, "rope.dimension_count": rotated, "leading_dense_block_count": 1,
        "expert_shared_count": 1, "expert_weights_scale": 2.5, "expert_weights_norm": True, "expert_gating_func": 2,
    }  # fmt: skip
    attention: dict[str, Shape] = {
        "attn_q_a.weight": (low, w), "attn_q_b.weight": (size.heads * head, low),
        "attn_kv_a_mqa.weight": (latent + rotated, w), "attn_k_b.weight": (size.heads, latent, plain),
        "attn_v_b.weight": (size.heads, value, latent), "attn_output.weight": (w, size.heads * value),
        "attn_q_a_norm.weight": (low,), "attn_kv_a_norm.weight": (latent,),
    }  # fmt: skip
    model.blocks(size, _norms(size, "attn_norm", "ffn_norm") | attention)
    model.blocks(size, _dense(size), lambda number: number == 0)
    shared: dict[str, Shape] = {"ffn_gate_shexp.weight": (ff, w), "ffn_up_shexp.weight": (ff, w),
                                "ffn_down_shexp.weight": (w, ff), "exp_probs_b.bias": (size.experts,)}  # fmt: skip
    model.blocks(size, _experts(size, ff) | shared, lambda number: number > 0)
    return model


def _command_r(size: Size) -> Model:
    model = _start("command-r", size, tied=True, eps="")
    model.keys |= {"logit_scale": 0.0625}
    model.blocks(size, _norms(size, "attn_norm") | _heads(size) | _dense(size))
    return model


def _cohere2(size: Size) -> Model:
    model = _start("cohere2", size, tied=True, eps="")
    _rope(model, size)
    model.keys |= {"logit_scale": 0.25, "attention.sliding_window": 512}
    model.blocks(size, _norms(size, "attn_norm") | _heads(size) | _dense(size))
    return model


def _starcoder2(size: Size) -> Model:
    model = _start("starcoder2", size, bias=True, eps="")
    shapes = _norms(size, "attn_norm", "ffn_norm", bias=True) | _heads(size, bias=True) | _dense(size, gate=False)
    model.blocks(size, shapes | {"attn_output.bias": (size.width,), "ffn_up.bias": (size.ff,),
                                 "ffn_down.bias": (size.width,)})  # fmt: skip
    return model


def _stablelm(size: Size) -> Model:
    model = _start("stablelm", size, bias=True, eps="")
    model.keys |= {"rope.dimension_count": size.key // 4, "use_parallel_residual": False}
    model.blocks(size, _norms(size, "attn_norm", "ffn_norm", bias=True) | _heads(size) | _dense(size))
    return model


def _olmo2(size: Size) -> Model:
    model = _start("olmo2", size)
    q, kv = size.heads * size.key, size.kv_heads * size.key
    shapes = _norms(size, "post_attention_norm", "post_ffw_norm")
    shapes |= _norms(size, "attn_q_norm", length=q) | _norms(size, "attn_k_norm", length=kv)
    model.blocks(size, shapes | _heads(size) | _dense(size))
    return model


def _mamba(size: Size) -> Model:
    model = _start("mamba", size)
    w, inner, state, rank = size.width, 2 * size.width, 16, size.width // 16
    model.keys |= {"ssm.conv_kernel": 4, "ssm.inner_size": inner, "ssm.state_size": state, "ssm.time_step_rank": rank,
                   "attention.head_count": 0, "feed_forward_length": 0}  # fmt: skip
    del model.keys["attention.head_count_kv"]
    model.blocks(size, _norms(size, "attn_norm") | {
        "ssm_in.weight": (2 * inner, w), "ssm_conv1d.weight": (inner, 4), "ssm_conv1d.bias": (inner,),
        "ssm_x.weight": (rank + 2 * state, inner), "ssm_dt.weight": (inner, rank), "ssm_dt.bias": (inner,),
        "ssm_a": (inner, state), "ssm_d": (inner,), "ssm_out.weight": (w, inner),
    })  # fmt: skip
    return model


def _mamba2_keys(size: Size) -> tuple[dict[str, Any], dict[str, Shape]]:
    w, inner, state, groups = size.width, 2 * size.width, 64, 1
    heads = inner // size.key
    channels = inner + 2 * groups * state
    keys = {"ssm.conv_kernel": 4, "ssm.inner_size": inner, "ssm.state_size": state, "ssm.time_step_rank": heads,
            "ssm.group_count": groups}  # fmt: skip
    return keys, {
        "ssm_in.weight": (inner + channels + heads, w), "ssm_conv1d.weight": (channels, 4),
        "ssm_conv1d.bias": (channels,), "ssm_dt.bias": (heads,), "ssm_a": (heads, 1), "ssm_d": (heads, 1),
        "ssm_norm.weight": (groups, inner // groups), "ssm_out.weight": (w, inner),
    }  # fmt: skip


def _mamba2(size: Size) -> Model:
    model = _start("mamba2", size)
    keys, shapes = _mamba2_keys(size)
    model.keys |= keys | {"attention.head_count": 0, "feed_forward_length": 0}
    del model.keys["attention.head_count_kv"]
    model.blocks(size, _norms(size, "attn_norm") | shapes)
    return model


def _granitehybrid(size: Size) -> Model:
    model = _start("granitehybrid", size)
    keys, shapes = _mamba2_keys(size)

    def attends(number: int) -> bool:
        return number % 3 == 2

    kv = [size.kv_heads if attends(number) else 0 for number in range(size.layers)]
    model.keys |= keys | {"attention.head_count_kv": kv, "embedding_scale": 12.0, "residual_scale": 0.22,
                          "logit_scale": 8.0, "attention.scale": 0.0156}  # fmt: skip
    model.blocks(size, _norms(size, "attn_norm", "ffn_norm") | _dense(size))
    model.blocks(size, shapes, lambda number: not attends(number))
    model.blocks(size, _heads(size), attends)
    return model


def _falcon_h1(size: Size) -> Model:
    model = _start("falcon-h1", size)
    _rope(model, size)
    keys, shapes = _mamba2_keys(size)
    model.keys |= keys
    shapes |= {"ffn_norm": (size.width,)}  # without ".weight", as the engine asks for it
    model.blocks(size, _norms(size, "attn_norm") | _dense(size) | _heads(size) | shapes)
    return model


def _jamba(size: Size) -> Model:
    model = _start("jamba", size)
    w, inner, state, rank = size.width, 2 * size.width, 16, size.width // 16

    def attends(number: int) -> bool:
        return number % 4 == 2

    kv = [size.kv_heads if attends(number) else 0 for number in range(size.layers)]
    ff = size.ff // 2
    model.keys |= {"ssm.conv_kernel": 4, "ssm.inner_size": inner, "ssm.state_size": state, "ssm.time_step_rank": rank,
                   "attention.head_count_kv": kv, "expert_count": size.experts, "expert_used_count": size.experts_used,
                   "feed_forward_length": ff}  # fmt: skip
    model.blocks(size, _norms(size, "attn_norm", "ffn_norm"))
    model.blocks(size, {
        "ssm_in.weight": (2 * inner, w), "ssm_conv1d.weight": (inner, 4), "ssm_conv1d.bias": (inner,),
        "ssm_x.weight": (rank + 2 * state, inner), "ssm_dt.weight": (inner, rank), "ssm_dt.bias": (inner,),
        "ssm_dt_norm.weight": (rank,), "ssm_b_norm.weight": (state,), "ssm_c_norm.weight": (state,),
        "ssm_a": (inner, state), "ssm_d": (inner,), "ssm_out.weight": (w, inner),
    }, lambda number: not attends(number))  # fmt: skip
    model.blocks(size, _heads(size), attends)
    model.blocks(size, _dense(size, ff=ff), lambda number: number % 2 == 0)
    model.blocks(size, _experts(size, ff), lambda number: number % 2 == 1)
    return model


def _qwen3next(size: Size) -> Model:
    model = _start("qwen3next", size)
    _rope(model, size)
    w, state, keys, values, ff = size.width, size.key, size.kv_heads, 2 * size.kv_heads, size.ff // 4
    inner = state * values
    channels = inner + 2 * keys * state
    model.keys |= _expert_keys(size, ff) | {
        "expert_shared_feed_forward_length": ff, "ssm.conv_kernel": 4, "ssm.inner_size": inner, "ssm.state_size": state,
        "ssm.time_step_rank": values, "ssm.group_count": keys, "full_attention_interval": 2,
    }  # fmt: skip
    shared: dict[str, Shape] = {"ffn_gate_shexp.weight": (ff, w), "ffn_up_shexp.weight": (ff, w),
                                "ffn_down_shexp.weight": (w, ff), "ffn_gate_inp_shexp.weight": (w,)}  # fmt: skip
    model.blocks(size, _norms(size, "attn_norm", "post_attention_norm") | _experts(size, ff) | shared)
    model.blocks(size, {
        "attn_qkv.weight": (channels, w), "attn_gate.weight": (inner, w), "ssm_conv1d.weight": (channels, 4),
        "ssm_dt.bias": (values,), "ssm_a": (values,), "ssm_ba.weight": (2 * values, w), "ssm_norm.weight": (state,),
        "ssm_out.weight": (w, inner),
    }, lambda number: number % 2 == 0)  # fmt: skip
    attention = _heads(size) | _norms(size, "attn_q_norm", "attn_k_norm", length=size.key)
    attention["attn_q.weight"] = (2 * size.heads * size.key, w)
    model.blocks(size, attention, lambda number: number % 2 == 1)
    return model


def _bert(size: Size) -> Model:
    model = _start("bert", size, eps="")
    model.keys |= {"attention.causal": False, "pooling_type": 1, "context_length": 2048}
    del model.keys["attention.head_count_kv"]
    w, v = size.width, size.vocabulary
    model.tensors = {"token_embd.weight": (v, w), "token_types.weight": (2, w), "position_embd.weight": (2048, w),
                     "token_embd_norm.weight": (w,), "token_embd_norm.bias": (w,)}  # fmt: skip
    whole = Size(w, size.layers, size.heads, size.heads, w // size.heads, size.ff, v)
    shapes = _heads(whole, bias=True) | _dense(size, gate=False)
    shapes |= _norms(size, "attn_output_norm", "layer_output_norm", bias=True)
    model.blocks(size, shapes | {"attn_output.bias": (w,), "ffn_up.bias": (size.ff,), "ffn_down.bias": (w,)})
    return model


ARCHITECTURES: dict[str, Callable[[Size], Model]] = {
    "llama": _llama, "mixtral": _mixtral, "qwen2": _qwen2, "qwen3": _qwen3, "qwen3moe": _qwen3moe, "gemma2": _gemma2,
    "gemma3": _gemma3, "phi3": _phi3, "gpt-oss": _gpt_oss, "deepseek2": _deepseek2, "command-r": _command_r,
    "cohere2": _cohere2, "starcoder2": _starcoder2, "stablelm": _stablelm, "olmo2": _olmo2, "mamba": _mamba,
    "mamba2": _mamba2, "granitehybrid": _granitehybrid, "falcon-h1": _falcon_h1, "jamba": _jamba,
    "qwen3next": _qwen3next, "bert": _bert,
}  # fmt: skip
"""Who writes which; "mixtral" is a llama with experts."""
