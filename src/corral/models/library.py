"""The library: the store, what reaches registries, and downloads, composed; and what a name means in it.

Everything here blocks and is safe to call from several threads. What only some calls need is loaded when one does, so
that a server whose models are files starts without it.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from corral import clock
from corral.config.paths import Paths
from corral.config.settings import ModelSettings, Settings
from corral.errors import BadReference, CallerError, UnknownModel
from corral.lazy_dataclass import dataclass
from corral.models.fetching.job_view import JobView
from corral.refs import Ref
from corral.refs_parse import parse_ref
from corral.short_names import USER_FILE, load_short_names
from corral.store.holds import Hold
from corral.store.index import Named
from corral.store.store import Store

if TYPE_CHECKING:
    from corral.models.content import Content
    from corral.models.fetching.downloads import Downloads, Listener
    from corral.models.reach import Reach
    from corral.models.unpack import Placed

_KINDS = ("oci", "ollama", "hf", "url")


@dataclass(frozen=True, slots=True)
class Stored:
    """A model of the store, as something named it."""

    name: str
    digest: str
    ref: Ref  # what `find_ref` finds it by again
    named: Named | None = None  # None when only its digest was given


@dataclass(frozen=True, slots=True)
class Ready:
    """A model that an engine can open; `hold` keeps it from being removed until it is released."""

    stored: Stored
    placed: Placed
    content: Content
    hold: Hold


class Library:
    """One store directory's. `open` it once before use; `close` it at the end."""

    def __init__(
        self, paths: Paths, settings: Settings, *, listener: Listener, warn: Callable[[str], None] = lambda text: None
    ) -> None:
        self.store = Store(paths.store_dir)
        self.settings = settings
        self._paths = paths
        self._warn = warn
        self._pins: Hold | None = None
        self._lock = threading.Lock()
        self._making = threading.RLock()
        self._listener = listener
        self._reach: Reach | None = None
        self._downloads: Downloads | None = None

    @property
    def engines_dir(self) -> Path:
        """Where llama.cpp builds of Corral's own making are, a directory for each version."""
        return self._paths.cache_dir / "engines" / "llama.cpp"

    @property
    def reach(self) -> Reach:
        """The way out to registries, as it is configured now."""
        with self._making:
            if self._reach is None:
                from corral.models.reach import Reach

                self._reach = Reach(self.settings, self._paths.config_dir, self._warn)
            return self._reach

    @property
    def downloads(self) -> Downloads:
        """All downloads; what an earlier process left goes on."""
        with self._making:
            if self._downloads is None:
                from corral.models.fetching.downloads import Downloads, DownloadSettings
                from corral.models.reach import Current

                wanted = self.settings.download
                made = Downloads(
                    self.store,
                    {kind: Current(kind, lambda: self.reach) for kind in _KINDS},
                    verify=lambda ref, digest: self.reach.verify(ref, digest),
                    listener=self._listener,
                    settings=DownloadSettings(wanted.connections, wanted.limit_bytes),
                )
                made.resume_all()
                self._downloads = made
            return self._downloads

    def open(self) -> list[JobView]:
        """Makes the store when there is none, and goes on with downloads, which are returned. Raises StoreError."""
        self.store.prepare()
        self._pin(self.settings)
        return self.downloads.jobs() if any(self.store.jobs_dir.glob("*.json")) else []

    def configure(self, settings: Settings) -> None:
        """Takes up another configuration. Downloads that run go on as they began."""
        with self._making:
            self.settings, self._reach = settings, None
        self._pin(settings)

    def close(self) -> None:
        """Stops downloads; the next `open` goes on with them."""
        with self._making:
            downloads = self._downloads
        if downloads is not None:
            downloads.close()
        if self._pins is not None:
            self._pins.release()

    def _pin(self, settings: Settings) -> None:
        # What models.yaml pins to a digest stays, whatever becomes of its name.
        pinned = {model.ref.digest for model in settings.models.values() if model.ref is not None and model.ref.digest}
        fresh = self.store.hold(*sorted(pinned), absent_ok=True)
        with self._lock:
            old, self._pins = self._pins, fresh
        if old is not None:
            old.release()

    # Names

    def ref(self, text: str) -> Ref:
        """`text` as a reference in full, short names looked up. Raises BadReference, ConfigError."""
        return parse_ref(text, self.short_names())

    def short_names(self) -> dict[str, str]:
        return load_short_names([self._paths.config_dir / USER_FILE])

    def find(self, text: str) -> Stored:
        """The stored model that `text` means: a name as it is, a reference, or the end of one name alone.

        Raises NotInStore with the command that fetches it.
        """
        if (named := self.store.lookup(text)) is not None:
            return Stored(text, named.descriptor.digest, ref_of(text), named)
        try:
            ref = self.ref(text)
        except BadReference:
            ref = None
        if ref is not None and (found := self.find_ref(ref)) is not None:
            return found
        endings = tuple(f"/{text}{tag}" for tag in ("", ":latest")) if "/" not in text else ()
        near = [name for each in self.store.names() if endings and (name := each.name).endswith(endings)]
        if len(near) == 1 and (named := self.store.lookup(near[0])) is not None:
            return Stored(near[0], named.descriptor.digest, ref_of(near[0]), named)
        if near:
            raise CallerError(f"{text!r} may mean several models", hint=f"name one of: {', '.join(near)}")
        raise missing(text if ref is None else str(ref), text)

    def find_ref(self, ref: Ref) -> Stored | None:
        """The stored model that `ref` names; with a digest, that one and no other."""
        named = self.store.lookup(ref.name)
        if ref.digest is None:
            return None if named is None else Stored(ref.name, named.descriptor.digest, ref, named)
        if named is not None and named.descriptor.digest == ref.digest:
            return Stored(ref.name, ref.digest, ref, named)
        return Stored(ref.name, ref.digest, ref) if self.store.find(ref.digest) is not None else None

    def is_here(self, ref: Ref) -> bool:
        return self.find_ref(ref) is not None

    def settings_for(self, stored: Stored) -> ModelSettings:
        """How a stored model that the configuration does not have is served."""
        return replace(self.settings.guest(stored.name, Path(str(stored.ref))), ref=stored.ref)

    # Serving

    def ready(self, ref: Ref) -> Ready:
        """The model of `ref`, placed and held. Raises UnknownModel when it is not here, and what `place` raises."""
        from corral.models.content import read_content
        from corral.models.unpack import place

        stored = self.find_ref(ref)
        if stored is None:
            raise missing(str(ref), str(ref))
        hold = self.store.hold(stored.digest)
        try:
            ready = Ready(stored, place(self.store, stored.digest), read_content(self.store, stored.digest), hold)
        except BaseException:
            hold.release()
            raise
        self._used(stored.digest)
        return ready

    def _used(self, digest: str) -> None:
        stamp = self._stamp(digest)
        stamp.parent.mkdir(parents=True, exist_ok=True)
        stamp.touch()
        os.utime(stamp)

    def used_wall_s(self, digest: str) -> float | None:
        """When the model was last served."""
        try:
            return self._stamp(digest).stat().st_mtime
        except OSError:
            return None

    def _stamp(self, digest: str) -> Path:
        return self._paths.state_dir / "used" / digest.removeprefix("sha256:")

    # Fetching

    def pull(self, text: str, *, name: str | None = None, sha256: str | None = None, update: bool = True) -> JobView:
        """Begins a download, or joins one; without `update`, a model that is here counts as done.

        Raises BadReference, CallerError, StoreError.
        """
        from corral.registry.url import expecting

        ref = self.ref(text)
        if sha256 is not None:
            if ref.kind != "url":
                raise CallerError("a SHA-256 is for a URL", hint=f"pin a model with {ref.name}@sha256:…")
            ref = expecting(ref, sha256)
        if ref.kind == "file":
            raise BadReference(f"{text} is a file", hint=f"bring it in with: corral package {text} -t NAME")
        wanted = parse_ref(name).name if name is not None else replace(ref, repository=_bare(ref)).name
        if not update and (here := self.find_ref(replace(ref, repository=_bare(ref)))) is not None:
            return _done(ref, here.name, here.digest)
        return self.downloads.start(ref, name=wanted)

    def update(self, names: list[str]) -> list[JobView]:
        """Downloads of what changed upstream, of `names` or of all that came from a registry."""
        from corral.models.fetching.pull import SOURCE

        chosen = [self.find(each).name for each in names] or [each.name for each in self.store.names()]
        jobs = []
        for name in chosen:
            named = self.store.lookup(name)
            source = named.descriptor.annotations.get(SOURCE) if named is not None else None
            if source is None:
                if names:
                    raise CallerError(f"{name} did not come from a registry", hint="pull it by its reference")
                continue
            jobs.append(self.downloads.start(parse_ref(source), name=name))
        return jobs

    def may_auto_pull(self, ref: Ref) -> bool:
        """Whether the configuration lets a request fetch `ref`."""
        from corral.registry.policy import canonical

        registry = self.settings.registries.get(ref.host) or self.settings.registries.get(canonical(ref.host))
        own = None if registry is None else registry.auto_pull
        return self.settings.auto_pull if own is None else own


def ref_of(name: str) -> Ref:
    """A reference whose name is exactly `name`, whoever wrote it into the store."""
    try:
        ref = parse_ref(name)
    except BadReference:
        return Ref("file", repository=name)
    return ref if ref.name == name and ref.digest is None else Ref("file", repository=name)


def missing(full: str, text: str) -> UnknownModel:
    """The 404 for a model that is not in the store."""
    return UnknownModel(
        f"the model {full} is not here", hint=f"fetch it with: corral pull {text}", model=text, not_in_store=True
    )


def _bare(ref: Ref) -> str:
    return ref.repository.partition("#")[0] if ref.kind == "url" else ref.repository


def _done(ref: Ref, name: str, digest: str) -> JobView:
    now = clock.wall()
    notes = ("it is here already",)
    return JobView("", ref, name, "done", (), 0, 0, None, None, None, notes, now, now, digest)
