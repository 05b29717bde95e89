"""Short names for models: the shipped list, and the user's own on top of it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from corral.errors import ConfigError

SHIPPED = Path(__file__).with_name("short_names.txt")
USER_FILE = "short-names.txt"
"""In the configuration directory: the same format; its lines win, and `name -` takes a name away."""

MAX_BYTES = 1 << 20


def load_short_names(paths: Iterable[Path] = ()) -> dict[str, str]:
    """Reference by short name, lower case: the shipped ones, then those of each of `paths` that exists, later ones win.

    Raises ConfigError with file and line.
    """
    names: dict[str, str] = {}
    for path in (SHIPPED, *paths):
        try:
            if path.stat().st_size > MAX_BYTES:
                raise ConfigError(f"{path} is too large", hint=f"{MAX_BYTES} bytes are allowed")
            text = path.read_text(encoding="utf-8")
        except FileNotFoundError:
            continue
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"cannot read {path}: {error}", hint="it holds `name reference` on each line") from error
        for number, line in enumerate(text.splitlines(), 1):
            words = line.partition("#")[0].split()
            if not words:
                continue
            if len(words) != 2 or "/" in words[0] or "@" in words[0] or not words[0].isascii():
                raise ConfigError(
                    f"{path}:{number}: not `name reference`", hint="a name has no slash, no @ and no space"
                )
            if words[1] == "-":
                names.pop(words[0].lower(), None)
            else:
                names[words[0].lower()] = words[1]
    return names
