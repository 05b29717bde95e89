"""The router's feed: what happens to models, as the events that llama.cpp's web page follows.

Each is `{"model", "event", "data"}`. Source: llama.cpp's tools/server/server-models.cpp, build 11434.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from corral.api import EventInfo
from corral.api_downloads import DownloadInfo
from corral.gateway.dialects.llamacpp.router import has_failed, value_of

Told = dict[str, Any]
ALL = "*"


def of_event(entry: EventInfo, ready: Iterable[str]) -> Told | None:
    """What there is to say of `entry`; `ready` are the models of which an engine is ready still."""
    if entry.kind == "unit.state" and entry.model is not None:
        return _of_state(entry.model, str(entry.data.get("before", "")), str(entry.data.get("after", "")), ready)
    if entry.kind == "config.reloaded":
        return {"model": ALL, "event": "models_reload"}
    return None


def _of_state(model: str, before: str, after: str, ready: Iterable[str]) -> Told | None:
    if after == "starting":
        return {"model": model, "event": "model_status", "data": {"status": "loading"}}
    if after == "loading":
        stage = "text_model"
        return _changed(model, status="loading", progress={"stages": [stage], "current": stage, "value": 0.0})
    if after in ("stopped", "backoff", "failed"):
        if model in ready or has_failed(before):
            return None  # another engine of the model serves it on; it was told already
        return _changed(model, status="unloaded", exit_code=1 if has_failed(after) else 0)
    if after == "stopping" or value_of(after) == value_of(before):
        return None
    return _changed(model, status=value_of(after))


def _changed(model: str, **data: Any) -> Told:
    return {"model": model, "event": "status_change", "data": data}


def removed(names: Iterable[str]) -> list[Told]:
    return [{"model": name, "event": "model_remove"} for name in names]


class Downloads:
    """What there is to say of downloads as they go on; of those that were over before, nothing."""

    def __init__(self) -> None:
        self._open: set[str] = set()

    def more(self, download: DownloadInfo, name: str) -> list[Told]:
        """`name` is what the client calls it."""
        if download.over or download.state == "paused":
            if download.id not in self._open:
                return []
            self._open.discard(download.id)
            if download.state == "done":
                return [{"model": name, "event": "download_finished"}, {"model": ALL, "event": "models_reload"}]
            return [{"model": name, "event": "download_failed"}]
        self._open.add(download.id)
        files = {
            blob.digest or blob.title: {"done": blob.done, "total": blob.size or 0} for blob in download.blobs
        } or {name: {"done": download.done, "total": download.total or 0}}
        return [{"model": name, "event": "download_progress", "data": {"progress": files}}]
