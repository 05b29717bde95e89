"""What is shipped with the configuration: the example, the first file, the schema and the documentation."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from corral.config.environment import GPU_VARIABLES, PLACES, VARIABLES
from corral.config.init import example_text, init, starter_text
from corral.config.schema import ExecutableKeys, GlobalKeys, ModelKeys, TimeoutKeys, json_schema
from corral.config.settings import SERVER_KEYS, VLLM_KEYS
from corral.engines.flags import check_allowed, parse
from corral.errors import ConfigError
from support.configs import Place

DOCS = Path(__file__).parents[2] / "docs" / "configuration.md"


def section(heading: str) -> str:
    text = DOCS.read_text(encoding="utf-8")
    return text.split(f"## {heading}\n")[1].split("\n## ")[0]


def rows(text: str) -> dict[str, list[str]]:
    """Tables' rows by their first cell, which is in backquotes."""
    return {
        match[1]: [cell.strip() for cell in match[2].split("|")]
        for match in re.finditer(r"^\| `([^`]+)` \|(.*)\|$", text, re.MULTILINE)
    }


def test_the_example_is_right(tmp_path: Path) -> None:
    """The example loads: two models on ports of their own, one at a time; only their files are missing."""
    place = Place(tmp_path)
    init(place.paths, example=True)
    loaded = place.load()
    models = loaded.settings.models
    assert {name: model.port for name, model in models.items()} == {"gpt-oss-120b": 8002, "qwen3-coder-30b": 8001}
    assert loaded.settings.max_active == 1
    assert all(model.source.is_relative_to(place.home / "models") for model in models.values())
    assert all("there is no file" in warning.message for warning in loaded.warnings)
    assert len(loaded.warnings) == 2


def test_the_examples_flags_are_flags(tmp_path: Path) -> None:
    """The embedded engine knows every flag of the example, and none of them is Corral's own to decide."""
    place = Place(tmp_path)
    init(place.paths, example=True)
    for model in place.load().settings.models.values():
        check_allowed(model.args)
        assert parse(model.args)


def test_the_first_file_serves_the_demo_model(tmp_path: Path) -> None:
    """What `config init` writes is right as it stands, and so are its commented keys."""
    place = Place(tmp_path)
    written = init(place.paths)
    assert list(place.load().settings.models) == ["demo"]
    opened = re.sub(r"^( *)# (?=- name|  \w+: |max_active)", r"\1", starter_text(), flags=re.MULTILINE)
    written.file.write_text(opened)
    loaded = place.load()
    assert list(loaded.settings.models) == ["demo", "my-model"]
    assert loaded.settings.max_active == 1


def test_init_never_loses_a_file(tmp_path: Path) -> None:
    """A models.yaml that is there stays without `force`, and is kept beside the new one with it."""
    paths = Place(tmp_path).paths
    assert init(paths).backup is None
    assert paths.user_config.stat().st_mode & 0o777 == 0o600
    paths.user_config.write_text("mine")
    with pytest.raises(ConfigError, match="is there already"):
        init(paths)
    assert paths.user_config.read_text() == "mine"
    written = init(paths, example=True, force=True)
    assert written.backup is not None
    assert written.backup.read_text() == "mine"
    assert paths.user_config.read_text() == example_text()


def test_init_keeps_a_link_a_link(tmp_path: Path) -> None:
    """Where models.yaml is a link into somebody's dotfiles, the file there is written."""
    place = Place(tmp_path)
    dotfile = place.write(tmp_path / "dotfiles" / "models.yaml", "mine")
    place.paths.config_dir.mkdir(parents=True)
    place.paths.user_config.symlink_to(dotfile)
    init(place.paths, force=True)
    assert place.paths.user_config.is_symlink()
    assert dotfile.read_text() == starter_text()


def test_init_says_when_it_cannot_write(tmp_path: Path) -> None:
    """A place that cannot be written to is a ConfigError."""
    place = Place(tmp_path)
    place.paths.config_dir.parent.mkdir(parents=True)
    place.paths.config_dir.write_text("a file where the directory should be")
    with pytest.raises(ConfigError, match="cannot write"):
        init(place.paths)


