"""How the value of each kind of engine flag is read from text.

Readers are pure and raise ValueError with words that continue "the flag X …". Imports are kept cheap: the embedded
host pays for every one of them at each start.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

Reader = Callable[[str], Any]


class Symbol(NamedTuple):
    """A value of one of the engine's enumerations, by name."""

    enumeration: str
    member: str

    def __str__(self) -> str:
        return f"{self.enumeration}.{self.member}"


def integer(text: str) -> int:
    """A whole number."""
    try:
        return int(text)
    except ValueError:
        raise ValueError("wants a whole number") from None


def at_least(least: int, most: int | None = None) -> Reader:
    """A whole number from `least` (to `most`)."""

    def read(text: str) -> int:
        value = integer(text)
        if value < least or (most is not None and value > most):
            raise ValueError(f"wants a whole number from {least}" + ("" if most is None else f" to {most}"))
        return value

    return read


def number(text: str) -> float:
    """A number, finite."""
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if value - value != 0:
        raise ValueError("wants a number")
    return value


def reciprocal(text: str) -> float:
    """A number, stored as one part in that many."""
    value = number(text)
    if value == 0:
        raise ValueError("wants a number other than 0")
    return 1.0 / value


def positive(text: str) -> float:
    """A number above 0."""
    value = number(text)
    if value <= 0:
        raise ValueError("wants a number above 0")
    return value


def not_negative(text: str) -> float:
    """A number; below 0 counts as 0."""
    return max(number(text), 0.0)


def seed(text: str) -> int:
    """A seed of 32 bits; -1 is a random one."""
    return integer(text) & 0xFFFFFFFF


def words(text: str) -> str:
    """Any text, as it is."""
    return text


def flag01(text: str) -> bool:
    """0 or 1."""
    return bool(at_least(0, 1)(text))


_SPOKEN = {"on": 1, "enabled": 1, "true": 1, "1": 1, "off": 0, "disabled": 0, "false": 0, "0": 0, "auto": -1, "-1": -1}


def on_off(text: str) -> bool:
    """on or off."""
    if _SPOKEN.get(text, -1) < 0:
        raise ValueError("wants on or off")
    return _SPOKEN[text] > 0


def on_off_auto(text: str) -> int:
    """on (1), off (0) or auto (-1)."""
    if text not in _SPOKEN:
        raise ValueError("wants on, off or auto")
    return _SPOKEN[text]


def layers(text: str) -> int:
    """A number of layers, `auto` (-1) or `all` (-2)."""
    named = {"auto": -1, "all": -2}
    return named[text] if text in named else integer(text)


def choice(enumeration: str, prefix: str, members: Mapping[str, str]) -> Reader:
    """One of the names in `members`, as the enumeration's member `prefix` + its value."""

    def read(text: str) -> Symbol:
        if text not in members:
            raise ValueError(f"wants one of {', '.join(members)}")
        return Symbol(enumeration, prefix + members[text])

    return read


def choices(enumeration: str, prefix: str, members: Mapping[str, str]) -> Reader:
    """Several of them, separated by commas."""
    one = choice(enumeration, prefix, members)
    return lambda text: [one(part) for part in text.split(",")]


def listed(one: Reader, separators: str = ",") -> Reader:
    """Values separated by a comma (or by any character of `separators`)."""

    def read(text: str) -> list[Any]:
        for separator in separators[1:]:
            text = text.replace(separator, separators[0])
        return [one(part.strip()) for part in text.split(separators[0])]

    return read


def names(text: str) -> list[str]:
    """Names separated by commas, blank ones left out."""
    return [part.strip() for part in text.split(",") if part.strip()]


def folder(text: str) -> str:
    """An existing directory, with a slash at its end."""
    if not os.path.isdir(text):  # noqa: PTH112 - pathlib would cost the host its start-up time
        raise ValueError("wants an existing directory")
    return text if text.endswith(os.sep) else text + os.sep


def file_text(text: str) -> str:
    """The text of a file."""
    try:
        with open(text, encoding="utf-8") as file:  # noqa: PTH123 - as above
            return file.read()
    except (OSError, UnicodeDecodeError) as exc:
        raise ValueError(f"cannot read {text}: {exc.strerror if isinstance(exc, OSError) else exc}") from exc


def file_lines(text: str) -> list[str]:
    """The lines of a file that are neither empty nor comments."""
    return [line for line in file_text(text).splitlines() if line and not line.startswith("#")]


