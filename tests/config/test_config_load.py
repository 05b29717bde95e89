"""Which file is used, what overrides it, and where each value came from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from corral.config.render import as_yaml
from corral.config.settings import Listen
from corral.config.trust import trust
from corral.errors import ConfigError
from support.configs import Place

ONE = "models: [{name: one, source: builtin:demo}]\n"
TWO = "models: [{name: two, source: builtin:demo}]\n"


def names(place: Place, config: Path | None = None, **variables: Any) -> list[str]:
    return list(place.load(config, **variables).settings.models)


def test_without_any_file_the_demo_model_is_served(tmp_path: Path) -> None:
    """Somebody without a models.yaml gets the demo model, also for requests that name none."""
    loaded = Place(tmp_path).load()
    assert loaded.file is None
    assert list(loaded.settings.models) == ["demo"]
    assert loaded.settings.default_model == "demo"
    assert not loaded.warnings
    assert str(loaded.origin(("models", "demo", "source"))) == "built-in"


def test_the_search_order(tmp_path: Path) -> None:
    """--config, CORRAL_CONFIG, the trusted working directory, the user's file, the machine's, the built-in one."""
    place = Place(tmp_path)
    found = []
    files = {
        step: place.write(file, f"models: [{{name: {step}, source: builtin:demo}}]\n")
        for step, file in {
            "config": tmp_path / "a.yaml",
            "variable": tmp_path / "b.yaml",
            "directory": place.cwd / "models.yaml",
            "user": place.paths.user_config,
            "system": place.paths.system_config,
        }.items()
    }
    trust(place.paths, place.cwd)
    found += names(place, files["config"], CORRAL_CONFIG=str(files["variable"]))
    found += names(place, CORRAL_CONFIG=str(files["variable"]))
    for step in ("directory", "user", "system"):
        found += names(place)
        files[step].unlink()
    found += names(place)
    assert found == ["config", "variable", "directory", "user", "system", "demo"]


def test_a_file_that_was_named_must_exist(tmp_path: Path) -> None:
    """A missing --config or CORRAL_CONFIG is an error, and nothing else is used instead."""
    place = Place(tmp_path)
    place.user(ONE)
    with pytest.raises(ConfigError, match="there is no such file"):
        place.load(tmp_path / "nowhere.yaml")
    with pytest.raises(ConfigError, match="there is no such file"):
        place.load(CORRAL_CONFIG="nowhere.yaml")


def test_a_file_in_use_must_still_be_there(tmp_path: Path) -> None:
    """What a running server has and is gone, or no longer trusted, is an error with the way out: neither the next file
    of the search nor the built-in one stands for it. A file that comes before it, or the first of all, is taken up."""
    place = Place(tmp_path)
    assert place.load(in_use=None).file is None
    user = place.user(ONE)
    assert place.load(in_use=None).file == user
    place.write(place.paths.system_config, TWO)
    user.unlink()
    for _ in ("the system's file is next", "none is"):
        with pytest.raises(ConfigError, match="this file is in use, and is gone") as caught:
            place.load(in_use=user)
        assert str(user) in caught.value.message and "restart Corral" in caught.value.hint
        place.paths.system_config.unlink(missing_ok=True)
    place.user(ONE)
    local = place.write(place.cwd / "models.yaml", TWO)
    assert place.load(in_use=user).file == user
    trust(place.paths, place.cwd)
    assert place.load(in_use=user).file == local
    user.unlink()
    assert place.load(in_use=user).file == local, "what comes before it says more anyway"
    local.chmod(0o666)
    with pytest.raises(ConfigError, match="may not be used any more"):
        place.load(in_use=local)


def test_relative_names_start_at_the_working_directory(tmp_path: Path) -> None:
    """--config and CORRAL_CONFIG are seen from the working directory, and know ~ in the one case a shell does not."""
    place = Place(tmp_path)
    place.write(place.cwd / "sub" / "x.yaml", ONE)
    assert names(place, Path("sub/x.yaml")) == ["one"]
    assert names(place, CORRAL_CONFIG="sub/x.yaml") == ["one"]


def test_the_working_directory_counts_only_when_trusted(tmp_path: Path) -> None:
    """A models.yaml that merely lies in the working directory is not used, and a warning says how to."""
    place = Place(tmp_path)
    place.user(ONE)
    place.write(place.cwd / "models.yaml", TWO)
    loaded = place.load()
    assert list(loaded.settings.models) == ["one"]
    (warning,) = loaded.warnings
    assert "not trusted" in warning.message
    assert f"corral trust {place.cwd}" in warning.hint
    trust(place.paths, place.cwd)
    assert names(place) == ["two"]
    assert not place.load().warnings


def test_a_trusted_directory_that_others_may_write_to_counts_no_longer(tmp_path: Path) -> None:
    """Trust lapses while everybody may change the directory or the file."""
    place = Place(tmp_path)
    file = place.write(place.cwd / "models.yaml", TWO)
    trust(place.paths, place.cwd)
    place.cwd.chmod(0o777)
    assert names(place) == ["demo"]
    place.cwd.chmod(0o755)
    file.chmod(0o666)
    assert names(place) == ["demo"]
    assert any("changed by every user" in p.message for p in place.load().warnings)
    file.chmod(0o644)
    assert names(place) == ["two"]


def test_flags_beat_the_environment_beats_dotenv_beats_the_file_beats_defaults(tmp_path: Path) -> None:
    """defaults < file < .env < environment < flags, and each value knows which it was."""
    place = Place(tmp_path)
    file = place.user(ONE + "max_queue: 1\nmax_active: 1\nmax_body: 1KiB\nlisten: 1001\n")
    place.write(file.parent / ".env", "# mine\n\nCORRAL_MAX_ACTIVE=2\nCORRAL_MAX_BODY=2KiB\nCORRAL_LISTEN=1002\n")
    loaded = place.load(flags={"listen": ["127.0.0.1:1004"]}, CORRAL_MAX_BODY="3KiB", CORRAL_LISTEN="1003")
    settings = loaded.settings
    assert (settings.max_queue, settings.max_active, settings.max_body_bytes) == (1, 2, 3072)
    assert settings.listen == (Listen(port=1004),)
    assert [str(loaded.origin((key,))) for key in ("timeouts", "max_queue", "max_active", "max_body", "listen")] == [
        "default",
        "models.yaml:2",
        ".env:3",
        "CORRAL_MAX_BODY",
        "--listen",
    ]
    assert str(loaded.origin(("models", "one", "source"))) == "models.yaml:1"
    assert str(loaded.origin(("models", "one", "context"))) == "default"
    assert [loaded.origin((key,)).kind for key in ("max_queue", "max_active", "max_body", "listen")] == [
        "file",
        ".env",
        "environment",
        "flag",
    ]


def test_every_variable_reaches_its_key(tmp_path: Path) -> None:
    """Each CORRAL_ variable sets what it is documented to set."""
    place = Place(tmp_path)
    place.user("models: [{name: m, source: m.gguf}]")
    settings = place.load(
        CORRAL_LISTEN="127.0.0.1:1, unix:x.sock",
        CORRAL_DEFAULT_MODEL="m",
        CORRAL_MAX_ACTIVE="3",
        CORRAL_MEMORY="cpu=1GiB,gpu0=2GiB",
        CORRAL_MAX_QUEUE="4",
        CORRAL_MAX_BODY="5MiB",
        CORRAL_TIMEOUT_START="1m",
        CORRAL_TIMEOUT_STOP="2",
        CORRAL_TIMEOUT_QUEUE="3s",
        CORRAL_TIMEOUT_DRAIN="4s",
        CORRAL_TIMEOUT_HANG="5s",
        CORRAL_ROOTS=f"{place.paths.config_dir}:{tmp_path}",
        CORRAL_EXECUTABLE_LLAMA_CPP="./llama-server",
    ).settings
    assert settings.listen == (Listen(port=1), Listen("", 0, place.cwd / "x.sock"))
    assert (settings.default_model, settings.max_active, settings.max_queue) == ("m", 3, 4)
    assert settings.memory == {"cpu": 1 << 30, "gpu0": 2 << 30}
    assert settings.max_body_bytes == 5 << 20
    timeouts = settings.timeouts
    assert (timeouts.start_s, timeouts.stop_s, timeouts.queue_s, timeouts.drain_s, timeouts.hang_s) == (60, 2, 3, 4, 5)
    assert settings.roots == (place.paths.config_dir, tmp_path)
    assert settings.models["m"].executable == str(place.cwd / "llama-server")


def test_names_that_other_programs_know_are_defaults_of_every_model(tmp_path: Path) -> None:
    """What people set for GPUs already counts for models that do not say otherwise, and where it came from is told."""
    place = Place(tmp_path)
    place.user(
        """\
        models:
          - {name: plain, source: m.gguf}
          - {name: own, source: m.gguf, gpu_layers: 0, gpu_backend: cuda, env: {VK_ICD_FILENAMES: /mine.json}}
        """
    )
    loaded = place.load(
        LLAMA_GPU_LAYERS="33", LLAMA_VULKAN_ENABLE="1", VK_ICD_FILENAMES="/a.json:${B}.json", CUDA_VISIBLE_DEVICES=""
    )
    plain, own = (loaded.settings.models[name] for name in ("plain", "own"))
    assert (plain.gpu_layers, plain.gpu_backend) == (33, "vulkan")
    assert plain.env == {"VK_ICD_FILENAMES": "/a.json:${B}.json", "CUDA_VISIBLE_DEVICES": ""}
    assert (own.gpu_layers, own.gpu_backend, own.env["VK_ICD_FILENAMES"]) == (0, "cuda", "/mine.json")
    assert str(loaded.origin(("models", "plain", "gpu_layers"))) == "LLAMA_GPU_LAYERS"
    assert str(loaded.origin(("models", "plain", "env", "VK_ICD_FILENAMES"))) == "VK_ICD_FILENAMES"
    assert loaded.origin(("models", "own", "gpu_layers")).kind == "file"
    assert loaded.origin(("models", "own", "env", "VK_ICD_FILENAMES")).kind == "file"
    assert loaded.settings.guest("g", tmp_path).gpu_layers == 33
    assert place.load(LLAMA_VULKAN_ENABLE="0").settings.models["plain"].gpu_backend == "not-vulkan"
    place.write(place.paths.config_dir / ".env", "LLAMA_GPU_LAYERS=7\n")
    assert place.load().settings.gpu_layers == 7


def test_an_unknown_variable_is_a_warning_with_the_nearest(tmp_path: Path) -> None:
    """A misspelt variable does not pass in silence."""
    place = Place(tmp_path)
    place.user(ONE)
    place.write(place.paths.config_dir / ".env", "CORRAL_LISTN=1\nCORRAL_STATE_DIR=/x\nHF_TOKEN=x\nnonsense line\n")
    warnings = [str(p) for p in place.load(CORRAL_MAX_ACTIV="1", CORRAL_HOST="x", PATH="/bin").warnings]
    dotenv = place.paths.config_dir / ".env"
    assert warnings == [
        f"{dotenv}:1: unknown variable CORRAL_LISTN, ignored: did you mean `CORRAL_LISTEN`?",
        f"{dotenv}:2: CORRAL_STATE_DIR has no effect in a .env file: set it in the environment",
        f"{dotenv}:4: this line is not NAME=value: correct it",
        "environment: unknown variable CORRAL_MAX_ACTIV, ignored: did you mean `CORRAL_MAX_ACTIVE`?",
    ]


def test_a_wrong_variable_is_an_error_that_names_it(tmp_path: Path) -> None:
    """A variable is judged by the rule of its key, and the problem stands at the variable."""
    place = Place(tmp_path)
    place.user(ONE)
    (problem,) = place.examine(CORRAL_MAX_ACTIVE="many").errors
    assert str(problem).startswith("CORRAL_MAX_ACTIVE: `max_active` must be a whole number, not the text 'many'")


def test_an_empty_variable_says_nothing(tmp_path: Path) -> None:
    """A variable that is set to nothing counts as not set."""
    place = Place(tmp_path)
    place.user(ONE + "max_active: 1\n")
    assert place.load(CORRAL_MAX_ACTIVE="").settings.max_active == 1


def test_the_working_directorys_dotenv_counts_only_when_trusted(tmp_path: Path) -> None:
    """A .env of the working directory is used once the directory is trusted, over the one beside the file."""
    place = Place(tmp_path)
    place.user(ONE)
    place.write(place.paths.config_dir / ".env", "CORRAL_MAX_ACTIVE=1\nCORRAL_MAX_QUEUE=1\n")
    place.write(place.cwd / ".env", "CORRAL_MAX_ACTIVE=2\n")
    assert place.load().settings.max_active == 1
    trust(place.paths, place.cwd)
    settings = place.load().settings
    assert (settings.max_active, settings.max_queue) == (2, 1)


def test_dotenv_values_are_literal_and_serve_expansion(tmp_path: Path) -> None:
    """A .env value is taken as it stands, may be quoted, and ${VAR} in the file finds it, after the environment."""
    place = Place(tmp_path)
    place.user("models: [{name: m, source: '${DIR}/${FILE}', env: {T: '$${x} ${T}'}}]")
    place.write(place.paths.config_dir / ".env", "export DIR='/data/${HOME}'\nFILE=x.gguf\nT=\"a b\"\n")
    model = place.load(FILE="y.gguf").settings.models["m"]
    assert model.source == Path("/data/${HOME}/y.gguf")
    assert model.env == {"T": "${x} a b"}


def test_sources_are_seen_from_the_file(tmp_path: Path) -> None:
    """A relative source starts at the file's directory, ~ at the home, and builtin:demo is the shipped model."""
    place = Place(tmp_path)
    file = place.user(
        "models:\n  a: {source: a.gguf}\n  b: {source: ~/b.gguf}\n  c: {source: /c.gguf}\n  d: {source: builtin:demo}\n"
    )
    models = place.load().settings.models
    assert models["a"].source == file.parent / "a.gguf"
    assert models["b"].source == place.home / "b.gguf"
    assert models["c"].source == Path("/c.gguf")
    assert models["d"].source.suffix == ".gguf"


