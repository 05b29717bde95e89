"""`corral convert` against a real server: a Hugging Face folder becomes a model that answers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from corral.client import Finished
from corral.config.paths import Paths
from support.hf_models import write_hf
from support.server import Server


def test_a_converted_folder_is_served(paths: Paths, short_tmp: Path) -> None:
    """The real engine takes what came out, reads texts by its vocabulary, and the card says where it came from."""
    write_hf(short_tmp / "tiny")
    with Server(paths, "models: []") as server:
        command = [sys.executable, "-m", "corral", "convert", str(short_tmp / "tiny"), "--to", "q8_0", "-t", "me/tiny"]
        done = subprocess.run(command, env=server.environment, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr
        assert "converted to Q8_0 from tiny (sha256:" in done.stderr
        card = server.client.show("me/tiny")
        assert (card.architecture, card.quantization) == ("llama", "Q8_0") and "converted" in card.lineage
        pieces = list(server.client.chat_stream("me/tiny", [{"role": "user", "content": "hell"}], max_tokens=5))
        assert any(isinstance(each, Finished) for each in pieces)
