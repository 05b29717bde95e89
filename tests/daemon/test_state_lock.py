"""One daemon per state directory, and the file that says where it is."""

from __future__ import annotations

import json
import sys

import pytest

from corral.config.paths import Paths
from corral.errors import ConfigError, StateInUse
from corral.state_lock import hold_state, write_daemon_file

FACTS = {"pid": 1, "listen": ["127.0.0.1:1"]}


def test_a_second_holder_is_told_who_has_it(paths: Paths) -> None:
    """The lock has one holder; whoever comes second learns of the first; afterwards it is free and no file is left."""
    paths.make()
    with hold_state(paths):
        write_daemon_file(paths, FACTS)
        assert json.loads(paths.daemon_file.read_text()) == FACTS
        with pytest.raises(StateInUse, match=r"process 1, on 127\.0\.0\.1:1"), hold_state(paths):
            pass
    assert not paths.daemon_file.exists()
    with hold_state(paths):
        pass


@pytest.mark.skipif(sys.platform != "linux", reason="a disk that is always full is a device of Linux")
def test_a_full_disk_is_one_clear_error(paths: Paths) -> None:
    """Where there is no room for the file, the error says so and what to do; the file of before stays whole."""
    paths.make()
    write_daemon_file(paths, FACTS)
    paths.daemon_file.with_suffix(".new").symlink_to("/dev/full")
    with pytest.raises(ConfigError, match="No space left") as caught:
        write_daemon_file(paths, {"pid": 2})
    assert str(paths.daemon_file) in caught.value.message and caught.value.hint
    assert json.loads(paths.daemon_file.read_text()) == FACTS
