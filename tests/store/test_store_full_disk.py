"""A disk without a byte left."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

CODE = """
import sys
from pathlib import Path
from corral.errors import DiskFull
from corral.store.store import Store
from support.stored import set_model

store = Store(Path(sys.argv[1]) / "models")
store.prepare()
root = set_model(store, "ai/a", b"a" * 500_000)
kept = set_model(store, "ai/b", b"b" * 1000)
filler = open(Path(sys.argv[1]) / "filler", "wb", buffering=0)
try:
    while True:
        filler.write(bytes(4096))
except OSError:
    filler.close()

def full(action):
    try:
        action()
    except DiskFull as error:
        assert "prune" in error.hint, error.hint
    else:
        raise AssertionError("the disk is not full")

more = Path(sys.argv[1]) / "filler"
full(lambda: store.add_bytes(b"x" * 100_000))
full(lambda: store.add_file(more, how="copy"))
full(lambda: store.set_name("ai/c", kept))
full(lambda: store.export(["ai/a"], Path(sys.argv[1]) / "models.tar"))
assert [each.name for each in store.names()] == ["ai/a", "ai/b"] and store.verify() == []
assert not list(store.layout.scratch.iterdir())
store.remove_name("ai/a")
assert store.collect(keep=0).bytes > 500_000
assert store.verify() == [] and [each.name for each in store.names()] == ["ai/b"]
store.set_name("ai/c", kept)
print("good")
"""


def test_a_full_disk_breaks_nothing_and_can_be_freed(tmp_path: Path) -> None:
    """On a full disk everything that writes says so, no model is hurt, and removing one works."""
    inside = f'mount -t tmpfs -o size=3m none "{tmp_path}" && exec "$@"'
    command = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", inside, "sh"]
    try:
        able = subprocess.run([*command, "true"], capture_output=True, check=False, timeout=30).returncode == 0
    except FileNotFoundError:
        able = False
    if not able:
        pytest.skip("this user may not mount a small file system (unshare)")
    done = subprocess.run(
        [*command, sys.executable, "-c", CODE, str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={"PYTHONPATH": ":".join(each for each in sys.path if each), "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
    )
    assert (done.stdout, done.stderr) == ("good\n", "")