def test_a_missing_model_file_is_a_warning_only(tmp_path: Path) -> None:
    """A file that is not there yet keeps one model from starting, not Corral."""
    place = Place(tmp_path)
    place.user("models: [{name: m, source: m.gguf}]")
    (warning,) = place.load().warnings
    assert "there is no file" in warning.message
    place.write(place.paths.config_dir / "m.gguf", "")
    assert not place.load().warnings


def test_the_engines_executable_holds_where_a_model_names_none(tmp_path: Path) -> None:
    """`executables` is the default of each model's `executable`; a path is seen from the file, a word from PATH."""
    place = Place(tmp_path)
    file = place.user(
        """\
        executables: {llama.cpp: bin/llama-server}
        models:
          a: {source: builtin:demo}
          b: {source: builtin:demo, executable: embedded}
          c: {source: builtin:demo, executable: llama-server}
        """
    )
    models = place.load().settings.models
    assert models["a"].executable == str(file.parent / "bin" / "llama-server")
    assert (models["b"].executable, models["c"].executable) == ("embedded", "llama-server")


def test_listening_beyond_loopback_needs_insecure(tmp_path: Path) -> None:
    """An address that others can reach is refused, unless everybody is said to be welcome."""
    place = Place(tmp_path)
    place.user(ONE + "listen: [127.0.0.1:8642, 0.0.0.0:9000]\n")
    with pytest.raises(ConfigError, match=r"listening beyond loopback \(0\.0\.0\.0:9000\) needs keys") as caught:
        place.load()
    assert "--insecure" in caught.value.hint
    assert len(place.load(insecure=True).settings.listen) == 2


