"""`corral config` and `corral trust` as programs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from corral.cli.main import run
from corral.config.paths import find_paths
from corral.config.schema import ModelKeys
from corral.engine_room import ENGINES
from corral.engines.args import REFUSALS

GOOD = "models: [{name: one, source: builtin:demo, env: {HF_TOKEN: s3cret}}]\n"
BAD = "models:\n  - name: one\n    source: builtin:demo\n    contxt: 1\n    port: x\n"


@pytest.fixture(autouse=True)
def _work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)


def corral(capsys: pytest.CaptureFixture[str], *args: str) -> tuple[int, str, str]:
    code = run(list(args))
    out, err = capsys.readouterr()
    return code, out, err


def test_check_shows_every_problem_and_ends_with_1(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """`config check FILE` prints all problems with line and nearest key, and ends with 1."""
    file = tmp_path / "bad.yaml"
    file.write_text(BAD)
    code, out, _ = corral(capsys, "config", "check", str(file))
    assert code == 1
    assert f"error: {file}:4:5: unknown key `contxt`: did you mean `context`?" in out
    assert f"error: {file}:5:5: `port` must be a whole number" in out
    assert f"{file}: 2 errors, 0 warnings" in out


def test_check_as_json(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """`config check --json` says the same to programs, with the same exit code."""
    file = tmp_path / "bad.yaml"
    file.write_text(BAD)
    code, out, _ = corral(capsys, "config", "check", "--json", str(file))
    data = json.loads(out)
    assert (code, data["ok"], data["file"]) == (1, False, str(file))
    assert [(p["line"], p["path"]) for p in data["problems"]] == [(4, "models.0.contxt"), (5, "models.0.port")]
    file.write_text(GOOD)
    code, out, _ = corral(capsys, "--json", "config", "check", str(file))
    assert (code, json.loads(out)["problems"]) == (0, [])


ARGS = """\
models:
  - name: one
    source: builtin:demo
    executable: embedded
    args: [--nonsense, '3', --temp, hot, --port, '99', --top-k, '40']
  - {name: two, source: builtin:demo, executable: embedded, args: [--top-k, '40']}
  - {name: three, source: builtin:demo, env: {LLAMA_ARG_PORT: '1'}}
  - {name: four, source: ., engine: vllm, args: [--port, '4']}
  - {name: five, source: ., engine: detector, args: [--nope]}
  - {name: six, source: builtin:demo, executable: "%s", args: [--temp, hot, --mine, --nonsense]}
  - {name: seven, source: builtin:demo, executable: "%s", args: [--temp, '0', --mine]}
  - {name: eight, source: builtin:demo, executable: /nowhere/llama-server, args: [--top-k, '1']}
"""


def test_check_knows_the_flags_that_engines_refuse(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Every flag in `args` that no start of its model would take is an error at its line: by the embedded engine's
    table, by what a llama-server's `--help` lists, by what is Corral's own. What an engine takes is none."""
    program = tmp_path / "llama-server"
    listed = "--model FNAME  m\n--host HOST  h\n--temp N  t\n--mine  own"
    program.write_text(f"#!/bin/sh\necho 'version: 1 (abc)'\necho '{listed}'\n")
    program.chmod(0o755)
    file = tmp_path / "models.yaml"
    file.write_text(ARGS % (program, program))
    code, out, _ = corral(capsys, "config", "check", "--json", str(file))
    found = [(each["line"], each["path"].split(".")[1], each["message"]) for each in json.loads(out)["problems"]]
    assert code == 1
    assert found == [
        (5, "one", "one: the flag --port is Corral's own"),
        (5, "one", "one: the embedded engine does not know the flag --nonsense"),
        (5, "one", "one: the flag --temp wants a number, not 'hot'"),
        (7, "three", "three: the variable LLAMA_ARG_PORT in `env` of three is an engine flag in disguise"),
        (8, "four", "four: the flag --port is Corral's own"),
        (9, "five", "five: the detector does not know '--nope'"),
        (10, "six", f"six: {program} (llama.cpp b1) does not know the flag --nonsense"),
        (10, "six", "six: the flag --temp wants a number, not 'hot'"),
    ]


def test_every_engine_has_its_flags_checked() -> None:
    """An engine without a check would have its flags called right."""
    assert set(REFUSALS) == set(ENGINES)


def test_check_without_a_file_looks_at_the_one_in_use(capsys: pytest.CaptureFixture[str]) -> None:
    """`config check` judges the configuration in use, the built-in one included."""
    code, out, _ = corral(capsys, "config", "check")
    assert code == 0
    assert "the built-in configuration: right, 1 model" in out


