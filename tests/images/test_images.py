"""Images for real: built from Corral's own Containerfiles by rootless Podman, listed, fetched, locked and removed."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from corral.config.paths import Paths
from corral.images import recipe
from support import podman
from support.docker_registry import docker_registry
from support.ggufs import write_random
from support.podman import User
from support.server import until

pytestmark = [pytest.mark.podman, pytest.mark.timeout(600)]

LLAMA = "localhost/corral/llama.cpp:11434.0.0-cpu"
OCI = "localhost/corral-test-built/oci:1"
BUILT = "localhost/corral-test-built/llama.cpp:cpu"


@pytest.fixture
def user() -> User:
    return podman.user()


@pytest.fixture
def places(user: User) -> Iterator[Paths]:
    with podman.directories(user) as paths:
        for folder in (paths.config_dir, paths.data_dir):
            folder.mkdir(exist_ok=True)
            user.owns(folder)
        yield paths


def told(user: User, paths: Paths, *words: str, code: int = 0) -> Any:
    """What a command says with --json."""
    done = user.corral("--json", *words, paths=paths, check=False)
    assert done.returncode == code, f"{words}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return json.loads(done.stdout)


@contextmanager
def running(user: User, name: str, *words: str | Path) -> Iterator[str]:
    """A container of a test, removed afterwards."""
    user.run("podman", "rm", "--force", "--time", "0", "--ignore", name)
    user.podman("run", "--detach", "--name", name, "--network", "none", "--read-only", "--cap-drop", "all", *words)
    try:
        yield name
    finally:
        user.run("podman", "rm", "--force", "--time", "0", name, check=False)


def check_of(user: User, image: str) -> list[str] | None:
    """The health check that a container of the image has. (Podman 4 shows none of an image itself.)"""
    name = "corral-test-check"
    user.run("podman", "rm", "--force", "--ignore", name)
    user.podman("create", "--name", name, "--network", "none", image)
    try:
        config = json.loads(user.podman("container", "inspect", name))[0]["Config"]
        found: list[str] | None = (config.get("Healthcheck") or {}).get("Test")
        return found
    finally:
        user.run("podman", "rm", "--force", name, check=False)


def healthy(user: User, name: str) -> bool:
    return user.run("podman", "healthcheck", "run", name, check=False).returncode == 0


@pytest.fixture
def built(user: User, places: Paths) -> Iterator[dict[str, Any]]:
    """The image that `corral image build` makes of llama.cpp as it was compiled before."""
    compiled = user.images["llama.cpp"]
    given = ("--variant", "cpu", "--base", user.images["base"], "--build-base", compiled, "--tag", BUILT)
    try:
        yield told(user, places, "image", "build", "llama.cpp", *given, "--runner", "podman")
    finally:
        user.run("podman", "image", "rm", BUILT, check=False)


def test_a_build_warns_of_nothing_and_its_image_has_a_health_check(user: User, built: dict[str, Any]) -> None:
    """Podman would drop it from an image of OCI's format, with a warning."""
    assert built["warnings"] == [] and built["image"] == BUILT
    config = json.loads(user.podman("image", "inspect", BUILT))[0]
    assert check_of(user, BUILT) == ["CMD", "/bin/sh", "/app/healthy.sh"]
    assert config["User"] == "65532:65532" and config["Config"]["Entrypoint"] == ["/app/llama-server"]
    assert config["Labels"]["io.corral.base"] == user.images["base"]


def test_without_docker_s_format_the_check_would_be_gone(user: User, tmp_path: Path) -> None:
    """What the flag is for; the label has the command all the same."""
    made = user.home / "oci-check"
    user.run("mkdir", "-p", made)
    user.run("sh", "-c", f"cat > {made}/Containerfile", input=f'FROM {LLAMA}\nHEALTHCHECK CMD ["/bin/true"]\n')
    words = ["podman", "build", "--tag", OCI, str(made)]
    try:
        done = user.run(*words)
        assert any("HEALTHCHECK" in line for line in recipe.warnings_in((done.stdout + done.stderr).splitlines()))
        config = json.loads(user.podman("image", "inspect", OCI))[0]
        assert check_of(user, OCI) is None and config["Labels"]["io.corral.health"] == "/bin/sh /app/healthy.sh"
    finally:
        user.run("podman", "image", "rm", OCI, check=False)
        user.run("rm", "-rf", made)


