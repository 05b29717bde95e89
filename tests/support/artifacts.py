"""Model artifacts for tests: manifests put into a store as any tool might have made them, and tar archives."""

from __future__ import annotations

import gzip
import io
import json
import struct
import sys
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from corral.artifact import media
from corral.descriptors import MANIFEST, Descriptor, digest_of
from corral.store.store import Store

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

OLLAMA = "application/vnd.ollama.image."
CNCF = "application/vnd.cncf.model."


def new_store(path: Path) -> Store:
    """An empty store at `path`."""
    store = Store(path)
    store.prepare()
    return store


def descriptor(media_type: str, data: bytes, **annotations: str) -> Descriptor:
    """What names `data`. Annotations: `path` and `title` stand for the usual keys."""
    keys = {"path": media.FILEPATH, "title": media.OCI_TITLE}
    return Descriptor(media_type, digest_of(data), len(data), {keys.get(k, k): v for k, v in annotations.items()})


def layer(media_type: str, data: bytes, **annotations: str) -> tuple[Descriptor, bytes]:
    """A layer to be given to `put`."""
    return descriptor(media_type, data, **annotations), data


def manifest(
    layers: Sequence[Descriptor], config: Descriptor | None = None, annotations: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """A decoded manifest of these layers."""
    data: dict[str, Any] = {"schemaVersion": 2, "mediaType": MANIFEST}
    if config is not None:
        data["config"] = config.as_data()
    data["layers"] = [each.as_data() for each in layers]
    if annotations:
        data["annotations"] = dict(annotations)
    return data


def put(
    store: Store,
    layers: Sequence[tuple[Descriptor, bytes]],
    config: Mapping[str, Any] | None = None,
    config_type: str = "application/vnd.oci.empty.v1+json",
    name: str = "localhost/test:latest",
) -> str:
    """Stores a model of these layers under `name`; the digest of its manifest."""
    body = json.dumps(config or {}).encode()
    store.add_bytes(body)
    for _, data in layers:
        store.add_bytes(data)
    made = json.dumps(manifest([each for each, _ in layers], descriptor(config_type, body))).encode()
    digest, size = store.add_bytes(made)
    store.set_name(name, Descriptor(MANIFEST, digest, size))
    return digest


def tar(files: Mapping[str, bytes], *extra: tarfile.TarInfo, form: int = tarfile.PAX_FORMAT) -> bytes:
    """A tar archive of `files`, then of `extra` entries without content."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
        for info in extra:
            archive.addfile(info)
    return out.getvalue()


def entry(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    """An entry of another kind: a link, a device, a directory."""
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def header(name: bytes, kind: bytes = b"0", size: int = 0, size_field: bytes | None = None) -> bytes:
    """One raw tar header with a true checksum, for what the standard library refuses to write."""
    field = size_field if size_field is not None else b"%011o\0" % size
    block = struct.pack(
        "100s8s8s8s12s12s8s1s100s6s2s32s32s8s8s155s12x",
        name, b"0000644\0", b"0000000\0", b"0000000\0", field, b"00000000000\0", b" " * 8, kind, b"", b"ustar\0", b"00",
        b"", b"", b"0000000\0", b"0000000\0", b"",
    )  # fmt: skip
    return block[:148] + b"%06o\0 " % sum(block) + block[156:]


def packed(data: bytes, packing: str) -> bytes:
    """`data` compressed as a layer of that packing is."""
    if packing == "tar+gzip":
        return gzip.compress(data, mtime=0)
    return zstd.compress(data) if packing == "tar+zstd" else data


def safetensors(tensors: Mapping[str, tuple[str, Sequence[int], bytes]], **header_extra: Any) -> bytes:
    """A safetensors file of `{name: (dtype, shape, data)}`."""
    at, head = 0, dict(header_extra)
    for name, (kind, shape, data) in tensors.items():
        head[name] = {"dtype": kind, "shape": list(shape), "data_offsets": [at, at + len(data)]}
        at += len(data)
    encoded = json.dumps(head).encode()
    return struct.pack("<Q", len(encoded)) + encoded + b"".join(data for _, _, data in tensors.values())
