"""What the model store's routes need of the daemon: one protocol, so that the gateway never imports it."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Callable
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from corral.api_store import (
        ConvertAsk,
        CreateAsk,
        Created,
        Done,
        DownloadAsk,
        DownloadInfo,
        ExportAsk,
        Exported,
        FoundModel,
        ImportAsk,
        ImportedInfo,
        Inspected,
        LoadAsk,
        LoadedInfo,
        LoginAsk,
        LogoutAsk,
        ModelCard,
        PackageAsk,
        PastInfo,
        Progress,
        PruneAsk,
        PullAsk,
        PushAsk,
        Pushed,
        QuantizeAsk,
        QuantizerInfo,
        Remade,
        RemoveAsk,
        Removed,
        RollbackAsk,
        StoredModel,
        TagAsk,
        Tagged,
        UpdateAsk,
        UsageInfo,
        Verified,
        VerifyAsk,
    )

Report = Callable[["Progress"], None]
"""Says how far a piece of work is. May be called from any thread."""


class ModelsHost(Protocol):
    """The store and its downloads. Names may be short; every method raises CorralError with a hint."""

    async def pull(self, ask: PullAsk) -> DownloadInfo:
        """Begins a download, or joins the one that runs; returns at once."""
        ...

    async def update(self, ask: UpdateAsk) -> list[DownloadInfo]: ...

    async def downloads(self) -> list[DownloadInfo]: ...

    def follow_downloads(self) -> AsyncIterator[DownloadInfo]:
        """Every download as it is now, then each again whenever it changes."""
        ...

    async def pause(self, ask: DownloadAsk) -> DownloadInfo: ...

    async def resume(self, ask: DownloadAsk) -> DownloadInfo: ...

    async def cancel(self, ask: DownloadAsk) -> DownloadInfo: ...

    async def stored(self) -> list[StoredModel]: ...

    async def show(self, name: str) -> ModelCard: ...

    async def inspect(self, ref: str, *, remote: bool) -> Inspected: ...

    async def history(self, name: str) -> list[PastInfo]: ...

    async def rollback(self, ask: RollbackAsk) -> Tagged: ...

    async def remove(self, ask: RemoveAsk) -> Removed: ...

    async def prune(self, ask: PruneAsk) -> Removed: ...

    async def tag(self, ask: TagAsk) -> Tagged: ...

    async def usage(self) -> UsageInfo: ...

    async def search(self, text: str, *, source: str | None, limit: int) -> list[FoundModel]: ...

    async def login(self, ask: LoginAsk) -> Done: ...

    async def logout(self, ask: LogoutAsk) -> Done: ...

    async def verify(self, ask: VerifyAsk, report: Report) -> Verified: ...

    async def push(self, ask: PushAsk, report: Report) -> Pushed: ...

    async def package(self, ask: PackageAsk, report: Report) -> Tagged: ...

    async def quantize(self, ask: QuantizeAsk, report: Report) -> Remade: ...

    async def convert(self, ask: ConvertAsk, report: Report) -> Remade: ...

    async def quantizer(self) -> QuantizerInfo:
        """The tool that quantizes here. Raises EngineMissing."""
        ...

    async def create(self, ask: CreateAsk, report: Report) -> Created:
        """Makes a model of another one, or of blobs."""
        ...

    async def has_blob(self, digest: str) -> bool: ...

    async def add_blob(self, digest: str, pieces: AsyncIterable[bytes]) -> None:
        """Takes in a blob that some model is to be made of. Raises DigestMismatch when it is another, DiskFull."""
        ...

    async def import_models(self, ask: ImportAsk, report: Report) -> list[ImportedInfo]: ...

    async def export(self, ask: ExportAsk, report: Report) -> Exported: ...

    async def load(self, ask: LoadAsk, report: Report) -> LoadedInfo: ...
