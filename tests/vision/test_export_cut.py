"""`corral/detector/export.py` when it is ended in the middle, with a torch that never gets further than its file."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from corral.engines.detector import program
from support.detecting import TINY
from support.server import until

_TORCH = """
import time
from contextlib import nullcontext as no_grad

float32 = None
rand = lambda *shape: shape

class nn:
    class Module:
        def eval(self):
            return self

class onnx:
    def export(model, args, path, **more):
        with open(path, "wb") as file:
            file.write(b"half of it")
            file.flush()
            while True:
                time.sleep(0.05)
"""
_TRANSFORMERS = """
import torch

class RTDetrV2ForObjectDetection:
    def from_pretrained(folder, **more):
        return torch.nn.Module()
"""


def begun(place: Path, target: Path) -> subprocess.Popen[bytes]:
    """An export that is at its file."""
    for name, text in (("torch", _TORCH), ("transformers", _TRANSFORMERS)):
        (place / f"{name}.py").write_text(text)
    env = {**os.environ, "PYTHONPATH": str(place)}
    child = subprocess.Popen([sys.executable, program() / "export.py", TINY, target], env=env, start_new_session=True)
    part = target.with_name(f"{target.name}.{child.pid}.part")
    until(lambda: child.poll() is not None or (part.exists() and part.stat().st_size), "it is at its file")
    assert child.poll() is None
    return child


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["stopped", "ctrl-c"])
def test_one_that_is_ended_leaves_nothing(tmp_path: Path, number: signal.Signals) -> None:
    """Neither half a file nor its beginning."""
    target = tmp_path / "cache" / "model.onnx"
    child = begun(tmp_path, target)
    child.send_signal(number)
    assert child.wait(30) != 0
    assert list(target.parent.iterdir()) == []


def test_what_a_killed_one_left_goes_with_the_next(tmp_path: Path) -> None:
    """It is never taken for the model, and what another export is at stays."""
    target = tmp_path / "cache" / "model.onnx"
    killed = begun(tmp_path, target)
    other = begun(tmp_path, target)
    try:
        killed.kill()
        killed.wait(30)
        assert len(list(target.parent.iterdir())) == 2
        third = begun(tmp_path, target)
        try:
            there = {each.name for each in target.parent.iterdir()}
            assert there == {f"model.onnx.{each.pid}.part" for each in (other, third)}
        finally:
            third.terminate()
            third.wait(30)
    finally:
        other.terminate()
        other.wait(30)
    shutil.rmtree(target.parent)
