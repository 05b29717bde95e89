"""What a 401 asks for: WWW-Authenticate headers taken apart. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import field

from corral.lazy_dataclass import dataclass

_MAX_HEADER = 8192
# Source: RFC 9110 §11: challenge = scheme [ 1*SP #auth-param ]; a parameter's value is a token or a quoted string.
_PARAMETER = re.compile(r"[\s,]*([A-Za-z0-9!#$%&'*+.^_`|~-]+)\s*=\s*(?:\"((?:[^\"\\]|\\.)*)\"|([^\s,\"]+))")
_SCHEME = re.compile(r"[\s,]*([A-Za-z][A-Za-z0-9-]*)(?=\s|,|$)")


@dataclass(frozen=True, slots=True)
class Challenge:
    """One way to authenticate; names are lower case."""

    scheme: str
    parameters: dict[str, str] = field(default_factory=dict)


def parse_challenges(headers: Iterable[str]) -> list[Challenge]:
    """The challenges in `headers`, in order. What cannot be read ends a header's reading."""
    found: list[Challenge] = []
    for header in headers:
        text, at = header[:_MAX_HEADER], 0
        while match := _SCHEME.match(text, at):
            at = match.end()
            challenge = Challenge(match[1].lower())
            while parameter := _PARAMETER.match(text, at):
                at = parameter.end()
                quoted = parameter[2]
                value = parameter[3] if quoted is None else re.sub(r"\\(.)", r"\1", quoted)
                challenge.parameters.setdefault(parameter[1].lower(), value)
            found.append(challenge)
    return found
