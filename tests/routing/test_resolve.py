"""From a client's name for a model to the model."""

from __future__ import annotations

from pathlib import Path

import pytest

from corral.config.settings import ModelSettings, Settings
from corral.errors import MissingModel, UnknownModel
from corral.routing.resolve import resolve

HERE = Path("/m.gguf")
ONE = Settings({"qwen3-coder": ModelSettings("qwen3-coder", HERE, aliases=("coder",))})
TWO = Settings({**ONE.models, "writer": ModelSettings("writer", HERE)}, default_model="writer")


def test_names_and_aliases() -> None:
    """A model answers to its name and to its aliases."""
    assert resolve(TWO, "qwen3-coder").name == resolve(TWO, "coder").name == "qwen3-coder"


def test_without_a_name() -> None:
    """Without a name the listener's own model answers, else the configured default; with neither it is an error."""
    assert resolve(TWO, None, "qwen3-coder").name == "qwen3-coder"
    assert resolve(TWO, "").name == "writer"
    with pytest.raises(MissingModel) as caught:
        resolve(ONE, None)
    assert "default_model" in caught.value.hint


@pytest.mark.parametrize(("asked", "near"), [("qwen3-codr", "qwen3-coder"), ("CODER", "coder"), ("riter", "writer")])
def test_the_nearest_name_is_told(asked: str, near: str) -> None:
    """An unknown name is an error that names the nearest known one."""
    with pytest.raises(UnknownModel) as caught:
        resolve(TWO, asked)
    assert near in caught.value.hint
    assert caught.value.details["nearest"] == near


def test_a_name_that_is_absurdly_long_is_cut() -> None:
    """The error repeats at most a part of what was asked for."""
    with pytest.raises(UnknownModel) as caught:
        resolve(ONE, "x" * 100_000)
    assert len(caught.value.message) < 400
