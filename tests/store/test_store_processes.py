"""One store in several processes, some of which are killed."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from corral.store.store import Store
from support.stored import bytes_on_disk, set_model

WORKER = """
import io, random, sys
from pathlib import Path
from corral.descriptors import digest_of
from corral.errors import CorralError, InUse, NotInStore
from corral.store.store import Store
from support.stored import add_model

root, seed, rounds = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
chance, store = random.Random(seed), Store(root)
store.prepare()
outside = root.parent / f"outside-{seed}"
outside.mkdir(exist_ok=True)
print("ready", flush=True)
for number in range(rounds):
    name = f"ai/{chance.randrange(6)}"
    data = bytes([chance.randrange(4)]) * chance.choice([10, 5000, 300_000])
    try:
        match chance.randrange(7):
            case 0:
                store.remove_name(name)
            case 1:
                store.collect(keep=chance.randrange(2), grace_s=chance.choice([0, 3600]))
            case 2:
                file = outside / str(number)
                file.write_bytes(data)
                store.add_file(file, how=chance.choice(["copy", "hardlink", "move", "auto"]))
            case 3:
                archive = io.BytesIO()
                store.export([each.name for each in store.names()][:1], archive)
                archive.seek(0)
                store.load(archive)
            case 4:
                with store.partial(digest_of(data), len(data)) as partial:
                    partial.path.write_bytes(data)
                    partial.finish(digest_of(data))
            case _:
                store.set_name(name, add_model(store, data, bytes([chance.randrange(256)])))
    except (NotInStore, InUse):
        pass  # another worker was quicker
    except CorralError as error:
        if error.code != "bad_request" and error.code != "archive_refused":
            raise
print("done", flush=True)
"""


def start(root: Path, seed: int, rounds: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", WORKER, str(root), str(seed), str(rounds)],
        stdout=subprocess.PIPE,
        text=True,
        env={"PYTHONPATH": ":".join(each for each in sys.path if each), "PATH": ""},
    )


def check(store: Store) -> None:
    """Every model is whole, every byte is accounted for, and a collection leaves nothing of the dead."""
    fresh = Store(store.root)
    fresh.prepare()
    assert fresh.verify() == []
    for each in fresh.names():
        assert fresh.whole(each.descriptor) and fresh.history(each.name)[0].digest == each.descriptor.digest
    assert fresh.usage().total_bytes == bytes_on_disk(store.root)
    fresh.collect(keep=0, grace_s=0, partial_age_s=-1)
    assert fresh.verify() == [] and fresh.usage(keep=0).unreferenced_bytes == 0
    assert not list(store.layout.scratch.iterdir()) and not list(store.layout.trash.iterdir())
    assert not list(store.layout.partial.iterdir())


def test_many_processes_at_once(store: Store) -> None:
    """Processes that add, name, remove, collect and load in one store leave it whole, and none of them fails."""
    children = [start(store.root, seed, 40) for seed in range(4)]
    for each in children:
        output, _ = each.communicate(timeout=60)
        assert (output, each.returncode) == ("ready\ndone\n", 0)
    check(store)


@pytest.mark.parametrize("seed", range(4))
def test_killed_at_any_moment(store: Store, seed: int) -> None:
    """A process killed with -9 in the middle of anything leaves whole models, and nothing that stays in the way."""
    chance = random.Random(seed)
    set_model(store, "ai/first", b"first")
    for number in range(4):
        with start(store.root, seed * 100 + number, 100_000) as child:
            assert child.stdout is not None and child.stdout.readline() == "ready\n"
            # When it dies is what is tried out here, not how long anything takes.
            time.sleep(chance.uniform(0.0, 0.15))
            child.kill()
        check(store)
    assert store.lookup("ai/first") is not None


def test_a_hold_dies_with_its_process(store: Store) -> None:
    """A killed unit's model can be removed at once."""
    root = set_model(store, "ai/a", b"weights")
    code = (
        "import sys, pathlib; from corral.store.store import Store\n"
        "hold = Store(pathlib.Path(sys.argv[1])).hold(sys.argv[2]); print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, store.root, root.digest], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None and child.stdout.readline() == b"held\n"
        assert store.is_held(root.digest)
        child.kill()
        child.wait()
    assert not store.is_held(root.digest)
    store.remove_name("ai/a")
