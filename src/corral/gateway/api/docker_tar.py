"""Models as Docker's tar files: the blobs and, beside them, `manifest.json`; the store's own are OCI layouts.

Source: docker/model-runner 642c7211, `pkg/distribution/tarball`.
"""

from __future__ import annotations

import asyncio
import io
import json
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final

from corral.api_store import ExportAsk, LoadAsk
from corral.descriptors import MANIFEST, MAX_MANIFEST_BYTES, decode_json, digest_of
from corral.errors import ArchiveRefused
from corral.gateway.exchange import Exchange
from corral.gateway.models_host import ModelsHost, Report

_NAME: Final = "org.opencontainers.image.ref.name"
_PIECE: Final = 1 << 20
_HINT: Final = "send what GET /models/{name}/export gave"


async def export(exchange: Exchange, models: ModelsHost, name: str, place: str) -> None:
    """Answers with the model `name` of the store, by way of a file in the directory `place`, which has room for it.

    Raises what exporting raises.
    """
    with tempfile.TemporaryDirectory(prefix="export-", dir=place) as folder:
        path = Path(folder) / "model.tar"
        await models.export(ExportAsk([name], str(path)), lambda progress: None)
        with path.open("rb") as file:
            await exchange.start(200, [(b"content-type", b"application/x-tar")])
            pieces = _as_docker(file)
            while (piece := await asyncio.to_thread(next, pieces, None)) is not None:
                await exchange.write(piece)
            await exchange.end()


def _as_docker(file: BinaryIO) -> Iterator[bytes]:
    """An OCI layout's tar file as Docker's, piece by piece."""
    with tarfile.open(fileobj=file) as layout:
        held = layout.extractfile("index.json")
        assert held is not None, "the store's archives have an index"
        (root,) = json.load(held)["manifests"]
        top = f"blobs/sha256/{root['digest'].removeprefix('sha256:')}"
        for member in layout.getmembers():
            if not member.name.startswith("blobs/") or member.name == top:
                continue
            yield _header(member.name, member.size)
            source = layout.extractfile(member)
            assert source is not None, "blobs are files"
            while piece := source.read(_PIECE):
                yield piece
            yield bytes(-member.size % tarfile.BLOCKSIZE)
        manifest = layout.extractfile(top)
        assert manifest is not None, "the manifest is among the blobs"
        data = manifest.read()
        yield _header("manifest.json", len(data)) + data + bytes(-len(data) % tarfile.BLOCKSIZE)
        yield bytes(2 * tarfile.BLOCKSIZE)


def _header(name: str, size: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.mode = size, 0o644
    return info.tobuf(tarfile.PAX_FORMAT)


async def take_in(models: ModelsHost, body: bytes, report: Report, place: str) -> str:
    """Brings the model of such a file into the store; its name there. Raises ArchiveRefused, and what loading does."""
    with tempfile.TemporaryDirectory(prefix="load-", dir=place) as folder:
        path = Path(folder) / "model.tar"
        await asyncio.to_thread(_as_layout, body, path)
        return (await models.load(LoadAsk(str(path)), report)).names[0]


def _as_layout(body: bytes, path: Path) -> None:
    try:
        with tarfile.open(fileobj=io.BytesIO(body)) as given, tarfile.open(path, "w") as layout:
            if "index.json" in given.getnames():  # an OCI layout already
                path.write_bytes(body)
                return
            manifest = _manifest(given)
            digest = digest_of(manifest)
            kind = decode_json(manifest, "manifest.json").get("mediaType")
            name = f"docker.io/library/loaded:{digest.removeprefix('sha256:')[:12]}"
            root = {
                "mediaType": kind if isinstance(kind, str) else MANIFEST, "digest": digest, "size": len(manifest),
                "annotations": {_NAME: name},
            }  # fmt: skip
            _put(layout, "oci-layout", b'{"imageLayoutVersion":"1.0.0"}')
            _put(layout, "index.json", json.dumps({"schemaVersion": 2, "manifests": [root]}).encode())
            for member in given.getmembers():
                if member.isfile() and member.name.startswith("blobs/"):
                    info = tarfile.TarInfo(member.name)
                    info.size = member.size
                    layout.addfile(info, given.extractfile(member))
            _put(layout, f"blobs/sha256/{digest.removeprefix('sha256:')}", manifest)
    except (tarfile.TarError, EOFError) as exc:
        raise ArchiveRefused("the body is no tar file of a model", hint=_HINT) from exc


def _manifest(given: tarfile.TarFile) -> bytes:
    try:
        held = given.extractfile("manifest.json")
    except KeyError:
        held = None
    if held is None:
        raise ArchiveRefused("the tar file has no manifest.json", hint=_HINT)
    data = held.read(MAX_MANIFEST_BYTES + 1)
    if len(data) > MAX_MANIFEST_BYTES:
        raise ArchiveRefused("the tar file's manifest is too large", hint=_HINT)
    return data


def _put(layout: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    layout.addfile(info, io.BytesIO(data))