def json_text(text: str) -> str:
    """JSON, checked and kept as text."""
    try:
        json.loads(text)
    except ValueError as exc:
        raise ValueError(f"wants JSON: {exc}") from None
    return text


def json_file(text: str) -> str:
    """A file of JSON, kept as text."""
    return json_text(file_text(text))


def template_kwargs(text: str) -> dict[str, str]:
    """A JSON object; its values stay JSON, as the engine keeps them."""
    value = json.loads(json_text(text))
    if not isinstance(value, dict):
        raise ValueError("wants a JSON object")  # noqa: TRY004 - the text is wrong, not its type
    return {key: json.dumps(item, separators=(",", ":"), ensure_ascii=False) for key, item in value.items()}


def scaled_files(text: str) -> list[tuple[str, float]]:
    """`FILE:SCALE`, separated by commas."""
    found = []
    for part in text.split(","):
        name, colon, scale = part.rpartition(":")
        if not colon or not name:
            raise ValueError("wants FILE:SCALE")
        found.append((name, number(scale)))
    return found


def plain_files(text: str) -> list[tuple[str, float]]:
    """Files separated by commas, each at scale 1."""
    return [(part, 1.0) for part in text.split(",")]


def sleep_seconds(text: str) -> int:
    """A number of seconds, or -1 for never."""
    value = integer(text)
    if value == 0 or value < -1:
        raise ValueError("wants a number of seconds, or -1 for never")
    return value


def draft_sampling(text: str) -> bool:
    """`greedy` or `probabilistic` (true)."""
    if text not in ("greedy", "probabilistic"):
        raise ValueError("wants greedy or probabilistic")
    return text == "probabilistic"


_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", "'": "'", '"': '"', "\\": "\\"}


def unescaped(text: str) -> str:
    """Any text, with \\n, \\r, \\t, \\' and \\" in it replaced by what they stand for."""
    return re.sub(r"\\(.)", lambda found: _ESCAPES.get(found[1], found[0]), text, flags=re.DOTALL)


_SAMPLERS = {
    "penalties": "e", "dry": "d", "top_n_sigma": "s", "top_k": "k", "typ_p": "y", "top_p": "p", "min_p": "m",
    "xtc": "x", "temperature": "t", "infill": "i", "adaptive_p": "a",
}  # fmt: skip
_OTHER_SAMPLERS = {"top-k": "top_k", "top-p": "top_p", "top-n-sigma": "top_n_sigma", "nucleus": "top_p",
                   "typical-p": "typ_p", "typical": "typ_p", "typ-p": "typ_p", "typ": "typ_p", "min-p": "min_p",
                   "temp": "temperature", "adaptive-p": "adaptive_p"}  # fmt: skip


def samplers(text: str) -> str:
    """Names of samplers separated by semicolons."""
    found = [_OTHER_SAMPLERS.get(part, part) for part in text.split(";")]
    for part in found:
        if part not in _SAMPLERS:
            raise ValueError(f"knows no sampler {part!r}; there are {', '.join(_SAMPLERS)}")
    return ";".join(found)


def sampler_letters(text: str) -> str:
    """Samplers by their letters."""
    by_letter = {letter: name for name, letter in _SAMPLERS.items()}
    for letter in text:
        if letter not in by_letter:
            raise ValueError(f"knows no sampler {letter!r}; the letters are {''.join(by_letter)}")
    return ";".join(by_letter[letter] for letter in text)


_CPUS = 512  # GGML_MAX_N_THREADS


def cpu_mask(text: str) -> list[bool]:
    """CPUs as a hexadecimal mask."""
    try:
        bits = int(text, 16)
    except ValueError:
        bits = -1
    if bits < 0 or bits >> _CPUS:
        raise ValueError("wants a hexadecimal mask such as 0xff")
    return [bool(bits >> cpu & 1) for cpu in range(_CPUS)]


def cpu_range(text: str) -> list[bool]:
    """CPUs from one number to another, `LO-HI`; a missing one is the first or the last there can be."""
    low, dash, high = text.partition("-")
    try:
        first, last = int(low or 0), int(high or _CPUS - 1)
    except ValueError:
        dash = ""
        first = last = 0
    if not dash or not 0 <= first <= last < _CPUS:
        raise ValueError("wants a range such as 0-3")
    return [first <= cpu <= last for cpu in range(_CPUS)]


def tensor_buffers(text: str) -> str:
    """`PATTERN=BUFFER`, separated by commas."""
    if not all("=" in part for part in text.split(",")):
        raise ValueError("wants PATTERN=BUFFER")
    return text
