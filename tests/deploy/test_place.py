"""The folder that a deployment is written to: nothing that somebody changed is lost."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from corral.deploy.deployment import Deployment, File
from corral.deploy.place import MEMORY, write
from corral.errors import ConfigError

ONE = Deployment("thing", (File("a.yml", "a: 1\n"), File("rules/b.yml", "b: 2\n", 0o600)))


def hows(folder: Path, deployment: Deployment, *, force: bool = False) -> dict[str, str]:
    return {str(each.path.relative_to(folder)): each.how for each in write(folder, deployment, force=force)}


def test_new_and_again(tmp_path: Path) -> None:
    """Files are written with their modes; written again, they are the same, and what is newer takes their place."""
    folder = tmp_path / "out"
    assert hows(folder, ONE) == {"a.yml": "new", "rules/b.yml": "new"}
    assert (folder / "a.yml").read_text() == "a: 1\n"
    assert [(folder / each.path).stat().st_mode & 0o777 for each in ONE.files] == [0o644, 0o600]
    assert hows(folder, ONE) == {"a.yml": "same", "rules/b.yml": "same"}
    later = Deployment("thing", (File("a.yml", "a: 3\n"), ONE.files[1]))
    assert hows(folder, later) == {"a.yml": "updated", "rules/b.yml": "same"}
    assert (folder / "a.yml").read_text() == "a: 3\n"


def test_changed_files_stay(tmp_path: Path) -> None:
    """One file that was changed, or was there before, and nothing is written, unless it is asked for."""
    write(tmp_path, ONE)
    (tmp_path / "rules/b.yml").write_text("b: mine\n")
    later = Deployment("thing", (File("a.yml", "a: 3\n"), File("rules/b.yml", "b: 4\n")))
    with pytest.raises(ConfigError, match=r"rules/b\.yml in .* was changed") as caught:
        write(tmp_path, later)
    assert caught.value.details["files"] == ["rules/b.yml"]
    assert (tmp_path / "a.yml").read_text() == "a: 1\n"
    assert hows(tmp_path, later, force=True) == {"a.yml": "updated", "rules/b.yml": "overwritten"}
    assert (tmp_path / "rules/b.yml").read_text() == "b: 4\n"


def test_foreign_files_stay(tmp_path: Path) -> None:
    """Files that were there before the first time are somebody else's."""
    (tmp_path / "a.yml").write_text("theirs\n")
    with pytest.raises(ConfigError, match="not written by this command"):
        write(tmp_path, ONE)
    assert not (tmp_path / "rules").exists()


def test_old_files_go(tmp_path: Path) -> None:
    """What is no longer part of the target goes, unless somebody changed it; nothing outside the folder ever does."""
    write(tmp_path / "out", Deployment("thing", (*ONE.files, File("c.yml", "c\n"), File("d.yml", "d\n"))))
    (tmp_path / "out" / "d.yml").write_text("mine\n")
    (tmp_path / "outside").write_text("a: 1\n")
    memory = json.loads((tmp_path / "out" / MEMORY).read_text())
    memory["files"]["../outside"] = memory["files"]["a.yml"]
    (tmp_path / "out" / MEMORY).write_text(json.dumps(memory))
    assert hows(tmp_path / "out", ONE) == {"a.yml": "same", "rules/b.yml": "same", "c.yml": "removed"}
    assert (tmp_path / "out" / "d.yml").read_text() == "mine\n"
    assert (tmp_path / "outside").exists()


def test_another_target(tmp_path: Path) -> None:
    """The folder of one target is not another's."""
    write(tmp_path, ONE)
    with pytest.raises(ConfigError, match="holds the files of another target, thing"):
        write(tmp_path, Deployment("other", ()))


def test_a_damaged_memory_trusts_nothing(tmp_path: Path) -> None:
    """Without the memory, files with other contents are somebody else's."""
    write(tmp_path, ONE)
    (tmp_path / MEMORY).write_text("[]")
    assert hows(tmp_path, ONE) == {"a.yml": "same", "rules/b.yml": "same"}
    (tmp_path / MEMORY).write_text("{")
    with pytest.raises(ConfigError):
        write(tmp_path, Deployment("thing", (File("a.yml", "a: 3\n"),)))


def test_a_folder_that_cannot_be(tmp_path: Path) -> None:
    """A place that is a file is said to be none."""
    (tmp_path / "out").write_text("")
    with pytest.raises(ConfigError, match="cannot"):
        write(tmp_path / "out", ONE)
