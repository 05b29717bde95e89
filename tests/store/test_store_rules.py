"""What must hold in every store, whatever was done to it in whatever order."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from corral.errors import InUse, NotInStore
from corral.store.holds import Hold
from corral.store.store import Store
from support.stored import add_model, bytes_on_disk, digests_on_disk

NAMES = st.sampled_from(["ai/a", "ai/b", "ai/c"])
LAYERS = st.lists(st.sampled_from([b"one", b"two" * 50, b"three" * 500]), min_size=1, max_size=3, unique=True)


class Life(RuleBasedStateMachine):
    """A store in the hands of people, with a model of what its names should be."""

    def __init__(self) -> None:
        super().__init__()
        self.names: dict[str, str] = {}
        self.held: list[tuple[str, Hold]] = []

    @initialize()
    def start(self) -> None:
        self.directory = Path(tempfile.mkdtemp())
        self.store = Store(self.directory / "models")
        self.store.prepare()

    @rule(name=NAMES, layers=LAYERS)
    def set(self, name: str, layers: list[bytes]) -> None:
        root = add_model(self.store, *layers)
        self.store.set_name(name, root)
        self.names[name] = root.digest

    @rule(layers=LAYERS)
    def leave_unnamed(self, layers: list[bytes]) -> None:
        add_model(self.store, *layers)

    @rule(name=NAMES)
    def remove(self, name: str) -> None:
        digest = self.names.get(name)
        alone = list(self.names.values()).count(digest or "") == 1
        try:
            self.store.remove_name(name)
            assert digest is not None and not (alone and digest in dict(self.held))
            del self.names[name]
        except NotInStore:
            assert digest is None
        except InUse:
            assert alone and digest in dict(self.held)

    @rule(name=NAMES)
    def roll_back(self, name: str) -> None:
        with contextlib.suppress(NotInStore):
            self.names[name] = self.store.rollback(name).digest

    @rule(keep=st.integers(0, 2), grace_s=st.sampled_from([0.0, 3600.0]))
    def collect(self, keep: int, grace_s: float) -> None:
        said = self.store.collect(keep=keep, grace_s=grace_s, dry_run=True)
        before = bytes_on_disk(self.store.root / "blobs")
        assert self.store.collect(keep=keep, grace_s=grace_s) == said
        assert before - bytes_on_disk(self.store.root / "blobs") == said.bytes
        if keep == 0 and grace_s == 0.0:
            wanted = {*self.names.values(), *(digest for digest, _ in self.held)}
            reached = {digest for root in wanted for digest in [root, *self._parts(root)]}
            assert digests_on_disk(self.store) == reached

    @precondition(lambda self: self.names)
    @rule(data=st.data())
    def hold(self, data: st.DataObject) -> None:
        digest = data.draw(st.sampled_from(sorted(self.names.values())))
        self.held.append((digest, self.store.hold(digest)))

    @precondition(lambda self: self.held)
    @rule()
    def release(self) -> None:
        self.held.pop(0)[1].release()

    @invariant()
    def names_are_what_was_done(self) -> None:
        assert {each.name: each.descriptor.digest for each in Store(self.store.root).names()} == self.names

    @invariant()
    def nothing_needed_is_missing(self) -> None:
        assert self.store.verify() == []
        for digest, _ in self.held:
            assert all(self.store.find(each) for each in self._parts(digest))

    @invariant()
    def every_byte_is_accounted_for(self) -> None:
        usage = self.store.usage(keep=0)
        assert usage.total_bytes == bytes_on_disk(self.store.root)

    def _parts(self, root: str) -> list[str]:
        data = self.store.manifest(root)
        return [each["digest"] for each in [data["config"], *data["layers"]]]

    def teardown(self) -> None:
        for _, hold in self.held:
            hold.release()
        shutil.rmtree(self.directory)


TestLife = pytest.mark.timeout(60)(Life.TestCase)
TestLife.settings = settings(max_examples=15, stateful_step_count=20, deadline=None)
