"""The page about artifacts, held to the code."""

from __future__ import annotations

from corral.artifact import media
from corral.models.inflate import MAX_RATIO, MAX_WINDOW_LOG
from corral.models.untar import MAX_FILES
from support.pages import ROOT


def test_page_names_what_is_read() -> None:
    """docs/artifacts.md names each of Docker's media types, each annotation of ours, and the limits as they are."""
    page = (ROOT / "docs" / "artifacts.md").read_text(encoding="utf-8")
    kinds = [*media.ROLE_OF_DOCKER_TYPE, *media.DOCKER_TARS, media.DOCKER_FILE, media.CNCF_CONFIG]
    kinds += [media.DOCKER_CONFIG_V01, media.DOCKER_CONFIG_V02, media.FILEPATH, media.OCI_TITLE]
    assert [kind for kind in [*kinds, media.ROLE, media.CONTEXT_SIZE] if f"`{kind}`" not in page] == []
    ollama = page.split("| Ollama |")[1].split("\n")[0]
    assert [kind for kind in media.ROLE_OF_OLLAMA_KIND if kind not in ollama] == []
    assert f"more than {MAX_RATIO} times" in page
    assert f"more files than {MAX_FILES:,}" in page
    assert f"more than {(1 << MAX_WINDOW_LOG) >> 20} MiB of memory" in page