def test_the_schema_describes_every_key() -> None:
    """The JSON Schema has each key with a description, and refuses others."""
    schema = json_schema()
    parts: list[tuple[Any, dict[str, Any]]] = [(GlobalKeys, schema)]
    parts += [(kind, schema["$defs"][kind.__name__]) for kind in (ModelKeys, TimeoutKeys, ExecutableKeys)]
    for kind, part in parts:
        names = {field.alias or name for name, field in kind.model_fields.items()}
        assert names <= set(part["properties"])
        assert all(part["properties"][name].get("description") for name in names)
        assert part["additionalProperties"] is False
    sourced = [{"required": ["source"]}, {"required": ["endpoint"]}]
    assert schema["$defs"]["ModelKeys"]["required"] == ["name"]
    assert "required" not in schema["$defs"]["NamedModelKeys"]
    assert schema["$defs"]["ModelKeys"]["anyOf"] == schema["$defs"]["NamedModelKeys"]["anyOf"] == sourced


def test_every_key_is_documented() -> None:
    """docs/configuration.md has a row for each key of the schema, and for no other."""
    globals_, models = rows(section("Global keys")), rows(section("Keys of a model"))
    assert set(models) == set(ModelKeys.model_fields)
    assert set(globals_) == {*GlobalKeys.model_fields, "models", *TimeoutKeys.model_fields}


def test_documented_examples_are_right(tmp_path: Path) -> None:
    """The example of each documented key is accepted."""
    place = Place(tmp_path)
    for key, cells in rows(section("Keys of a model")).items():
        engine = {"engine": "vllm"} if key in VLLM_KEYS else {}
        if key in SERVER_KEYS:
            engine = {"runner": "server", "endpoint": "http://127.0.0.1:8000"}
        entry = {"name": "m", "source": "builtin:demo", **engine, key: yaml.safe_load(cells[2].strip("`"))}
        assert not [p for p in place.problems(yaml.safe_dump({"models": [entry]})) if p.level == "error"], key
    for key, cells in rows(section("Global keys")).items():
        if key == "models" or key in TimeoutKeys.model_fields:
            continue
        data = {"models": [{"name": "coder", "source": "builtin:demo"}], key: yaml.safe_load(cells[2].strip("`"))}
        assert not [p for p in place.problems(yaml.safe_dump(data)) if p.level == "error"], key


def test_documented_defaults_are_right(tmp_path: Path) -> None:
    """A default that the documentation states is the one in effect."""
    place = Place(tmp_path)
    place.user("models: [{name: m, source: builtin:demo}]")
    plain = place.load().settings
    place.user("models: [{name: m, source: ., engine: vllm}]")
    vllm = place.load().settings
    for key, cells in rows(section("Keys of a model")).items():
        if cells[1].startswith("`"):
            engine = "source: ., engine: vllm" if key in VLLM_KEYS else "source: builtin:demo"
            place.user(f"models: [{{name: m, {engine}, {key}: {cells[1].strip('`')}}}]")
            assert place.load().settings == (vllm if key in VLLM_KEYS else plain), key
    for key, cells in rows(section("Global keys")).items():
        timeout = key in TimeoutKeys.model_fields
        default = cells[0 if timeout else 1]
        if default.startswith("`") and key != "models":
            line = f"timeouts: {{{key}: {default.strip('`')}}}" if timeout else f"{key}: {default.strip('`')}"
            place.user(f"models: [{{name: m, source: builtin:demo}}]\n{line}")
            assert place.load().settings == plain, key


def test_every_variable_is_documented(tmp_path: Path) -> None:
    """docs/configuration.md has each variable, with an example that is accepted."""
    table = rows(section("What overrides what"))
    assert set(table) == {*(each.name for each in (*VARIABLES, *GPU_VARIABLES)), *PLACES}
    place = Place(tmp_path)
    place.user("models: [{name: coder, source: builtin:demo}]")
    for each in (*VARIABLES, *GPU_VARIABLES):
        variables: dict[str, Any] = {each.name: table[each.name][1].strip("`")}
        loaded = place.load(**variables)
        assert loaded.origin(each.key).kind == "environment"


def test_the_documented_file_is_right(tmp_path: Path) -> None:
    """The whole file at the top of the documentation loads."""
    place = Place(tmp_path)
    text = re.search(r"```yaml\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)
    assert text is not None
    place.user(text[1])
    assert list(place.load().settings.models) == ["coder", "writer"]
