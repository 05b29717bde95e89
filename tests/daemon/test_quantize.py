"""`corral quantize` against a real server: the model that comes out is listed, described and served."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from corral.api_store import PackageAsk, QuantizeAsk, VerifyAsk
from corral.client import Client, Finished
from corral.config.paths import Paths
from corral.connection import parse_address
from corral.errors import CallerError, LocalOnly
from support.ggufs import write_chain, write_random
from support.llama import llama_server
from support.server import Server, until

pytestmark = pytest.mark.engines
WORDS = ["so", "it", "goes"]


def corral(server: Server, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "corral", *words]
    return subprocess.run(command, env=server.environment, capture_output=True, text=True, timeout=120, check=False)


def run_all(work: object) -> object:
    while True:
        try:
            next(work)  # type: ignore[call-overload]
        except StopIteration as ended:
            return ended.value


def test_a_quantized_model_is_served(paths: Paths, short_tmp: Path) -> None:
    """From a file to a smaller model under a name of its own, which says how it came about, is whole, and answers."""
    file = write_chain(short_tmp / "say-f16.gguf", WORDS, mib=2)
    config = f"executables: {{llama.cpp: {llama_server()}}}\nmodels: []"
    with Server(paths, config) as server:
        run_all(server.client.package(PackageAsk(str(file), "me/say:f16")))
        made = corral(server, "quantize", "me/say:f16", "--to", "q8_0", "--threads", "1")
        assert made.returncode == 0, made.stderr
        assert "docker.io/me/say:Q8_0 is sha256:" in made.stdout
        assert "quantized to Q8_0 from docker.io/me/say:f16" in made.stderr
        shown = corral(server, "show", "me/say:Q8_0").stdout
        assert "quantized to Q8_0 from docker.io/me/say:f16 (sha256:" in shown
        manifest = json.loads(corral(server, "--json", "inspect", "me/say:Q8_0").stdout)["manifest"]
        origin = server.client.show("me/say:f16").digest
        assert manifest["annotations"]["org.opencontainers.image.base.digest"] == origin
        assert "quantize" in corral(server, "history", "me/say:Q8_0").stdout
        assert corral(server, "verify").returncode == 0
        assert run_all(server.client.verify(VerifyAsk())).clean  # type: ignore[attr-defined]
        pieces = server.client.chat_stream(
            "me/say:Q8_0", [{"role": "user", "content": "go"}], temperature=0, max_tokens=9
        )
        assert "".join(each.text for each in pieces if not isinstance(each, Finished)) == " ".join(WORDS)
        again = corral(server, "quantize", "me/say:f16", "--to", "Q8_0")
        assert again.returncode != 0 and "already" in again.stderr and "-t NAME" in again.stderr
        wrong = corral(server, "quantize", str(file), "--to", "Q5_KM", "-t", "me/x")
        assert wrong.returncode != 0 and "Q5_K_M" in wrong.stderr
        listed = corral(server, "quantize", "--list")
        assert "Q4_K_M" in listed.stdout and "llama-quantize" in listed.stderr
        with pytest.raises(LocalOnly):
            run_all(Client(parse_address(server.url)).quantize(QuantizeAsk("Q8_0", "me/say:f16")))


def test_ctrl_c_ends_the_work(paths: Paths, short_tmp: Path) -> None:
    """When its asker leaves, the tool is ended, and the store is as it was."""
    file = write_random(short_tmp / "m.gguf", mib=80)
    config = f"executables: {{llama.cpp: {llama_server()}}}\nmodels: []"
    with Server(paths, config) as server:
        scratch = paths.store_dir / "corral" / "scratch"
        work = server.client.quantize(QuantizeAsk("Q4_K_M", file=str(file), name="me/m", threads=1))
        for progress in work:
            if "tensor" in progress.text:
                break
        assert len(list(scratch.iterdir())) == 1
        work.close()
        until(lambda: not list(scratch.iterdir()), "the half-made model is gone")
        assert server.client.stored() == []
        with pytest.raises(CallerError, match="one model is wanted"):
            run_all(server.client.quantize(QuantizeAsk("Q4_K_M")))
