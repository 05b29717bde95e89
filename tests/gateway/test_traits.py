"""What is known of a model before it runs, from its file, its flags and the store."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from corral.config.settings import ModelSettings
from corral.gateway import traits
from corral.gateway.dialects.reasoning.style import Style
from corral.gateway.traits import Traits
from support.ggufs import CHAT_TEMPLATE, THINKING_TEMPLATE, TOOLS_TEMPLATE, write_chain


async def test_the_files_template_counts_unless_a_flag_names_another(tmp_path: Path) -> None:
    """`--chat-template` and `--chat-template-file` replace the one in the header."""
    model = ModelSettings("m", write_chain(tmp_path / "m.gguf", ("a",), template=THINKING_TEMPLATE))
    known = Traits()
    assert known.known(model) is None
    style = await known.of(model)
    assert style.thinks
    assert known.known(model) is style
    other = replace(model, args=("--chat-template", CHAT_TEMPLATE))
    assert known.known(other) is None
    assert await known.of(other) == Style()
    file = tmp_path / "t.jinja"
    file.write_text(TOOLS_TEMPLATE)
    assert (await known.of(replace(model, args=(f"--chat-template-file={file}",)))).tools
    assert (await known.of(replace(model, reasoning="harmony"))).cleaner == "harmony"


async def test_a_file_that_cannot_be_read_is_looked_at_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It counts as a model that does not think, and only for a while."""
    model = ModelSettings("m", tmp_path / "m.gguf")
    known = Traits()
    assert await known.of(model) == Style() == known.known(model)
    monkeypatch.setattr(traits, "AGAIN_S", -1.0)
    other = ModelSettings("o", tmp_path / "m.gguf")
    assert await known.of(other) == Style()
    assert known.known(other) is None
    write_chain(model.source, ("a",), template=THINKING_TEMPLATE)
    assert (await known.of(other)).thinks
    assert known.known(other) is not None
