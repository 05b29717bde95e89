"""One daemon per state directory, and the file that says where it is."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from corral.config.paths import Paths
from corral.errors import ConfigError, StateInUse
from corral.state_lock import hold_state, write_daemon_file

FACTS = {"pid": os.getpid(), "listen": ["127.0.0.1:1"]}


def test_a_second_holder_is_told_who_has_it(paths: Paths) -> None:
    """The lock has one holder; whoever comes second learns of the first; afterwards it is free and no file is left."""
    paths.make()
    with hold_state(paths):
        write_daemon_file(paths, FACTS)
        assert json.loads(paths.daemon_file.read_text()) == FACTS
        with pytest.raises(StateInUse, match=rf"process {os.getpid()}, on 127\.0\.0\.1:1"), hold_state(paths):
            pass
    assert not paths.daemon_file.exists()
    with hold_state(paths):
        pass


def test_the_owner_before_is_not_named(paths: Paths) -> None:
    """What a killed owner left says nothing of the one after it, which has not said yet where it is: its own process is
    named. Where nobody is known, nobody is."""
    paths.make()
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    paths.lock_file.write_text(str(gone.pid))
    write_daemon_file(paths, {"pid": gone.pid, "listen": ["127.0.0.1:1"]})
    with hold_state(paths):
        with pytest.raises(StateInUse) as caught, hold_state(paths):
            pass
        assert f"(process {os.getpid()})" in caught.value.message
        paths.lock_file.write_text(str(gone.pid))  # as in the moment before the new owner has written
        with pytest.raises(StateInUse, match=r"\(another process\)"), hold_state(paths):
            pass
    assert paths.lock_file.read_text() == ""


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