def test_the_health_check_tells_loading_from_serving_on_a_port_and_a_socket(user: User, places: Paths) -> None:
    """It finds out by itself where the server listens, and fails while nobody answers there."""
    folder = places.data_dir
    write_random(folder / "m.gguf")
    user.owns(folder)
    sockets = places.runtime_dir
    sockets.chmod(0o777)
    shared = ("--volume", f"{folder}:{folder}:ro", "--volume", f"{sockets}:{sockets}")
    model = ("--model", str(folder / "m.gguf"))
    where = {"port": ("--port", "8123"), "socket": ("--host", str(sockets / "llama.sock"))}
    for name, words in where.items():
        with running(user, f"corral-test-{name}", *shared, LLAMA, *model, *words) as container:
            until(partial(healthy, user, container), f"{name} to answer", 60)
    with running(user, "corral-test-ill", "--entrypoint", "/bin/sleep", LLAMA, "60") as container:
        assert not healthy(user, container)


def test_the_detector_s_image_runs_its_program(user: User) -> None:
    """With its libraries, on a read-only root, and it has its health check too."""
    image = user.images["detector"]
    about = json.loads(
        user.podman("run", "--rm", "--network", "none", "--read-only", image, "--about").splitlines()[-1]
    )
    assert "CPUExecutionProvider" in about["providers"]
    config = json.loads(user.podman("image", "inspect", image))[0]
    assert check_of(user, image) == ["CMD", "/usr/bin/python3", "-I", "/opt/corral/bin/healthy.py"]
    assert config["User"] == "65532:65532"


def test_the_catalogue_is_listed_with_what_is_here(user: User, places: Paths) -> None:
    """Built here, not here, and how large."""
    found = {(each["engine"], each["variant"], each["origin"]): each for each in told(user, places, "image", "list")}
    cpu = found["llama.cpp", "cpu", "built"]
    assert cpu["here"] and cpu["bytes"] > 50_000_000 and cpu["locked"] == "no"
    assert not found["llama.cpp", "cuda", "fetched"]["here"]
    words = user.corral("image", "list", paths=places).stdout
    assert re.search(rf"llama\.cpp +cpu +{re.escape(LLAMA)} +built +no ", words)


def test_what_is_built_here_is_locked_and_a_new_build_is_another(user: User, places: Paths) -> None:
    """`lock` records it, `lock --check` says when it is not so any more, and nothing in use is no error."""
    assert told(user, places, "lock") == []
    config = places.config_dir / "models.yaml"
    config.write_text("models: [{name: m, source: 'builtin:demo', runner: podman, gpu_layers: 0}]\n")
    user.owns(config)
    (before,) = told(user, places, "lock", "--check", code=1)
    assert (before["reference"], before["state"]) == (LLAMA, "unlocked")
    (written,) = told(user, places, "lock")
    assert written["state"] == "new" and written["how"] == "local"
    assert told(user, places, "lock", "--check")[0]["state"] == "locked"
    lock = places.config_dir / "images.lock.json"
    lock.write_text(lock.read_text().replace(written["digest"], f"sha256:{'0' * 64}"))
    (moved,) = told(user, places, "lock", "--check", code=1)
    assert (moved["state"], moved["was"]) == ("moved", f"sha256:{'0' * 64}")


