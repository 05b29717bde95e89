"""The parts that most models are made of: norms, projections, feed-forward layers, experts and attention.

Which of them a layer has is read off the names of its tensors, so most architectures need no word of their own.
Source: llama.cpp's `llama-graph.cpp`.
"""

from __future__ import annotations

from corral.models.formats.gguf import Tensor as FileTensor
from corral.models.memory.graph import F16, F32, I32, I64, Graph, Tensor
from corral.models.memory.run import PLAIN, Run
from corral.models.memory.shape import Layer, Layout

_MOST_EXPERTS = 512  # as llama.cpp has it
_ROTATION = 64  # elements that a cache of quantized keys or values is rotated in


class Blocks:
    """Builds parts of one model's graph for one run, `tokens` at once."""

    def __init__(self, graph: Graph, layout: Layout, run: Run) -> None:
        self.graph, self.layout, self.run = graph, layout, run
        self.tokens = run.tokens(causal=layout.causal)
        self.arch = layout.header.architecture
        self.rms = layout.header.get("{arch}.attention.layer_norm_epsilon") is None
        # llama.cpp keeps norms with their layers when no layer is the processor's.
        self.pins = run.layers_on_gpus is None or run.layers_on_gpus > len(layout.layers)
        self._adapters = [{tensor.name: tensor for tensor in each.tensors} for each in run.adapters]
        self.masks: dict[bool, Tensor] = {}
        self.places: dict[bool, tuple[Tensor, Tensor]] = {}
        self.rotations: dict[tuple[str, bool], Tensor] = {}

    # Weights

    def tensor(self, name: str) -> FileTensor | None:
        return self.layout.tensors.get(name)

    def has(self, name: str) -> bool:
        return name in self.layout.tensors

    def linear(self, name: str, right: Tensor) -> Tensor:
        """`right` times the weight `name`, its adapters and bias added."""
        found = self.tensor(f"{name}.weight")
        if found is None:
            return right
        result = self.graph.mul_mat(self.graph.weight(*found.shape), right)
        for adapter in self._adapters:
            low, high = adapter.get(f"{name}.weight.lora_a"), adapter.get(f"{name}.weight.lora_b")
            if low is not None and high is not None:
                inner = self.graph.mul_mat(self.graph.weight(*low.shape), right)
                scaled = self.graph.like("scale", self.graph.mul_mat(self.graph.weight(*high.shape), inner))
                result = self.graph.like("add", result, scaled)
        return self.biased(name, result)

    def biased(self, name: str, right: Tensor) -> Tensor:
        found = self.tensor(f"{name}.bias")
        return right if found is None else self.graph.like("add", right, self.graph.weight(*found.shape))

    def norm(self, name: str, right: Tensor) -> Tensor:
        """The norm `name`, or `right` itself where the model has none of that name."""
        found = self.tensor(f"{name}.weight") or self.tensor(name)
        if found is None:
            return right
        result = self.graph.like("rms_norm" if self.rms else "norm", right)
        result.pinned = self.pins
        result = self.graph.like("mul", result, self.graph.weight(*found.shape))
        return self.biased(name, result)

    # Feed-forward layers

    def feed(self, prefix: str, right: Tensor, names: str = "") -> Tensor:
        """A dense feed-forward layer; `names` is the suffix of its tensors' names (`_shexp`)."""
        graph = self.graph
        up = self.linear(f"{prefix}ffn_up{names}", right)
        down = self.tensor(f"{prefix}ffn_down{names}.weight")
        if self.has(f"{prefix}ffn_gate{names}.weight"):
            gate = self.linear(f"{prefix}ffn_gate{names}", right)
            inner = graph.like("glu", gate, up)
        elif down is not None and up.shape[0] == 2 * down.shape[0]:
            inner = graph.new("glu", (up.shape[0] // 2, *up.shape[1:]), up)  # gate and input side by side
        else:
            inner = graph.like("unary", up)
        return self.linear(f"{prefix}ffn_down{names}", inner)

    def experts(self, prefix: str, layer: Layer, right: Tensor, *, normed: bool, scaled: bool) -> Tensor:
        """A layer of which each token passes some experts."""
        graph, used = self.graph, min(max(1, layer.experts_used), _MOST_EXPERTS)
        width, tokens = right.shape[0], right.shape[1]
        logits = self.linear(f"{prefix}ffn_gate_inp", right)
        total = logits.shape[0]
        late = self.arch == "gpt-oss"  # the chosen ones' weights only are made to sum to 1
        probabilities = logits if late else graph.like("soft_max", logits)
        if self._sigmoid():
            probabilities = graph.like("unary", logits)
        choice = probabilities
        if self.has(f"{prefix}exp_probs_b.bias"):
            choice = graph.like("add", probabilities, graph.weight(total))
        choice = self._grouped(choice, total, tokens)
        order = graph.new("argsort", choice.shape, choice, width=I32)
        chosen = graph.view(order, (used, tokens), (order.strides[1],))
        rows = graph.view(probabilities, (1, total, tokens))
        weights = graph.new("get_rows", (1, used, tokens), rows, chosen)
        if late:
            weights = graph.view(graph.like("soft_max", graph.view(weights, (used, tokens))), (1, used, tokens))
        if normed:
            flat = graph.view(weights, (used, tokens))
            total_weight = graph.like("clamp", graph.new("sum_rows", (1, tokens), flat))
            weights = graph.view(graph.like("div", flat, total_weight), (1, used, tokens))
        if scaled:
            weights = graph.like("scale", weights)
        graph.expand(weights)
        right = graph.view(right, (width, 1, tokens))
        inner = self._through_experts(prefix, right, chosen, used, tokens)
        out = self._one_expert(f"{prefix}ffn_down_exps", inner, chosen, used, tokens)
        out = graph.like("mul", out, weights)
        graph.expand(out)
        parts = [graph.view(out, (width, tokens), (out.strides[2],)) for _ in range(used)]
        for part in parts:
            graph.expand(part)
        result = parts[0]
        for part in parts[1:]:
            result = graph.new("add", result.shape, result, part)
            graph.expand(result)
        return graph.like("cont", result) if used == 1 else result

    def _sigmoid(self) -> bool:
        return self.layout.header.integer("{arch}.expert_gating_func") == 2

    def _grouped(self, choice: Tensor, total: int, tokens: int) -> Tensor:
        """Only the best groups' experts may be chosen, where the model says so."""
        graph, groups = self.graph, self.layout.size("{arch}.expert_group_count")
        if groups <= 1 or total % groups:
            return choice
        each, used = total // groups, max(1, self.layout.size("{arch}.expert_group_used_count"))
        split = graph.view(choice, (each, groups, tokens))
        order = graph.new("argsort", split.shape, split, width=I32)
        best = graph.view(order, (2, groups, tokens), order.strides[1:3])
        scores = graph.new("get_rows", (1, 2, groups, tokens), graph.view(split, (1, each, groups, tokens)), best)
        sums = graph.new("sum_rows", (1, groups, tokens), graph.view(scores, (2, groups, tokens)))
        order = graph.new("argsort", (groups, tokens), graph.view(sums, (groups, tokens)), width=I32)
        kept = graph.view(order, (used, tokens), (order.strides[1],))
        rows = graph.new("get_rows", (each, used, tokens), split, kept)
        return graph.view(graph.write(rows, graph.like("fill", split), kept), (total, tokens))

    def _one_expert(self, name: str, right: Tensor, chosen: Tensor, used: int, tokens: int) -> Tensor:
        found = self.tensor(f"{name}.weight")
        if found is None:
            return right
        result = self.graph.new(
            "mul_mat_id", (found.shape[1], used, tokens), self.graph.weight(*found.shape), right, chosen
        )
        bias = self.tensor(f"{name}.bias")
        return result if bias is None else self.graph.like("add_id", result, self.graph.weight(*bias.shape), chosen)

    def _through_experts(self, prefix: str, right: Tensor, chosen: Tensor, used: int, tokens: int) -> Tensor:
        graph = self.graph
        if self.has(f"{prefix}ffn_gate_up_exps.weight"):
            both = self._one_expert(f"{prefix}ffn_gate_up_exps", right, chosen, used, tokens)
            half = (both.shape[0] // 2, used, tokens)
            gate, up = (graph.view(both, half, both.strides[1:3]) for _ in range(2))
            return graph.new("glu", half, gate, up)
        up = self._one_expert(f"{prefix}ffn_up_exps", right, chosen, used, tokens)
        if not self.has(f"{prefix}ffn_gate_exps.weight"):
            return graph.like("unary", up)
        gate = self._one_expert(f"{prefix}ffn_gate_exps", right, chosen, used, tokens)
        return graph.like("glu", gate, up)

    # Attention

    def attention_inputs(self) -> None:
        """What tells attention who sees whom, and where new keys and values go; one set more where layers differ."""
        kinds = sorted({bool(layer.window) for layer in self.layout.layers if layer.attends})
        if any(kinds):
            kinds = [False, True]  # both are made, even when no layer has the one
        for windowed in kinds:
            window = max((layer.window for layer in self.layout.layers), default=0)
            cells = self.run.window_cells(window) if windowed else self.run.cells
            graph, streams = self.graph, self.run.streams
            mask_width = F16 if self.run.flash else F32
            widest = max((layer.kv_heads * layer.value for layer in self.layout.layers), default=0)
            values = self.tokens if self.run.flash or self.layout.mla else self.tokens * widest
            self.places[windowed] = graph.given(self.tokens, width=I64), graph.given(values, width=I64)
            self.masks[windowed] = graph.given(cells, self.tokens // streams, 1, streams, width=mask_width)
            for what, kind, head in (("k", self.run.type_k, "key"), ("v", self.run.type_v, "value")):
                heads = {getattr(layer, head) for layer in self.layout.layers if layer.attends}
                size = next(iter(heads)) if len(heads) == 1 else 0
                if kind not in PLAIN and size and size % _ROTATION == 0 and not self.layout.mla:
                    edge = _ROTATION
                    while what == "k" and size % (2 * edge) == 0:
                        edge *= 2
                    self.rotations[what, windowed] = graph.given(edge, edge)

    def _rotated(self, what: str, windowed: bool, right: Tensor) -> Tensor:
        """`right` as a quantized cache wants it: turned, which spreads what stands out."""
        matrix = self.rotations.get((what, windowed))
        if matrix is None:
            return right
        flat = self.graph.view(right, (matrix.shape[0], right.elements // matrix.shape[0]))
        return self.graph.view(self.graph.mul_mat(matrix, flat), right.shape)

    def cached(self, layer: Layer, width: int, heads: int, kind: str) -> Tensor:
        """The layer's cache of the type `kind`, as one side of the attention sees it."""
        cells = self.run.window_cells(layer.window) if layer.window else self.run.cells
        store = self.graph.store(width * heads * cells, self.run.streams, width=F32 if kind == "F32" else F16)
        return self.graph.view(store, (width, heads, cells, self.run.streams))

    def attend(self, layer: Layer, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """New keys and values stored, and what the queries find among all of them, in one row a token."""
        graph, windowed = self.graph, bool(layer.window)
        query, key = self._rotated("k", windowed, query), self._rotated("k", windowed, key)
        value = self._rotated("v", windowed, value)
        order = (query, key, value) if True in self.masks else (query, value, key)
        for each in order:
            graph.expand(each)
        key_places, value_places = self.places[windowed]
        flat = graph.view(key, (key.shape[0] * key.shape[1], key.shape[2]), (key.strides[2],))
        graph.expand(graph.write(flat, graph.store(*flat.shape), key_places))
        flat = graph.view(value, (value.shape[0] * value.shape[1], value.shape[2]), (value.strides[2],))
        if not self.run.flash and not self.layout.mla:
            if value.strides[2] != value.width * flat.shape[0]:
                flat = graph.new("cont", flat.shape, flat)
            flat = graph.view(flat, (1, flat.elements))
        if not self.layout.mla:
            graph.expand(graph.write(flat, graph.store(*flat.shape), value_places))
        keys = self.cached(layer, key.shape[0], key.shape[1], self.run.type_k)
        values = self.cached(layer, value.shape[0], value.shape[1], self.run.type_v)
        found = self.look(query, keys, values, self.masks[windowed], self.run.streams)
        return self._rotated("v", windowed, found)

    def look(
        self, query: Tensor, keys: Tensor, values: Tensor, mask: Tensor, streams: int, unpack: Tensor | None = None
    ) -> Tensor:
        """Attention itself. `unpack` brings values of a compressed cache back to their size."""
        graph = self.graph
        head, heads, tokens = query.shape[0], query.shape[1], query.shape[2]
        query = graph.view(query, (head, heads, tokens // streams, streams),
                           (query.strides[1], query.strides[2], query.strides[2] * (tokens // streams)))  # fmt: skip
        query, keys = graph.permute(query, 0, 2, 1, 3), graph.permute(keys, 0, 2, 1, 3)
        if not self.run.flash:
            return self._look_slowly(query, keys, values, mask, unpack)
        values = graph.permute(values, 0, 2, 1, 3)
        keys, values = (
            graph.new("cast", side.shape, side, width=F16) if side.width == F32 else side for side in (keys, values)
        )
        found = graph.new("flash", (values.shape[0], heads, tokens // streams, streams), query, keys, values, mask)
        graph.flash.append((found, graph.home))
        if unpack is not None:
            found = graph.mul_mat(unpack, graph.permute(found, 0, 2, 1, 3))
            found = graph.permute(found, 0, 2, 1, 3)
            found = graph.new("cont", found.shape, found)
        result = graph.view(found, (found.shape[0] * heads, tokens))
        graph.expand(result)
        return result

    def _look_slowly(self, query: Tensor, keys: Tensor, values: Tensor, mask: Tensor, unpack: Tensor | None) -> Tensor:
        graph = self.graph
        scores = graph.new("mul_mat", (keys.shape[1], query.shape[1], query.shape[2], query.shape[3]), keys, query)
        scores = graph.like("soft_max", scores, mask)
        across = graph.permute(values, 1, 2, 0, 3)
        if values.root is None or not values.root.outside or self.layout.mla:
            across = graph.new("cont", across.shape, across)
        found = graph.mul_mat(across, scores)
        if unpack is not None:
            found = graph.mul_mat(unpack, found)
        found = graph.permute(found, 0, 2, 1, 3)
        result = graph.new("cont", (found.shape[0] * found.shape[1], found.shape[2] * found.shape[3]), found)
        graph.expand(result)
        return result
