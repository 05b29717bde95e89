"""Taking secrets out of text: known ones wherever they stand, others by their looks. Pure.

For text that leaves the machine (`Cleaner`), more is taken out than would have to be: what stands behind a word such as
password, whatever looks like a key. Figures stay, so that `n_tokens = 18` does. For what people are told of an address
or a flag (`address`, `arguments`), only what cannot be anything else.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

MASK: Final = "<removed>"
LEAST: Final = 5
"""A known secret that is shorter is not looked for: it would be found in every other word."""

_NAMES: Final = (
    r"api[_-]?key|access[_-]?key(?:[_-]?id)?|private[_-]?key|[a-z0-9_.-]*[_-]key|key|[a-z0-9_.-]*token|[a-z0-9_.-]*secret"
    r"|[a-z0-9_.-]*passw(?:or)?d|passphrase|pwd|hft|[a-z0-9_.-]*credentials?|authorization|[a-z0-9_.-]*auth"
    r"|set-cookie|cookie|signature|sig|session(?:[_-]?id)?"
)
SECRET_NAME: Final = re.compile(rf"^(?:.*[^a-z0-9])?(?:{_NAMES})s?(?:[^a-z0-9].*)?$", re.IGNORECASE)
"""What a variable or a field is called whose value is nobody's business."""

_PEM: Final = re.compile(r"-----BEGIN ([A-Z0-9 ]+)-----.*?(?:-----END \1-----|\Z)", re.DOTALL)
_FIELD: Final = re.compile(
    r"(?im)(\b(?:proxy-)?authorization|\bx-[a-z-]*(?:key|token|auth)[a-z-]*|\b(?:set-)?cookie)(\\?[\"']?\s*[:=]\s*)[^\r\n]*"
)
_SCHEME: Final = re.compile(r"(?i)\b(bearer|basic|digest|negotiate)(\s+)[A-Za-z0-9._~+/=-]{4,}")
_IN_URL: Final = re.compile(
    r"(?i)(?<![a-z0-9+.-])([a-z][a-z0-9+.-]{1,20}:/{1,3}|//)"  # a path made of an address has one slash
    r"(?:[^\s/@\"'<>]+|[^\s/@:\"'<>]+:(?![0-9]+/)[^\s@\"'<>]+)@(?!sha256:)"  # a password may have a slash in it
)
_USER: Final = re.compile(r"(?i)(?:[a-z][a-z0-9+.-]{1,20}:/{1,3}|//)([^\s/@\"'<>]+)@")
_BARE_QUOTED: Final = re.compile(r"([\"'`])[^\s\"'`/@:]+:(?!/)[^\s\"'`@]*@(?!sha256:)")
_BARE_PROXY: Final = re.compile(r"^[^\s/@]+:[^\s@]*@(?!sha256:)")
_ASKED: Final = re.compile(
    r"(?i)([?&;](?:[a-z0-9_.-]*(?:token|key|secret|passw(?:or)?d|sig|signature|credential|auth|policy|session)[a-z0-9_.-]*)=)"
    r"[^&;\s\"'<>#]+"
)
_FLAG: Final = re.compile(
    rf"(?i)(--?(?:{_NAMES})(?:[_-]file)?"
    r"(?:[ \t]+|=|\\?[\"']\s*,\s*\\?[\"']|\\?[\"']?[ \t]*\r?\n\s*-[ \t]+))(\\?[\"']?)[^\s\"',]+"
)
"""With its value: behind a space or `=`, in a list as Python and JSON write it, in one as YAML does."""
_WITH_VALUE: Final = re.compile(r"(-[^\s=]+)(=|\s+)(.*)", re.DOTALL)
_SIGNED: Final = re.compile(
    r"(?i)(?:x-(?:amz|goog|oss|ms)-[a-z0-9-]+|(?:[a-z0-9_.-]*[_.-])?(?:token|signature|sig|secret|passw(?:or)?d|auth"
    r"|credentials?|api[_-]?key)|awsaccesskeyid|googleaccessid|key-pair-id|policy|expires)"
)
"""What a query says of who may fetch, rather than what is fetched."""
_GIVEN: Final = re.compile(
    rf"(?i)(?<![a-z0-9])((?:{_NAMES})\\?[\"']?\s*(?:=>|[:=])\s*)(\\?\"[^\"\r\n]*\"|'[^'\r\n]*'|[^\s,;}})\]\"']+)"
)
_LOOKS: Final = re.compile(
    r"(?<![A-Za-z0-9])(?:"
    r"(?:sk|pk|rk|ck)[-_][A-Za-z0-9_-]{8,}|hf_[A-Za-z0-9]{8,}|gh[opsur]_[A-Za-z0-9]{8,}|github_pat_[A-Za-z0-9_]{8,}"
    r"|glpat-[A-Za-z0-9_-]{8,}|xox[a-z]-[A-Za-z0-9-]{8,}|(?:AKIA|ASIA)[0-9A-Z]{12,}|AIza[A-Za-z0-9_-]{16,}"
    r"|eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{4,}(?:\.[A-Za-z0-9_-]*)?"
    r")"
)
_FIGURE: Final = re.compile(r"[\"']?[-+]?[0-9][0-9.,:e+-]*[a-z%]{0,3}[\"']?|true|false|null|none|yes|no|off|on|-", re.I)
_HOMES: Final = re.compile(r"(?<![A-Za-z0-9_.-])/(?:home|Users|var/home)/[^/\s\"':,;)\]}]+")


