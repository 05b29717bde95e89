"""Quantizing with the real `llama-quantize`: what comes out, what is recorded of it, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

from corral.artifact.lineage import lineage_of
from corral.errors import CallerError, CorralError, DiskFull, EngineMissing, ModelFileError
from corral.models.content import read_content, read_stored_header
from corral.models.fetching.control import Stopped
from corral.models.making import quantizer
from corral.models.making.package import package
from corral.models.making.quantize import Base, How, quantize
from corral.models.making.quantizer import Quantizer
from corral.store.store import Store
from support.ggufs import write_chain, write_random
from support.llama import llama_server

pytestmark = pytest.mark.engines


@pytest.fixture(scope="module")
def tool() -> Quantizer:
    return quantizer.find(str(llama_server()))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    found = Store(tmp_path / "store")
    found.prepare()
    return found


def quiet(text: str, done: int, total: int | None) -> None:
    """Nobody listens."""


def tensors(path: Path) -> dict[str, Any]:
    """What the file's tensors are in 32 bits."""
    return {each.name: gguf.quants.dequantize(each.data, each.tensor_type) for each in gguf.GGUFReader(path).tensors}


def test_the_tool_says_itself_what_it_can_do(tool: Quantizer) -> None:
    """Types, their descriptions and the version come from the program; names are found whatever their case."""
    names = [each.name for each in tool.types]
    assert {"Q4_K_M", "Q8_0", "F16", "IQ2_XXS"} <= set(names) and len(names) == len(set(names))
    assert "COPY" not in names
    assert "ppl" in next(each.about for each in tool.types if each.name == "Q4_K_M")
    assert "build" in tool.version
    assert quantizer.check_type(tool, "q4_k_m") == quantizer.check_type(tool, "Q4_K") == "Q4_K_M"
    with pytest.raises(CallerError) as caught:
        quantizer.check_type(tool, "Q4_K_MM")
    assert "Q4_K_M" in caught.value.hint


def test_no_tool_is_said_with_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where neither the configured engine nor PATH nor the cache has one, the error says where it comes from."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EngineMissing) as caught:
        quantizer.find("auto", tmp_path)
    assert "embedded engine has none" in caught.value.hint
    imposter = tmp_path / "llama-quantize"
    imposter.write_text("#!/bin/sh\necho no\n")
    imposter.chmod(0o755)
    with pytest.raises(CorralError) as other:
        quantizer.find("auto")
    assert str(imposter) in other.value.message


def test_a_stored_model_becomes_a_smaller_one(tool: Quantizer, store: Store, tmp_path: Path) -> None:
    """Weights near the original's in fewer bits; template and licence go along; the lineage is in the manifest, whose
    every byte is as its digests say; the same once more is the same model."""
    source = write_random(tmp_path / "big-f16.gguf", mib=10)
    (tmp_path / "LICENSE").write_text("Apache-2.0\n")
    (tmp_path / "t.jinja").write_text("{{ messages }}")
    made = package(store, source, "docker.io/me/big:f16", license=[tmp_path / "LICENSE"], template=tmp_path / "t.jinja")
    said: list[tuple[str, int, int | None]] = []
    base = Base("docker.io/me/big:f16", made.digest)
    done = quantize(store, base, "docker.io/me/big:q4", How(tool, "Q4_K_M", threads=1), lambda *each: said.append(each))
    content = read_content(store, done.digest)
    header = read_stored_header(store, content.artifact)
    assert header is not None and header.quantization == "Q4_K_M"
    assert done.after_bytes < 0.4 * done.before_bytes
    assert content.template == "{{ messages }}" and content.licenses == ("Apache-2.0\n",)
    assert [file.path for file in content.artifact.of("weights")] == ["big-Q4_K_M.gguf"]
    lineage = lineage_of(store.manifest(done.digest))
    assert lineage is not None
    assert (lineage.how, lineage.to, lineage.base, lineage.base_digest) == (
        "quantized", "Q4_K_M", "docker.io/me/big:f16", made.digest,
    )  # fmt: skip
    assert tool.version in lineage.tool and lineage.tool in lineage.words()
    assert [each.why for each in store.history("docker.io/me/big:q4")] == ["quantize"]
    assert store.verify() == []
    told = [(done, total) for text, done, total in said if "tensor" in text]
    assert told and told == sorted(told) and told[-1][0] <= (told[-1][1] or 0)
    before, after = tensors(source), tensors(store.blob(content.artifact.of("weights")[0].descriptor.digest).path)
    assert before.keys() == after.keys()
    for name, weights in before.items():
        error = np.abs(weights - after[name]).max()
        assert error <= 0.12 * max(1e-9, np.abs(weights).max()), name
    assert quantize(store, base, "docker.io/me/big:again", How(tool, "Q4_K_M", threads=1), quiet).digest == done.digest