def test_the_error_tells_programs_everything(tmp_path: Path) -> None:
    """ConfigError's details have each problem with file, line, column, path, message and hint."""
    place = Place(tmp_path)
    file = place.user("models:\n  - name: a\n    source: builtin:demo\n    contxt: 1\n    prot: 2\n")
    with pytest.raises(ConfigError, match=r"models.yaml:4:5: unknown key `contxt` \(and 1 more\)") as caught:
        place.load()
    assert caught.value.details["problems"] == [
        {
            "level": "error",
            "file": str(file),
            "line": line,
            "column": 5,
            "path": f"models.0.{key}",
            "message": f"unknown key `{key}`",
            "hint": hint,
        }
        for line, key, hint in (
            (4, "contxt", "did you mean `context`?"),
            (5, "prot", "did you mean `port`?"),
        )
    ]


def test_a_file_others_may_change_is_warned_about(tmp_path: Path) -> None:
    """A models.yaml that everybody may write to is used, since it was asked for, but not in silence."""
    place = Place(tmp_path)
    place.user(ONE).chmod(0o666)
    (warning,) = place.load().warnings
    assert "may be changed by every user" in warning.message


@pytest.mark.parametrize(
    ("keys", "message", "hint"),
    [
        ("source: /dev/null", "/dev/null is neither a file nor a folder", "name the model's own file"),
        ("source: .", "is a directory", "name the model's file in it"),
        ("source: none.gguf", "there is no file", "this model cannot start before there is one"),
        ("source: builtin:demo, port: 99999", "`port` must be between", "a port is a number from 1 to 65535"),
        ("source: builtin:demo, port: x", "`port` must be a whole number", "a port is a number from 1 to 65535"),
        ("source: builtin:demo, port: '8001'", "`port` must be a whole number", "without quotes it would be 8001"),
        (
            "source: builtin:demo, schedule: {from: '00:00', to: '00:00'}",
            "ends where it begins",
            "leave out from and to for the whole day",
        ),
    ],
)
def test_hints_say_what_to_do(tmp_path: Path, keys: str, message: str, hint: str) -> None:
    """A hint is about what is wrong, and not only about the key; what is there but no model's file is said to be so."""
    place = Place(tmp_path)
    place.user(f"models: [{{name: one, {keys}}}]\n")
    (problem,) = place.examine().problems
    assert message in problem.message and problem.hint.startswith(hint)


