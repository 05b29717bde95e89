"""Engines' own metrics: the text that each answers, read, and written again with `model` and `unit` labels. Pure.

Families of several engines become one, with one description. Those that every program has (`process_…`, `python_…`)
are an engine's own, not Corral's: they get the prefix `engine_`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import field
from typing import Final

from corral.lazy_dataclass import dataclass
from corral.metrics.exposition import family, label

MOST_SAMPLES: Final = 5000
"""Of one engine; what is beyond is left out."""

_PREFIXED: Final = ("process_", "python_", "corral_")
_KINDS: Final = frozenset(("counter", "gauge", "histogram", "summary", "untyped", "unknown"))
_ENDINGS: Final = {
    "counter": ("_total", "_created"),
    "histogram": ("_bucket", "_sum", "_count", "_created"),
    "summary": ("_sum", "_count", "_created"),
}
_SAMPLE: Final = re.compile(
    r'([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{((?:[^"}]|"(?:[^"\\]|\\.)*")*)\})?[ \t]+'
    r"([+-]?(?:[0-9][0-9.eE+-]*|\.[0-9]+|[iI]nf|[nN]a[nN]))(?:[ \t]+[0-9.eE+-]+)?(?:[ \t]+#.*)?[ \t]*"
)
"""Name, labels and value; a time and an exemplar may follow, which are left out."""
_OURS: Final = re.compile(r'(^|,)\s*(model|unit)\s*=\s*"')


@dataclass(frozen=True, slots=True)
class Sample:
    """One line: what it is called, its own labels as they came, and its value as it came."""

    name: str
    labels: str
    value: str


@dataclass(slots=True)
class Family:
    """A family of one engine."""

    name: str
    kind: str = "untyped"
    words: str = ""
    samples: list[Sample] = field(default_factory=list)


class Reader:
    """Reads the text of one engine, which is Prometheus' format 0.0.4, as many lines at a time as it is given. Lines
    that are none of it are passed over."""

    def __init__(self) -> None:
        self._found: dict[str, Family] = {}
        self._samples = 0

    def take(self, lines: Iterable[str]) -> None:
        for line in lines:
            if line.startswith("#"):
                _describe(self._found, line)
            elif self._samples < MOST_SAMPLES and (match := _SAMPLE.fullmatch(line)) is not None:
                name, labels, value = match[1], match[2] or "", match[3]
                if (owner := _owner(self._found, name)) is None:
                    owner = self._found[name] = Family(name)
                self._samples += 1
                owner.samples.append(Sample(_own(name), labels.strip().rstrip(","), value))

    def families(self) -> list[Family]:
        """What was read: those that have samples, but for the times at which counters were made."""
        found = [Family(_own(each.name), each.kind, each.words, _once(each.samples)) for each in self._found.values()]
        found = list({each.name: each for each in map(_as_counted, found[::-1])}.values())[::-1]
        made = {f"{each.name.removesuffix('_total')}_created" for each in found if each.kind in _ENDINGS}
        return [each for each in found if each.samples and each.name not in made]


def _once(samples: list[Sample]) -> list[Sample]:
    """Of a series that is told twice, the last value: readers refuse what is told twice."""
    return list({(each.name, each.labels): each for each in samples}.values())


def _as_counted(found: Family) -> Family:
    """A counter that was described without the ending of its samples gets their name; the rest is none of it."""
    name = f"{found.name}_total"
    counts = [each for each in found.samples if each.name == name]
    return Family(name, found.kind, found.words, counts) if found.kind == "counter" and counts else found


def _describe(found: dict[str, Family], line: str) -> None:
    parts = line.split(" ", 3)
    if len(parts) < 4 or parts[1] not in ("HELP", "TYPE"):
        return
    family = found.setdefault(parts[2], Family(parts[2]))
    if parts[1] == "HELP":
        family.words = parts[3].replace("\\n", "\n").replace("\\\\", "\\")
    elif (kind := parts[3].strip()) in _KINDS:
        family.kind = kind


def _owner(found: dict[str, Family], name: str) -> Family | None:
    if (plain := found.get(name)) is not None:
        return plain
    base, _, ending = name.rpartition("_")
    owner = found.get(base)
    return owner if owner is not None and f"_{ending}" in _ENDINGS.get(owner.kind, ()) else None


def _own(name: str) -> str:
    return f"engine_{name}" if name.startswith(_PREFIXED) else name


def write(engines: Iterable[tuple[str, str, Iterable[Family]]], *, openmetrics: bool) -> Iterator[str]:
    """The families of all engines, each given with its model and unit, a piece for each engine's part of one."""
    together: dict[str, list[tuple[str, Family]]] = {}
    for model, unit, families in engines:
        ours = f"{label('model', model)},{label('unit', unit)}"
        for each in families:
            same = together.setdefault(each.name, [])
            if not same or same[0][1].kind == each.kind:  # a name that means something else there is nobody's any more
                same.append((ours, each))
    taken: set[str] = set()
    for name, parts in together.items():
        kind, words = parts[0][1].kind, parts[0][1].words
        if kind == "untyped" or (kind == "counter" and not name.endswith("_total")):
            kind = "unknown"  # readers would look for such a counter under another name
        base = name.removesuffix("_total") if kind == "counter" else name
        if openmetrics and base in taken:
            continue  # a counter's family has its name without the ending there
        taken.add(base)
        yield family(name, kind, words, openmetrics)
        for ours, each in parts:
            yield "".join(_line(sample, ours, openmetrics) for sample in each.samples)


def _line(sample: Sample, ours: str, openmetrics: bool) -> str:
    own = _OURS.sub(r'\1exported_\2="', sample.labels)
    value = {"inf": "+Inf", "+inf": "+Inf", "-inf": "-Inf", "nan": "NaN"}.get(sample.value.lower(), sample.value)
    return f"{sample.name}{{{ours}{',' + own if own else ''}}} {value}\n"
