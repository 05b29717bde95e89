"""What pulls are measured against: a registry of Debian's on loopback, and a model of noise in it."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from corral.descriptors import MANIFEST, Descriptor, digest_of
from corral.refs import Ref
from corral.registry.auth import Auth
from corral.registry.egress import Egress, EgressPolicy
from corral.registry.oci import OciRegistry
from corral.registry.oci_push import PushBlob

START_S = 20.0
REPOSITORY = "ai/bench"
_LISTENING = re.compile(rb"listening on (?:\[::\]|127\.0\.0\.1):(\d+)")


@dataclass(frozen=True)
class Offered:
    """A model in a registry."""

    host: str
    digest: str  # of its one layer
    file: Path  # that layer's bytes, outside the registry


@contextmanager
def registry(place: Path) -> Iterator[str]:
    """The `host:port` of a docker-registry that keeps its content in `place`."""
    place.mkdir()
    config = {
        "version": 0.1,
        "storage": {"filesystem": {"rootdirectory": str(place / "data")}},
        "http": {"addr": "127.0.0.1:0", "secret": "bench"},
        "log": {"level": "info", "accesslog": {"disabled": True}},
    }
    (place / "config.yml").write_text(json.dumps(config))
    program = shutil.which("docker-registry")
    if program is None:
        raise SystemExit("docker-registry is not installed; Debian packages it")
    with (place / "log").open("wb") as log:
        process = subprocess.Popen([program, "serve", place / "config.yml"], stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + START_S
        while (found := _LISTENING.search((place / "log").read_bytes())) is None:
            if time.monotonic() > deadline or process.poll() is not None:
                raise SystemExit(f"docker-registry did not start: {(place / 'log').read_text()}")
            time.sleep(0.02)
        yield f"localhost:{int(found[1])}"
    finally:
        process.kill()
        process.wait()


def offer(host: str, place: Path, size: int) -> Offered:
    """Pushes a model with one layer of `size` random bytes."""
    file = place / "layer"
    with file.open("wb") as out:
        for done in range(0, size, 8 << 20):
            out.write(os.urandom(min(8 << 20, size - done)))
    config = b'{"config":{"format":"gguf"},"rootfs":{"type":"rootfs","diff_ids":[]}}'
    with file.open("rb") as opened:
        digest = "sha256:" + hashlib.file_digest(opened, "sha256").hexdigest()
    layer = Descriptor("application/vnd.docker.ai.gguf.v3", digest, size)
    about = Descriptor("application/vnd.docker.ai.model.config.v0.1+json", digest_of(config), len(config))
    manifest = {"schemaVersion": 2, "mediaType": MANIFEST, "config": about.as_data(), "layers": [layer.as_data()]}
    with Egress(EgressPolicy(), env={}) as egress:
        OciRegistry(egress, Auth(egress, None, env={})).push(
            Ref("oci", host, REPOSITORY, "latest"),
            json.dumps(manifest).encode(),
            MANIFEST,
            [PushBlob(about, lambda: io.BytesIO(config)), PushBlob(layer, lambda: file.open("rb"))],
        )
    return Offered(host, digest, file)