def test_what_is_no_address_is_said_to_be_none(tmp_path: Path) -> None:
    """Before anything is said of keys: a mere word is no address, but a host's name with a port is one."""
    place = Place(tmp_path)
    with pytest.raises(ConfigError, match="'banana' is no address"):
        place.load(flags={"listen": ["banana"]})
    assert place.load(flags={"listen": ["localhost"]}).settings.listen[0].host == "localhost"
    with pytest.raises(ConfigError, match="needs keys"):
        place.load(flags={"listen": ["banana:8642"]})


def test_what_is_not_trusted_reads_as_a_sentence(tmp_path: Path) -> None:
    """The warnings about a working directory's file say what to run as a whole sentence."""
    place = Place(tmp_path)
    file = place.write(place.cwd / "models.yaml", TWO)
    (warning,) = place.load().warnings
    assert str(warning).endswith(f"so not used: to use it, read it and run: corral trust {place.cwd}")
    trust(place.paths, place.cwd)
    file.chmod(0o666)
    (warning,) = place.load().warnings
    assert str(warning).endswith(f"so not used: to use it, run: chmod o-w {file}")


def test_days_are_shown_as_days(tmp_path: Path) -> None:
    """`config show` writes durations as its documentation does."""
    text = as_yaml(Place(tmp_path).load().settings, masked=True)
    assert "responses_ttl: 30d" in text


def test_a_vanished_working_directory_is_no_obstacle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Corral finds its configuration even from a directory that was removed."""
    from corral.config.load import load

    place = Place(tmp_path)
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert list(load(paths=place.paths, env=place.env()).settings.models) == ["demo"]
