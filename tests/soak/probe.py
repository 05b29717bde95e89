"""The daemon, which on SIGUSR2 writes down what it holds: run in place of `-m corral`, the file's name first."""

from __future__ import annotations

import asyncio
import gc
import json
import signal
import sys
from collections import Counter
from pathlib import Path


def look(place: Path) -> None:
    gc.collect()
    tasks = Counter(getattr(task.get_coro(), "__qualname__", "?") for task in asyncio.all_tasks() if not task.done())
    found = {"tasks": tasks, "objects": len(gc.get_objects())}
    fresh = place.with_suffix(".new")
    fresh.write_text(json.dumps(found))
    fresh.replace(place)


def main() -> None:
    place = Path(sys.argv.pop(1))
    signal.signal(signal.SIGUSR2, lambda *_: look(place))
    from corral.cli.main import entry

    sys.argv[0] = "corral"
    entry()


if __name__ == "__main__":
    main()
