"""The bytes of a projector (mmproj): the part that turns an image or sound into tokens' vectors.

Source: llama.cpp's `tools/mtmd/clip.cpp`, for an encoder that sees a whole image of its own size at once.
"""

from __future__ import annotations

from corral.models.formats.gguf import Header
from corral.models.memory.allocate import scratch
from corral.models.memory.graph import F16, F32, I32, Graph, Tensor
from corral.models.memory.predict import Parts

_LAYERS = 3  # enough for the allocator to find its rhythm
_SOUND = 1500  # vectors of thirty seconds of sound


def predict_projector(header: Header) -> Parts:
    """Weights, and the scratch for one image (or half a minute of sound) at once."""
    return Parts(weights=header.weights_bytes, compute=_scratch(header))


def _scratch(header: Header) -> int:
    kind = "vision" if header.get("clip.has_vision_encoder") is True else "audio"

    def size(key: str) -> int:
        return min(max(0, header.integer(f"clip.{kind}.{key}") or 0), 1 << 20)

    image, patch, width = size("image_size"), size("patch_size"), size("embedding_length")
    heads, inner = max(1, size("attention.head_count")), size("feed_forward_length")
    side = image // patch if patch else 0
    count = side * side if kind == "vision" else _SOUND
    if not count or not width:
        return 0
    graph = Graph()
    flow = _patches(graph, image, patch, width, count) if kind == "vision" else graph.given(width, count)
    extra = 1 if any(tensor.name == "v.class_embd" for tensor in header.tensors) else 0
    flow = graph.new("concat", (width, count + extra), flow) if extra else flow
    count += extra
    places = graph.given(count, width=I32)
    flow = graph.like("add", flow, graph.new("get_rows", (width, count), graph.weight(width, count), places))
    for _ in range(_LAYERS):
        flow = _layer(graph, flow, width // heads, heads, inner)
    flow.kept = True
    graph.expand(flow)
    return sum(scratch(graph))


def _patches(graph: Graph, image: int, patch: int, width: int, count: int) -> Tensor:
    pixels = graph.given(image, image, 3)
    columns = graph.new("im2col", (patch * patch * 3, count), pixels, width=F16)
    found = graph.new("mul_mat", (count, width), columns, graph.weight(patch * patch * 3, width))
    return graph.new("cont", (width, count), graph.transpose(found))


def _layer(graph: Graph, flow: Tensor, head: int, heads: int, inner: int) -> Tensor:
    width, count = flow.shape[0], flow.shape[1]

    def norm(right: Tensor) -> Tensor:
        scaled = graph.like("mul", graph.like("norm", right), graph.weight(width))
        return graph.like("add", scaled, graph.weight(width))

    def linear(rows: int, right: Tensor) -> Tensor:
        return graph.like("add", graph.mul_mat(graph.weight(right.shape[0], rows), right), graph.weight(rows))

    seen = norm(flow)
    sides = [graph.view(linear(head * heads, seen), (head, heads, count)) for _ in range(3)]
    for side in sides:
        graph.expand(side)
    query, key, value = (graph.permute(side, 0, 2, 1, 3) for side in sides)
    key, value = (graph.new("cast", side.shape, side, width=F16) for side in (key, value))
    said = graph.new("flash", (head, heads, count), query, key, value, width=F32)
    flow = graph.like("add", linear(width, graph.view(said, (head * heads, count))), flow)
    fed = graph.like("unary", linear(inner or 4 * width, norm(flow)))
    return graph.like("add", linear(width, fed), flow)
