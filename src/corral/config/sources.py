"""From the paths that a configuration names to real ones: `${VAR}` and `~`, the base directory, and the roots that
model files must lie in."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from corral.demo.where import demo_model
from corral.errors import BadReference, ModelFileError
from corral.refs import Ref
from corral.refs_parse import parse_ref

BUILTIN_DEMO = "builtin:demo"
_NAMED = re.compile(r"[a-z][a-z0-9+.-]+:/|hf\.co/|huggingface\.co/|[a-z0-9.-]+(:[0-9]+)?/.*@sha256:", re.IGNORECASE)
_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]+:/|//[^/]*@", re.IGNORECASE)
_VARIABLE = re.compile(r"\$\$\{|\$\{([^}]*)\}")


def expand(text: str, env: Mapping[str, str]) -> str:
    """`text` with each `${NAME}` replaced by that variable; `$${` stands for `${`. Raises ValueError."""

    def value(match: re.Match[str]) -> str:
        name = match[1]
        if name is None:
            return "${"
        if name not in env:
            raise ValueError(f"uses ${{{name}}}, but there is no such variable")
        return env[name]

    return _VARIABLE.sub(value, text)


def absolute(text: str, base: Path, env: Mapping[str, str]) -> Path:
    """The path `text`, with variables and `~` expanded, seen from the directory `base`. Raises ValueError."""
    text = expand(text, env)
    if text == "~" or text.startswith("~/"):
        home = env.get("HOME")
        path = Path(home + text[1:]) if home else Path(text).expanduser()
    elif text.startswith("~"):
        try:
            path = Path(text).expanduser()
        except RuntimeError:
            raise ValueError(f"names the home of a user there is not: {text}") from None
    else:
        path = Path(text)
    if "\0" in str(path) or not text:
        raise ValueError("is no path")
    return path if path.is_absolute() else base / path


def source_path(text: str, base: Path, env: Mapping[str, str]) -> Path:
    """The model file that `source: text` names. Raises ValueError that says what is wrong with it."""
    if text == BUILTIN_DEMO:
        return demo_model()
    if text.startswith("builtin:"):
        raise ValueError(f"knows no {text!r}; the only built-in model is {BUILTIN_DEMO}")
    if _ADDRESS.match(expand(text, env)) and not text.lower().startswith("file:"):
        # As a path it would be looked for, and a password in it shown by whoever says that it is not there.
        raise ValueError("is an address, and is taken for a path: write an address as it is, without variables")
    return absolute(text, base, env)


def source_ref(text: str, base: Path, short_names: Mapping[str, str] = MappingProxyType({})) -> Ref | None:
    """The stored model that `source: text` names; None when it is a file.

    A path is what begins with `/`, `~`, `$` or a dot, what ends in `.gguf`, and what exists; all else is a reference.
    Raises ValueError for one that cannot be read.
    """
    named = _NAMED.match(text) is not None
    if not named and (text.startswith(("/", "~", "$", ".", "builtin:")) or text.lower().endswith(".gguf")):
        return None
    if not named and (base / text).exists():
        return None
    try:
        ref = parse_ref(text, short_names)
    except BadReference as error:
        raise ValueError(f"is neither a file nor a reference: {error.message}") from None
    return None if ref.kind == "file" else ref


def is_inside(path: Path, roots: Sequence[Path]) -> bool:
    """Whether `path`, its symbolic links followed, lies in one of `roots`; anything does when there are none."""
    if not roots:
        return True
    try:
        real = path.resolve()
        return any(real.is_relative_to(root.resolve()) for root in roots)
    except (OSError, RuntimeError):  # a loop of links lies nowhere
        return False


def check_inside(path: Path, roots: Sequence[Path]) -> None:
    """Raises ModelFileError when `path` is outside `roots`. Asked again at each start: links may have changed."""
    if not is_inside(path, roots):
        raise ModelFileError(f"{path} is outside what is allowed", hint=allowed_hint(roots), path=str(path))


def allowed_hint(roots: Sequence[Path]) -> str:
    return f"allowed: {', '.join(str(root) for root in roots)}; move the file there, or list its directory in `roots`"


def unusable(path: Path, folder: bool) -> tuple[str, str] | None:
    """What is wrong with `path` as a model's file, or its `folder`, and what to do; None where nothing shows."""
    if path.is_dir() if folder else path.is_file():
        return None
    wanted = "folder" if folder else "file"
    if path.is_file():
        return f"{path} is a file", "this engine wants the folder of a model, with its config.json"
    if path.is_dir():
        return f"{path} is a directory", "name the model's file in it"
    if path.exists():
        return f"{path} is neither a file nor a folder", f"name the model's own {wanted}"
    return f"there is no {wanted} {path}", "this model cannot start before there is one"
