"""The model plane: the library and its downloads, as the gateway's model routes ask for them, on the event loop.

Most of what is behind it is loaded when a route first asks for it: a server whose models are files never does.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from types import ModuleType
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from corral import errors
from corral.api import ErrorInfo
from corral.descriptors import check_digest
from corral.errors import CorralError
from corral.events import EventLog
from corral.gateway.models_host import Report
from corral.models.fetching.control import Stopped
from corral.models.fetching.job_view import JobView
from corral.models.library import Library

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
    from corral.models.shelf import Shelf
    from corral.models.workshop import Cancel, Workshop

T = TypeVar("T")

WORKERS = 8
"""Threads for what may take minutes, apart from those that everything else shares."""


class InUse(Protocol):
    """What the control plane knows of the models that are being served."""

    def digests_in_use(self) -> set[str]: ...

    def guests_in_use(self) -> set[str]:
        """Names of the store that nothing configures and that are being served."""
        ...

    def configured_names(self) -> set[str]:
        """Names of the store that models.yaml refers to."""
        ...

    async def store_changed(self) -> None:
        """Names came, went, or point elsewhere."""
        ...


class ModelPlane:
    """The gateway's `ModelsHost`. Made on the loop; `open` before the first use, `close` at the end."""

    def __init__(self, make: Callable[[Callable[[JobView], None]], Library], events: EventLog) -> None:
        self._loop = asyncio.get_running_loop()
        self._events = events
        self._views: dict[str, tuple[int, JobView]] = {}
        self._count = 0
        self._began: dict[str, int] = {}  # bytes that each download had when it was first heard of
        self._changed = asyncio.Event()
        self._told: dict[str, str] = {}
        self._pool = ThreadPoolExecutor(WORKERS, thread_name_prefix="corral-work")
        self._closed = False
        self.library = make(self._heard)
        self._made_shelf: Shelf | None = None
        self.users: InUse | None = None
        self.forget_conversations: Callable[[bool], Awaitable[tuple[int, int]]] | None = None

    async def open(self) -> None:
        """Raises StoreError."""
        for view in await asyncio.to_thread(self.library.open):
            self._take(view)

    async def close(self) -> None:
        """Downloads stop where they are and go on at the next start. Blocks for some seconds at most."""
        self._closed = True
        self._changed.set()
        await asyncio.to_thread(self.library.close)
        self._pool.shutdown(wait=False, cancel_futures=True)

    @property
    def busy(self) -> bool:
        """A download is under way."""
        return any(view.state in ("queued", "resolving", "running") for _, view in self._views.values())

    # Downloads

    def _heard(self, view: JobView) -> None:
        with suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(self._take, view)

    def _take(self, view: JobView) -> None:
        self._count += 1
        self._views[view.id] = (self._count, view)
        self._began.setdefault(view.id, view.done)
        self._changed.set()
        self._changed = asyncio.Event()
        if self._told.get(view.id) != view.state:
            before, self._told[view.id] = self._told.get(view.id), view.state
            if before is not None or not view.over:
                why = f": {view.error.message}" if view.error is not None else ""
                self._events.post(
                    f"download.{view.state}", f"{view.ref}: {view.state}{why}", id=view.id, name=view.name
                )

    async def pull(self, ask: PullAsk) -> DownloadInfo:
        view = await asyncio.to_thread(self.library.pull, ask.ref, name=ask.name, sha256=ask.sha256, update=ask.update)
        return download_info(view)

    async def update(self, ask: UpdateAsk) -> list[DownloadInfo]:
        return [download_info(view) for view in await asyncio.to_thread(self.library.update, ask.names)]

    async def downloads(self) -> list[DownloadInfo]:
        views = await asyncio.to_thread(lambda: self.library.downloads.jobs())
        return [download_info(view) for view in reversed(views)]

    def downloads_now(self) -> list[tuple[JobView, int]]:
        """The downloads of which this server has heard, at once, and how many bytes of each were there then."""
        return [(view, self._began[view.id]) for _, view in self._views.values()]

    async def follow_downloads(self) -> AsyncIterator[DownloadInfo]:
        seen = 0
        while not self._closed:
            changed = self._changed
            fresh = sorted((entry for entry in self._views.values() if entry[0] > seen), key=lambda entry: entry[0])
            for count, view in fresh:
                seen = max(seen, count)
                yield download_info(view)
            if not fresh:
                await changed.wait()

    async def pause(self, ask: DownloadAsk) -> DownloadInfo:
        return download_info(await asyncio.to_thread(lambda: self.library.downloads.pause(ask.id)))

    async def resume(self, ask: DownloadAsk) -> DownloadInfo:
        return download_info(await asyncio.to_thread(lambda: self.library.downloads.resume(ask.id)))

    async def cancel(self, ask: DownloadAsk) -> DownloadInfo:
        return download_info(await asyncio.to_thread(lambda: self.library.downloads.cancel(ask.id)))

    async def fetched(self, text: str, within_s: float) -> JobView:
        """Pulls and waits for the end. Raises the download's error, DeadlinePassed when it takes longer."""
        view = await asyncio.to_thread(self.library.pull, text, update=False)
        deadline = self._loop.time() + within_s
        while not view.over and view.state != "paused":
            left, changed = deadline - self._loop.time(), self._changed
            if view.id in self._views and self._views[view.id][1].over:
                view = self._views[view.id][1]
                continue
            try:
                await asyncio.wait_for(changed.wait(), max(0.0, left))
            except TimeoutError:
                raise errors.DeadlinePassed(
                    f"{text} is still being fetched", hint="see: corral downloads", retry_after_s=30
                ) from None
            view = self._views.get(view.id, (0, view))[1]
        if view.state != "done":
            raise _error_of(view)
        return view

    # The shelf

    @property
    def _shelf(self) -> Shelf:
        """Ask for it in a thread: it may have to be loaded."""
        if self._made_shelf is None:
            from corral.models.shelf import Shelf

            self._made_shelf = Shelf(self.library)
        return self._made_shelf

    def _used(self) -> set[str]:
        return self.users.digests_in_use() if self.users is not None else set()

    async def stored(self) -> list[StoredModel]:
        used = self._used()
        return await self._slow(lambda: self._shelf.stored(used))

    async def show(self, name: str) -> ModelCard:
        return await self._slow(lambda: self._shelf.show(name))

    async def inspect(self, ref: str, *, remote: bool) -> Inspected:
        return await self._slow(lambda: self._shelf.inspect(ref, remote=remote))

    async def history(self, name: str) -> list[PastInfo]:
        return await asyncio.to_thread(lambda: self._shelf.history(name))

    async def rollback(self, ask: RollbackAsk) -> Tagged:
        done = await asyncio.to_thread(lambda: self._shelf.rollback(ask))
        self._events.post("store.rollback", f"{done.name} is {done.digest} again", name=done.name)
        return await self._then(done)

    async def remove(self, ask: RemoveAsk) -> Removed:
        used = self._used()
        serving = self.users.guests_in_use() if self.users is not None else set()
        done = await self._slow(lambda: self._shelf.remove(ask.names, used, serving))
        self._events.post("store.removed", f"removed {', '.join(done.names)}: {done.bytes} bytes", names=done.names)
        return await self._then(done)

    async def prune(self, ask: PruneAsk) -> Removed:
        if ask.conversations:
            return await self._prune_conversations(ask.dry_run)
        configured = self.users.configured_names() if self.users is not None else set()
        used = self._used()
        done = await self._slow(lambda: self._shelf.prune(ask, used, configured))
        if not ask.dry_run:
            self._events.post("store.pruned", f"pruned {len(done.names)} names: {done.bytes} bytes", names=done.names)
        return await self._then(done)

    async def _prune_conversations(self, dry_run: bool) -> Removed:
        from corral.api_store import Removed

        count, size = await self.forget_conversations(dry_run) if self.forget_conversations is not None else (0, 0)
        if not dry_run:
            self._events.post("conversation.pruned", f"removed {count} kept conversations: {size} bytes")
        return Removed([], count, size, dry_run=dry_run)

    async def tag(self, ask: TagAsk) -> Tagged:
        return await self._then(await asyncio.to_thread(lambda: self._shelf.tag(ask)))

    async def usage(self) -> UsageInfo:
        _, size = await self.forget_conversations(True) if self.forget_conversations is not None else (0, 0)
        return await self._slow(lambda: self._shelf.usage(size))

    async def search(self, text: str, *, source: str | None, limit: int) -> list[FoundModel]:
        places: Any = ("docker", "hf") if source is None else (source,)
        found = await self._slow(lambda: self.library.reach.search(text, places=places, limit=limit))
        from corral.api_store import FoundModel

        return [FoundModel(each.name, each.description, each.downloads, each.source) for each in found]

    async def login(self, ask: LoginAsk) -> Done:
        from corral.api_store import Done

        await self._slow(lambda: self.library.reach.auth.login(ask.host, ask.user, ask.password))
        return Done(f"logged in to {ask.host} as {ask.user}")

    async def logout(self, ask: LogoutAsk) -> Done:
        from corral.api_store import Done

        had = await asyncio.to_thread(lambda: self.library.reach.auth.logout(ask.host))
        return Done(f"logged out of {ask.host}" if had else f"Corral kept nothing for {ask.host}")

    # The workshop

    async def verify(self, ask: VerifyAsk, report: Report) -> Verified:
        return await self._work(lambda shop, cancel: shop.verify(ask, cancel), report)

    async def push(self, ask: PushAsk, report: Report) -> Pushed:
        return await self._work(lambda shop, cancel: shop.push(ask, cancel), report)

    async def package(self, ask: PackageAsk, report: Report) -> Tagged:
        return await self._then(await self._work(lambda shop, cancel: shop.package(ask, cancel), report))

    async def quantize(self, ask: QuantizeAsk, report: Report) -> Remade:
        return await self._then(await self._work(lambda shop, cancel: shop.quantize(ask, cancel), report))

    async def convert(self, ask: ConvertAsk, report: Report) -> Remade:
        return await self._then(await self._work(lambda shop, cancel: shop.convert(ask, cancel), report))

    async def quantizer(self) -> QuantizerInfo:
        workshop = await asyncio.to_thread(_load_workshop)
        found: QuantizerInfo = await asyncio.to_thread(lambda: workshop.Workshop(self.library).quantizer())
        return found

    async def create(self, ask: CreateAsk, report: Report) -> Created:
        return await self._then(await self._work(lambda shop, cancel: shop.create(ask, cancel), report))

    async def has_blob(self, digest: str) -> bool:
        return await asyncio.to_thread(lambda: self.library.store.find(check_digest(digest)) is not None)

    async def add_blob(self, digest: str, pieces: AsyncIterable[bytes]) -> None:
        store = self.library.store
        check_digest(digest)
        with ExitStack() as held:
            directory = await asyncio.to_thread(held.enter_context, store.spool())
            with (directory / "blob").open("wb") as file:
                async for piece in pieces:
                    await self._slow(lambda piece=piece: file.write(piece))  # type: ignore[misc]
            await self._slow(lambda: store.add_file(directory / "blob", how="move", digest=digest))

    async def import_models(self, ask: ImportAsk, report: Report) -> list[ImportedInfo]:
        return await self._then(await self._work(lambda shop, cancel: shop.import_models(ask, cancel), report))

    async def export(self, ask: ExportAsk, report: Report) -> Exported:
        return await self._work(lambda shop, cancel: shop.export(ask, cancel), report)

    async def load(self, ask: LoadAsk, report: Report) -> LoadedInfo:
        return await self._then(await self._work(lambda shop, cancel: shop.load(ask, cancel), report))

    async def _work(self, work: Callable[[Workshop, Cancel], T], report: Report) -> T:
        """Runs `work` in a thread; when its asker leaves, it ends at its next word of progress."""
        workshop = await asyncio.to_thread(_load_workshop)
        cancel = workshop.Cancel(report)
        try:
            return await self._slow(lambda: work(workshop.Workshop(self.library), cancel))
        except asyncio.CancelledError:
            cancel.set()
            raise
        except Stopped as stopped:
            raise errors.CallerError("the work was ended before it was done", hint="begin it again") from stopped

    async def _slow(self, work: Callable[[], T]) -> T:
        return await self._loop.run_in_executor(self._pool, work)

    async def _then(self, done: T) -> T:
        if self.users is not None:
            await self.users.store_changed()
        return done


