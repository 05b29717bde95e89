"""Models whose server runs already, in models.yaml."""

from __future__ import annotations

from pathlib import Path

import pytest

from corral.config.diff import changes
from corral.config.load import Loaded
from corral.config.render import as_yaml
from support.configs import Place

SERVER = "runner: server, endpoint: 'http://127.0.0.1:8000'"


def loaded(place: Place, keys: str, more: str = "") -> Loaded:
    place.user(f"models: [{{name: m, {keys}}}]\n{more}")
    return place.load()


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("http://127.0.0.1:8000", "http://127.0.0.1:8000"),
        ("http://localhost:8000/", "http://127.0.0.1:8000"),
        ("http://192.168.1.20", "http://192.168.1.20:80"),
        ("http://100.64.3.4:9", "http://100.64.3.4:9"),
        ("http://[::1]:8000", "http://[::1]:8000"),
        ("http://[fd00::5]:8000", "http://[fd00::5]:8000"),
        ("unix:/run/vllm.sock", "unix:/run/vllm.sock"),
    ],
)
def test_an_endpoint_is_near(tmp_path: Path, given: str, kept: str) -> None:
    """Addresses of this machine and of private networks, and sockets."""
    model = loaded(Place(tmp_path), f"runner: server, endpoint: '{given}'").settings.models["m"]
    assert model.endpoint == kept and model.idle_timeout_s is None


def test_a_sockets_path_is_seen_from_the_file(tmp_path: Path) -> None:
    """As every path is, with variables and the home directory."""
    place = Place(tmp_path)
    model = loaded(place, "runner: server, endpoint: 'unix:run/v.sock', api_key_file: keys/v").settings.models["m"]
    folder = place.paths.user_config.parent
    assert (model.endpoint, model.api_key_file) == (f"unix:{folder}/run/v.sock", folder / "keys/v")


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ("runner: server, endpoint: 'https://127.0.0.1:8000'", "`endpoint` is https, which Corral does not speak"),
        ("runner: server, endpoint: 'http://8.8.8.8:8000'", "`endpoint` is at 8.8.8.8, which is not of this machine"),
        ("runner: server, endpoint: 'http://0.0.0.0:8000'", "`endpoint` is at 0.0.0.0, which is not of this machine"),
        ("runner: server, endpoint: 'http://vllm:8000'", "`endpoint` names the host 'vllm': write its address"),
        ("runner: server, endpoint: 'http://127.0.0.1:8000/v1'", "has a path: give the address alone, such as http:"),
        ("runner: server, endpoint: 'http://u:p@127.0.0.1'", "`endpoint` has a user or password in it"),
        ("runner: server, endpoint: 'http://127.0.0.1:99999'", "`endpoint` is no address of a server"),
        ("runner: server, endpoint: '127.0.0.1:8000'", "`endpoint` is no address of a server"),
        ("runner: server, endpoint: 'unix:'", "`endpoint` names no socket"),
        ("runner: server", "`endpoint` is missing"),
        ("runner: server, endpoint: null", "`endpoint` is missing"),
        (f"{SERVER}, engine: detector", "a server of the engine detector that runs already is not known"),
        (f"{SERVER}, api_key_env: K, api_key_file: k", "the key is named twice"),
        (f"{SERVER}, api_key_env: sk-1234", "`api_key_env` must be the name of a variable"),
        (f"{SERVER}, source: ai/smollm2", "`source` is no file here, and a server that runs already fetches none"),
        ("source: 'builtin:demo', served_model: x", "`served_model` is for a server that runs already"),
        ("source: 'builtin:demo', endpoint: 'http://127.0.0.1:8000'", "`endpoint` is for a server that runs already"),
        ("aliases: [n]", "`source` is missing"),
    ],
)
def test_what_cannot_be_is_explained(tmp_path: Path, keys: str, says: str) -> None:
    """One error each, with a hint."""
    (problem,) = [p for p in Place(tmp_path).problems(f"models: [{{name: m, {keys}}}]\n") if p.level == "error"]
    assert says in str(problem) and problem.hint, problem


def test_what_says_nothing_to_it_is_left_out(tmp_path: Path) -> None:
    """The same model is served by another's server when one word and its address change: what is about starting it is
    warned of and does not count, of the global keys neither."""
    place = Place(tmp_path)
    keys = f"engine: vllm, {SERVER}, args: [--x, y], sleep: 1, replicas: 2, exclusive: true, max_num_seqs: 32"
    found = loaded(place, keys, "env: {A: b}\nsandbox: auto\nlimits: true\n")
    warned = {problem.key[-1] for problem in place.problems(place.paths.user_config.read_text())}
    assert warned == {"args", "sleep", "replicas", "exclusive", "max_num_seqs"}
    model = found.settings.models["m"]
    assert (model.args, dict(model.env), model.sleep, model.replicas, model.exclusive) == ((), {}, 0, 1, False)
    assert (model.sandbox, model.limits, model.parallel) == ("off", False, 32)


def test_it_is_shown_as_it_can_be_read(tmp_path: Path) -> None:
    """`config show` gives the same again, without a warning; a changed address has the engine taken up anew."""
    place = Place(tmp_path)
    before = loaded(place, f"{SERVER}, served_model: q, api_key_env: K").settings
    shown = as_yaml(before)
    place.user(shown)
    assert place.problems(shown) == []
    assert place.load().settings.models == before.models
    after = loaded(place, "runner: server, endpoint: 'http://127.0.0.1:8001', served_model: q, api_key_env: K").settings
    assert changes(before, after).relaunch == ("m",)


def test_it_takes_no_place_of_others(tmp_path: Path) -> None:
    """Preloaded and pinned beside as many others as there may be."""
    others = "models:\n  a: {source: 'builtin:demo', preload: true, pin: true}\n"
    text = f"max_active: 1\n{others}  m: {{{SERVER}, preload: true, pin: true}}\n"
    assert Place(tmp_path).problems(text) == []
