"""How downloads look on a terminal."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from corral.api import ErrorInfo
from corral.api_store import BlobInfo, DownloadInfo
from corral.cli.bars import picture, summary
from corral.cli.terminal import cells

JOB = DownloadInfo(
    "1f", "ai/m", "docker.io/ai/m:latest", "running",
    [BlobInfo(None, "config", 300, 300, None), BlobInfo(None, "m.gguf", 1 << 30, 1 << 28, float(1 << 26))],
    (1 << 30) + 300, (1 << 28) + 300, float(1 << 26), 12.0, None, [], 0.0, None, None,
)  # fmt: skip


def test_a_bar_shows_how_far_and_how_fast() -> None:
    """A file's line has its name, its bar, the amount, the speed and the time left; what is tiny has none."""
    head, line = picture(JOB, 120)
    assert head == "docker.io/ai/m:latest: running, 256 MiB of 1.0 GiB (25 %), 64.0 MiB/s, 12 s left"
    assert line.split() == [
        "m.gguf",
        "██████",
        "256",
        "MiB",
        "of",
        "1.0",
        "GiB",
        "(25",
        "%)",
        "64.0",
        "MiB/s",
        "12",
        "s",
    ]


def test_a_failed_download_says_why() -> None:
    """The error's message is in the summary."""
    failed = replace(JOB, state="failed", error=ErrorInfo("x", "it is gone", "", 404))
    assert summary(failed) == "failed: it is gone"


@given(
    st.integers(20, 200),
    st.lists(
        st.builds(
            BlobInfo,
            st.none(),
            st.text(max_size=60),
            st.none() | st.integers(0, 1 << 50),
            st.integers(0, 1 << 50),
            st.none() | st.floats(0, 1e12),
        ),
        max_size=30,
    ),
)
def test_no_line_is_wider_than_the_terminal(columns: int, blobs: list[BlobInfo]) -> None:
    """Whatever is fetched, a line that wraps would break the picture."""
    lines = picture(replace(JOB, blobs=blobs), columns)
    assert all(cells(line) < columns for line in lines)
    assert len(lines) <= 14