@pytest.mark.lasts(33)
def test_the_locked_image_is_fetched_whatever_its_tag_means_by_then(user: User, places: Paths) -> None:
    """From a real registry: pushed, locked, pushed anew under the same tag; pull brings the first, --check tells."""
    with docker_registry(places.data_dir / "registry") as authority:
        reference = f"{authority}/corral/engine:1"
        catalogue = places.config_dir / "images.yaml"
        catalogue.write_text(f"llama.cpp: {{cpu: {{image: '{reference}', program: /app/llama-server}}}}\n")
        config = places.config_dir / "models.yaml"
        config.write_text("models: [{name: m, source: 'builtin:demo', runner: podman, gpu_layers: 0}]\n")
        user.owns(places.config_dir)
        try:
            push(user, LLAMA, reference)
            (locked,) = told(user, places, "lock")
            assert (locked["reference"], locked["how"]) == (reference, "registry")
            push(user, user.images["base"], reference)
            (moved,) = told(user, places, "lock", "--check", code=1)
            assert moved["state"] == "moved" and moved["was"] == locked["digest"]
            user.podman("image", "rm", reference)
            with insecure(user, authority):
                fetched = told(user, places, "image", "pull", "llama.cpp", "--variant", "cpu")
            assert fetched["image"] == reference
            assert any(each.endswith(locked["digest"]) for each in fetched["digests"])
            (listed,) = (each for each in told(user, places, "image", "list") if each["reference"] == reference)
            assert listed["here"] and listed["locked"] == "yes"
            assert told(user, places, "image", "rm", reference)["removed"] == [reference]
            assert told(user, places, "image", "rm", reference, code=1)["not_here"] == [reference]
        finally:
            user.run("podman", "image", "rm", "--ignore", reference, check=False)


def push(user: User, image: str, reference: str) -> None:
    user.podman("tag", image, reference)
    user.podman("push", "--tls-verify=false", reference)


@contextmanager
def insecure(user: User, authority: str) -> Iterator[None]:
    """Podman is told that the registry of the test has no TLS."""
    folder = user.home / ".config" / "containers" / "registries.conf.d"
    folder.mkdir(exist_ok=True)
    file = folder / f"test-{authority.rpartition(':')[2]}.conf"
    file.write_text(f'[[registry]]\nlocation = "{authority}"\ninsecure = true\n')
    user.owns(folder)
    try:
        yield
    finally:
        file.unlink()


def test_an_image_in_use_stays(user: User, places: Paths) -> None:
    """Removing it is refused with the reason; a name that is nothing's is said, too."""
    reference = "localhost/corral-test-built/used:1"
    user.podman("tag", user.images["base"], reference)
    user.run("sh", "-c", "printf 'FROM localhost/corral-test-built/used:1\nLABEL of=test\n' > ~/used.containerfile")
    user.podman("build", "--quiet", "--file", user.home / "used.containerfile", "--tag", reference, "--network", "none")
    try:
        with running(user, "corral-test-used", reference, "sleep", "60"):
            done = user.corral("--json", "image", "rm", reference, paths=places, check=False)
            error = json.loads(done.stderr)["error"]
            assert done.returncode and error["code"] == "in_use" and "corral stop" in error["hint"]
    finally:
        user.run("podman", "image", "rm", reference, check=False)
        user.run("rm", "-f", user.home / "used.containerfile")


def test_what_can_be_built_and_what_not_is_said(user: User, places: Paths) -> None:
    """Another engine's image is not built here; one that is only built here is not fetched."""
    done = user.corral("--json", "image", "build", "vllm", "--variant", "cuda", paths=places, check=False)
    assert done.returncode == 2 and "cannot be built here" in json.loads(done.stderr)["error"]["message"]
    done = user.corral("--json", "image", "pull", LLAMA, paths=places, check=False)
    assert done.returncode == 2 and "corral image build" in json.loads(done.stderr)["error"]["hint"]


def test_a_build_that_fails_says_why(user: User, places: Paths) -> None:
    """The last words of the build are in the error."""
    words = ("--variant", "cpu", "--base", "localhost/corral-test-built/nothing:1")
    done = user.corral("--json", "image", "build", "llama.cpp", *words, paths=places, check=False)
    error = json.loads(done.stderr.splitlines()[-1])["error"]
    assert done.returncode == 6 and "build failed" in error["message"] and "nothing" in error["message"]
