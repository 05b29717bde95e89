"""What vLLM says in its log of the memory that it took: bytes by device and component. Pure.

Source: vLLM 0.32's log, which rounds to hundredths of a GiB. On a processor it tells of its cache alone; what else its
processes hold is seen from outside.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from types import MappingProxyType
from typing import Final

from corral.engines.report import Report
from corral.models.memory.predict import PROCESSOR, Parts

_GIB: Final = 1 << 30
_DONE: Final = re.compile(r"Application startup complete|Starting vLLM server")
_WEIGHTS: Final = re.compile(r"Model loading took ([\d.]+) GiB")
_CACHE: Final = re.compile(
    r"Available KV cache memory: ([\d.]+) GiB|reserved ([\d.]+) GiB memory for KV Cache"
    r"|Explicitly set \(([\d.]+)/[\d.]+\) GiB for KV cache"
)
_GRAPHS: Final = re.compile(r"Graph capturing finished in .* took ([\d.]+) GiB")


def is_whole(log: str) -> bool:
    """Whether it has got to the end of its load in this log."""
    return _DONE.search(log) is not None


def read_report(log: str, gpus: Sequence[str]) -> Report:
    """What the load that `log` is of took on each of `gpus` (Corral's names), or in the machine's memory without any.

    Its workers say it each for itself, and share everything evenly: the largest figure stands for all.
    """
    weights, cache, graphs = (_most(pattern, log) for pattern in (_WEIGHTS, _CACHE, _GRAPHS))
    parts = Parts(weights, cache, graphs)
    devices = {PROCESSOR: Parts(), **dict.fromkeys(gpus, parts)} if gpus else {PROCESSOR: parts}
    return Report(MappingProxyType(devices))


def _most(pattern: re.Pattern[str], log: str) -> int:
    found = [next(filter(None, match.groups())) for match in pattern.finditer(log)]
    return round(max((float(each) for each in found), default=0.0) * _GIB)