def test_a_file_is_named_by_its_own_digest(tool: Quantizer, store: Store, tmp_path: Path) -> None:
    """Of a file of no store, the lineage has its name and what it held, and not where it lay."""
    source = write_chain(tmp_path / "said.gguf", ["a", "b"], mib=1)
    done = quantize(store, Base(source.name, file=source), "me/said", How(tool, "Q8_0"), quiet)
    lineage = lineage_of(store.manifest(done.digest))
    assert lineage is not None and lineage.file_digest.startswith("sha256:") and lineage.base_digest == ""
    assert str(tmp_path) not in json.dumps(store.manifest(done.digest))
    assert source.exists()


def test_what_cannot_be_is_refused(tool: Quantizer, store: Store, tmp_path: Path) -> None:
    """Quantized already, larger than before, without the matrix it needs, a projector: each says what to do, and
    nothing is left of any of them."""
    source = write_random(tmp_path / "m.gguf", mib=10)
    small = quantize(store, Base("m.gguf", file=source), "me/m:q4", How(tool, "Q4_K_M"), quiet)
    base = Base("me/m:q4", small.digest)
    with pytest.raises(CallerError, match="Q4_K_M already") as caught:
        quantize(store, base, "me/x", How(tool, "Q2_K"), quiet)
    assert "--requantize" in caught.value.hint
    with pytest.raises(CallerError, match="would not be smaller"):
        quantize(store, base, "me/x", How(tool, "Q8_0", requantize=True), quiet)
    with pytest.raises(CallerError, match="importance matrix") as needs:
        quantize(store, Base("m.gguf", file=source), "me/x", How(tool, "IQ2_XXS"), quiet)
    assert "llama-imatrix" in needs.value.hint
    with pytest.raises(CallerError, match="no file"):
        quantize(store, base, "me/x", How(tool, "Q2_K", imatrix=tmp_path / "none"), quiet)
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(source.read_bytes()[:5000])
    with pytest.raises(ModelFileError):
        quantize(store, Base("broken.gguf", file=broken), "me/x", How(tool, "Q8_0"), quiet)
    assert store.lookup("me/x") is None
    lower = quantize(store, base, "me/m:q2", How(tool, "Q2_K", requantize=True), quiet)
    assert lower.after_bytes < small.after_bytes
    assert list(store.layout.scratch.iterdir()) == []


def test_an_importance_matrix_is_used_and_recorded(tool: Quantizer, store: Store, tmp_path: Path) -> None:
    """With llama.cpp's own llama-imatrix's file the smallest types work, and its digest is in the lineage."""
    import subprocess

    source = write_random(tmp_path / "m.gguf", mib=10)
    (tmp_path / "text").write_text(" ".join(str(each) for each in range(400)))
    matrix = tmp_path / "imatrix.gguf"
    words = [str(tool.path.with_name("llama-imatrix")), "-m", str(source), "-f", str(tmp_path / "text"), "-c", "64"]
    subprocess.run([*words, "-o", str(matrix), "--chunks", "2"], check=True, capture_output=True, timeout=120)
    done = quantize(store, Base("m.gguf", file=source), "me/tiny", How(tool, "IQ2_XXS", imatrix=matrix), quiet)
    lineage = lineage_of(store.manifest(done.digest))
    assert lineage is not None and lineage.imatrix.startswith("sha256:")


def test_ended_in_the_middle_it_leaves_nothing(tool: Quantizer, store: Store, tmp_path: Path) -> None:
    """Whoever is told of progress may end it: the tool is gone, its file too, and the name was never there."""
    source = write_random(tmp_path / "m.gguf", mib=60)

    def end(text: str, done: int, total: int | None) -> None:
        if "tensor" in text:
            assert len(list(store.layout.scratch.iterdir())) == 1
            raise Stopped("cancelled")

    with pytest.raises(Stopped):
        quantize(store, Base("m.gguf", file=source), "me/m", How(tool, "Q4_K_M", threads=1), end)
    assert store.lookup("me/m") is None
    assert list(store.layout.scratch.iterdir()) == [] and list(store.layout.blobs.iterdir()) == []


def test_no_room_is_said_before_anything_is_written(
    tool: Quantizer, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tool's own forecast is held against the room there is."""
    source = write_random(tmp_path / "m.gguf", mib=10)
    monkeypatch.setattr(type(store._blobs), "room", lambda self: 1 << 20)
    with pytest.raises(DiskFull):
        quantize(store, Base("m.gguf", file=source), "me/m", How(tool, "Q8_0"), quiet)
    assert list(store.layout.scratch.iterdir()) == []
