"""What each kind of value in a models.yaml may be. Pure, without pydantic.

Every rule takes the value as YAML gave it and answers with the value to keep, or raises Unfit with the rest of
a sentence that begins with the key: "must be a whole number, not the text 'x'".
"""

from __future__ import annotations

import ipaddress
import math
import re
import shlex
from collections.abc import Callable
from typing import Any, Literal, get_args

from corral import units
from corral.config.listening import listen_entry, listen_text, with_dialects
from corral.config.names import name_fault
from corral.config.scalar import in_words, shorten
from corral.config.settings import Listen, Rung

_DEVICE = re.compile(r"cpu|gpu(0|[1-9][0-9]?)")
_GPU = re.compile(r"gpu(0|[1-9][0-9]?)|(CUDA|ROCm|Vulkan|SYCL|Metal|MTL|HIP|MUSA|CANN|OpenCL|RPC)[0-9]{0,2}")
_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_ORIGIN = re.compile(r"(\*|[a-z][a-z0-9+.*-]*)://[A-Za-z0-9.*:\[\]_-]+|\*")
_HOST_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?")
_GROUP = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_MAX_SECONDS = 10 * 365 * 86400.0
UNLIMITED = ("unlimited", "none")


class Unfit(ValueError):
    """A value that its key cannot take; pydantic treats it as any ValueError. `hint` says what to do, where that is
    more than what the key is about."""

    def __init__(self, message: str = "", hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


def text(value: Any) -> str:
    if not isinstance(value, str):
        raise Unfit(f"must be a text, not {in_words(value)}")
    if not value.strip():
        raise Unfit("must not be empty")
    return _printable(value)


def _printable(value: str) -> str:
    if any(ord(char) < 32 and char not in "\t\n" for char in value):
        raise Unfit("must not contain control characters")
    return value


def model_name(value: Any) -> str:
    if not isinstance(value, str):
        spelt = f" (put it in quotes: '{value}')" if isinstance(value, (int, float)) else ""
        raise Unfit(f"must be a text, not {in_words(value)}{spelt}")
    if fault := name_fault(value):
        raise Unfit(f"is no usable name: {shorten(value)!r} {fault}")
    return value


def model_names(value: Any) -> tuple[str, ...]:
    return tuple(model_name(each) for each in (value if isinstance(value, list) else [value]))


def texts(value: Any) -> tuple[str, ...]:
    return tuple(text(each) for each in (value if isinstance(value, list) else [value]))


def whole(least: int, most: int, why: str = "", hint: str = "") -> Callable[[Any], int]:
    def check(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            raise Unfit(
                f"must be a whole number, not {in_words(value)}",
                "" if isinstance(value, str) and value.isdigit() else hint,
            )
        if not least <= value <= most:
            raise Unfit(f"must be between {least} and {most}, not {value}{why}", hint)
        return value

    return check


def truth(value: Any) -> bool:
    if not isinstance(value, bool):
        raise Unfit(f"must be true or false, not {in_words(value)}")
    return value


def limit(value: Any) -> int | None:
    if value is None or value in UNLIMITED:
        return None
    if value == 0 and not isinstance(value, bool):
        raise Unfit("must be at least 1; leave it out for no limit")
    return whole(1, 1_000_000)(value)


def layers(value: Any) -> int | Literal["auto"]:
    if value == "auto":
        return "auto"
    if not isinstance(value, int) or isinstance(value, bool):
        raise Unfit(f"must be auto or a whole number, not {in_words(value)}")
    return whole(0, 100_000, " (auto offloads what fits, a large number all)")(value)


def devices(value: Any) -> tuple[str, ...]:
    """Names of GPUs, Corral's (gpu0) or an engine's (Vulkan0); auto is none in particular."""
    names = () if value == "auto" else texts(value)
    for name in names:
        if not _GPU.fullmatch(name):
            raise Unfit(f"has {shorten(name)!r}, which is no name of a GPU: gpu0, or an engine's own such as Vulkan0")
    if len(set(names)) != len(names):
        raise Unfit("names a GPU twice")
    return names


def shares(value: Any) -> tuple[float, ...]:
    """What each GPU gets, as numbers in any unit."""
    items = value if isinstance(value, list) else [value]
    for item in items:
        if not isinstance(item, (int, float)) or isinstance(item, bool) or not 0 <= item < math.inf:
            raise Unfit(f"must be a list of numbers such as [3, 1], not one with {in_words(item)}")
    if items and not sum(items):
        raise Unfit("must give a GPU something")
    return tuple(float(item) for item in items)


def tokens(value: Any) -> int | None:
    return None if value is None or value == "auto" else whole(1, 1 << 30, " (auto takes what fits)")(value)


def rungs(value: Any) -> tuple[str, ...]:
    """An order in which things are made smaller: a list without repetition, or never for none."""
    if value == "never":
        return ()
    known = get_args(Rung)
    if not isinstance(value, (list, tuple)) or any(each not in known for each in value):
        raise Unfit(f"must be never or a list of {', '.join(known)}, not {in_words(value)}")
    if len(set(value)) < len(value):
        raise Unfit("names something twice")
    return tuple(value)


def seconds(least: float = 0.0) -> Callable[[Any], float]:
    def check(value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, (int, float, str)):
            raise Unfit(f"must be a duration such as 30s, 5m or 1h30m, not {in_words(value)}")
        try:
            seconds = units.parse_duration(value)
        except (ValueError, OverflowError):
            raise Unfit(f"must be a duration such as 30s, 5m or 1h30m, not {in_words(value)}") from None
        if not math.isfinite(seconds) or not least <= seconds <= _MAX_SECONDS:
            bound = "less than ten years" if seconds > least else "longer than nothing"
            raise Unfit(f"must be {bound}, not {in_words(value)}")
        return seconds

    return check


def seconds_or_never(value: Any) -> float | None:
    return None if value == "never" else seconds()(value)


def size(value: Any) -> int:
    try:
        if isinstance(value, (bool, float)) or not isinstance(value, (int, str)):
            raise Unfit
        count = units.parse_bytes(value)
    except (ValueError, OverflowError):
        raise Unfit(f"must be a size such as 16GiB or 500MB, not {in_words(value)}") from None
    if not 1 <= count < 1 << 60:
        raise Unfit(f"must be more than nothing and less than an exbibyte, not {in_words(value)}")
    return count


def size_or_off(value: Any) -> int | None:
    return None if value == "off" or value is False else size(value)  # YAML 1.1 reads off as false


def memory(value: Any) -> dict[str, int]:
    if not isinstance(value, dict):
        raise Unfit(f"must give a size per device, such as {{cpu: 16GiB}}, not {in_words(value)}")
    found = {}
    for device, given in value.items():
        if not _DEVICE.fullmatch(device):
            raise Unfit(f"knows no device {shorten(device)!r}; cpu, gpu0, gpu1 … are devices")
        try:
            found[device] = size(given)
        except ValueError as error:
            raise Unfit(f"for {device} {error}") from None
    return found


def headroom(value: Any) -> int | dict[str, int]:
    """A size for every device, 0 too, or a size per device."""
    if isinstance(value, dict):
        return memory(value)
    return 0 if value == 0 and not isinstance(value, bool) else size(value)


def args(value: Any) -> tuple[str, ...]:
    if isinstance(value, str):
        try:
            return tuple(_printable(each) for each in shlex.split(value))
        except ValueError as error:
            raise Unfit(f"cannot be split into words: {str(error).lower()}") from None
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise Unfit(f"must be a list of flags such as [--temp, '0.7'], or one text, not {in_words(value)}")
    return tuple(_printable(each) for each in value)


def env(value: Any) -> dict[str, str]:
    if not isinstance(value, dict):
        raise Unfit(f"must be names with values, not {in_words(value)}")
    for name, text in value.items():
        if not _ENV_NAME.fullmatch(name):
            raise Unfit(f"has {shorten(name)!r}, which is no name of an environment variable")
        if not isinstance(text, str):
            raise Unfit(f"must give {name} a text, not {in_words(text)}")
        if "\0" in text:
            raise Unfit(f"gives {name} a text with a NUL in it")
    return dict(value)


def listen(value: Any) -> tuple[Listen, ...]:
    items = with_dialects(value if isinstance(value, list) else [value])
    if not items:
        raise Unfit("must name at least one address")
    found = []
    for item in items:
        if isinstance(item, bool) or not isinstance(item, (str, int, dict)):
            raise Unfit(f"must be an address such as 127.0.0.1:8642, not {in_words(item)}")
        try:
            found.append(listen_entry(item) if isinstance(item, dict) else listen_text(_printable(str(item))))
        except ValueError as error:
            raise Unfit(f"{shorten(str(item))!r} {error}") from None
    return tuple(found)


def host_names(value: Any) -> tuple[str, ...]:
    found = texts(value)
    for each in found:
        if not _HOST_NAME.fullmatch(each):
            raise Unfit(f"has {shorten(each)!r}, which is no host's name (without scheme and port)")
    return found


def origins(value: Any) -> tuple[str, ...]:
    found = texts(value)
    for each in found:
        if not _ORIGIN.fullmatch(each):
            raise Unfit(
                f"has {shorten(each)!r}, which is no origin such as https://app.example.org or http://localhost:*"
            )
    return found


def networks(value: Any) -> tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]:
    found = []
    for each in texts(value):
        try:
            found.append(ipaddress.ip_network(each))
        except ValueError:
            raise Unfit(f"has {shorten(each)!r}, which is no address or network such as 10.0.0.0/8") from None
    return tuple(found)


def group(value: Any) -> str:
    if not isinstance(value, str) or not _GROUP.fullmatch(value):
        raise Unfit(f"must be a short name of letters, digits and ._-, not {in_words(value)}")
    return value


def sleep(value: Any) -> int:
    if value in ("off", "0", "1", "2"):
        value = 0 if value == "off" else int(value)
    if isinstance(value, bool) or value not in (0, 1, 2):
        raise Unfit(f"must be off, 1 or 2, not {in_words(value)}")
    return int(value)


def one_of(choices: tuple[str, ...]) -> Callable[[Any], str]:
    def check(value: Any) -> str:
        if value not in choices:
            raise Unfit(f"must be {' or '.join(choices)}, not {in_words(value)}")
        return str(value)

    return check
