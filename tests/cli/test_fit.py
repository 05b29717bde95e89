"""`corral fit`: files, configured models and stored ones, in words and as JSON."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from corral.config.paths import Paths
from corral.config.settings import ModelSettings
from corral.demo.where import demo_model
from corral.engines.adapter import Start
from corral.engines.from_ledger import key_of
from corral.engines.llamacpp import LlamaCpp
from corral.engines.plan import Endpoint
from corral.engines.rooms import Machine, room_of
from corral.fitting import HEADROOM, look
from corral.hardware.cpu import Cpu
from corral.hardware.memory import Memory
from corral.hardware.probe import Hardware
from corral.ledger.figures import Figures
from corral.ledger.ledger import FILE, Ledger
from corral.models.formats.gguf import read_header
from support.architecture_files import write
from support.architectures import MID

Corral = Callable[..., "subprocess.CompletedProcess[str]"]
MIB = 1 << 20


def machine(memory: int) -> Hardware:
    return Hardware("Linux", Memory(memory, memory), Cpu("", "x86_64", 2, 2, 2.0), ())


def test_file(corral: Corral, tmp_path: Path) -> None:
    """A file's answer has place, parts by device with their origin, the machine's memory, and exit code 0."""
    model = shutil.copy(demo_model(), tmp_path / "m.gguf")
    run = corral("fit", str(model), "--context", "1024", "--slots", "2", "--json")
    answer = json.loads(run.stdout)
    assert (run.returncode, answer["fits"], answer["place"]) == (0, True, "on the processor")
    (share,) = answer["shares"]
    assert (share["device"], share["origin"]) == ("cpu", "estimated")
    assert share["weights_bytes"] == read_header(demo_model()).weights_bytes
    assert share["total_bytes"] == share["weights_bytes"] + share["cache_bytes"] + share["compute_bytes"]
    assert {(each["name"], each["origin"]) for each in answer["devices"]} == {("cpu", "measured")}
    assert (answer["context"], answer["slots"], answer["largest_context"]) == (1024, 2, 2048)


def test_words(corral: Corral) -> None:
    """The built-in model's answer reads as a sentence, and the reasons follow."""
    run = corral("fit", "demo")
    assert run.returncode == 0
    assert run.stdout.startswith("demo fits with 2048 tokens for one slot: on the processor.")
    assert "on the processor: fits" in run.stdout
    assert "estimated" in run.stdout
    assert "measured" in run.stdout


def test_too_long(corral: Corral) -> None:
    """A context beyond the memory is refused with what is missing, the largest that fits, and exit code 1."""
    run = corral("fit", "demo", "--context", "2000000000")
    assert run.returncode == 1
    assert "demo does not fit with 2000000000 tokens for one slot." in run.stdout
    assert "The largest context that fits is" in run.stdout
    assert "on the processor: lacks" in run.stdout
    assert "the 2048 tokens the model was made for" in run.stderr


def test_configured(paths: Paths) -> None:
    """A configured model is looked at as it would be served: its slots, cache types and budget count."""
    paths.config_dir.mkdir(parents=True)
    args = "args: [--cache-type-k, q8_0, --cache-type-v, q8_0]"
    paths.user_config.write_text(
        f"models:\n  - name: mine\n    source: {demo_model()}\n    context: 512\n    parallel: 3\n    {args}\n"
        "memory: {cpu: 6MiB}\n"
    )
    small = look("mine", paths, hardware=machine(4 * 1024 * MIB))
    assert (small.slots, small.context, small.fits) == (3, 512, False)
    assert small.devices[0].room_bytes == 6 * MIB
    assert look("mine", paths, slots=1, hardware=machine(0)).shares[0].cache_bytes == 512 * 5 * 64 * 2 * 17 // 16


