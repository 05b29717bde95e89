"""Downloads: shared, paused, cancelled, gone on with in a later life."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from corral.descriptors import digest_of
from corral.errors import NotFound, NotInRegistry, SignatureError
from corral.models.fetching.downloads import Downloads, DownloadSettings
from corral.models.fetching.job_view import JobView
from corral.models.fetching.pull import SOURCE, Verify
from corral.refs import Ref
from corral.registry.source import RemoteBlob, RemoteModel
from corral.registry.url import UrlSource
from corral.store.partial import stem
from models.fetching import CHUNK, QUICK, World, world
from support.faulty_registry import Fault, noise

SIZE = 12 * CHUNK + 99
WAIT_S = 20.0


@pytest.fixture
def here(short_tmp: Path) -> Iterator[World]:
    with world(short_tmp) as made:
        yield made


class Seen:
    """A listener that keeps what it was told."""

    def __init__(self) -> None:
        self.views: list[JobView] = []

    def __call__(self, view: JobView) -> None:
        self.views.append(view)

    def states(self) -> list[str]:
        states: list[str] = []
        for view in self.views:
            if states[-1:] != [view.state]:
                states.append(view.state)
        return states


@pytest.fixture
def seen() -> Seen:
    return Seen()


@pytest.fixture
def downloads(here: World, seen: Seen) -> Iterator[Downloads]:
    made = Downloads(here.store, {"oci": here.source}, listener=seen, how=QUICK)
    yield made
    here.registry.let_go.set()
    made.close()


def test_a_model_comes_whole_under_its_name(here: World, downloads: Downloads, seen: Seen) -> None:
    """A download ends with every blob in the store, the manifest as the registry has it, and the name."""
    layers = [noise(SIZE, 1), noise(SIZE, 2), noise(10, 3)]
    digest = here.registry.model("ai/tiny", *layers)
    view = downloads.wait(downloads.start(here.ref("ai/tiny")).id, WAIT_S)
    assert (view.state, view.error, view.digest) == ("done", None, digest)
    named = here.store.lookup(here.ref("ai/tiny").name)
    assert named is not None
    assert named.descriptor.digest == digest
    assert named.descriptor.annotations[SOURCE] == str(here.ref("ai/tiny"))
    for layer in layers:
        assert here.store.blob(digest_of(layer)).path.read_bytes() == layer
    assert view.done == view.total == sum(map(len, layers)) + (view.blobs[0].size or 0)
    assert seen.states() == ["queued", "resolving", "running", "done"]
    assert here.store.partials() == []


def test_a_name_of_ones_own(here: World, downloads: Downloads) -> None:
    """A download may be called something else than its reference."""
    here.registry.model("ai/tiny", noise(SIZE))
    view = downloads.wait(downloads.start(here.ref("ai/tiny"), name="mine").id, WAIT_S)
    assert view.state == "done"
    assert [each.name for each in here.store.names()] == ["mine"]


def test_two_callers_share_one_download(here: World, downloads: Downloads) -> None:
    """Asking for what is being downloaded joins it; nothing is fetched twice."""
    content = noise(SIZE)
    here.registry.model("ai/tiny", content)
    here.registry.faults.append(Fault(times=-1, pace_s=0.005))
    first = downloads.start(here.ref("ai/tiny"))
    second = downloads.start(here.ref("ai/tiny"))
    assert first.id == second.id
    assert downloads.wait(first.id, WAIT_S).state == "done"
    assert sum(count for _, count in here.registry.sent_of(digest_of(content))) == SIZE


def test_two_models_share_a_blob(here: World, downloads: Downloads) -> None:
    """A blob that two downloads want is fetched by one of them."""
    content = noise(SIZE)
    for name in ("ai/a", "ai/b"):
        here.registry.model(name, content)
    here.registry.faults.append(Fault(path=digest_of(content), times=-1, pace_s=0.005))
    views = [downloads.start(here.ref(name)) for name in ("ai/a", "ai/b")]
    assert [downloads.wait(view.id, WAIT_S).state for view in views] == ["done", "done"]
    assert sum(count for _, count in here.registry.sent_of(digest_of(content))) == SIZE


def test_what_the_store_has_is_not_fetched(here: World, downloads: Downloads) -> None:
    """Pulling again asks for the manifest only."""
    here.registry.model("ai/tiny", noise(SIZE))
    downloads.wait(downloads.start(here.ref("ai/tiny")).id, WAIT_S)
    here.registry.asked.clear()
    view = downloads.wait(downloads.start(here.ref("ai/tiny")).id, WAIT_S)
    assert view.state == "done"
    assert not [each for each in here.registry.asked if "/blobs/" in each.path]
    assert len(downloads.jobs()) == 1


def test_pause_keeps_and_resume_goes_on(here: World, downloads: Downloads) -> None:
    """A paused download holds no connection and goes on where it was."""
    content = noise(SIZE)
    here.registry.model("ai/tiny", content)
    stalled = threading.Event()
    here.registry.faults += [
        Fault(path=digest_of(content), times=3),
        Fault(path=digest_of(content), times=-1, stall_after=0, then=stalled.set),
    ]
    view = downloads.start(here.ref("ai/tiny"))
    assert stalled.wait(WAIT_S)
    assert downloads.pause(view.id).state == "paused"
    here.registry.faults.clear()
    assert downloads.start(here.ref("ai/tiny")).id == view.id  # asking again goes on
    assert downloads.wait(view.id, WAIT_S).state == "done"
    sent = here.registry.sent_of(digest_of(content))
    assert sum(count for _, count in sent) < SIZE + 3 * CHUNK


@pytest.mark.parametrize("paused_first", [False, True])
def test_cancel_removes_what_is_not_whole(here: World, downloads: Downloads, paused_first: bool) -> None:
    """A cancelled download leaves no partial file, though it was paused a moment before and has not stopped yet."""
    content = noise(SIZE)
    here.registry.model("ai/tiny", content)
    stalled = threading.Event()
    here.registry.faults += [
        Fault(path=digest_of(content), times=3),
        Fault(path=digest_of(content), times=-1, stall_after=0, then=stalled.set),
    ]
    view = downloads.start(here.ref("ai/tiny"))
    assert stalled.wait(WAIT_S)
    if paused_first:
        downloads.pause(view.id)
    assert downloads.cancel(view.id).state == "cancelled"
    here.registry.faults.clear()
    downloads.close()
    assert here.store.partials() == []
    assert here.store.lookup(view.name) is None


def test_a_later_life_goes_on(here: World, seen: Seen) -> None:
    """What ran when the process ended is gone on with by the next one, and no chunk is fetched again."""
    content = noise(SIZE)
    here.registry.model("ai/tiny", content)
    stalled = threading.Event()
    here.registry.faults += [
        Fault(path=digest_of(content), times=3),
        Fault(path=digest_of(content), times=-1, stall_after=0, then=stalled.set),
    ]
    first = Downloads(here.store, {"oci": here.source}, how=QUICK)
    view = first.start(here.ref("ai/tiny"))
    paused = first.start(here.ref("ai/other"))
    first.pause(paused.id)
    assert stalled.wait(WAIT_S)
    first.close()
    here.registry.faults.clear()
    record = here.store.layout.partial / f"{stem(digest_of(content))}.state"
    states = record.read_bytes().partition(b"\n")[2]
    here.registry.asked.clear()
    later = Downloads(here.store, {"oci": here.source}, how=QUICK)
    try:
        found = {each.id: each.state for each in later.resume_all()}
        assert set(found) == {view.id, paused.id}
        assert found[paused.id] == "paused"
        assert later.wait(view.id, WAIT_S).state == "done"
    finally:
        later.close()
    sent = {first // CHUNK for first, _ in here.registry.sent_of(digest_of(content)) if first % CHUNK == 0}
    assert not {index for index, state in enumerate(states) if state} & sent


def test_a_tag_that_moves_midway_is_resolved_again(here: World, downloads: Downloads) -> None:
    """When the blobs of a tag are gone because it moved, what it is now is fetched."""
    old, new = noise(SIZE, 1), noise(SIZE, 2)
    here.registry.model("ai/tiny", old)

    def move() -> None:
        here.registry.blobs.pop(digest_of(old), None)
        here.registry.model("ai/tiny", new)

    here.registry.faults.append(Fault(path=digest_of(old), times=1, then=move))
    view = downloads.wait(downloads.start(here.ref("ai/tiny")).id, WAIT_S)
    assert view.state == "done"
    assert here.store.find(digest_of(new)) is not None
    assert any("asking again" in note for note in view.notes)


def test_failure_is_said_and_can_be_gone_on_with(here: World, downloads: Downloads) -> None:
    """A failed download says why, with a hint, and resumes."""
    here.registry.model("ai/tiny", noise(SIZE))
    here.registry.faults.append(Fault(times=-1, status=503))
    view = downloads.wait(downloads.start(here.ref("ai/tiny")).id, WAIT_S)
    assert view.state == "failed"
    assert view.error is not None
    assert (view.error.code, bool(view.error.hint)) == ("registry_unavailable", True)
    here.registry.faults.clear()
    downloads.resume(view.id)
    assert downloads.wait(view.id, WAIT_S).state == "done"


def test_a_layer_whose_size_lies_is_refused(here: World, downloads: Downloads) -> None:
    """A manifest that gives a blob another size than it has is refused."""
    here.registry.model("ai/tiny", noise(SIZE), sizes=(SIZE + 1,))
    view = downloads.wait(downloads.start(here.ref("ai/tiny")).id, WAIT_S)
    assert view.state == "failed"
    assert here.store.names() == []


def test_what_a_policy_refuses_is_not_fetched(here: World) -> None:
    """The verifier has its say before anything large is fetched."""
    content = noise(SIZE)
    digest = here.registry.model("ai/tiny", content)

    def refuse(ref: Ref, found: str) -> None:
        assert found == digest
        raise SignatureError(f"{ref} is not signed", hint="sign it")

    verify: Verify = refuse
    made = Downloads(here.store, {"oci": here.source}, verify=verify, how=QUICK)
    try:
        view = made.wait(made.start(here.ref("ai/tiny")).id, WAIT_S)
    finally:
        made.close()
    assert view.error is not None
    assert view.error.code == "signature"
    assert here.registry.sent_of(digest_of(content)) == []


def test_a_source_without_digests_names_what_it_got(here: World) -> None:
    """Where only fetching tells the digest, the manifest is made afterwards and is a model like any other."""
    content = noise(SIZE)
    here.registry.model("ai/tiny", content)
    found = here.resolve("ai/tiny")
    config, layer = found.blobs

    class Plain:
        def resolve(self, ref: Ref) -> RemoteModel:
            blobs: tuple[RemoteBlob, ...] = (config, replace(layer, digest=None, size=None, title="m.gguf"))
            return RemoteModel(ref, blobs, None, found.manifest_type, finish=lambda got: found.manifest or b"")

    made = Downloads(here.store, {"url": Plain()}, how=QUICK)
    try:
        view = made.wait(made.start(Ref("url", repository="http://example.invalid/m.gguf")).id, WAIT_S)
    finally:
        made.close()
    assert (view.state, view.error) == ("done", None)
    assert here.store.blob(digest_of(content)).path.read_bytes() == content


def test_a_blob_that_another_process_fetches_is_waited_for(here: World, downloads: Downloads, seen: Seen) -> None:
    """While somebody else has a blob's lock the download waits and says so, then goes on where they stopped."""
    content = noise(SIZE)
    here.registry.model("ai/tiny", content)
    with here.store.partial(digest_of(content), SIZE):
        view = downloads.start(here.ref("ai/tiny"))
        assert not downloads.wait(view.id, 0.3).over
    view = downloads.wait(view.id, WAIT_S)
    assert view.state == "done"
    assert any("waiting" in note for note in view.notes)