def _load_workshop() -> ModuleType:
    from corral.models import workshop

    return workshop


def download_info(view: JobView) -> DownloadInfo:
    """A download as the wire has it."""
    from corral.api_downloads import BlobInfo, DownloadInfo

    error = view.error
    return DownloadInfo(
        id=view.id,
        ref=str(view.ref),
        name=view.name,
        state=view.state,
        blobs=[BlobInfo(b.digest, b.title, b.size, b.done_bytes, b.bytes_per_s) for b in view.blobs],
        total=view.total,
        done=view.done,
        bytes_per_s=view.bytes_per_s,
        eta_s=view.eta_s,
        error=None
        if error is None
        else ErrorInfo(error.code, error.message, error.hint, _kind(error.code).status, dict(error.details)),
        notes=list(view.notes),
        started_wall_s=view.started,
        finished_wall_s=view.finished,
        digest=view.digest,
    )


def _error_of(view: JobView) -> CorralError:
    if view.error is None:
        return errors.RegistryError(f"the download of {view.ref} is {view.state}", hint="see: corral downloads")
    found = view.error
    details = {key: value for key, value in found.details.items() if key not in ("self", "message", "hint")}
    return _kind(found.code)(found.message, hint=found.hint, **details)


def _kind(code: str) -> type[CorralError]:
    kinds = [each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, CorralError)]
    return next((each for each in kinds if each.code == code), CorralError)
