"""What is said first of a quantization that cannot be: what is wrong with what was asked, then what is missing here."""

from __future__ import annotations

from pathlib import Path

import pytest

from corral.api_store import QuantizeAsk
from corral.config.load import load
from corral.config.paths import Paths
from corral.errors import CallerError, CorralError, EngineMissing, UnknownModel
from corral.models.library import Library
from corral.models.making import quantizer
from corral.models.workshop import Cancel, Workshop
from support.ggufs import write_chain


@pytest.fixture
def workshop(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> Workshop:
    """One where llama-quantize is not installed."""
    monkeypatch.setenv("PATH", "")
    library = Library(paths, load(paths=paths).settings, listener=lambda view: None)
    library.open()
    return Workshop(library)


@pytest.mark.parametrize(
    ("model", "to", "kind", "words"),
    [
        ("nosuch", "Q99", UnknownModel, "nosuch"),
        ("", "Q99", CallerError, "no type 'Q99'"),
        ("", "q4_k_m", EngineMissing, "no llama-quantize here"),
    ],
)
def test_what_was_asked_comes_first(
    workshop: Workshop, tmp_path: Path, model: str, to: str, kind: type[CorralError], words: str
) -> None:
    """A wrong name, then a wrong type, then that there is no tool."""
    file = None if model else str(write_chain(tmp_path / "m.gguf", ["a"]))
    with pytest.raises(kind, match=words):
        workshop.quantize(QuantizeAsk(to, model or None, file, "me/x"), Cancel(lambda progress: None))


def test_spellings() -> None:
    """Types of llama.cpp of now and of before are none that is refused unseen."""
    for name in ("Q4_0", "Q4_K", "q4_k_s", "Q8_0", "IQ2_XXS", "IQ4_NL", "F16", "BF16", "F32", "MXFP4_MOE"):
        quantizer.check_spelling(name)
    for name in ("Q99", "Q5_KM!", "", "INT8"):
        with pytest.raises(CallerError):
            quantizer.check_spelling(name)
