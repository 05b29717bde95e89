"""Quantizations in file names."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral.registry.quants import DEFAULT_ORDER, quant_of, rank, told


@pytest.mark.parametrize(
    ("path", "label"),
    [
        ("Llama-3.2-1B-Instruct-Q4_K_M.gguf", "Q4_K_M"),
        ("llama-3.2-1b-instruct-q8_0.gguf", "Q8_0"),
        ("Qwen3-4B-UD-Q4_K_XL.gguf", "Q4_K_XL"),
        ("model.IQ3_XXS.gguf", "IQ3_XXS"),
        ("gpt-oss-20b-mxfp4.gguf", "MXFP4"),
        ("gpt-oss-20b-MXFP4_MOE.gguf", "MXFP4_MOE"),
        ("smollm2_q4_k_m_imat.gguf", "Q4_K_M"),
        ("model-f16.gguf", "F16"),
        ("model-fp16.gguf", "F16"),
        ("model-BF16.gguf", "BF16"),
        ("Q5_K_S/model-00001-of-00002.gguf", "Q5_K_S"),
        ("BF16/model-Q6_K-00001-of-00002.gguf", "Q6_K"),
        ("bitnet-TQ1_0.gguf", "TQ1_0"),
        ("gemma-3-4b-it-q4_0.gguf", "Q4_0"),
        ("model-Q4_0_4_4.gguf", "Q4_0_4_4"),
        ("model.gguf", ""),
        ("seq2seq.gguf", ""),
    ],
)
def test_label_is_read_from_a_files_name(path: str, label: str) -> None:
    """A file's quantization is the last label in its name, else the one in its folder's."""
    assert quant_of(path) == label


def test_default_order_begins_with_q4_k_m_and_ends_unquantized() -> None:
    """Without a wish, Q4_K_M comes first, whole numbers last, and what is not known after them all."""
    assert [rank(f"m-{name}.gguf") for name in DEFAULT_ORDER] == list(range(len(DEFAULT_ORDER)))
    assert DEFAULT_ORDER[0] == "Q4_K_M"
    assert DEFAULT_ORDER[-1] == "F32"
    assert rank("m.gguf") == len(DEFAULT_ORDER)


@pytest.mark.parametrize(
    ("path", "wish", "how"),
    [
        ("m-Q4_K_M", "q4_k_m", 0),
        ("m_Q4_K_M", "Q4_K_M", 0),
        ("Q4_K_M/m", "Q4_K_M", 0),
        ("m-Q4_K_M", "Q4_K", 1),
        ("m-IQ4_XS", "Q4_XS", None),
        ("m-BF16", "F16", None),
        ("m-Q4_K_M", "Q4_K_M.", None),
        ("m-Q4xK_M", "Q4.K_M", None),
    ],
)
def test_wish_stands_between_separators(path: str, wish: str, how: int | None) -> None:
    """A wish is found only between separators, in either case, and never as a pattern."""
    assert told(path, wish) == how


@given(st.sampled_from(DEFAULT_ORDER), st.text("abcXYZ019-. _", max_size=12), st.sampled_from("-._"))
def test_every_label_is_found_behind_any_name(label: str, stem: str, separator: str) -> None:
    """Every label of the order is read back from a name that ends in it, and matches a wish for itself."""
    path = f"{stem}{separator}{label}"
    assert told(path, label.lower()) == 0
    assert quant_of(f"{path}.gguf") == label
