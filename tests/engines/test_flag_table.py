"""The table of flags: each row against the real engine's parameters, and all of it against a real llama-server."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import xllamacpp

from corral.engines import executables, flags
from corral.engines.flag_table import ABSENT, FLAGS, REFUSED, Flag
from corral.errors import EngineFlagError
from support.llama import llama_server

_LINES = Path(__file__).with_name("flag_samples.txt").read_text(encoding="utf-8").splitlines()
SAMPLES = dict(line.split(" | ", 1) for line in _LINES if line.startswith("-"))
"""`flag value` → what it must have set."""


def sampled(flag: Flag) -> tuple[str | None, str]:
    """The sample value of `flag`, and its expectations."""
    for left, right in SAMPLES.items():
        name, _, value = left.partition(" ")
        if name in flag.names:
            return value or None, right
    raise AssertionError(f"no sample for {flag.names}")


def value_of(text: str | None, folder: Path) -> list[str]:
    if text is None:
        return []
    if text == "FOLDER":
        return [str(folder)]
    if text.startswith("FILE:"):
        file = folder / "value"
        file.write_text(text.removeprefix("FILE:").replace("\\n", "\n"))
        return [str(file)]
    return [text]


def applied(argv: list[str]) -> Any:
    params = xllamacpp.CommonParams()
    flags.apply(flags.parse(argv), xllamacpp, params)
    return params


def seen(params: Any, path: str) -> Any:
    path, _, fields = path.partition("@")
    found = params
    for part in path.split("."):
        name, bracket, piece = part.partition("[")
        found = getattr(found, name)
        if bracket:
            start, _, end = piece.rstrip("]").partition(":")
            found = found[int(start or 0) : int(end) if end else None]
    if fields:
        return [tuple(getattr(item, name) for name in fields.split(",")) for item in found]
    return found


def expected(text: str, folder: Path) -> Any:
    marks = {
        name.removeprefix("COMMON_PARAMS_SAMPLING_CONFIG_"): int(member)
        for name, member in xllamacpp.common_params_sampling_config.__members__.items()
    }
    return eval(text, {**vars(xllamacpp), **marks, "FOLDER": f"{folder}/"})


def opposite(value: Any) -> Any:
    assert isinstance(value, bool)
    return not value


@pytest.mark.parametrize("flag", FLAGS, ids=lambda flag: flag.names[-1])
def test_sets_the_parameter(flag: Flag, short_tmp: Path) -> None:
    """Each flag, in each of its spellings, sets the embedded engine's parameter to the value given."""
    text, wanted = sampled(flag)
    for name in flag.names:
        params = applied([name, *value_of(text, short_tmp)])
        for each in wanted.split("; "):
            if " in " in each:
                piece, _, path = each.partition(" in ")
                assert expected(piece, short_tmp) in seen(params, path), name
                continue
            path, _, value = re.split(r"(?<=[\w\]])(=)", each, maxsplit=1)
            assert seen(params, path) == expected(value, short_tmp), f"{name}: {path}"


@pytest.mark.parametrize("flag", [flag for flag in FLAGS if flag.off], ids=lambda flag: flag.off[-1])
def test_is_turned_off(flag: Flag, short_tmp: Path) -> None:
    """Each spelling that turns a flag off sets the opposite of the one that turns it on."""
    if flag.names == ("--reasoning-preserve",):
        assert applied(["--no-reasoning-preserve"]).default_template_kwargs == {"preserve_reasoning": "false"}
        return
    for name in flag.off:
        params = applied([name])
        for each in sampled(flag)[1].split("; "):
            path, _, value = each.partition("=")
            assert seen(params, path) == opposite(expected(value, short_tmp)), f"{name}: {path}"


def test_samples_are_not_defaults(short_tmp: Path) -> None:
    """The samples show something: but for switches on by default, none is what the parameter is without the flag."""
    same = []
    fresh = xllamacpp.CommonParams()
    for flag in FLAGS:
        wanted = [each for each in sampled(flag)[1].split("; ") if " in " not in each]
        pairs = [re.split(r"(?<=[\w\]])=", each, maxsplit=1) for each in wanted]
        if not flag.off and all(seen(fresh, path) == expected(value, short_tmp) for path, value in pairs):
            same.append(flag.names)
    assert [names[0] for names in same] == ["--spec-draft-ngl", "--spec-draft-device"]


def test_devices_are_the_engines_own() -> None:
    """A device that is not here is refused by the embedded engine itself."""
    for name in ("--device-draft", "--mmproj-device"):
        with pytest.raises(EngineFlagError, match="invalid device: NoSuchGPU9"):
            applied([name, "NoSuchGPU9"])


def test_no_spelling_twice() -> None:
    """A spelling means one thing: it is in one row, or absent, or refused."""
    spellings = [name for flag in FLAGS for name in (*flag.names, *flag.off)]
    assert len(spellings) == len(set(spellings))
    assert not set(spellings) & ABSENT
    assert not (set(spellings) | ABSENT) & set(REFUSED)


@pytest.mark.engines
def test_agrees_with_a_real_llama_server() -> None:
    """Every spelling is in a real llama-server's --help with the same number of values, and the other way round."""
    program = llama_server()
    listed = executables.llama_server(str(program)).flags
    assert set(listed) == set(flags.BY_NAME) | ABSENT | set(REFUSED)
    assert {n for n, (flag, _) in flags.BY_NAME.items() if listed[n] != (flag.value is not None)} == set()
