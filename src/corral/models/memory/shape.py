"""`Layout`: what a header says about a model's layers, read once and checked.

Source: the GGUF specification's keys, and the defaults of llama.cpp's `src/models/*.cpp` where a file says nothing.
"""

from __future__ import annotations

from typing import Final

from corral.lazy_dataclass import dataclass
from corral.models.formats.gguf import Header, Tensor

MOST_LAYERS: Final = 512  # llama.cpp's own limit
_MOST: Final = 1 << 31  # beyond any model's sizes; keeps what a broken file claims from costing time

ENCODERS: Final = frozenset({
    "bert", "modern-bert", "nomic-bert", "nomic-bert-moe", "neo-bert", "jina-bert-v2", "jina-bert-v3", "eurobert",
    "gemma-embedding", "llama-embed", "dream", "llada", "llada-moe", "rnd1", "clef", "wavtokenizer-dec", "t5encoder",
})  # fmt: skip
"""Architectures that look at their whole input at once and cache nothing."""

RECURRENT: Final = frozenset({"mamba", "mamba2", "rwkv6", "rwkv6qwen2", "rwkv7", "arwkv7"})

_WINDOW_PERIODS: Final = {
    "gemma2": 2, "gemma3": 6, "gemma3n": 5, "gemma-embedding": 6, "gpt-oss": 2, "cohere2": 4, "cohere2moe": 4,
    "exaone4": 4, "exaone-moe": 4, "olmo2": 4, "afmoe": 4, "llama4": 4, "plamo3": 8, "smallthinker": 4,
    "modern-bert": 3, "laguna": 4, "mellum": 4, "muse-glimmer": 4,
}  # fmt: skip
"""Each how-manieth layer looks at everything, where the file does not list them."""

_FULL_FIRST: Final = frozenset({"smallthinker", "modern-bert", "cohere2moe", "laguna"})
_WINDOWS: Final = {"gemma2": 4096, "exaone4": 4096, "exaone-moe": 128, "llama4": 8192}
_LISTED: Final = frozenset({"gemma4", "mimo2", "granite-swa", "maple", "step35", "spark2-5", "dots3note", "lfm2",
                            "lfm2moe"})  # fmt: skip
_HYBRID_BY_INTERVAL: Final = frozenset({"qwen3next", "qwen35", "qwen35moe", "qwen4exp", "minimax-01"})
_HYBRID_BOTH: Final = frozenset({"falcon-h1"})


@dataclass(frozen=True, slots=True)
class Layer:
    """One block. `window` is how far it looks back, 0 for everything; `recurrent` that it keeps a state."""

    number: int
    heads: int
    kv_heads: int
    key: int
    value: int
    window: int
    attends: bool
    recurrent: bool
    experts_used: int


@dataclass(frozen=True, slots=True)
class Layout:
    """The whole model."""

    header: Header
    width: int  # of a token's vector
    vocabulary: int
    layers: tuple[Layer, ...]
    extra: int  # blocks at the end that only speculative decoding uses
    causal: bool
    mla: bool  # keys and values are one compressed vector
    latent: int  # its width without the rotated part
    tensors: dict[str, Tensor]

    def size(self, key: str) -> int:
        return _size(self.header, key)

    @property
    def caches(self) -> bool:
        return self.header.architecture not in ENCODERS

    @property
    def state_floats(self) -> tuple[int, int]:
        """Of one recurrent layer and slot: the convolution's past, and the state."""
        return _state(self.header, self.width, max((layer.heads for layer in self.layers), default=0))


def read_layout(header: Header) -> Layout:
    """What `header` says; odd or missing figures become 0. Never raises."""
    arch = header.architecture
    count = min(layers(header), MOST_LAYERS)
    extra = min(_size(header, "{arch}.nextn_predict_layers"), count)
    width = _size(header, "{arch}.embedding_length")
    heads = _per_layer(header, "{arch}.attention.head_count", count)
    stated_kv = header.get("{arch}.attention.head_count_kv") is not None
    kv_heads = _per_layer(header, "{arch}.attention.head_count_kv", count) if stated_kv else heads
    usual = width // max(heads, default=0) if max(heads, default=0) else 0
    key = _size(header, "{arch}.attention.key_length") or usual
    value = _size(header, "{arch}.attention.value_length") or usual
    key_window = _size(header, "{arch}.attention.key_length_swa") or key
    value_window = _size(header, "{arch}.attention.value_length_swa") or value
    windows = _windows(header, count)
    recurrent = _recurrent(header, kv_heads, count)
    cached = _size(header, "{arch}.attention.shared_kv_layers")
    used = _per_layer(header, "{arch}.expert_used_count", count)
    found = tuple(
        Layer(
            number,
            heads[number],
            kv_heads[number],
            key_window if windows[number] else key,
            value_window if windows[number] else value,
            windows[number],
            attends=arch not in RECURRENT
            and kv_heads[number] > 0
            and (not recurrent[number] or arch in _HYBRID_BOTH)
            and number < count - cached,
            recurrent=recurrent[number],
            experts_used=used[number],
        )
        for number in range(count)
    )
    tensors = {tensor.name: tensor for tensor in header.tensors}
    mla = bool(_size(header, "{arch}.attention.key_length_mla") and _size(header, "{arch}.attention.value_length_mla"))
    embedding = tensors.get("token_embd.weight")
    vocabulary = embedding.shape[1] if embedding is not None and len(embedding.shape) > 1 else header.vocabulary or 0
    return Layout(
        header=header,
        width=width,
        vocabulary=max(0, vocabulary),
        layers=found,
        extra=extra,
        causal=header.get("{arch}.attention.causal") is not False,
        mla=mla,
        latent=_size(header, "{arch}.attention.kv_lora_rank"),
        tensors=tensors,
    )


