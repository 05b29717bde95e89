"""The lock file: what is resolved, what it says, what is told when it is not so any more."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from corral.cli import lock as command
from corral.cli.app import App
from corral.config.paths import Paths
from corral.descriptors import digest_of
from corral.errors import NotInRegistry
from corral.images import lock
from corral.images.lock import Resolved
from corral.refs import Ref
from corral.runners.containers import catalogue
from corral.runners.containers.host import Image

A, B = f"sha256:{'a' * 64}", f"sha256:{'b' * 64}"


def registry(**manifests: bytes) -> Callable[[Ref], tuple[bytes, str]]:
    """A registry with these manifests by repository."""

    def manifest(ref: Ref) -> tuple[bytes, str]:
        if (found := manifests.get(ref.repository)) is None:
            raise NotInRegistry(f"{ref} is not there", hint="is the name right?")
        return found, "application/json"

    return manifest


@pytest.mark.parametrize(
    ("text", "host", "repository", "tag"),
    [
        ("debian:bookworm-slim", "docker.io", "library/debian", "bookworm-slim"),
        ("docker.io/debian:12", "docker.io", "library/debian", "12"),
        ("vllm/vllm-openai:v1", "docker.io", "vllm/vllm-openai", "v1"),
        ("ghcr.io/ggml-org/llama.cpp:server", "ghcr.io", "ggml-org/llama.cpp", "server"),
        ("localhost:5000/x/y", "localhost:5000", "x/y", "latest"),
    ],
)
def test_an_image_s_name_is_read_as_podman_and_docker_read_it(text: str, host: str, repository: str, tag: str) -> None:
    """Not as a model's, where a short name means something else."""
    ref = lock.image_ref(text)
    assert (ref.host, ref.repository, ref.tag) == (host, repository, tag)


def test_a_tag_is_resolved_by_its_registry() -> None:
    """To the digest of the very bytes that the registry gave."""
    (found,) = lock.resolve([("ghcr.io/o/x:1",)], {}, registry(**{"o/x": b"{}"}))
    assert (found.digest, found.how) == (digest_of(b"{}"), "registry")


def test_what_was_built_here_counts_before_what_could_be_fetched() -> None:
    """As it does when a model is started."""
    held = {"localhost/x:1": Image("c" * 64, (f"localhost/x@{A}",))}
    (found,) = lock.resolve([("localhost/x:1", "ghcr.io/o/x:1")], held, registry(**{"o/x": b"{}"}))
    assert (found.reference, found.digest, found.how) == ("localhost/x:1", A, "local")
    (fetched,) = lock.resolve([("localhost/x:1", "ghcr.io/o/x:1")], {}, registry(**{"o/x": b"{}"}))
    assert fetched.reference == "ghcr.io/o/x:1"


def test_an_image_that_only_docker_has_is_known_by_its_id() -> None:
    """Docker keeps no digest of what was never pushed."""
    assert lock.own_digest(Image("c" * 64)) == f"sha256:{'c' * 64}"


def test_what_cannot_be_resolved_is_no_guess() -> None:
    """It has no digest, but a reason and a hint, and is not written."""
    gone, unbuilt = lock.resolve([("ghcr.io/o/y:1",), ("localhost/z:1",)], {}, registry())
    assert (gone.digest, gone.hint) == (None, "is the name right?")
    assert unbuilt.digest is None and "corral image build" in unbuilt.hint


def test_lines_say_what_changed() -> None:
    """One word for each reference; with `check`, what is not as it was locked is not good."""
    now = [Resolved("same", A), Resolved("other", B), Resolved("fresh", A), Resolved("gone", None, problem="no")]
    locks = {"same": A, "other": A, "gone": A}
    written = lock.beside(now, locks, check=False)
    assert [(line.state, line.good) for line in written] == [
        ("locked", True), ("changed", True), ("new", True), ("unknown", False),
    ]  # fmt: skip
    checked = lock.beside(now, locks, check=True)
    assert [(line.state, line.good) for line in checked] == [
        ("locked", True), ("moved", False), ("unlocked", False), ("unknown", False),
    ]  # fmt: skip


def test_the_file_is_what_the_container_runner_reads(paths: Paths) -> None:
    """And keeps what this call did not resolve, with the time it was resolved at."""
    lock.write(paths, [Resolved("ghcr.io/o/x:1", A, "registry"), Resolved("ghcr.io/o/gone:1", None)])
    before = json.loads((paths.config_dir / catalogue.LOCK).read_text())["images"]["ghcr.io/o/x:1"]
    assert before["resolved"] == "registry" and before["at"].endswith("Z")
    lock.write(paths, [Resolved("ghcr.io/o/x:1", A, "registry"), Resolved("localhost/y:1", B, "local")])
    assert catalogue.locked(paths) == {"ghcr.io/o/x:1": A, "localhost/y:1": B}
    after = json.loads((paths.config_dir / catalogue.LOCK).read_text())["images"]
    assert after["ghcr.io/o/x:1"] == before


def test_nothing_new_writes_nothing(paths: Paths) -> None:
    """Where nothing could be resolved no file is made; one that is there is not touched."""
    unknown = Resolved("ghcr.io/o/gone:1", None, problem="it is not there", hint="is the name right?")
    lock.write(paths, [unknown])
    assert not (paths.config_dir / catalogue.LOCK).exists()
    lock.write(paths, [Resolved("ghcr.io/o/x:1", A, "registry")])
    before = (paths.config_dir / catalogue.LOCK).stat()
    lock.write(paths, [unknown, Resolved("ghcr.io/o/x:1", A, "registry")])
    after = (paths.config_dir / catalogue.LOCK).stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_a_hint_stands_below_what_it_is_about(capsys: pytest.CaptureFixture[str], corral_env: dict[str, str]) -> None:
    """Rows and hints go to one place: apart from each other, nobody knows what a hint is for."""
    now = [Resolved(f"ghcr.io/o/{name}:1", None, problem="not there", hint=f"hint {name}") for name in ("a", "b")]
    command._show(App(), lock.beside(now, {}, check=False))
    shown = capsys.readouterr()
    assert [line.split()[-1] for line in shown.out.splitlines()] == ["there", "a", "there", "b"] and not shown.err


def test_a_hand_written_file_of_digests_alone_is_kept(paths: Paths) -> None:
    """The short form that the reader takes too."""
    (paths.config_dir).mkdir(exist_ok=True)
    (paths.config_dir / catalogue.LOCK).write_text(json.dumps({"ghcr.io/o/x:1": A}))
    lock.write(paths, [Resolved("localhost/y:1", B, "local")])
    assert catalogue.locked(paths) == {"ghcr.io/o/x:1": A, "localhost/y:1": B}


def test_the_catalogue_ships_no_digest(paths: Paths) -> None:
    """Nothing is locked that nobody resolved, and --all would resolve all of it, bases of builds too."""
    assert catalogue.locked(paths) == {}
    known = catalogue.load(paths)
    wanted = lock.all_of(known)
    assert all("@" not in reference for references in wanted for reference in references)
    assert ("docker.io/library/debian:bookworm-slim",) in wanted
    assert ("localhost/corral/detector:cpu",) not in lock.there(wanted, {})
