"""Targets: how they are named, where their keys come from, and what is learned of their servers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from corral.connection import Address
from corral.errors import CallerError, Unreachable
from corral.measure.depth import depths
from corral.measure.load import run
from corral.measure.target import Target, WrongTarget, parse_target, settled, with_keys
from support.sse_server import Manner, serving


@pytest.mark.parametrize(
    ("text", "name", "address", "model"),
    [
        ("http://127.0.0.1:8000", "127.0.0.1:8000", "http://127.0.0.1:8000", ""),
        ("http://127.0.0.1:8000/v1#org/m", "127.0.0.1:8000#org/m", "http://127.0.0.1:8000", "org/m"),
        ("a=https://api.example.com/x/v1/#m=2", "a", "https://api.example.com:443/x", "m=2"),
        ("http://h:1/p?q=1", None, "", ""),
        ("#m", None, "", ""),
        ("box:8080#m", "box:8080#m", "http://box:8080", "m"),
    ],
)
def test_targets_are_urls(text: str, name: str | None, address: str, model: str) -> None:
    """`[NAME=]URL[#model]`, with or without `/v1` at its end."""
    if name is None:
        with pytest.raises(CallerError):
            parse_target(text)
        return
    found = parse_target(text)
    assert (found.name, str(found.address), found.model) == (name, address, model)


def test_keys_come_from_variables_and_files(tmp_path: Path) -> None:
    """Never from an argument, and each goes to its own target alone."""
    file = tmp_path / "key=1"
    file.write_text("from-file\n")
    two = [parse_target("a=http://h:1"), parse_target("b=http://h:2")]
    env = {"A_KEY": "from-env", "SPACED": "two words"}
    found = with_keys(two, ["a=env:A_KEY", f"b=file:{file}"], env)
    assert [each.address.key for each in found] == ["from-env", "from-file"]
    assert [each.address.key for each in with_keys(two, ["b=env:A_KEY"], env)] == [None, "from-env"]
    assert with_keys(two[:1], ["env:A_KEY"], env)[0].address.key == "from-env"
    assert with_keys(two[:1], [f"file:{file}"], env)[0].address.key == "from-file"
    assert "from-env" not in repr(found)
    for keys, words in [
        (["env:A_KEY"], "whose key"), (["c=env:A_KEY"], "no target"), (["a=env:NONE"], "holds no key"),
        (["a=file:/nonexistent"], "cannot be read"), (["a=env:SPACED"], "is no key"),
        (["a=sk-secret"], "never given on the command line"),
    ]:  # fmt: skip
        with pytest.raises(CallerError, match=words) as caught:
            with_keys(two, keys, env)
        assert "sk-secret" not in caught.value.message + caught.value.hint


async def test_prompts_are_exact_where_tokens_can_be_counted() -> None:
    """The template's tokens are learned from one answer, so that prompts have what was asked, as the server counts."""
    async with serving(Manner(template=7)) as address:
        target = await settled(Target("t", address))
        found = await run(address, target.work(50, 3), 2, 6)
    assert target.model == "only" and target.overhead == 7 and target.counting.startswith("exactly")
    assert {shot.prompt for shot in found.shots} == {50} and target.notes == ()


async def test_prompts_are_about_right_where_only_usage_tells() -> None:
    """Two trials tell how many words a token is; that it is rough is said."""
    async with serving(Manner(tokenizes=False, template=9)) as address:
        target = await settled(Target("t", address))
        found = await run(address, target.work(50, 3), 2, 6)
    assert target.counting.startswith("roughly") and "only roughly" in target.notes[0]
    assert all(shot.prompt is not None and abs(shot.prompt - 50) <= 2 for shot in found.shots)


async def test_fields_that_are_refused_are_left_out() -> None:
    """Strict servers and those that count nothing are asked otherwise, and that is said."""
    async with serving(Manner(refuses=("ignore_eos", "max_tokens"))) as address:
        target = await settled(Target("t", address))
    assert (target.fields.limit, target.fields.ignore_eos) == ("max_completion_tokens", False)
    assert "Unrecognized request argument" in target.notes[0] and "may be shorter" in target.notes[1]
    async with serving(Manner(usage=False, tokenizes=False)) as address:
        target = await settled(Target("t", address))
    assert not target.fields.usage and target.counting.startswith("by words")
    assert any("counted as pieces" in note for note in target.notes)


async def test_targets_that_cannot_be_measured_are_refused_with_a_hint() -> None:
    """Down, without the right key, with several models, or always failing."""
    with pytest.raises(Unreachable, match="cannot be asked") as caught:
        await settled(Target("t", Address(port=1)))
    assert "runs" in caught.value.hint
    with pytest.raises(Unreachable, match=r"does not answer a chat: .*nothing answers"):
        await settled(Target("t", Address(port=1), "m"))
    async with serving(Manner(key="right")) as address:
        with pytest.raises(CallerError, match="401") as refused:
            await settled(Target("t", address, "m"))
        assert "--key" in refused.value.hint
        assert (await settled(Target("t", replace(address, key="right"), "m"))).model == "m"
    async with serving(Manner(models=("one", "two"))) as address:
        with pytest.raises(WrongTarget, match="2 models") as several:
            await settled(Target("t", address))
        assert "one, two" in several.value.hint
    async with serving(Manner(fails=frozenset(range(99)))) as address:
        with pytest.raises(CallerError, match="500: out of luck"):
            await settled(Target("t", address))


@pytest.mark.parametrize("at_once", [False, True])
async def test_what_came_all_at_once_gives_no_rate_of_writing(at_once: bool) -> None:
    """One piece has no time between its tokens; that is said, and the rest is measured."""
    async with serving(Manner(at_once=at_once)) as address:
        found, notes = await depths(Target("t", address, "only"), [0], prompt_tokens=20, tokens=8, runs=2)
    assert {each.name for each in found} == {"prompt_per_s"} | (set() if at_once else {"generation_per_s"})
    assert [note for note in notes if "all at once" in note] == notes and len(notes) == at_once
