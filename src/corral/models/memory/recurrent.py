"""The recurrent parts: Mamba's two forms, gated delta nets and short convolutions.

Source: llama.cpp's `models/mamba-base.cpp`, `models/delta-net-base.cpp`, `models/qwen3next.cpp` and `models/lfm2.cpp`.
"""

from __future__ import annotations

from corral.models.memory.blocks import Blocks
from corral.models.memory.graph import I32, Graph, Tensor


class Recurrent:
    """Builds the recurrent parts of one graph: `slots` sequences side by side."""

    def __init__(self, blocks: Blocks) -> None:
        self.blocks = blocks
        self.graph: Graph = blocks.graph
        self.slots = blocks.run.slots
        self.each = blocks.tokens // self.slots
        size = blocks.layout.size
        self.kernel = size("{arch}.ssm.conv_kernel")
        self.inner = size("{arch}.ssm.inner_size")
        self.state = size("{arch}.ssm.state_size")
        self.groups = size("{arch}.ssm.group_count")
        self.rank = size("{arch}.ssm.time_step_rank")
        self.past, self.kept = blocks.layout.state_floats
        self.rows = self.graph.given(self.slots, width=I32)

    def layer(self, prefix: str, right: Tensor) -> Tensor:
        """The recurrent part of the layer whose tensors start with `prefix`, whichever it has."""
        has = self.blocks.has
        if has(f"{prefix}shortconv.conv.weight"):
            return self._short_convolution(prefix, right)
        if has(f"{prefix}ssm_x.weight"):
            return self._mamba(prefix, right)
        if has(f"{prefix}ssm_ba.weight") or has(f"{prefix}ssm_beta.weight") or has(f"{prefix}ssm_alpha.weight"):
            return self._delta_net(prefix, right)
        if has(f"{prefix}ssm_in.weight"):
            return self._mamba2(prefix, right)
        return right

    def _load(self, size: int) -> tuple[Tensor, Tensor]:
        """All sequences' state of `size` floats, gathered, and the cache it came from."""
        graph = self.graph
        store = graph.store(size, self.slots)
        rows = graph.new("get_rows", (size, self.slots), store, self.rows)
        return graph.view(rows, (size, self.slots)), store

    def _after_load(self, gathered: Tensor, store: Tensor) -> None:
        self.graph.expand(gathered)
        if gathered.root is not None:
            tail = self.graph.view(gathered.root, (gathered.shape[0], 0))
            self.graph.expand(self.graph.write(tail, store))

    def _convolve(self, prefix: str, mixed: Tensor, channels: int) -> Tensor:
        """`mixed` along time with the tail of what came before; the new tail is stored."""
        graph = self.graph
        gathered, store = self._load(self.past)
        self._after_load(gathered, store)
        before = graph.view(gathered, (max(1, self.kernel - 1), channels, self.slots))
        across = graph.permute(mixed, 1, 0, 2, 3)
        joined = graph.new("concat", (self.kernel - 1 + self.each, channels, self.slots), before, across)
        tail = graph.view(joined, (max(1, self.kernel - 1), channels, self.slots), joined.strides[1:3])
        graph.expand(graph.write(tail, store))
        return joined

    def _mamba(self, prefix: str, right: Tensor) -> Tensor:
        graph, blocks, inner, each, slots = self.graph, self.blocks, self.inner, self.each, self.slots
        both = blocks.linear(f"{prefix}ssm_in", graph.view(right, (right.shape[0], each, slots)))
        x, z = (graph.view(both, (inner, each, slots), both.strides[1:3]) for _ in range(2))
        joined = self._convolve(prefix, x, inner)
        x = graph.new("ssm_conv", (inner, each, slots), joined, graph.weight(1))
        x = graph.like("unary", blocks.biased(f"{prefix}ssm_conv1d", x))
        split = blocks.linear(f"{prefix}ssm_x", x)
        step = graph.view(split, (self.rank, each, slots), split.strides[1:3])
        b, c = (graph.view(split, (self.state, 1, each, slots),
                           (self.state * split.width, *split.strides[1:3])) for _ in range(2))  # fmt: skip
        normed = bool(blocks.layout.header.get("{arch}.ssm.dt_b_c_rms")) or blocks.has(f"{prefix}ssm_dt_norm.weight")
        if normed:
            step, b, c = (self._normed(f"{prefix}ssm_{name}_norm", part)
                          for name, part in (("dt", step), ("b", b), ("c", c)))  # fmt: skip
        else:
            step = graph.like("cont", step)
        step = blocks.linear(f"{prefix}ssm_dt", step)
        wide = graph.view(x, (1, inner, each, slots))
        scanned = self._scan(wide, step, b, c)
        y = graph.view(scanned, (inner, each, slots))
        y = graph.like("add", y, graph.like("mul", x, graph.weight(inner)))
        y = graph.new("glu", y.shape, graph.new("cont", z.shape, z), y)
        out = blocks.linear(f"{prefix}ssm_out", y)
        return graph.view(out, (out.shape[0], each * slots))

    def _normed(self, name: str, right: Tensor) -> Tensor:
        result = self.graph.new("rms_norm", right.shape, right)
        return self.graph.like("mul", result, self.graph.weight(1)) if self.blocks.has(f"{name}.weight") else result

    def _scan(self, x: Tensor, step: Tensor, b: Tensor, c: Tensor) -> Tensor:
        """The state carried through all tokens: what it says at each, and it itself after the last."""
        graph = self.graph
        store = graph.store(self.kept, self.slots)
        size = x.elements + self.kept * self.slots
        scanned = graph.new("ssm_scan", (size,), store, x, step, graph.weight(1), b, c, self.rows)
        graph.expand(scanned)
        graph.expand(graph.write(graph.view(scanned, (self.kept * self.slots,)), store))
        return scanned

    def _mamba2(self, prefix: str, right: Tensor) -> Tensor:
        graph, blocks, inner, each, slots = self.graph, self.blocks, self.inner, self.each, self.slots
        heads, groups = max(1, self.rank), max(1, self.groups)
        head = max(1, inner // heads)
        channels = inner + 2 * groups * self.state
        # The cache is asked for before the input is projected.
        gathered, store = self._load(self.past)
        self._after_load(gathered, store)
        all_parts = blocks.linear(f"{prefix}ssm_in", right)
        all_parts = graph.view(all_parts, (all_parts.shape[0], each, slots))
        along = all_parts.strides[1:3]
        z = graph.view(all_parts, (head, heads, each, slots), (head * all_parts.width, *along))
        mixed = graph.view(all_parts, (channels, each, slots), along)
        step = graph.view(all_parts, (heads, each, slots), along)
        before = graph.view(gathered, (max(1, self.kernel - 1), channels, slots))
        joined = graph.new("concat", (self.kernel - 1 + each, channels, slots), before, graph.transpose(mixed))
        tail = graph.view(joined, (max(1, self.kernel - 1), channels, slots), joined.strides[1:3])
        graph.expand(graph.write(tail, store))
        mixed = graph.new("ssm_conv", (channels, each, slots), joined, graph.weight(1))
        mixed = graph.like("unary", blocks.biased(f"{prefix}ssm_conv1d", mixed))
        along = mixed.strides[1:3]
        x = graph.view(mixed, (head, heads, each, slots), (head * mixed.width, *along))
        b, c = (graph.view(mixed, (self.state, groups, each, slots), (self.state * mixed.width, *along))
                for _ in range(2))  # fmt: skip
        step = graph.like("add", graph.new("cont", step.shape, step), graph.weight(heads))
        scanned = self._scan(x, step, b, c)
        y = graph.view(scanned, (head, heads, each, slots))
        y = graph.new("add", y.shape, y, graph.new("mul", x.shape, x, graph.weight(1, heads)))
        y = graph.new("glu", y.shape, graph.new("cont", z.shape, z), y)
        if blocks.has(f"{prefix}ssm_norm.weight"):
            y = self._normed(f"{prefix}ssm_norm", graph.view(y, (inner // groups, groups, each, slots)))
        return blocks.linear(f"{prefix}ssm_out", graph.view(y, (inner, each * slots)))

    def _delta_net(self, prefix: str, right: Tensor) -> Tensor:
        graph, blocks, each, slots = self.graph, self.blocks, self.each, self.slots
        keys, values = max(1, self.groups), max(1, self.rank)
        value_head = max(1, self.inner // values)
        channels = self.inner + 2 * keys * self.state
        mixed, z = self._mixed(prefix, right, keys, values, value_head)
        beta, gate = self._gates(prefix, right, values)
        joined = self._convolve(prefix, mixed, channels)
        gathered, store = self._load(self.kept)
        self._after_load(gathered, store)
        state = graph.view(gathered, (value_head, value_head, values, slots))
        mixed = graph.new("ssm_conv", (channels, each, slots), joined, graph.weight(1))
        mixed = graph.like("unary", mixed)
        along = mixed.strides[1:3]
        query, key = (graph.view(mixed, (self.state, keys, each, slots), (self.state * mixed.width, *along))
                      for _ in range(2))  # fmt: skip
        value = graph.view(mixed, (value_head, values, each, slots), (value_head * mixed.width, *along))
        query, key = (graph.new("l2_norm", part.shape, part) for part in (query, key))
        if keys != values:
            repeated = (self.state, max(1, values // keys), keys, each * slots)
            query, key = (
                graph.view(
                    graph.new("repeat", repeated, graph.view(part, (self.state, 1, keys, each * slots))),
                    (self.state, values, each, slots),
                )
                for part in (query, key)
            )
        size = value_head * values * each * slots + self.kept * slots
        result = graph.new("delta_net", (size,), query, key, value, gate, beta, state)
        out = graph.view(result, (value_head, values, each, slots))
        graph.expand(graph.write(graph.view(result, (self.kept, slots)), store))
        normed = self._normed(f"{prefix}ssm_norm", out)
        gated = graph.like("unary", graph.view(z, (value_head, values, each, slots)))
        out = graph.like("mul", normed, gated)
        out = blocks.linear(f"{prefix}ssm_out", graph.view(out, (value_head * values, each, slots)))
        return graph.view(out, (out.shape[0], each * slots))

    def _mixed(self, prefix: str, right: Tensor, keys: int, values: int, value_head: int) -> tuple[Tensor, Tensor]:
        """Query, key and value in one, and the gate of the result."""
        graph, blocks, each, slots = self.graph, self.blocks, self.each, self.slots
        if blocks.has(f"{prefix}attn_qkv.weight"):
            mixed = blocks.linear(f"{prefix}attn_qkv", right)
            mixed = graph.view(mixed, (mixed.shape[0], each, slots))
            return mixed, blocks.linear(f"{prefix}attn_gate", right)
        whole = blocks.linear(f"{prefix}ssm_in", right)
        share = value_head * values // keys
        whole = graph.view(whole, (max(1, whole.shape[0] // keys), keys, each, slots))
        parts = [graph.view(whole, (size, keys, each, slots), whole.strides[1:4])
                 for size in (self.state, self.state, share, share)]  # fmt: skip
        z = graph.new("cont", parts[3].shape, parts[3])
        flat = [graph.new("cont", (part.shape[0] * keys, each, slots), part) for part in parts[:3]]
        mixed = graph.new("concat", (flat[0].shape[0] + flat[1].shape[0], each, slots), flat[0], flat[1])
        mixed = graph.new("concat", (mixed.shape[0] + flat[2].shape[0], each, slots), mixed, flat[2])
        return mixed, z

    def _gates(self, prefix: str, right: Tensor, values: int) -> tuple[Tensor, Tensor]:
        graph, blocks, each, slots = self.graph, self.blocks, self.each, self.slots
        if blocks.has(f"{prefix}ssm_ba.weight"):
            both = blocks.linear(f"{prefix}ssm_ba", right)
            both = graph.view(both, (2, values, each, slots))
            half = (1, values, each, slots)
            b, a = (graph.view(both, half, both.strides[1:4]) for _ in range(2))
            b, a = graph.new("cont", half, b), graph.new("cont", (values, each, slots), a)
        else:
            b = graph.view(blocks.linear(f"{prefix}ssm_beta", right), (1, values, each, slots))
            a = graph.view(blocks.linear(f"{prefix}ssm_alpha", right), (values, each, slots))
        beta = graph.new("unary", b.shape, b)
        decay = graph.like("unary", graph.like("add", a, graph.weight(values)))
        decay = graph.like("mul", decay, graph.weight(values))
        return graph.view(beta, (1, values, each, slots)), graph.view(decay, (1, values, each, slots))

    def _short_convolution(self, prefix: str, right: Tensor) -> Tensor:
        graph, blocks, each, slots = self.graph, self.blocks, self.each, self.slots
        width, kernel = right.shape[0], blocks.layout.size("{arch}.shortconv.l_cache")
        three = blocks.linear(f"{prefix}shortconv.in_proj", right)
        three = graph.view(three, (three.shape[0], each, slots))
        b, c, x = (graph.view(three, (width, each, slots), three.strides[1:3]) for _ in range(3))
        product = graph.transpose(graph.new("mul", b.shape, b, x))
        gathered, store = self._load(self.past)
        self._after_load(gathered, store)
        before = graph.view(gathered, (max(1, kernel - 1), width, slots))
        joined = graph.new("concat", (max(1, kernel - 1) + each, width, slots), before, product)
        tail = graph.view(joined, (max(1, kernel - 1), width, slots), joined.strides[1:3])
        graph.expand(graph.write(tail, store))
        mixed = graph.new("ssm_conv", (width, each, slots), joined, graph.weight(1))
        out = blocks.linear(f"{prefix}shortconv.out_proj", graph.new("mul", c.shape, c, mixed))
        return graph.view(out, (out.shape[0], each * slots))
