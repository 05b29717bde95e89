"""One pull as a process of its own, for `bench.pull`: the parts that the daemon uses, without the daemon."""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path

from corral.models.downloads import Downloads
from corral.refs import Ref
from corral.registry.auth import Auth
from corral.registry.egress import Egress, EgressPolicy
from corral.registry.oci import OciRegistry
from corral.store.store import Store


def main(host: str, repository: str, place: str) -> int:
    """Pulls `host/repository:latest` into a store at `place` and says on stdout how long it took, and its memory."""
    store = Store(Path(place))
    store.prepare()
    with Egress(EgressPolicy(), env={}) as egress:
        downloads = Downloads(store, {"oci": OciRegistry(egress, Auth(egress, None, env={}))})
        began = time.perf_counter()
        view = downloads.wait(downloads.start(Ref("oci", host, repository, "latest")).id)
        took_s = time.perf_counter() - began
        downloads.close()
    if view.state != "done":
        print(view.error, file=sys.stderr)
        return 1
    kibibytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if sys.platform == "darwin" else 1)
    print(json.dumps({"pull_s": took_s, "peak_rss_mb": kibibytes * 1024 / 1e6}))
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:4]))
