"""The list of trusted directories."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from corral.config.trust import distrust, is_trusted, trust, trusted_directories
from corral.errors import ConfigError
from support.configs import Place


def test_trust_is_recorded_and_taken_back(tmp_path: Path) -> None:
    """A directory is trusted from `trust` to `distrust`; both say whether they changed anything."""
    place = Place(tmp_path)
    assert not is_trusted(place.paths, place.cwd)
    assert trust(place.paths, place.cwd)
    assert not trust(place.paths, place.cwd)
    assert is_trusted(place.paths, place.cwd)
    assert trusted_directories(place.paths) == [place.cwd]
    assert not is_trusted(place.paths, place.home)
    assert distrust(place.paths, place.cwd)
    assert not distrust(place.paths, place.cwd)
    assert not is_trusted(place.paths, place.cwd)


def test_the_list_is_for_this_user_only(tmp_path: Path) -> None:
    """The list is a file of mode 0600 in a directory of mode 0700, and nothing else is left beside it."""
    place = Place(tmp_path)
    trust(place.paths, place.cwd)
    file = place.paths.trust_file
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    assert [each.name for each in file.parent.iterdir()] == ["trusted"]


def test_a_link_to_a_trusted_directory_is_that_directory(tmp_path: Path) -> None:
    """Trust is of the real directory, by whatever name it is called."""
    place = Place(tmp_path)
    (tmp_path / "link").symlink_to(place.cwd)
    trust(place.paths, tmp_path / "link")
    assert trusted_directories(place.paths) == [place.cwd]
    assert is_trusted(place.paths, tmp_path / "link")


def test_directories_that_others_may_change_cannot_be_trusted(tmp_path: Path) -> None:
    """A directory that everybody may write to is refused, and so is what is no directory."""
    place = Place(tmp_path)
    place.cwd.chmod(0o1777)
    with pytest.raises(ConfigError, match="may be changed by every user"):
        trust(place.paths, place.cwd)
    with pytest.raises(ConfigError, match="is not a directory"):
        trust(place.paths, tmp_path / "nowhere")
    odd = tmp_path / "two\nlines"
    odd.mkdir()
    with pytest.raises(ConfigError, match="cannot hold"):
        trust(place.paths, odd)
    assert trusted_directories(place.paths) == []


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a directory away")
def test_directories_of_others_cannot_be_trusted(tmp_path: Path) -> None:
    """A directory that belongs to another user is refused."""
    place = Place(tmp_path)
    os.chown(place.cwd, 12345, -1)
    with pytest.raises(ConfigError, match="belongs to user 12345"):
        trust(place.paths, place.cwd)


def test_a_list_that_others_may_change_is_refused(tmp_path: Path) -> None:
    """A list that everybody may write to is nobody's word."""
    place = Place(tmp_path)
    trust(place.paths, place.cwd)
    place.paths.trust_file.chmod(0o666)
    with pytest.raises(ConfigError, match="may be changed by every user"):
        trusted_directories(place.paths)
    assert "may be changed by every user" in place.load().warnings[0].message
