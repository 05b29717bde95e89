"""`Containers`: everything about one kind of container engine that planning and running share."""

from __future__ import annotations

import os
import threading

from corral.config.paths import Paths
from corral.runners.containers import naming
from corral.runners.containers.connect import connect
from corral.runners.containers.engine import Engine
from corral.runners.containers.host import Kind
from corral.runners.containers.image import Images
from corral.runners.containers.records import Records, folder_of


class Containers:
    """One kind. Making it asks nothing and starts nothing."""

    def __init__(self, kind: Kind, paths: Paths, engine: Engine | None = None) -> None:
        self.kind: Kind = kind
        self.paths = paths
        self.engine = connect(kind) if engine is None else engine
        self.images = Images(self.engine, paths, kind)
        self.records = Records(folder_of(paths, kind))
        self.state = naming.state_id(os.fsencode(paths.state_dir))


class ContainersByKind:
    """The same for each kind, made when first asked for. Thread-safe."""

    def __init__(self, paths: Paths) -> None:
        self._paths = paths
        self._made: dict[str, Containers] = {}
        self._lock = threading.Lock()

    def __call__(self, runner: str) -> Containers:
        """`runner` is the value of that key: "podman" or "docker"."""
        with self._lock:
            if runner not in self._made:
                kind: Kind = "docker" if runner == "docker" else "podman"
                self._made[runner] = Containers(kind, self._paths)
            return self._made[runner]
