"""Tiny GGUF files for tests, each written in milliseconds and served by a real llama.cpp.

`write_chain` knows one answer by heart, `write_random` talks nonsense up to `max_tokens`, `write_bert` embeds or
reranks.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import gguf
import numpy as np
from gguf import GGUFWriter, TokenType
from numpy.typing import NDArray

Array = NDArray[Any]

CHAT_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TOOLS_TEMPLATE = (
    "{% if tools %}<|im_start|>system\nYou may call functions. Their signatures are within <tools></tools>:\n<tools>"
    "{% for tool in tools %}\n{{ tool | tojson }}{% endfor %}\n</tools>\nReturn each call as\n<tool_call>\n"
    '{"name": <function-name>, "arguments": <args-json-object>}\n</tool_call><|im_end|>\n{% endif %}'
    "{% for m in messages %}{% if m.role == 'tool' %}<|im_start|>user\n<tool_response>\n{{ m.content }}\n"
    "</tool_response><|im_end|>\n{% elif m.tool_calls %}<|im_start|>assistant{% for call in m.tool_calls %}"
    '\n<tool_call>\n{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}}\n'
    "</tool_call>{% endfor %}<|im_end|>\n{% else %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""How Hermes and Qwen are told of tools: calls are JSON within <tool_call>."""

THINKING_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.reasoning_content %}<think>\n{{ m.reasoning_content }}"
    "\n</think>\n\n{% endif %}{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)
"""Qwen's way to switch thinking off."""

_SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
_END = 2  # <|im_end|> in every vocabulary here


