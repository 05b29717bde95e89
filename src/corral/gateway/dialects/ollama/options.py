"""Ollama's `options` as llama.cpp's fields.

Source: Ollama's documentation of the Modelfile, PARAMETER, and its `api.Options`.
"""

from __future__ import annotations

from dataclasses import field
from typing import Any, Final

from corral.errors import CallerError
from corral.lazy_dataclass import dataclass

_FLOATS: Final = {
    "temperature": "temperature", "top_p": "top_p", "min_p": "min_p", "typical_p": "typical_p",
    "repeat_penalty": "repeat_penalty", "presence_penalty": "presence_penalty",
    "frequency_penalty": "frequency_penalty", "mirostat_tau": "mirostat_tau", "mirostat_eta": "mirostat_eta",
}  # fmt: skip
_INTS: Final = {
    "top_k": "top_k", "repeat_last_n": "repeat_last_n", "seed": "seed", "num_keep": "n_keep", "mirostat": "mirostat",
    "num_predict": "max_tokens",
}  # fmt: skip
_ABSENT_BELOW: Final = {"seed": 0, "num_predict": 1}  # what is less means "as you like" or "no bound"


@dataclass(frozen=True, slots=True)
class Options:
    """A request's options: `fields` of the engine's, the context it wants, and the names that have no effect."""

    fields: dict[str, Any] = field(default_factory=dict)
    num_ctx: int | None = None
    ignored: tuple[str, ...] = ()


def read_options(given: dict[str, Any]) -> Options:
    """`given` as the engine has it. What is not said is left to the model's own defaults.

    Raises CallerError for a value of the wrong kind.
    """
    fields: dict[str, Any] = {}
    ignored = []
    num_ctx = None
    for name, value in given.items():
        if value is None:
            continue
        if name in _FLOATS:
            fields[_FLOATS[name]] = _number(name, value)
        elif name in _INTS:
            number = _whole(name, value)
            if number >= _ABSENT_BELOW.get(name, number):
                fields[_INTS[name]] = number
        elif name == "stop":
            if stops := _texts(name, value):
                fields["stop"] = stops
        elif name == "num_ctx":
            num_ctx = _whole(name, value) or None  # 0: as you like
        else:
            ignored.append(name)
    return Options(fields, num_ctx, tuple(ignored))


def _number(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) < 1e30:
        raise _wrong(name, "float32")
    return value


def _whole(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value != value // 1 or abs(value) > 2**53:
        raise _wrong(name, "integer")
    return int(value)


def _texts(name: str, value: Any) -> list[str]:
    found = [value] if isinstance(value, str) else value
    if not isinstance(found, list) or not all(isinstance(each, str) for each in found):
        raise _wrong(name, "array")
    return [each for each in found if each]


def _wrong(name: str, kind: str) -> CallerError:
    return CallerError(f'option "{name}" must be of type {kind}', hint="see Ollama's list of parameters", param=name)


def native(fields: dict[str, Any]) -> dict[str, Any]:
    """The same for llama.cpp's own completion route."""
    return {("n_predict" if name == "max_tokens" else name): value for name, value in fields.items()}
