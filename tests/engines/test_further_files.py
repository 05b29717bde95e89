"""The files beside its model that `args` name."""

from __future__ import annotations

from pathlib import Path

import pytest

from corral.engines import further_files
from corral.errors import ModelFileError


@pytest.fixture
def good(tmp_path: Path) -> Path:
    path = tmp_path / "good.gguf"
    path.write_bytes(b"GGUF" + bytes(20))
    return path


def test_those_that_are_there_are_no_matter(good: Path, tmp_path: Path) -> None:
    """Whole files pass, by every flag and several at a time; so do paths that only the engine can find."""
    template = tmp_path / "chat.jinja"
    template.write_text("{{ messages }}")
    further_files.check(["--mmproj", str(good), "-md", str(good), "--chat-template-file", str(template)])
    further_files.check(["--lora", f"{good},{good}", "--lora-scaled", f"{good}:0.5,{good}:1"])
    further_files.check(["--mmproj", "beside.gguf", "--threads", "2"])


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        ("--mmproj", "{no}"), ("-mm", "{no}"), ("--model-draft", "{no}"), ("--lora", "{good},{no}"),
        ("--lora-scaled", "{good}:1,{no}:0.5"), ("--chat-template-file", "{no}"),
    ],
)  # fmt: skip
def test_one_that_is_not_there_is_named(flag: str, value: str, good: Path, tmp_path: Path) -> None:
    """The error says which file it is, and how to mend that."""
    missing = tmp_path / "missing"
    with pytest.raises(ModelFileError, match=f"{missing}, which --[a-z-]+ names, is not there") as caught:
        further_files.check([flag, value.format(good=good, no=missing)])
    assert "`args`" in caught.value.hint


@pytest.mark.parametrize(("content", "said"), [(b"<html>", "begins with b'<htm'"), (b"", "is empty")])
def test_one_that_is_no_model_file_is_named(content: bytes, said: str, tmp_path: Path) -> None:
    """A page that was saved in its place is told before an engine is started for it."""
    path = tmp_path / "page.gguf"
    path.write_bytes(content)
    with pytest.raises(ModelFileError, match=said):
        further_files.check(["--lora", str(path)])
    with pytest.raises(ModelFileError, match="is not a file"):
        further_files.check(["--mmproj", str(tmp_path)])
