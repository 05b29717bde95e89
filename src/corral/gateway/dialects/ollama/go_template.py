"""A `template` sent with `generate`: the part of Go's template language that such templates are written in.

Known are `.System`, `.Prompt`, `.Suffix` and `.Response`, `if`, `else`, `end`, and the `-` that trims. Everything else
is refused: half a rendering would be another prompt than the one that was asked for.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from corral.errors import CallerError

_MAX_CHARS: Final = 1 << 20
_TAG = re.compile(r"\{\{(-\s)?\s*(.*?)\s*(\s-)?\}\}", re.DOTALL)
_VALUE = re.compile(r"\.([A-Z][A-Za-z]*)")
_KNOWN: Final = ("System", "Prompt", "Suffix", "Response")


def render(template: str, values: Mapping[str, str]) -> str:
    """`template` with `values`, up to where the model's response begins. Raises CallerError."""
    if len(template) > _MAX_CHARS:
        raise CallerError("the template is too long", hint=f"{_MAX_CHARS} characters are allowed", param="template")
    out: list[str] = []
    open_ifs: list[tuple[bool, bool]] = []  # whether the branch counts, whether an else came
    at, trim, counts = 0, False, True
    for tag in _TAG.finditer(template):
        text = template[at : tag.start()]
        text = text.lstrip() if trim else text
        text = text.rstrip() if tag[1] else text
        at, trim = tag.end(), bool(tag[3])
        if counts:
            out.append(text)
        words = tag[2].split()
        if words[:1] == ["if"] and len(words) == 2:
            open_ifs.append((bool(_value(words[1], values)), False))
        elif words == ["else"] and open_ifs and not open_ifs[-1][1]:
            open_ifs[-1] = (not open_ifs[-1][0], True)
        elif words == ["end"] and open_ifs:
            open_ifs.pop()
        elif len(words) == 1 and _VALUE.fullmatch(words[0]):
            value = _value(words[0], values)
            if counts and words[0] == ".Response":
                return "".join(out)
            if counts:
                out.append(value)
        elif not tag[2].startswith("/*"):
            raise _unknown(tag[2])
        counts = all(taken for taken, _ in open_ifs)
    if open_ifs:
        raise CallerError("the template has an `if` without an `end`", hint="add {{ end }}", param="template")
    rest = template[at:]
    out.append(rest.lstrip() if trim else rest)
    return "".join(out)


def _value(word: str, values: Mapping[str, str]) -> str:
    match = _VALUE.fullmatch(word)
    if match is None or match[1] not in _KNOWN:
        raise _unknown(word)
    return values.get(match[1], "")


def _unknown(what: str) -> CallerError:
    return CallerError(
        f"the template has {{{{ {what[:60]} }}}}, which is not understood here",
        hint="known are .System, .Prompt, .Suffix, .Response, if, else and end; or send the prompt whole, with raw",
        param="template",
    )
