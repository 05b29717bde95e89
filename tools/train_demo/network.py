"""The network: a llama as llama.cpp runs it, small enough to train on a CPU."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional


@dataclass(frozen=True, slots=True)
class Shape:
    """Sizes of the network; rows are multiples of 32 so that Q8_0 can hold them."""

    vocabulary: int = 1536
    width: int = 192
    layers: int = 5
    heads: int = 6
    kv_heads: int = 2
    ff: int = 512
    context: int = 2048
    rope_base: float = 10_000.0
    epsilon: float = 1e-5

    @property
    def head_width(self) -> int:
        return self.width // self.heads


class Norm(nn.Module):
    """RMS norm with a learned gain."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(shape.width))
        self.epsilon = shape.epsilon

    def forward(self, x: Tensor) -> Tensor:
        return functional.rms_norm(x, (x.shape[-1],), self.weight, self.epsilon)


class Block(nn.Module):
    """Attention and a gated feed-forward network, each with a residual connection."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        kv = shape.kv_heads * shape.head_width
        self.shape = shape
        self.attn_norm, self.ffn_norm = Norm(shape), Norm(shape)
        self.attn_q = nn.Linear(shape.width, shape.width, bias=False)
        self.attn_k = nn.Linear(shape.width, kv, bias=False)
        self.attn_v = nn.Linear(shape.width, kv, bias=False)
        self.attn_output = nn.Linear(shape.width, shape.width, bias=False)
        self.ffn_gate = nn.Linear(shape.width, shape.ff, bias=False)
        self.ffn_up = nn.Linear(shape.width, shape.ff, bias=False)
        self.ffn_down = nn.Linear(shape.ff, shape.width, bias=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        batch, length, width = x.shape
        normed = self.attn_norm(x)

        def heads(linear: nn.Linear) -> Tensor:
            return linear(normed).view(batch, length, -1, self.shape.head_width).transpose(1, 2)

        q, k = rotated(heads(self.attn_q), cos, sin), rotated(heads(self.attn_k), cos, sin)
        mixed = functional.scaled_dot_product_attention(q, k, heads(self.attn_v), is_causal=True, enable_gqa=True)
        x = x + self.attn_output(mixed.transpose(1, 2).reshape(batch, length, width))
        normed = self.ffn_norm(x)
        return x + self.ffn_down(functional.silu(self.ffn_gate(normed)) * self.ffn_up(normed))


class Llama(nn.Module):
    """Token ids in, logits out; the embedding is the output matrix too."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.token_embd = nn.Embedding(shape.vocabulary, shape.width)
        self.blk = nn.ModuleList(Block(shape) for _ in range(shape.layers))
        self.output_norm = Norm(shape)
        for name, parameter in self.named_parameters():
            if parameter.dim() == 2:
                scale = (2 * shape.layers) ** -0.5 if name.endswith(("attn_output.weight", "ffn_down.weight")) else 1.0
                nn.init.normal_(parameter, std=0.04 * scale)

    def forward(self, tokens: Tensor) -> Tensor:
        """`tokens` is (batch, length); the result is (batch, length, width): the last hidden state, normed."""
        half = self.shape.head_width // 2
        speeds = self.shape.rope_base ** (-torch.arange(half, dtype=torch.float32) / half)
        angles = torch.arange(tokens.shape[1], dtype=torch.float32)[:, None] * speeds
        cos, sin = angles.cos(), angles.sin()
        x = self.token_embd(tokens)
        for block in self.blk:
            x = block(x, cos, sin)
        return self.output_norm(x)


def rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """`x` turned by its position, neighbouring components in pairs, as llama.cpp does for `llama`."""
    even, odd = x[..., 0::2], x[..., 1::2]
    return torch.stack((even * cos - odd * sin, even * sin + odd * cos), dim=-1).flatten(-2)
