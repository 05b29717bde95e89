"""Where everything of a store lies, and whether a directory is one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from corral.descriptors import INDEX, check_digest
from corral.errors import ManifestError, StoreError
from corral.lazy_dataclass import dataclass
from corral.store import durable
from corral.store.locks import StoreLock

VERSION = 1
_OCI_LAYOUT = {"imageLayoutVersion": "1.0.0"}
_OURS = {"oci-layout", "index.json", "blobs", "corral.json", "corral", "lost+found"}


@dataclass(frozen=True, slots=True)
class Layout:
    """The paths of a store: an OCI image layout, and `corral/` for what is Corral's own.

    Source: OCI image-spec v1.1, image-layout.md.
    """

    root: Path

    @property
    def index(self) -> Path:
        return self.root / "index.json"

    @property
    def version(self) -> Path:
        return self.root / "corral.json"

    @property
    def blobs(self) -> Path:
        return self.root / "blobs" / "sha256"

    @property
    def private(self) -> Path:
        return self.root / "corral"

    @property
    def lock(self) -> Path:
        return self.private / "lock"

    @property
    def partial(self) -> Path:
        """Downloads that are not whole yet."""
        return self.private / "partial"

    @property
    def history(self) -> Path:
        return self.private / "history"

    @property
    def external(self) -> Path:
        """What is known of blobs whose file others can change: links to outside, hard links."""
        return self.private / "external"

    @property
    def holds(self) -> Path:
        return self.private / "holds"

    @property
    def scratch(self) -> Path:
        """One directory per operation that writes, with its lock."""
        return self.private / "scratch"

    @property
    def trash(self) -> Path:
        """Swept, and not removed yet."""
        return self.private / "trash"

    @property
    def jobs(self) -> Path:
        """Downloads as jobs; `models.downloads` owns what is in it."""
        return self.private / "jobs"

    @property
    def placed(self) -> Path:
        """Blobs under their real file names, a directory per model; `models.unpack` owns what is in it."""
        return self.private / "placed"

    def blob(self, digest: str) -> Path:
        """Raises ManifestError when `digest` is none."""
        return self.blobs / check_digest(digest)[7:]

    def prepare(self) -> None:
        """Makes the store, or checks that what is there is one that this version understands.

        Raises StoreError for another kind of directory, or a store of a newer version.
        """
        with durable.disk_errors(f"make the store {self.root}"):
            self.root.mkdir(mode=0o755, parents=True, exist_ok=True)
            if self.version.exists():
                self._check_version()
            # An image layout made by another tool is welcome; a home directory is not.
            elif (strange := self._strange()) and not (self.root / "oci-layout").exists():
                raise StoreError(
                    f"{self.root} is no model store: it has {strange[0]}",
                    hint="point CORRAL_DATA_DIR to an empty directory",
                )
            self._make()

    def _strange(self) -> list[str]:
        return sorted({each.name for each in self.root.iterdir()} - _OURS)

    def _check_version(self) -> None:
        try:
            version = json.loads(self.version.read_bytes())["version"]
        except (ValueError, KeyError, TypeError) as error:
            raise StoreError(
                f"{self.version} is damaged", hint=f'write {{"version": {VERSION}}} into it if this is your store'
            ) from error
        if version != VERSION:
            raise StoreError(
                f"the store {self.root} has version {version!r}; this Corral knows version {VERSION}",
                hint="use the newer Corral that made it, or another CORRAL_DATA_DIR",
            )

    def _make(self) -> None:
        own = (self.partial, self.history, self.external, self.holds, self.scratch, self.trash, self.jobs, self.placed)
        for each in (self.blobs, *own):
            each.mkdir(parents=True, exist_ok=True)
        files: tuple[tuple[Path, dict[str, Any]], ...] = (
            (self.root / "oci-layout", _OCI_LAYOUT),
            (self.index, {"schemaVersion": 2, "mediaType": INDEX, "manifests": []}),
            (self.version, {"version": VERSION}),  # last: with it the store is one
        )
        if all(file.exists() for file, _ in files):
            return
        with StoreLock(self.lock).exclusive():
            for file, content in files:
                if not file.exists():
                    durable.replace(file, json.dumps(content).encode(), self.private / f"{file.name}.new")


def digest_named(name: str) -> str | None:
    """The digest of the blob whose file is called so; None for another tool's temporary file."""
    digest = f"sha256:{name}"
    try:
        return check_digest(digest)
    except ManifestError:
        return None