def _byte_alphabet() -> dict[int, str]:
    """The printable stand-in of each byte in GPT-2's byte-level vocabularies."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    table = {byte: chr(byte) for byte in plain}
    table.update({byte: chr(256 + i) for i, byte in enumerate(b for b in range(256) if b not in table)})
    return table


_BYTES = _byte_alphabet()


def _spelled(text: str) -> str:
    return "".join(_BYTES[byte] for byte in text.encode())


def _vocabulary(words: Sequence[str]) -> list[str]:
    """Special tokens, the 256 bytes, one pair that the only merge makes, then `words` as single tokens."""
    pair = _BYTES[0] * 2
    spelled = [_spelled(word) for word in words]
    taken = set(spelled)  # a word of one letter takes the place of that byte: the engine refuses a token given twice
    return [*_SPECIAL, *(_BYTES[byte] for byte in range(256) if _BYTES[byte] not in taken), pair, *spelled]


def _add_tokenizer(
    writer: GGUFWriter, tokens: Sequence[str], template: str = CHAT_TEMPLATE, words: Sequence[str] = ()
) -> None:
    """`words` are the last of `tokens`, as they are written: they are known again in any text."""
    normal = len(tokens) - len(_SPECIAL) - len(words)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list([*tokens[: len(tokens) - len(words)], *words])
    writer.add_token_types(
        [TokenType.CONTROL] * len(_SPECIAL) + [TokenType.NORMAL] * normal + [TokenType.USER_DEFINED] * len(words)
    )
    writer.add_token_merges([f"{_BYTES[0]} {_BYTES[0]}"])  # no real text has it, so a prompt is always single bytes
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(_END)
    writer.add_pad_token_id(0)
    writer.add_add_bos_token(False)
    writer.add_chat_template(template)


def _add_llama(
    writer: GGUFWriter,
    name: str,
    tokens: Sequence[str],
    *,
    context: int,
    width: int,
    ff: int,
    layers: int,
    heads: int,
    template: str = CHAT_TEMPLATE,
    words: Sequence[str] = (),
) -> None:
    writer.add_name(name)
    writer.add_context_length(context)
    writer.add_embedding_length(width)
    writer.add_block_count(layers)
    writer.add_feed_forward_length(ff)
    writer.add_head_count(heads)
    writer.add_head_count_kv(max(1, heads // 2))
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(width // heads)
    writer.add_vocab_size(len(tokens))
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    _add_tokenizer(writer, tokens, template, words)


def _add_layers(
    writer: GGUFWriter, *, width: int, ff: int, layers: int, heads: int, rng: np.random.Generator | None
) -> None:
    """The blocks: all zero without `rng`, else the same random one `layers` times, which never writes to axis 0."""
    kv = width // heads * max(1, heads // 2)

    def weight(rows: int, columns: int) -> Array:
        if rng is None:
            return np.zeros((rows, columns), dtype=np.float16)
        scaled: Array = rng.standard_normal((rows, columns), dtype=np.float32) / np.sqrt(columns)
        return scaled.astype(np.float16)

    shapes = {"attn_q": (width, width), "attn_k": (kv, width), "attn_v": (kv, width), "attn_output": (width, width)}
    shapes |= {"ffn_gate": (ff, width), "ffn_up": (ff, width), "ffn_down": (width, ff)}
    block = {name: weight(*shape) for name, shape in shapes.items()}
    block["attn_output"][0] = block["ffn_down"][0] = 0
    for layer in range(layers):
        for norm in ("attn_norm", "ffn_norm"):
            writer.add_tensor(f"blk.{layer}.{norm}.weight", np.ones(width, dtype=np.float32))
        for name, array in block.items():
            writer.add_tensor(f"blk.{layer}.{name}.weight", array)


def _finish(writer: GGUFWriter) -> None:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _sizes(mib: float) -> tuple[int, int, int, int]:
    """`(width, ff, layers, heads)` of a llama whose blocks take about `mib` MiB in F16."""
    width = 128 if mib <= 8 else 512 if mib <= 64 else 1024
    layer_bytes = 2 * width * width * (3 * 4 + 3)
    return width, 4 * width, max(1, round(mib * (1 << 20) / layer_bytes)), 4


def chain_text(words: Sequence[str]) -> str:
    """What a chain of `words` answers, to the letter."""
    return " ".join(words)


def write_chain(
    path: Path,
    words: Sequence[str],
    *,
    name: str = "chain",
    context: int = 2048,
    loop: bool = False,
    mib: float = 0,
    template: str = CHAT_TEMPLATE,
    fills: bool = False,
    afterwards: Sequence[str] = (),
) -> Path:
    """Write a llama that answers every prompt with `chain_text(words)` at any temperature, a token a word, then stops.
    A text that ends with one of them it goes on from there.

    `words` must differ from one another. With `loop` it starts again instead of stopping (`" ".join` goes on), up to
    `max_tokens`. `mib` adds that much idle weight: a slower load and slower tokens, the same text. With `fills` it has
    the tokens by which gaps are filled. `afterwards` is a chain of its own, for prompts that end with its first word.
    """
    if len({*words, *afterwards}) != len(words) + len(afterwards) or not words:
        raise ValueError("a chain needs words, each one once")
    spoken = [words[0], *(f" {word}" for word in words[1:]), *([f" {words[0]}"] if loop else [])]
    ends = len(spoken)
    spoken += [*afterwards[:1], *(f" {word}" for word in afterwards[1:])]
    tokens = _vocabulary(spoken)
    first = len(tokens) - len(spoken)
    ends += first
    width, ff, layers, heads = _sizes(mib) if mib else (128, 32, 1, 4)
    # Every token that can stand in a prompt has the same direction, so that whatever it ends with, `first` follows.
    rng = np.random.default_rng(7)
    directions = rng.standard_normal((len(tokens), width)).astype(np.float32)
    directions[:first] = directions[0]
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    output = np.zeros_like(directions)
    for token in range(first, len(tokens)):
        follower = token + 1 if token + 1 not in (ends, len(tokens)) else _END
        follower = first + 1 if loop and token + 1 == ends else follower
        output[follower] += 20 * directions[token]
    output[first] += 20 * directions[0]

    writer = GGUFWriter(path, "llama")
    _add_llama(
        writer, name, tokens, context=context, width=width, ff=ff, layers=layers, heads=heads, template=template,
        words=spoken,
    )  # fmt: skip
    for part in ("pre", "suf", "mid") if fills else ():
        writer.add_uint32(f"tokenizer.ggml.fim_{part}_token_id", 1)
    writer.add_tensor("token_embd.weight", directions.astype(np.float16))
    writer.add_tensor("output_norm.weight", np.ones(width, dtype=np.float32))
    writer.add_tensor("output.weight", output.astype(np.float16))
    _add_layers(writer, width=width, ff=ff, layers=layers, heads=heads, rng=None)
    _finish(writer)
    return path


def write_random(path: Path, seed: int = 0, *, name: str = "random", context: int = 2048, mib: float = 1) -> Path:
    """Write a llama of about `mib` MiB with random weights: letters and spaces up to `max_tokens`, no end."""
    rng = np.random.default_rng(seed)
    tokens = _vocabulary(())
    width, ff, layers, heads = _sizes(mib)
    embedding = rng.standard_normal((len(tokens), width), dtype=np.float32)
    output = rng.standard_normal((len(tokens), width), dtype=np.float32)
    # Axis 0 survives the blocks untouched and stays positive: it lifts what may be said and sinks all else.
    embedding[:, 0] = np.sqrt(width)
    output[:, 0] = -30
    spoken = [len(_SPECIAL) + byte for byte in b"abcdefghijklmnopqrstuvwxyz "]
    output[spoken, 0] = 30

    writer = GGUFWriter(path, "llama")
    _add_llama(writer, name, tokens, context=context, width=width, ff=ff, layers=layers, heads=heads)
    writer.add_tensor("token_embd.weight", embedding.astype(np.float16))
    writer.add_tensor("output_norm.weight", np.ones(width, dtype=np.float32))
    writer.add_tensor("output.weight", output.astype(np.float16))
    _add_layers(writer, width=width, ff=ff, layers=layers, heads=heads, rng=rng)
    _finish(writer)
    return path


def write_unknown_arch(path: Path, *, architecture: str = "corralian") -> Path:
    """Write a sound GGUF file of an architecture that no engine knows."""
    writer = GGUFWriter(path, architecture)
    tokens = _vocabulary(("word",))
    _add_llama(writer, "unknown", tokens, context=512, width=32, ff=32, layers=1, heads=4)
    writer.add_tensor("token_embd.weight", np.zeros((len(tokens), 32), dtype=np.float16))
    writer.add_tensor("output_norm.weight", np.ones(32, dtype=np.float32))
    _add_layers(writer, width=32, ff=32, layers=1, heads=4, rng=None)
    _finish(writer)
    return path


BERT_WORDS = ("llama", "horse", "stable", "corral", "model", "engine", "paris", "tokyo", "the", "is", "a", "of", "and")


def write_bert(path: Path, *, rank: bool = False, name: str = "bert", context: int = 512) -> Path:
    """Write a BERT: texts that share words or letters get similar vectors, of 64 figures each.

    With `rank` it reranks instead: the greater the share of the word "llama" in a document, the higher its score.
    """
    width = 64
    letters = [*"abcdefghijklmnopqrstuvwxyz0123456789.,:;!?'-"]
    words = [word for word in BERT_WORDS if len(word) > 1]
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"▁{word}" for word in words)]
    tokens += [f"▁{letter}" for letter in letters] + letters
    rng = np.random.default_rng(11)
    embedding = rng.standard_normal((len(tokens), width)).astype(np.float32)
    embedding[5 + len(words) + len(letters) :] = embedding[5 + len(words) :][: len(letters)]  # wherever it stands

    writer = GGUFWriter(path, "bert")
    writer.add_name(name)
    writer.add_context_length(context)
    writer.add_embedding_length(width)
    writer.add_block_count(1)
    writer.add_feed_forward_length(width)
    writer.add_head_count(4)
    writer.add_layer_norm_eps(1e-12)
    writer.add_causal_attention(False)
    writer.add_pooling_type(gguf.PoolingType.RANK if rank else gguf.PoolingType.MEAN)
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_tokenizer_model("bert")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens)
    writer.add_token_types([TokenType.CONTROL] * 5 + [TokenType.NORMAL] * (len(tokens) - 5))
    writer.add_token_type_count(2)
    for special, number in (("pad", 0), ("unk", 1), ("cls", 2), ("bos", 2), ("sep", 3), ("eos", 3), ("mask", 4)):
        writer.add_uint32(f"tokenizer.ggml.{_KEY_OF_SPECIAL.get(special, special)}_token_id", number)
    writer.add_add_bos_token(True)
    writer.add_add_eos_token(True)

    eye, zero = np.eye(width, dtype=np.float32), np.zeros((width, width), dtype=np.float32)
    writer.add_tensor("token_embd.weight", embedding)
    writer.add_tensor("token_types.weight", np.zeros((2, width), dtype=np.float32))
    writer.add_tensor("position_embd.weight", np.zeros((context, width), dtype=np.float32))
    # No queries and no keys: each place attends to all alike, so the first one, which RANK reads, gets the mean.
    matrices = {"attn_q": zero, "attn_k": zero, "attn_v": 4 * eye, "attn_output": eye, "ffn_up": zero, "ffn_down": zero}
    for part, matrix in matrices.items():
        writer.add_tensor(f"blk.0.{part}.weight", matrix)
        writer.add_tensor(f"blk.0.{part}.bias", np.zeros(width, dtype=np.float32))
    for norm in ("token_embd_norm", "blk.0.attn_output_norm", "blk.0.layer_output_norm"):
        writer.add_tensor(f"{norm}.weight", np.ones(width, dtype=np.float32))
        writer.add_tensor(f"{norm}.bias", np.zeros(width, dtype=np.float32))
    if rank:
        llama = embedding[tokens.index("▁llama")]
        writer.add_tensor("cls.output.weight", (llama - llama.mean()).reshape(1, width))
        writer.add_tensor("cls.output.bias", np.zeros(1, dtype=np.float32))
    _finish(writer)
    return path


_KEY_OF_SPECIAL = {"pad": "padding", "unk": "unknown", "sep": "seperator"}  # the last one is the format's own spelling

Damage = Literal[
    "wrong magic", "html", "git-lfs pointer", "empty", "truncated header", "truncated tensors", "big-endian",
    "unknown version", "absurd pairs", "absurd tensors", "absurd string", "flipped middle",
]  # fmt: skip


def corrupt(path: Path, how: Damage) -> Path:
    """Damage the GGUF file at `path` in place. Each way makes it unusable, and Corral should say why."""
    data = bytearray(path.read_bytes())
    match how:
        case "wrong magic":
            data[:4] = b"JUNK"
        case "html":
            data[:] = b"<!DOCTYPE html>\n<html><body>404: no such file</body></html>\n"
        case "git-lfs pointer":
            data[:] = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 4096\n"
        case "empty":
            data.clear()
        case "truncated header":
            del data[200:]
        case "truncated tensors":
            del data[-64:]
        case "big-endian":
            data[4:8] = data[4:8][::-1]
        case "unknown version":
            data[4:8] = struct.pack("<I", 9)
        case "absurd tensors":
            data[8:16] = struct.pack("<Q", 1 << 60)
        case "absurd pairs":
            data[16:24] = struct.pack("<Q", 1 << 60)
        case "absurd string":
            data[24:32] = struct.pack("<Q", 1 << 62)
        case "flipped middle":
            at = data.index(b"token_embd.weight") + len(b"token_embd.weight")
            data[at : at + 4] = b"\xff" * 4  # the number of dimensions
    path.write_bytes(data)
    return path
