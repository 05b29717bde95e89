"""A Hugging Face `tokenizer.json` as a vocabulary of llama.cpp: byte-level BPE, split by a rule it knows. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from corral.errors import ModelFileError
from corral.lazy_dataclass import dataclass

NORMAL, CONTROL, USER_DEFINED, UNUSED = 1, 3, 4, 5
"""Kinds of tokens. Source: llama.cpp, llama.h (`llama_token_attr`), and gguf's TokenType."""

_WORDS: Final = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
_REST: Final = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
SPLITS: Final[Mapping[str, str]] = {_WORDS + "{1,3}" + _REST: "llama-bpe", _WORDS + _REST: "qwen2"}
"""The regular expressions that texts are split by first, and llama.cpp's names for them. Source: the tokenizer.json of
Llama 3 and of Qwen 2; llama.cpp, llama-vocab.cpp."""

_HINT: Final = "convert it with llama.cpp's own convert_hf_to_gguf.py, then: corral package FILE -t NAME"


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """Tokens by number, each with its kind, and how texts are split."""

    tokens: tuple[str, ...]
    kinds: tuple[int, ...]
    split: str


def vocabulary(data: Mapping[str, Any], size: int) -> Vocabulary:
    """The vocabulary that `data` describes, filled up to `size`. Raises ModelFileError for what it cannot be."""
    model = data.get("model") or {}
    numbers = model.get("vocab")
    if model.get("type") != "BPE" or not isinstance(numbers, dict) or model.get("byte_fallback"):
        kind = "SentencePiece" if model.get("byte_fallback") else model.get("type") or "unknown"
        raise ModelFileError(f"its tokenizer is {kind}: Corral converts byte-level BPE alone", hint=_HINT)
    found = {int(number): (str(text), NORMAL) for text, number in numbers.items()}
    for each in data.get("added_tokens") or ():
        found[int(each["id"])] = (str(each["content"]), CONTROL if each.get("special") else USER_DEFINED)
    if found and max(found) >= size:
        raise ModelFileError(
            f"its tokenizer has {max(found) + 1} tokens, and its config.json says {size}", hint="fetch all files again"
        )
    filled = [found.get(number, (f"[PAD{number}]", UNUSED)) for number in range(size)]
    return Vocabulary(tuple(text for text, _ in filled), tuple(kind for _, kind in filled), _split(data))


def _split(data: Mapping[str, Any]) -> str:
    """llama.cpp's name for the rule by which texts are split into words."""
    before = data.get("pre_tokenizer") or {}
    steps = before.get("pretokenizers", [before]) if before.get("type") == "Sequence" else [before]
    kinds = [step.get("type") for step in steps]
    if kinds == ["ByteLevel"] and steps[0].get("use_regex", True) and not steps[0].get("add_prefix_space"):
        return "gpt-2"
    if kinds == ["Split", "ByteLevel"] and not steps[1].get("use_regex", True):
        pattern = (steps[0].get("pattern") or {}).get("Regex")
        if isinstance(pattern, str) and pattern in SPLITS and steps[0].get("behavior") == "Isolated":
            return SPLITS[pattern]
    raise ModelFileError("its tokenizer splits texts by a rule that Corral does not know", hint=_HINT)