def test_init_then_check_then_show(capsys: pytest.CaptureFixture[str]) -> None:
    """A newcomer's way: init says what is next, check finds it right, show tells it all."""
    user = find_paths().user_config
    code, out, _ = corral(capsys, "config", "init", "--example")
    assert code == 0
    assert f"Wrote {user}" in out
    assert "corral serve" in out
    code, _, err = corral(capsys, "config", "init")
    assert code == 5
    assert "--force" in err
    assert corral(capsys, "config", "check")[0] == 0
    code, out, _ = corral(capsys, "config", "show", "--origin")
    assert code == 0
    assert "port: 8002" in out
    assert "# models.yaml:" in out
    assert "# default" in out


def test_show_masks_secrets(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """No form of `config show` prints a secret."""
    file = tmp_path / "m.yaml"
    file.write_text(GOOD)
    for more in ([], ["--origin"], ["--json"], ["--json", "--origin"]):
        code, out, err = corral(capsys, "config", "show", "--config", str(file), *more)
        assert code == 0
        assert "HF_TOKEN" in out
        assert "s3cret" not in out + err


def test_show_refuses_a_wrong_configuration(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """`config show` has nothing to show when the configuration is wrong, and says why."""
    file = tmp_path / "bad.yaml"
    file.write_text(BAD)
    code, out, err = corral(capsys, "config", "show", "--config", str(file))
    assert (code, out) == (5, "")
    assert "unknown key `contxt`" in err
    assert "`port` must be a whole number" in err


def test_schema_is_json(capsys: pytest.CaptureFixture[str]) -> None:
    """`config schema` prints a JSON Schema that knows each model key."""
    code, out, _ = corral(capsys, "config", "schema")
    assert code == 0
    assert set(json.loads(out)["$defs"]["ModelKeys"]["properties"]) == set(ModelKeys.model_fields)


def test_path_prints_one_path(capsys: pytest.CaptureFixture[str]) -> None:
    """`config path` prints one path and nothing else on standard output; --all the whole search."""
    user = find_paths().user_config
    code, out, err = corral(capsys, "config", "path")
    assert (code, out) == (0, f"{user}\n")
    assert "corral config init" in err
    corral(capsys, "config", "init")
    assert corral(capsys, "config", "path")[1:] == (f"{user}\n", "")
    _, out, _ = corral(capsys, "config", "path", "--all")
    assert [line.split()[0] for line in out.splitlines()] == ["absent", "used", "after", "after"]


def test_trust_makes_a_directorys_file_count(capsys: pytest.CaptureFixture[str]) -> None:
    """A models.yaml in the working directory counts from `trust` to `trust --remove`."""
    Path("models.yaml").write_text(GOOD)
    here = str(Path.cwd().resolve())
    _, out, _ = corral(capsys, "config", "path")
    assert out != f"{here}/models.yaml\n"
    assert "corral trust" in corral(capsys, "config", "check")[1]
    assert corral(capsys, "trust")[:2] == (0, f"{here} is trusted.\n")
    assert corral(capsys, "config", "path")[1] == f"{here}/models.yaml\n"
    assert corral(capsys, "trust", "--list")[1] == f"{here}\n"
    assert corral(capsys, "trust", "--remove")[0] == 0
    assert corral(capsys, "config", "path")[1] != f"{here}/models.yaml\n"
    assert json.loads(corral(capsys, "trust", "--list", "--json")[1]) == []


def test_trust_refuses_a_directory_of_everybody(capsys: pytest.CaptureFixture[str]) -> None:
    """`trust` of a directory that everybody may write to is refused with the reason."""
    Path.cwd().chmod(0o777)
    code, _, err = corral(capsys, "trust")
    assert code == 5
    assert "may be changed by every user" in err


def test_a_whole_process_does_the_same(tmp_path: Path) -> None:
    """`python -m corral config check FILE` as a process of its own ends with 1 and prints the problems."""
    file = tmp_path / "bad.yaml"
    file.write_text(BAD)
    done = subprocess.run(
        [sys.executable, "-m", "corral", "config", "check", str(file)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1
    assert "did you mean `context`?" in done.stdout
    assert done.stderr == ""


def test_paths_stay_cheap_to_import() -> None:
    """`corral.config.paths` and `trust` pull in neither pydantic nor yaml: every command pays for them."""
    code = (
        "import sys, corral.config.paths, corral.config.trust;"
        "print([m for m in ('pydantic', 'yaml', 'dotenv', 'asyncio', 'subprocess') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"
