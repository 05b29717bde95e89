"""What a client asks of a model's starts is laid over the configuration, and kept in a file."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from corral.config.settings import ModelSettings, Settings
from corral.config.tuning import Tuning, Tunings

MODEL = ModelSettings("m", Path("/m.gguf"), context=1024, args=("--mlock",))


def test_it_is_laid_over_the_model() -> None:
    """What is asked for counts, flags are added, and what is not asked for stays."""
    assert Tuning().of(MODEL) == MODEL
    tuned = Tuning(512, ("--jinja",), math.inf).of(MODEL)
    assert (tuned.context, tuned.args, tuned.idle_timeout_s) == (512, ("--mlock", "--jinja"), None)
    assert Tuning(idle_timeout_s=0.0).of(MODEL).idle_timeout_s == 0.0


def test_it_is_kept(tmp_path: Path) -> None:
    """Another server reads what this one wrote; what is asked for no more is gone from the file."""
    file = tmp_path / "state" / "tunings.json"
    kept = Tunings(file)
    kept.put("m", Tuning(512, ("--jinja",), math.inf))
    kept.put("n", Tuning(args=()))
    assert dict(Tunings(file).all()) == {"m": Tuning(512, ("--jinja",), math.inf), "n": Tuning(args=())}
    assert Tunings(file).over(Settings(models={"m": MODEL})).models["m"].context == 512
    assert Tunings(file).over(Settings(models={"other": MODEL})).models["other"] == MODEL
    kept.put("m", Tuning())
    assert list(Tunings(file).all()) == ["n"]
    assert file.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("text", ["", "{", "[]", '{"m": 3}', '{"m": {"context": -1, "idle_timeout_s": "soon"}}'])
def test_a_damaged_file_stops_nothing(tmp_path: Path, text: str) -> None:
    """It is as if nothing had been asked for."""
    file = tmp_path / "tunings.json"
    file.write_text(text)
    assert not any(Tunings(file).all().values())
