"""Quantizations as file names spell them, and which of several is taken when nobody asked for one. Pure."""

from __future__ import annotations

import re
from typing import Final

DEFAULT_ORDER: Final = (
    "Q4_K_M", "Q4_K_XL", "Q4_K_L", "Q4_K_S", "Q4_K", "IQ4_NL", "IQ4_XS", "Q4_1", "Q4_0", "MXFP4", "MXFP4_MOE", "NVFP4",
    "Q5_K_M", "Q5_K_XL", "Q5_K_L", "Q5_K_S", "Q5_K", "Q5_1", "Q5_0", "Q6_K", "Q6_K_XL", "Q6_K_L", "Q8_0", "Q8_K_XL",
    "Q3_K_M", "Q3_K_XL", "Q3_K_L", "Q3_K_S", "Q3_K", "IQ3_M", "IQ3_S", "IQ3_XS", "IQ3_XXS",
    "Q2_K", "Q2_K_L", "Q2_K_XL", "Q2_K_S", "IQ2_M", "IQ2_S", "IQ2_XS", "IQ2_XXS", "IQ1_M", "IQ1_S", "TQ2_0", "TQ1_0",
    "BF16", "F16", "F32",
)  # fmt: skip
"""Without a wish, the first of these that a repository has: 4 bits as everybody does it, then what is nearest in
quality for its size, unquantized last. Files whose quantization is none of these come after them all, by name."""

_RANK: Final = {name: place for place, name in enumerate(DEFAULT_ORDER)}
_LABEL = re.compile(
    r"(?<![a-z0-9])"
    r"(?:(?:I?Q[1-8])(?:_(?:[48]_[48]|XXS|XXL|XS|XL|NL|[01KSML])(?![a-z0-9]))+|TQ[12]_0|MXFP4(?:_MOE)?|NVFP4|BF16|FP?16|FP?32)"
    r"(?![a-z0-9])",
    re.IGNORECASE,
)


def quant_of(path: str) -> str:
    """The quantization that a file's name tells, such as `Q4_K_M`; else its folder's; else the empty text."""
    folder, _, name = path.rpartition("/")
    for text in (name, folder):
        if found := _LABEL.findall(text):
            label: str = found[-1].upper()
            return {"FP16": "F16", "FP32": "F32"}.get(label, label)
    return ""


def rank(path: str) -> int:
    """The place of a file in the order of defaults; smaller is better."""
    return _RANK.get(quant_of(path), len(_RANK))


def told(path: str, wish: str) -> int | None:
    """How well the name of a file says `wish`: 0 exactly, 1 as the beginning of a longer label, None not at all.

    The wish must stand between separators; letters count alike in either case. `Q4_K` is so the beginning of `Q4_K_M`
    and never a part of `IQ4_K`.
    """
    middle = re.escape(wish)
    for found, end in enumerate((r"(?:$|[-./ ])", r"_")):
        if re.search(rf"(?:^|[-._/ ]){middle}{end}", path, re.IGNORECASE):
            return found
    return None
