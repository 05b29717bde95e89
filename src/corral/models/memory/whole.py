"""The whole graph of a model: inputs, layers, output, as llama.cpp builds it to reserve its scratch memory.

Layers that repeat are built as often as it takes for the allocator to find its rhythm, not each of them.
Source: llama.cpp's `src/models/*.cpp`; what those have in common is read off the tensors' names.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from corral.models.memory.assign import assign
from corral.models.memory.blocks import Blocks
from corral.models.memory.graph import F16, F32, I32, I64, Graph, Tensor
from corral.models.memory.recurrent import Recurrent
from corral.models.memory.run import Run
from corral.models.memory.shape import Layer, Layout

_LATE: Final = frozenset({"gpt-oss", "qwen3next", "qwen35", "qwen35moe"})
"""Those that choose the tokens to answer for after the last layer, not within it."""

_ONLY_TOKENS: Final = frozenset({"cogvlm", "deepseek4", "granite-switch", "eagle3", "dflash", "gemma4-assistant"})
"""Those that take no batch in which tokens and images are mixed."""

_UNROTATED: Final = frozenset({"bert", "jina-bert-v2", "gpt2", "mpt", "bloom", "refact", "jamba", "starcoder", "t5"})
_WINDOWS_ROTATED: Final = frozenset({"cohere2", "cohere2moe", "llama4", "exaone4", "exaone-moe", "afmoe"})
"""Those that rotate queries and keys only where they look back a limited way."""

_NORM_SCALED: Final = frozenset({"gemma3", "gemma3n", "gemma4", "gemma-embedding"})
_BESIDE: Final = frozenset({"command-r", "cohere2", "cohere2moe", "falcon", "phi2", "gptneox", "stablelm", "plamo"})
"""Those whose feed-forward layer reads what attention reads, not what it says (where they have no norm for it)."""


def build(layout: Layout, run: Run, homes: Sequence[int]) -> Graph:
    """The graph for as many tokens at once as there may be. `homes`: each block's device and, last, the output's."""
    return _Model(layout, run, homes).graph


class _Model:
    def __init__(self, layout: Layout, run: Run, homes: Sequence[int]) -> None:
        self.layout, self.run = layout, run
        self.graph = Graph()
        self.blocks = Blocks(self.graph, layout, run)
        self.tokens = self.blocks.tokens
        self.arch = layout.header.architecture
        self.outputs = min(self.tokens, run.outputs or run.slots)
        self.positions: Tensor | None = None
        flow = self._embedded()
        if self.arch not in _UNROTATED or self.arch == "bert":
            count = 4 if layout.header.get("{arch}.rope.dimension_sections") is not None else 1
            self.positions = self.graph.given(self.tokens * count, width=I32)
        if not layout.caches:
            flow = self._encoder_start(flow)
            mask = F16 if run.flash else F32
            self.plain_masks = {w: self.graph.given(self.tokens, self.tokens, width=mask) for w in (False, True)}
        self.blocks.attention_inputs()
        self.recurrent = Recurrent(self.blocks) if any(layer.recurrent for layer in layout.layers) else None
        self.chosen = self.graph.given(self.outputs, width=I32)
        used = layout.layers[: len(layout.layers) - layout.extra]
        for number in _telling(layout, used, homes):
            self.graph.home = homes[number]
            flow = self._layer(used[number], flow, last=number == len(used) - 1)
        self.graph.home = homes[-1]
        self._output(flow)
        assign(self.graph)

    def _embedded(self) -> Tensor:
        graph, width = self.graph, self.layout.width
        graph.home = 0
        tokens = graph.given(self.tokens, width=I32)
        vectors = graph.given(width, self.tokens)
        table = graph.weight(width, self.layout.vocabulary)
        flow = graph.new("get_rows", (width, self.tokens), table, tokens)
        graph.expand(flow)
        graph.expand(vectors)
        if self.arch not in _ONLY_TOKENS:
            mixed_tokens, places = graph.given(self.tokens, width=I32), graph.given(self.tokens, width=I64)
            copy = graph.like("dup", graph.given(width, self.tokens))
            rows = graph.new("get_rows", (width, self.tokens), table, mixed_tokens)
            graph.expand(graph.write(rows, copy, places))
        if self.layout.header.get("{arch}.embedding_scale"):
            flow = graph.like("scale", flow)
        if self.arch in _NORM_SCALED:
            flow = graph.like("mul", flow, graph.given(1, self.tokens))
        graph.expand(flow)
        return flow

    def _encoder_start(self, flow: Tensor) -> Tensor:
        graph, blocks, width = self.graph, self.blocks, self.layout.width
        if blocks.has("token_types.weight"):
            flow = graph.like("add", flow, graph.view(graph.weight(width), (width,)))
        if blocks.has("position_embd.weight") and self.positions is not None:
            places = graph.new("get_rows", (width, self.tokens), graph.weight(width, 1), self.positions)
            flow = graph.like("add", places, flow)
        return blocks.norm("token_embd_norm", flow)

    def _layer(self, layer: Layer, flow: Tensor, *, last: bool) -> Tensor:
        graph, blocks, prefix = self.graph, self.blocks, f"blk.{layer.number}."
        before = flow
        seen = blocks.norm(f"{prefix}attn_norm", flow)
        if layer.recurrent and layer.attends and self.recurrent is not None:
            heard = self._attention(layer, seen)
            again = blocks.norm(f"{prefix}attn_norm", flow)
            both = graph.like("add", heard, self.recurrent.layer(prefix, again))
            middle = graph.like("add", both, flow)
            if last:
                middle = graph.new("get_rows", (middle.shape[0], self.outputs), middle, self.chosen)
            fed = self._feed(prefix, layer, blocks.norm(f"{prefix}ffn_norm", middle))
            return graph.like("add", fed, middle)
        if layer.recurrent and self.recurrent is not None:
            said = self.recurrent.layer(prefix, seen)
        elif layer.kv_heads > 0 and blocks.has(f"{prefix}attn_output.weight"):
            said = self._attention(layer, seen)
        else:
            return self._feed_only(prefix, layer, seen, before)  # hybrids with layers of one part each
        beside = None
        if self.arch in _BESIDE and not blocks.has(f"{prefix}ffn_norm.weight"):
            beside = seen
        if last and self.arch not in _LATE:
            said = graph.new("get_rows", (said.shape[0], self.outputs), said, self.chosen)
            before = graph.new("get_rows", (before.shape[0], self.outputs), before, self.chosen)
            if beside is not None:
                beside = graph.new("get_rows", (beside.shape[0], self.outputs), beside, self.chosen)
        return self._second_half(prefix, layer, said, before, beside)

    def _second_half(self, prefix: str, layer: Layer, said: Tensor, before: Tensor, beside: Tensor | None) -> Tensor:
        graph, blocks = self.graph, self.blocks
        scaled = bool(self.layout.header.get("{arch}.residual_scale"))
        own_norm = blocks.has(f"{prefix}ffn_norm.weight") or blocks.has(f"{prefix}ffn_norm")
        encoder = blocks.has(f"{prefix}attn_output_norm.weight")
        post = f"{prefix}post_attention_norm"
        after_attention = own_norm or blocks.has(f"{prefix}post_ffw_norm.weight")  # else it is the feed's own norm
        if after_attention and not encoder:
            said = blocks.norm(post, said)
        if scaled:
            said = graph.like("scale", said)
        if beside is not None:
            if self.arch == "stablelm":
                middle = graph.like("add", said, before)
                return graph.like("add", self._feed(prefix, layer, beside), middle)
            fed = self._feed(prefix, layer, beside)
            return graph.like("add", graph.like("add", fed, before), said)
        middle = graph.like("add", said, before)
        if encoder:
            middle = blocks.norm(f"{prefix}attn_output_norm", middle)
            return blocks.norm(
                f"{prefix}layer_output_norm", graph.like("add", self._feed(prefix, layer, middle), middle)
            )
        seen = (
            blocks.norm(f"{prefix}ffn_norm" if own_norm else post, middle)
            if own_norm or not after_attention
            else middle
        )
        fed = self._feed(prefix, layer, seen)
        fed = blocks.norm(f"{prefix}post_ffw_norm", fed)
        if scaled:
            fed = graph.like("scale", fed)
        return graph.like("add", fed, middle)

    def _feed_only(self, prefix: str, layer: Layer, seen: Tensor, before: Tensor) -> Tensor:
        return self.graph.like("add", self._feed(prefix, layer, seen), before)

    def _feed(self, prefix: str, layer: Layer, seen: Tensor) -> Tensor:
        graph, blocks = self.graph, self.blocks
        if not blocks.has(f"{prefix}ffn_gate_inp.weight"):
            return blocks.feed(prefix, seen)
        header = self.layout.header
        stated = header.get("{arch}.expert_weights_norm")
        normed = self.arch not in ("gpt-oss", "olmoe", "qwen2moe", "phimoe") if stated is None else stated is True
        if stated is None and self.arch in ("deepseek2", "deepseek"):
            normed = False
        scale = header.get("{arch}.expert_weights_scale")
        out = blocks.experts(prefix, layer, seen, normed=normed, scaled=scale not in (None, 0, 0.0, 1, 1.0))
        if blocks.has(f"{prefix}ffn_up_shexp.weight"):
            shared = blocks.feed(prefix, seen, "_shexp")
            if blocks.has(f"{prefix}ffn_gate_inp_shexp.weight"):
                gate = graph.like("unary", blocks.linear(f"{prefix}ffn_gate_inp_shexp", seen))
                shared = graph.like("mul", shared, gate)
            out = graph.like("add", out, shared)
        return out

    def _attention(self, layer: Layer, seen: Tensor) -> Tensor:
        prefix = f"blk.{layer.number}."
        if self.blocks.has(f"{prefix}attn_kv_a_mqa.weight"):
            return self._latent_attention(layer, seen)
        query, key, value, gate = self._query_key_value(layer, seen)
        query, key = self._normed_heads(layer, query, key)
        graph = self.graph
        if not self.layout.caches:
            for each in (query, key, value):
                graph.expand(each)
            found = self.blocks.look(query, key, value, self.plain_masks[bool(layer.window)], 1)
        else:
            found = self.blocks.attend(layer, query, key, value)
        if gate is not None:
            found = graph.like("mul", found, graph.like("unary", graph.new("cont", found.shape, gate)))
        return self.blocks.linear(f"{prefix}attn_output", found)

    def _query_key_value(self, layer: Layer, seen: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        graph, blocks, prefix, tokens = self.graph, self.blocks, f"blk.{layer.number}.", self.tokens
        wide, kv = layer.heads, layer.kv_heads
        if blocks.has(f"{prefix}attn_qkv.weight"):
            whole = blocks.linear(f"{prefix}attn_qkv", seen)
            along = whole.strides[1]
            query, key, value = (
                graph.view(whole, (size, heads, tokens), (size * whole.width, along))
                for size, heads in ((layer.key, wide), (layer.key, kv), (layer.value, kv))
            )
            return query, key, value, None
        query = blocks.linear(f"{prefix}attn_q", seen)
        key = blocks.linear(f"{prefix}attn_k", seen)
        value = blocks.linear(f"{prefix}attn_v", seen) if blocks.has(f"{prefix}attn_v.weight") else key
        gate = None
        key, value = self._whole_norm(f"{prefix}attn_k_norm", key), value
        query = self._whole_norm(f"{prefix}attn_q_norm", query)
        if query.shape[0] == 2 * layer.key * wide:  # the query's other half is a gate
            both = graph.view(query, (2 * layer.key, wide, tokens))
            query, gate = (graph.view(both, (layer.key, wide, tokens), both.strides[1:3]) for _ in range(2))
        else:
            query = graph.view(query, (layer.key, wide, tokens))
        return query, graph.view(key, (layer.key, kv, tokens)), graph.view(value, (layer.value, kv, tokens)), gate

    def _whole_norm(self, name: str, right: Tensor) -> Tensor:
        """A norm over all heads together, where the model has it."""
        found = self.blocks.tensor(f"{name}.weight")
        return self.blocks.norm(name, right) if found is not None and found.shape[:1] == right.shape[:1] else right

    def _normed_heads(self, layer: Layer, query: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
        """The norms of single heads, and their rotation."""
        prefix, done = f"blk.{layer.number}.", []
        turned = self.arch not in _UNROTATED and (bool(layer.window) or self.arch not in _WINDOWS_ROTATED)
        for name, part in ((f"{prefix}attn_q_norm", query), (f"{prefix}attn_k_norm", key)):
            found = self.blocks.tensor(f"{name}.weight")
            if found is not None and found.shape[0] == part.shape[0]:
                op = "rms_norm" if self.blocks.rms else "norm"
                part = self.graph.new(op, part.shape, part)
                part = self.graph.like("mul", part, self.graph.weight(*found.shape))
            if turned:
                part = self.graph.new("rope", part.shape, part, self.positions)
            done.append(part)
        return done[0], done[1]

    def _latent_attention(self, layer: Layer, seen: Tensor) -> Tensor:
        """Attention over one compressed vector a token (DeepSeek's MLA), or its keys and values unpacked."""
        graph, blocks, layout, prefix = self.graph, self.blocks, self.layout, f"blk.{layer.number}."
        heads, tokens, latent = layer.heads, self.tokens, layout.latent
        rotated = layout.size("{arch}.rope.dimension_count")
        head = layout.size("{arch}.attention.key_length_mla") or layer.key
        value_head = layout.size("{arch}.attention.value_length_mla") or layer.value
        if blocks.has(f"{prefix}attn_q.weight"):
            query = blocks.linear(f"{prefix}attn_q", seen)
        else:
            low = blocks.norm(f"{prefix}attn_q_a_norm", blocks.linear(f"{prefix}attn_q_a", seen))
            query = blocks.linear(f"{prefix}attn_q_b", low)
        query = graph.view(query, (head, heads, tokens))
        packed = blocks.linear(f"{prefix}attn_kv_a_mqa", seen)
        compressed = graph.view(packed, (latent, tokens), (packed.strides[1],))
        key_part = graph.view(packed, (rotated, 1, tokens), (packed.strides[1], packed.strides[1]))
        key_part = graph.new("rope", key_part.shape, key_part, self.positions)
        norm = blocks.tensor(f"{prefix}attn_kv_a_norm.weight")
        compressed = graph.new("rms_norm", compressed.shape, compressed)
        compressed = graph.like("mul", compressed, graph.weight(*(norm.shape if norm else (1,))))
        if not layout.mla:
            return self._unpacked_attention(layer, query, compressed, key_part, head, value_head)
        plain = graph.view(query, (head - rotated, heads, tokens), query.strides[1:3])
        turned = graph.view(query, (rotated, heads, tokens), query.strides[1:3])
        turned = graph.new("rope", turned.shape, turned, self.positions)
        absorbed = graph.mul_mat(graph.weight(head - rotated, latent, heads), graph.permute(plain, 0, 2, 1, 3))
        absorbed = graph.permute(absorbed, 0, 2, 1, 3)
        query = graph.new("concat", (latent + rotated, heads, tokens), absorbed, turned)
        compressed = graph.view(compressed, (latent, 1, tokens))
        key = graph.new("concat", (latent + rotated, 1, tokens), compressed, key_part)
        for each in (query, compressed, key):
            graph.expand(each)
        places, _ = blocks.places[False]
        flat = graph.view(key, (key.shape[0], tokens), (key.strides[2],))
        graph.expand(graph.write(flat, graph.store(*flat.shape), places))
        keys = blocks.cached(layer, latent + rotated, 1, self.run.type_k)
        values = graph.view(keys, (latent, *keys.shape[1:]), keys.strides[1:])
        unpack = graph.weight(latent, value_head, heads)
        found = blocks.look(query, keys, values, blocks.masks[False], self.run.streams, unpack)
        return blocks.linear(f"{prefix}attn_output", found)

    def _unpacked_attention(
        self, layer: Layer, query: Tensor, compressed: Tensor, key_part: Tensor, head: int, value_head: int
    ) -> Tensor:
        graph, blocks, prefix = self.graph, self.blocks, f"blk.{layer.number}."
        heads, tokens, plain = layer.heads, self.tokens, head - key_part.shape[0]
        both = blocks.linear(f"{prefix}attn_kv_b", compressed)
        along = ((plain + value_head) * both.width, both.strides[1])
        key = graph.view(both, (plain, heads, tokens), along)
        value = graph.view(both, (value_head, heads, tokens), along)
        value = graph.new("cont", value.shape, value)
        query = graph.new("rope", query.shape, query, self.positions)
        repeated = graph.new("repeat", (key_part.shape[0], heads, tokens), key_part)
        key = graph.new("concat", (head, heads, tokens), key, repeated)
        return blocks.linear(f"{prefix}attn_output", blocks.attend(layer, query, key, value))

    def _output(self, flow: Tensor) -> None:
        graph, blocks = self.graph, self.blocks
        if not self.layout.caches:
            flow.kept = True
            graph.expand(flow)
        else:
            if self.arch == "gpt-oss":
                flow = self._late(flow)
            flow = blocks.norm("output_norm", flow)
            if self.arch in _LATE and self.arch != "gpt-oss":
                flow = self._late(flow)
            flow.kept = True
            name = "output" if blocks.has("output.weight") else "token_embd"
            logits = blocks.linear(name, flow)
            if any(self.layout.header.get(key) for key in ("{arch}.logit_scale", "{arch}.final_logit_softcapping")):
                logits = graph.like("scale", logits)
            logits.kept = True
            graph.expand(logits)
        if self.run.embedding:
            self._pooled(flow)

    def _late(self, flow: Tensor) -> Tensor:
        flow.kept = True
        return self.graph.new("get_rows", (flow.shape[0], self.outputs), flow, self.chosen)

    def _pooled(self, flow: Tensor) -> None:
        graph, run = self.graph, self.run
        stated = {0: "none", 1: "mean", 2: "cls", 3: "last", 4: "rank"}
        pooling = run.pooling or stated.get(self.layout.header.integer("{arch}.pooling_type") or 0, "none")
        if pooling == "none":
            return
        if pooling == "mean":
            across = graph.transpose(flow)
            across = graph.new("cont", across.shape, across)
            pooled = graph.mul_mat(across, graph.given(flow.shape[1], run.slots))
        else:
            pooled = graph.new("get_rows", (flow.shape[0], run.slots), flow, graph.given(run.slots, width=I32))
        if pooling == "rank":
            if self.blocks.has("cls.weight"):
                pooled = graph.like("unary", self.blocks.linear("cls", pooled))
            pooled = self.blocks.linear("cls.output", pooled)
        pooled.kept = True
        graph.expand(pooled)


def _telling(layout: Layout, layers: Sequence[Layer], homes: Sequence[int]) -> list[int]:
    """The layers to build: of each kind between two others no more than two, and the last."""
    shapes: dict[int, list[tuple[str, tuple[int, ...]]]] = {}
    for name, tensor in layout.tensors.items():
        parts = name.split(".", 2)
        if len(parts) == 3 and parts[0] == "blk" and parts[1].isdecimal():
            shapes.setdefault(int(parts[1]), []).append((parts[2], tensor.shape))
    kinds = [
        hash(
            (tuple(sorted(shapes.get(layer.number, ()))), layer.window, layer.recurrent, layer.kv_heads, homes[number])
        )
        for number, layer in enumerate(layers)
    ]
    counts: dict[tuple[int, ...], int] = {}
    chosen = []
    for number in range(len(kinds)):
        around = tuple(kinds[max(0, number - 1) : number + 2])
        counts[around] = counts.get(around, 0) + 1
        if counts[around] <= 2 or number == len(kinds) - 1:
            chosen.append(number)
    return chosen
