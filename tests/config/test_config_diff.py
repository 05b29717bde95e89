"""What a reload changes."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from corral.config.diff import RELAUNCH_KEYS, changes
from corral.config.schema import ModelKeys
from corral.config.settings import Download, Listen, ModelSettings, Settings, Timeouts, Tls


def settings(*models: ModelSettings, **keys: Any) -> Settings:
    return Settings({each.name: each for each in models}, **keys)


def model(name: str, **keys: Any) -> ModelSettings:
    return ModelSettings(name, Path("/m.gguf"), **keys)


def test_the_same_configuration_has_no_changes() -> None:
    """Equal settings, read from whatever file, differ in nothing."""
    found = changes(settings(model("a", env={"A": "1"})), settings(model("a", env={"A": "1"}), file=Path("/x")))
    assert not found
    assert found.text() == "nothing changed"


def test_models_are_added_removed_and_changed() -> None:
    """Models are compared by name, and a changed one names the keys as they stand in the file."""
    found = changes(
        settings(model("gone"), model("same"), model("other", context=1)),
        settings(model("same"), model("other", context=2, idle_timeout_s=None), model("new")),
    )
    assert (found.added, found.removed) == (("new",), ("gone",))
    assert found.changed == {"other": ("context", "idle_timeout")}
    assert found.text() == "1 added (new); 1 removed (gone); 1 changed (other)"


def test_only_what_an_engine_was_started_with_makes_it_stale() -> None:
    """A model whose launch keys changed needs a new engine; one whose scheduling changed does not."""
    old = settings(model("a"), model("b"))
    new = settings(model("a", args=("--x",)), model("b", priority=3, port=1, aliases=("c",)))
    assert changes(old, new).relaunch == ("a",)
    assert set(RELAUNCH_KEYS) <= set(ModelKeys.model_fields)


def test_what_waits_for_a_restart() -> None:
    """Of the global keys, `download` needs a restart; the others take effect at once, new addresses too."""
    old = settings()
    new = settings(
        listen=(Listen(port=1),), max_active=1, max_body_bytes=1, timeouts=Timeouts(stop_s=1), default_model="x",
        download=Download(connections=2),
    )  # fmt: skip
    found = changes(old, new)
    assert found.needs_restart == ("download",)
    assert found.settings == ("listen", "max_active", "max_body", "default_model", "timeouts")
    assert found.text().endswith("in effect after a restart: download")


@pytest.mark.parametrize(
    "more",
    [{"dialect": "ollama"}, {"insecure": True}, {"tls": Tls(Path("/c.pem"), Path("/k.pem"))}, {"page": Path("/p")}],
)
def test_what_is_said_about_an_address_may_change(more: dict[str, Any]) -> None:
    """The address stays the same; that is a change all the same."""
    assert Listen(port=1) == Listen(port=1, **more)
    assert changes(settings(listen=(Listen(port=1),)), settings(listen=(Listen(port=1, **more),))).settings == (
        "listen",
    )


def test_every_field_is_compared() -> None:
    """A field that is added to the settings cannot be forgotten here."""
    fresh: dict[str, Any] = {name: object() for name in _fields(ModelSettings) if name != "name"}
    old, new = model("a"), dataclasses.replace(model("a"), **fresh)
    (keys,) = changes(settings(old), settings(new)).changed.values()
    assert len(keys) == len(_fields(ModelSettings)) - 2  # `source` speaks for `ref` too


def _fields(kind: type[ModelSettings]) -> list[str]:
    return [each.name for each in dataclasses.fields(kind)]