def test_a_url_whose_file_changes_midway_is_fetched_anew(here: World) -> None:
    """A file without a digest that is replaced while it is fetched comes whole as it is now, never as a mixture."""
    old, new = (b"GGUF" + noise(SIZE, seed) for seed in (1, 2))
    here.registry.blobs["m.gguf"] = old
    here.registry.etag = '"old"'

    def change() -> None:
        here.registry.blobs["m.gguf"] = new
        here.registry.etag = '"new"'

    here.registry.faults += [Fault(path="/file/", times=4), Fault(path="/file/", times=1, then=change)]
    made = Downloads(here.store, {"url": UrlSource(here.source.egress)}, how=QUICK)
    try:
        ref = Ref("url", repository=f"http://{here.registry.host}/file/m.gguf")
        view = made.wait(made.start(ref).id, WAIT_S)
    finally:
        made.close()
    assert (view.state, view.error) == ("done", None)
    assert here.store.blob(digest_of(new)).path.read_bytes() == new
    assert here.store.find(digest_of(old)) is None
    assert any("changed" in note for note in view.notes)


def test_so_many_at_once_and_no_more(here: World) -> None:
    """Downloads beyond the bound wait in a queue, first come first served."""
    for number in range(4):
        here.registry.model(f"ai/m{number}", noise(CHUNK * 2, number))
    here.registry.faults.append(Fault(times=-1, pace_s=0.01))
    running: set[str] = set()
    most = 0

    def watch(view: JobView) -> None:
        nonlocal most
        (running.add if view.state in ("resolving", "running") else running.discard)(view.id)
        most = max(most, len(running))

    made = Downloads(here.store, {"oci": here.source}, listener=watch, settings=DownloadSettings(at_once=2), how=QUICK)
    try:
        views = [made.start(here.ref(f"ai/m{number}")) for number in range(4)]
        assert [made.wait(view.id, WAIT_S).state for view in views] == ["done"] * 4
    finally:
        made.close()
    assert most <= 2


def test_what_nobody_knows_is_refused_at_once(downloads: Downloads) -> None:
    """A reference of a kind without a source, and an id without a download, are errors of the caller."""
    with pytest.raises(NotInRegistry):
        downloads.start(Ref("file", repository="/tmp/x.gguf"))
    with pytest.raises(NotFound):
        downloads.get("000000000000")


def test_damaged_records_are_passed_over(here: World, downloads: Downloads) -> None:
    """A record of a download that was torn or is not one does not keep the others from going on."""
    for name, text in {"a.json": "{", "b.json": "[]", "c.json": '{"version": 1, "id": "../../x"}'}.items():
        (here.store.jobs_dir / name).write_text(text)
    assert downloads.resume_all() == []