def layers(header: Header) -> int:
    """The number of blocks, counted from the tensors where the file does not say."""
    stated = _size(header, "{arch}.block_count")
    if stated:
        return stated
    return len({name.split(".")[1] for tensor in header.tensors if (name := tensor.name).startswith("blk.")})


def _windows(header: Header, count: int) -> list[int]:
    arch = header.architecture
    stated = header.get("{arch}.attention.sliding_window")
    window = _size(header, "{arch}.attention.sliding_window") or (_WINDOWS.get(arch, 0) if stated is None else 0)
    if not window or (arch not in _WINDOW_PERIODS and arch not in _LISTED):
        return [0] * count
    pattern = header.get("{arch}.attention.sliding_window_pattern")
    if isinstance(pattern, tuple):
        marks = [bool(mark) for mark in pattern[:count]]
        return [window if mark else 0 for mark in marks + [False] * (count - len(marks))]
    period = pattern if isinstance(pattern, int) and not isinstance(pattern, bool) else _WINDOW_PERIODS.get(arch, 0)
    if period <= 0:
        return [window] * count
    full = 0 if arch in _FULL_FIRST else period - 1
    return [0 if number % period == full else window for number in range(count)]


def _recurrent(header: Header, kv_heads: tuple[int, ...], count: int) -> list[bool]:
    arch = header.architecture
    if arch in RECURRENT or arch in _HYBRID_BOTH:
        return [True] * count
    if arch in _HYBRID_BY_INTERVAL:
        listed = header.get("{arch}.attention.recurrent_layers")
        if isinstance(listed, tuple):
            marks = [bool(mark) for mark in listed[:count]]
            return marks + [False] * (count - len(marks))
        interval = _size(header, "{arch}.full_attention_interval") or 4
        return [(number + 1) % interval != 0 for number in range(count)]
    state = _size(header, "{arch}.ssm.conv_kernel") or _size(header, "{arch}.shortconv.l_cache")
    feeds = _per_layer(header, "{arch}.feed_forward_length", count)
    only_feeds = arch.startswith("nemotron_h")  # there a layer is a state, attention or feed-forward, and no two
    return [bool(state) and kv_heads[number] == 0 and not (only_feeds and feeds[number]) for number in range(count)]


def _state(header: Header, width: int, heads: int) -> tuple[int, int]:
    if head := _size(header, "{arch}.wkv.head_size"):
        return (_size(header, "{arch}.token_shift_count") or 2) * width, width * head
    if short := _size(header, "{arch}.shortconv.l_cache"):
        return width * (short - 1), 0
    kernel = _size(header, "{arch}.ssm.conv_kernel")
    if head := _size(header, "{arch}.kda.head_dim"):
        return 3 * (kernel - 1 if kernel else 3) * heads * head, head * head * heads
    inner, state = _size(header, "{arch}.ssm.inner_size"), _size(header, "{arch}.ssm.state_size")
    groups = _size(header, "{arch}.ssm.group_count")
    return max(0, kernel - 1) * (inner + 2 * groups * state), inner * state


def _per_layer(header: Header, key: str, count: int) -> tuple[int, ...]:
    """A figure that is given once, or once for each layer."""
    value = header.get(key)
    if isinstance(value, tuple):
        found = tuple(min(max(0, int(item)), _MOST) if isinstance(item, int) else 0 for item in value[:count])
        return found + (found[-1] if found else 0,) * (count - len(found))
    return (_size(header, key),) * count


def _size(header: Header, key: str) -> int:
    return min(max(0, header.integer(key) or 0), _MOST)