def test_machine_decides(paths: Paths, tmp_path: Path) -> None:
    """The same file fits or not as the machine has memory; half a gibibyte of it is left alone."""
    model = str(write(tmp_path / "m.gguf", "llama", MID))
    whole = look(model, paths, context=2048, hardware=machine(8 * 1024 * MIB)).shares[0].total_bytes
    assert look(model, paths, context=2048, hardware=machine(whole + HEADROOM)).fits
    short = look(model, paths, context=2048, hardware=machine(whole + HEADROOM - 1))
    assert (short.fits, short.tried[-1].missing_bytes) == (False, {"cpu": 1})
    assert short.largest_context is not None
    assert short.largest_context < 2048


def test_unknown(corral: Corral, tmp_path: Path) -> None:
    """A name that means nothing, a file that is no model, and a missing file are told apart."""
    (tmp_path / "m.gguf").write_bytes(b"nonsense")
    run = corral("fit", "nosuch")
    assert (run.returncode != 0, "is not here" in run.stderr) == (True, True)
    assert "is not a GGUF file" in corral("fit", str(tmp_path / "m.gguf")).stderr
    assert corral("fit", str(tmp_path / "none.gguf")).returncode not in (0, 1)


@pytest.mark.parametrize("slots", [1, 3])
def test_probe_agrees(paths: Paths, tmp_path: Path, slots: int) -> None:
    """With --probe the engine is asked, loads nothing, and says what was predicted."""
    model = str(write(tmp_path / "m.gguf", "gemma3", MID))
    told = look(model, paths, context=1024, slots=slots, ask_engine=True)
    mine = look(model, paths, context=1024, slots=slots)
    (asked,), (estimated,) = told.shares, mine.shares
    assert (asked.origin, told.notes) == ("probed", ())
    assert (asked.weights_bytes, asked.cache_bytes) == (estimated.weights_bytes, estimated.cache_bytes)
    assert asked.compute_bytes == pytest.approx(estimated.compute_bytes, abs=MIB // 20)


def test_what_was_measured_is_shown(paths: Paths, tmp_path: Path) -> None:
    """Once such a start was measured, its figures stand where predictions were, with how long it took."""
    source = write(tmp_path / "m.gguf", "llama", MID)
    here = machine(8 * 1024 * MIB)
    room = room_of(Machine(here.devices), ())
    model = ModelSettings(source.stem, source, context=2048)
    plan = LlamaCpp().plan(Start(model, generation=1, endpoint=Endpoint(socket=tmp_path / "s"), room=room))
    paths.state_dir.mkdir(parents=True, exist_ok=True)
    ledger = Ledger(paths.state_dir / FILE)
    took = {"cpu": {"weights": 40 * MIB, "cache": 6 * MIB, "compute": 10 * MIB, "other": 30 * MIB}}
    ledger.remember(key_of(plan), Figures(took, load_s=1.5))
    ledger.close()
    answer = look(str(source), paths, context=2048, hardware=here)
    (share,) = answer.shares
    assert (share.origin, share.weights_bytes, share.total_bytes) == ("measured", 40 * MIB, 86 * MIB)
    assert answer.notes[0] == "it was loaded so once, the last time in 1.5 s"
    assert look(str(source), paths, context=1024, hardware=here).shares[0].origin == "estimated"


def test_an_auto_context_is_as_long_as_fits(paths: Paths, tmp_path: Path) -> None:
    """Without a context the answer is what a start would take: the model's own, or the longest that fits."""
    model = str(write(tmp_path / "m.gguf", "llama", MID))
    own = look(model, paths, hardware=machine(64 * 1024 * MIB))
    assert (own.context, own.fits) == (own.model_context, True)
    half = own.shares[0].total_bytes - own.shares[0].cache_bytes // 2
    short = look(model, paths, hardware=machine(half + HEADROOM))
    assert short.fits
    assert 2048 <= short.context < own.context
    assert short.largest_context == short.context
    assert any("a longer context than" in note for note in short.notes)


def test_a_typo_is_told_before_a_registry(corral: Corral) -> None:
    """A name that is almost one of this machine's models is taken for that; one like none is where a pull would find
    it."""
    near = corral("fit", "demoo")
    assert near.returncode != 0 and "no model is called 'demoo'" in near.stderr
    assert "did you mean 'demo'?" in near.stderr
    assert "did you mean" not in corral("fit", "zzzzzz").stderr
