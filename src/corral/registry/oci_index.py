"""Which of an index's manifests is meant. Pure but for the name of this machine's processor."""

from __future__ import annotations

import platform
from collections.abc import Mapping

from corral.descriptors import Descriptor, descriptor_from
from corral.errors import ManifestError

MAX_ENTRIES = 1000

# Source: OCI image-spec v1.1, image-index.md: the values are Go's GOARCH.
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "i686": "386", "loongarch64": "loong64"}


def architecture() -> str:
    """This machine's processor as indexes name it."""
    machine = platform.machine().lower()
    return _ARCHITECTURES.get(machine, machine)


def pick(index: Mapping[str, object], what: str, arch: str | None = None) -> tuple[Descriptor, str]:
    """The manifest for Linux on this processor, else one for no platform, else the first; and that in words.

    Models run on any platform, so the last two are no errors. What is about the image (attestations) is passed over.
    Raises ManifestError.
    """
    arch = arch or architecture()
    entries = index.get("manifests")
    if not isinstance(entries, list) or len(entries) > MAX_ENTRIES:
        raise ManifestError(f"the index of {what} is no list of at most {MAX_ENTRIES}", hint="it is damaged")
    best: tuple[int, Descriptor, str] | None = None
    for entry in entries:
        found = descriptor_from(entry)
        wanted = entry.get("platform") if isinstance(entry.get("platform"), Mapping) else {}
        system, machine = str(wanted.get("os", "")), str(wanted.get("architecture", ""))
        if "unknown" in (system, machine) or "vnd.docker.reference.type" in found.annotations:
            continue
        if (system, machine) == ("linux", arch):
            rank = 0
        elif not machine:
            rank = 1
        else:
            rank = 2
        if best is None or rank < best[0]:
            best = rank, found, f"{system}/{machine}".strip("/") or "any platform"
    if best is None:
        raise ManifestError(f"the index of {what} names no model", hint="it has only attestations, or nothing")
    return best[1], f"{what} is an index; the manifest for {best[2][:60]} was taken"
