"""What `make podman` made is what tests of containers may count on."""

from __future__ import annotations

import pytest

from support import podman

pytestmark = pytest.mark.podman


def test_a_container_of_the_engine_s_image_runs_without_any_rights() -> None:
    """The image's program runs with a read-only root, no capability and no network."""
    user = podman.user()
    said = user.podman(
        "run", "--rm", "--network", "none", "--read-only", "--cap-drop", "all", "--security-opt", "no-new-privileges",
        user.images["llama.cpp"], "--help",
    )  # fmt: skip
    assert "--host" in said


def test_corral_serves_as_the_user_who_has_podman() -> None:
    """The server runs as that user from this checkout's sources, and commands of the same user reach it."""
    user = podman.user()
    with podman.directories(user) as paths, podman.Server(paths) as server:
        from_outside = server.client.status()
        inside = user.corral("status", "--json", paths=paths)
        assert from_outside.version in inside.stdout
        assert podman.processes_of(user, str(paths.config_dir))
        answer = user.corral("run", "demo", "hello", paths=paths)
        assert answer.stdout.strip()
