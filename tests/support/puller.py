"""A process that pulls and is meant to be killed: `python puller.py STORE HOST NAME CHUNK_BYTES`.

It goes on with what an earlier one left, says `pulling` on a line of its own when it begins, and `done` at the end.
"""

from __future__ import annotations

import sys
from pathlib import Path

from corral.models.fetching.downloads import Downloads
from corral.models.fetching.fetch import Fetching
from corral.refs import Ref
from corral.registry.auth import Auth
from corral.registry.egress import Egress
from corral.registry.oci import OciRegistry
from corral.store.store import Store


def main(place: str, host: str, name: str, chunk_bytes: str) -> int:
    store = Store(Path(place))
    store.prepare()
    with Egress(env={}) as egress:
        source = OciRegistry(egress, Auth(egress, None, env={}))
        downloads = Downloads(store, {"oci": source}, how=Fetching(connections=3, chunk_bytes=int(chunk_bytes)))
        print("pulling", flush=True)
        downloads.resume_all()
        view = downloads.wait(downloads.start(Ref("oci", host, name, "latest")).id)
        downloads.close()
    print(view.state, flush=True)
    return 0 if view.state == "done" else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:5]))