class Cleaner:
    """Cleans text of `known` secrets, of what looks like one, and of the names of `homes`."""

    def __init__(self, known: Iterable[str] = (), homes: Iterable[str] = ()) -> None:
        wanted = sorted({each for each in known if len(each) >= LEAST}, key=len, reverse=True)
        more = {each.encode("unicode_escape").decode() for each in wanted} | {_in_json(each) for each in wanted}
        every = sorted({*wanted, *more}, key=len, reverse=True)
        self._known = re.compile("|".join(map(re.escape, every))) if every else None
        self._homes = [each.rstrip("/") for each in homes if each.rstrip("/").count("/") >= 1]

    def text(self, text: str) -> str:
        """`text` without them."""
        text = _PEM.sub(rf"-----{MASK} \1-----", text)
        text = _IN_URL.sub(rf"\1{MASK}@", text)  # before its password alone is taken out
        if self._known is not None:
            text = self._known.sub(MASK, text)
        text = _FIELD.sub(rf"\1\2{MASK}", text)
        text = _SCHEME.sub(rf"\1\2{MASK}", text)
        text = _ASKED.sub(rf"\1{MASK}", text)
        text = _FLAG.sub(rf"\1\2{MASK}", text)
        text = _GIVEN.sub(_given, text)
        text = _LOOKS.sub(MASK, text)
        for home in sorted(self._homes, key=len, reverse=True):
            text = re.sub(rf"{re.escape(home)}(?![A-Za-z0-9_.-])", "~", text)
        return _HOMES.sub("~", text)

    def data(self, value: Any, name: str = "") -> Any:
        """The same for lists and mappings as JSON has them; what stands under a secret's name goes whole."""
        if isinstance(value, Mapping):
            return {self.text(str(key)): self.data(each, str(key)) for key, each in value.items()}
        if isinstance(value, list | tuple):
            return [self.data(each, name) for each in _without_pem(value)]
        if isinstance(value, str):
            return MASK if value and SECRET_NAME.match(name) else self.text(value)
        return value


def address(text: str, mask: str = MASK) -> str:
    """An address, or text with addresses in it, without users, passwords and what a query has that is secret."""
    return _ASKED.sub(rf"\g<1>{mask}", _IN_URL.sub(rf"\g<1>{mask}@", text))


def proxy(text: str, mask: str = MASK) -> str:
    """The same for a proxy's address, which may lack its scheme."""
    return address(_BARE_PROXY.sub(f"{mask}@", text), mask)


def quoted(text: str, mask: str = MASK) -> str:
    """A sentence with something quoted in it that may be an address with a password, its scheme or not."""
    return address(_BARE_QUOTED.sub(rf"\g<1>{mask}@", text), mask) if "@" in text or "?" in text else text


def unsigned(url: str) -> str:
    """A URL without what its query says of who may fetch: what it is called, however often it is signed anew."""
    head, hash_, fragment = url.partition("#")
    where, _, query = head.partition("?")
    pairs = query.split("&")
    kept = [pair for pair in pairs if not _SIGNED.fullmatch(pair.partition("=")[0])]
    if len(kept) == len(pairs):
        return url
    return f"{where}?{'&'.join(kept)}{hash_}{fragment}" if any(kept) else f"{where}{hash_}{fragment}"


def arguments(args: Sequence[str], mask: str = MASK) -> list[str]:
    """A program's arguments with the values of secret flags masked, and those within addresses."""
    shown = []
    secret = False
    for each in args:
        if (match := _WITH_VALUE.match(each)) is not None:
            named, secret = is_secret(match[1].lstrip("-")), False
            shown.append(f"{match[1]}{match[2]}{mask}" if named else _worded(each, mask))
        elif each.startswith("-"):
            secret = is_secret(each.lstrip("-"))
            shown.append(each)
        else:
            shown.append(mask if secret else _worded(each, mask))
            secret = False
    return shown


def argument(written: str, mask: str = MASK) -> str:
    """One argument as an error quotes it."""
    return arguments([written], mask)[0]


def in_addresses(text: str) -> Iterator[str]:
    """The passwords and signatures that stand in the addresses of `text`."""
    for match in _USER.finditer(text):
        yield match[1].partition(":")[2] or match[1]
    for match in _ASKED.finditer(text):
        yield match[0][len(match[1]) :]


def _worded(text: str, mask: str) -> str:
    return _SCHEME.sub(rf"\g<1>\g<2>{mask}", address(text, mask))


def is_secret(name: str) -> bool:
    """Whether a variable of this name may hold a secret."""
    return SECRET_NAME.match(name) is not None


def _without_pem(values: Sequence[Any]) -> list[Any]:
    """`values` with a key masked that stands in several: lines of a log, one text each."""
    found, within = [], False
    for each in values:
        text = each if isinstance(each, str) else ""
        ends = "-----END " in text
        found.append(MASK if within and isinstance(each, str) and not ends else each)
        within = (within or "-----BEGIN " in text) and not ends
    return found


def _given(match: re.Match[str]) -> str:
    return match[0] if _FIGURE.fullmatch(match[2]) or MASK in match[2] else f"{match[1]}{MASK}"


def _in_json(text: str) -> str:
    import json

    return json.dumps(text)[1:-1]
