"""An adapter that knows what earlier loads took: its plans have measured figures where there are any."""

from __future__ import annotations

import hashlib
import json
import stat
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Final

from corral.config.settings import ModelSettings
from corral.engines import flags
from corral.engines.adapter import Adapter, Around, Start
from corral.engines.plan import Endpoint, Footprint, LaunchPlan
from corral.engines.report import WORDY, plain
from corral.errors import CorralError
from corral.ledger.figures import Figures, Key
from corral.ledger.ledger import Ledger
from corral.models.memory.predict import PROCESSOR, Parts

_OF_NO_WEIGHT: Final = (
    "--host", "--port", "--alias", "--slot-save-path", "--cache-ram", "--verbosity", "--verbose", "--api-key",
    "--metrics", "--slots", "--ui", "--jinja", "--chat-template", "--chat-template-file", "--reverse-prompt",
    "--temp", "--top-k", "--top-p", "--min-p", "--typical", "--repeat-last-n", "--repeat-penalty",
    "--presence-penalty", "--frequency-penalty", "--seed", "--predict", "--keep", "--mirostat",
    "--mirostat-ent", "--mirostat-lr",
)  # fmt: skip
"""Flags that the memory of a load does not depend on."""
_SOCKET: Final = "--uds"
"""Where vLLM listens: each start elsewhere."""
_IGNORED: Final = frozenset(id(flags.BY_NAME[name][0]) for name in _OF_NO_WEIGHT if name in flags.BY_NAME)

_ANYWHERE: Final = Endpoint(socket=Path("corral.sock"))


class FromLedger(Around):
    """Another adapter, whose predictions give way to what was measured. Thread-safe.

    A start of which nothing is known yet has the engine say what it allocates.
    """

    def __init__(self, inner: Adapter, ledger: Ledger) -> None:
        super().__init__(inner)
        self._ledger = ledger

    def plan(self, start: Start) -> LaunchPlan:
        plan = self._inner.plan(start)
        known = self._ledger.find(key_of(plan))
        if known is not None:
            return replace(plan, footprint=merged(plan.footprint, known))
        return replace(plan, argv=(*plan.argv, *WORDY)) if plan.says_more else plan

    def footprint(self, model: ModelSettings) -> Footprint:
        try:
            plan = self._inner.plan(Start(model, generation=0, endpoint=_ANYWHERE))
        except CorralError:
            return self._inner.footprint(model)  # a start will say what is wrong
        known = self._ledger.find(key_of(plan))
        return plan.footprint if known is None else merged(plan.footprint, known)


def merged(predicted: Footprint, known: Figures) -> Footprint:
    """What was measured, by device; a device of which nothing was keeps its prediction."""
    sizes = {**predicted.bytes_by_device, **known.bytes_by_device}
    if PROCESSOR in known.devices:
        sizes[PROCESSOR] += predicted.growth  # measured just after the load, when there were no prompts yet
    parts = {
        name: Parts(each.get("weights", 0), each.get("cache", 0), each.get("compute", 0))
        for name, each in known.devices.items()
    }
    asleep = {name: min(size, sizes.get(name, size)) for name, size in predicted.asleep.items()}
    return Footprint(
        MappingProxyType(sizes),
        "measured",
        MappingProxyType({**predicted.parts, **parts}),
        predicted.growth,
        known.load_s,
        predicted.mapped,
        MappingProxyType(asleep),
        predicted.predicted,
    )


def key_of(plan: LaunchPlan) -> Key:
    """What the memory of a start of `plan` depends on. Blocks for the status of the files it names."""
    files = [_identity(mount.source) for mount in plan.mounts]  # of folders, what lies in them
    begin = plan.argv.index("--model") if "--model" in plan.argv else 1
    words = [_identity(Path(word)) if word.startswith("/") else word for word in _of_weight(plain(plan.argv[begin:]))]
    settings = json.dumps([words, sorted(plan.env.items()), plan.devices, plan.context, plan.slots])
    return Key(
        " ".join(files) or plan.model,
        f"{plan.engine} {plan.engine_version}",
        hashlib.sha256(settings.encode()).hexdigest(),
    )


def _of_weight(argv: tuple[str, ...]) -> Iterator[str]:
    skip = False
    for word in argv:
        flag, _ = flags.BY_NAME.get(flags.canonical(word), (None, True))
        if skip:
            skip = False
        elif word == _SOCKET:
            skip = True
        elif flag is not None and id(flag) in _IGNORED:
            skip = flag.value is not None
        else:
            yield word


def _identity(path: Path) -> str:
    """The file's content as far as it can be told without reading it: its digest when it is the store's, else where it
    is, how long, and of when."""
    try:
        real = path.resolve()
        found = real.stat()
    except OSError:
        return str(path)
    if real.parent.name == "sha256" and len(real.name) == 64:
        return f"sha256:{real.name}"
    if stat.S_ISDIR(found.st_mode):
        inside = [_identity(each) for each in sorted(real.iterdir()) if each.is_file()]
        return f"{real}:{hashlib.sha256(json.dumps(inside).encode()).hexdigest()}"
    return f"{real}:{found.st_size}:{found.st_mtime_ns}:{found.st_ino}"


def names_of(plan: LaunchPlan) -> Mapping[str, str]:
    """Corral's names of the GPUs by the engine's, for `read_report`; empty where the plan does not say."""
    return dict(zip(plan.room.engine_names, plan.room.gpus, strict=False))
