"""Plans of servers that run already."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from corral.config.settings import ModelSettings
from corral.engines.adapter import Start
from corral.engines.elsewhere import Elsewhere
from corral.engines.plan import Endpoint
from corral.errors import StartFailed

MODEL = ModelSettings(
    "m", Path("x"), engine="vllm", runner="server", endpoint="http://127.0.0.1:8000", served_model="org/q", parallel=8
)
OURS = Endpoint(socket=Path("/run/corral/m.1.sock"))


def test_nothing_is_started() -> None:
    """The plan has its address, its name for the model, and neither a command nor memory."""
    plan = Elsewhere().plan(Start(MODEL, 1, OURS))
    assert (plan.argv, dict(plan.env), plan.mounts, plan.devices, plan.footprint.total_bytes) == ((), {}, (), (), 0)
    assert plan.endpoint == Endpoint(None, "127.0.0.1", 8000, model="org/q") and plan.slots == 8
    assert not plan.ours and plan.probe.counters == "/metrics"
    assert json.loads(plan.probe.canary_body)["model"] == "org/q"
    llama = Elsewhere().plan(Start(replace(MODEL, engine="llama.cpp", endpoint="unix:/run/l.sock"), 1, OURS))
    assert llama.endpoint.socket == Path("/run/l.sock") and llama.probe.canary == "/completion"


def test_a_key_is_read_and_hidden(tmp_path: Path) -> None:
    """From a file or a variable; no text of the plan has it."""
    file = tmp_path / "key"
    file.write_text("sesame\n")
    for model in (replace(MODEL, api_key_file=file), replace(MODEL, api_key_env="K")):
        plan = Elsewhere({"K": "sesame"}).plan(Start(model, 1, OURS))
        assert plan.endpoint.key == "sesame"
        assert "sesame" not in f"{plan!r} {plan.endpoint}"


@pytest.mark.parametrize(("text", "says"), [("", "has nothing in it"), ("a b", "more in it"), ("k\nl", "more in it")])
def test_a_key_that_is_none_is_told(tmp_path: Path, text: str, says: str) -> None:
    file = tmp_path / "key"
    file.write_text(text)
    with pytest.raises(StartFailed, match=says):
        Elsewhere().plan(Start(replace(MODEL, api_key_file=file), 1, OURS))
    with pytest.raises(StartFailed, match="cannot be read: No such file"):
        Elsewhere().plan(Start(replace(MODEL, api_key_file=tmp_path / "none"), 1, OURS))
    with pytest.raises(StartFailed, match="the variable K is not set"):
        Elsewhere({}).plan(Start(replace(MODEL, api_key_env="K"), 1, OURS))
