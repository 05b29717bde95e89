"""The model store's routes as methods; see `client` for the whole client.

What only one of them needs is imported there: making all the types takes longer than most commands.
"""

from __future__ import annotations

import json
from collections.abc import Generator
from typing import TYPE_CHECKING
from urllib.parse import quote, urlencode

from corral.api_downloads import DownloadAsk, DownloadInfo, Progress, PullAsk, UpdateAsk
from corral.calls import Calls, understood
from corral.connection import request

if TYPE_CHECKING:
    from corral.api_store import (
        ConvertAsk,
        Done,
        ExportAsk,
        Exported,
        FoundModel,
        ImportAsk,
        ImportedInfo,
        Inspected,
        LoadAsk,
        LoadedInfo,
        ModelCard,
        PackageAsk,
        PastInfo,
        PruneAsk,
        PushAsk,
        Pushed,
        QuantizeAsk,
        QuantizerInfo,
        Remade,
        Removed,
        StoredModel,
        Tagged,
        UsageInfo,
        Verified,
        VerifyAsk,
    )

_SLOW_S = 300.0
"""For what asks a registry or reads many files."""


class StoreClient(Calls):
    """Downloads and stored models of one server."""

    def pull(self, ask: PullAsk) -> DownloadInfo:
        """Begins a download, or joins one; see `follow_download` for how it goes on."""
        return self._one(DownloadInfo, "POST", "/control/pull", ask, _SLOW_S)

    def update(self, names: list[str]) -> list[DownloadInfo]:
        return self._one(list[DownloadInfo], "POST", "/control/update", UpdateAsk(names), _SLOW_S)

    def downloads(self) -> list[DownloadInfo]:
        return self._list(DownloadInfo, "/control/downloads")

    def follow_downloads(self) -> Generator[DownloadInfo, None, None]:
        """Every download, then each again when it changes. Ends with an error when the server does."""
        target = "/control/downloads?follow=1"
        with request(self.address, "GET", target, accept="text/event-stream", timeout_s=None) as answer:
            for data in answer.events():
                yield understood(DownloadInfo, json.loads(data))
        raise self._ended()

    def pause(self, id: str) -> DownloadInfo:
        return self._one(DownloadInfo, "POST", "/control/downloads/pause", DownloadAsk(id), _SLOW_S)

    def resume(self, id: str) -> DownloadInfo:
        return self._one(DownloadInfo, "POST", "/control/downloads/resume", DownloadAsk(id), _SLOW_S)

    def cancel(self, id: str) -> DownloadInfo:
        return self._one(DownloadInfo, "POST", "/control/downloads/cancel", DownloadAsk(id), _SLOW_S)

    def stored(self, timeout_s: float = _SLOW_S) -> list[StoredModel]:
        from corral.api_store import StoredModel

        return self._list(StoredModel, "/control/store", timeout_s)

    def show(self, name: str) -> ModelCard:
        from corral.api_store import ModelCard

        return self._one(ModelCard, "GET", f"/control/show/{quote(name, safe='')}", timeout_s=_SLOW_S)

    def inspect(self, ref: str, *, remote: bool = False) -> Inspected:
        from corral.api_store import Inspected

        query = urlencode({"ref": ref, "remote": int(remote)})
        return self._one(Inspected, "GET", f"/control/inspect?{query}", timeout_s=_SLOW_S)

    def history(self, name: str) -> list[PastInfo]:
        from corral.api_store import PastInfo

        return self._list(PastInfo, f"/control/history/{quote(name, safe='')}")

    def rollback(self, name: str, digest: str | None = None) -> Tagged:
        from corral.api_store import RollbackAsk, Tagged

        return self._one(Tagged, "POST", "/control/store/rollback", RollbackAsk(name, digest), _SLOW_S)

    def remove(self, names: list[str]) -> Removed:
        from corral.api_store import RemoveAsk, Removed

        return self._one(Removed, "POST", "/control/store/remove", RemoveAsk(names), _SLOW_S)

    def prune(self, ask: PruneAsk) -> Removed:
        from corral.api_store import Removed

        return self._one(Removed, "POST", "/control/store/prune", ask, _SLOW_S)

    def tag(self, source: str, target: str) -> Tagged:
        from corral.api_store import TagAsk, Tagged

        return self._one(Tagged, "POST", "/control/store/tag", TagAsk(source, target), _SLOW_S)

    def usage(self) -> UsageInfo:
        from corral.api_store import UsageInfo

        return self._one(UsageInfo, "GET", "/control/store/usage", timeout_s=_SLOW_S)

    def search(self, text: str, *, source: str | None = None, limit: int = 25) -> list[FoundModel]:
        from corral.api_store import FoundModel

        query = {"text": text, "limit": limit, **({"source": source} if source else {})}
        return self._list(FoundModel, f"/control/search?{urlencode(query)}", _SLOW_S)

    def login(self, host: str, user: str, password: str) -> Done:
        from corral.api_store import Done, LoginAsk

        return self._one(Done, "POST", "/control/login", LoginAsk(host, user, password), _SLOW_S)

    def logout(self, host: str) -> Done:
        from corral.api_store import Done, LogoutAsk

        return self._one(Done, "POST", "/control/logout", LogoutAsk(host))

    def verify(self, ask: VerifyAsk) -> Generator[Progress, None, Verified]:
        from corral.api_store import Verified

        return self._work(Verified, "store/verify", ask)

    def push(self, ask: PushAsk) -> Generator[Progress, None, Pushed]:
        from corral.api_store import Pushed

        return self._work(Pushed, "store/push", ask)

    def package(self, ask: PackageAsk) -> Generator[Progress, None, Tagged]:
        from corral.api_store import Tagged

        return self._work(Tagged, "store/package", ask)

    def quantize(self, ask: QuantizeAsk) -> Generator[Progress, None, Remade]:
        from corral.api_store import Remade

        return self._work(Remade, "store/quantize", ask)

    def convert(self, ask: ConvertAsk) -> Generator[Progress, None, Remade]:
        from corral.api_store import Remade

        return self._work(Remade, "store/convert", ask)

    def quantizer(self) -> QuantizerInfo:
        from corral.api_store import QuantizerInfo

        return self._one(QuantizerInfo, "GET", "/control/store/quantizer", timeout_s=_SLOW_S)

    def import_models(self, ask: ImportAsk) -> Generator[Progress, None, list[ImportedInfo]]:
        from corral.api_store import ImportedInfo

        return self._work(list[ImportedInfo], "store/import", ask)

    def export(self, ask: ExportAsk) -> Generator[Progress, None, Exported]:
        from corral.api_store import Exported

        return self._work(Exported, "store/export", ask)

    def load(self, ask: LoadAsk) -> Generator[Progress, None, LoadedInfo]:
        from corral.api_store import LoadedInfo

        return self._work(LoadedInfo, "store/load", ask)
