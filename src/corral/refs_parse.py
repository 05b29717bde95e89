"""Reading a reference as a person types it, into its one full form. Pure."""

from __future__ import annotations

import ipaddress
import re
import unicodedata
from collections.abc import Mapping
from types import MappingProxyType

from corral.descriptors import check_digest
from corral.errors import BadReference, ManifestError
from corral.refs import Kind, Ref

MAX_REFERENCE = 4096

DOCKER_HOST = "docker.io"
OLLAMA_HOST = "registry.ollama.ai"
HF_HOST = "hf.co"

_DOCKER_HOSTS = ("docker.io", "index.docker.io", "registry-1.docker.io", "registry.hub.docker.com")
_OLLAMA_HOSTS = ("registry.ollama.ai", "ollama.com", "www.ollama.com")
_HF_HOSTS = ("hf.co", "huggingface.co", "www.huggingface.co")
_SCHEMES: Mapping[str, Kind] = MappingProxyType(
    {"oci": "oci", "docker": "oci", "ollama": "ollama", "hf": "hf", "huggingface": "hf"}
)

# Source: OCI distribution-spec v1.1, "Pulling manifests": <name> and <reference>.
_REPOSITORY = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
# Ollama and Hugging Face keep upper case.
_PART = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_LABEL = r"[a-z0-9](?:[a-z0-9_-]{0,61}[a-z0-9])?"
_HOST = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_PORT = re.compile(r":([0-9]{1,5})")
_SCHEME = re.compile(r"([a-z][a-z0-9+.-]*)://", re.IGNORECASE)
_DRIVE_LIKE = re.compile(r"(?:~|\.{0,2})/|\.\.?$|~$")


def parse_ref(text: str, short_names: Mapping[str, str] = MappingProxyType({})) -> Ref:
    """What `text` refers to. Names without a slash are looked up in `short_names` first, then taken as `ai/NAME`.

    A name without a tag means `latest`, unless it is pinned to a digest. Raises BadReference.
    """
    text = text.strip()
    _check_text(text)
    if (path := _file_path(text)) is not None:
        return Ref("file", repository=path)
    _check_plain(text)
    long = lengthen(text, short_names)
    if long != text:
        _check_text(long)
        _check_plain(long)
    if (match := _SCHEME.match(long)) is None:
        return _named(long)
    scheme, rest = match[1].lower(), long[match.end() :]
    if scheme in ("https", "http"):
        return _url(scheme, rest)
    if (kind := _SCHEMES.get(scheme)) is None:
        raise BadReference(
            f"{_shown(text)} has the unknown scheme {scheme}://",
            hint="known are oci://, docker://, ollama://, hf://, https:// and file://",
        )
    return {"oci": _oci, "ollama": _ollama, "hf": _hf}[kind](rest)


def full_name(text: str, short_names: Mapping[str, str] = MappingProxyType({})) -> str:
    """`text` in its one full spelling, digest included. Raises BadReference."""
    return str(parse_ref(text, short_names))


def lengthen(text: str, short_names: Mapping[str, str]) -> str:
    """`text` with its short name replaced. A tag given with a short name takes the place of the tag it stands for."""
    if "/" in text:
        return text
    name, at, digest = text.partition("@")
    if (whole := short_names.get(name.lower())) is not None:
        return _pinned(whole, at, digest)
    bare, colon, tag = name.partition(":")
    if colon and (whole := short_names.get(bare.lower())) is not None:
        return _pinned(f"{_untagged(whole)}:{tag}", at, digest)
    return text


def is_loopback(authority: str) -> bool:
    """Whether `authority` (a host, or host:port) names this machine itself, without looking anything up."""
    host = split_authority(authority)[0]
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def split_authority(authority: str) -> tuple[str, int | None]:
    """Host (lower case, IPv6 without brackets) and port of `host`, `host:port`, `[v6]` or `[v6]:port`.

    Raises BadReference.
    """
    text = authority.lower()
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        try:
            good = bracket == "]" and ipaddress.ip_address(host).version == 6 and "%" not in host
        except ValueError:
            good = False
    else:
        host, colon, port = text.partition(":")
        rest = colon + port
        good = len(host) <= 253 and _HOST.fullmatch(host) is not None and not host.endswith(".")
    number = _PORT.fullmatch(rest)
    if not good or (rest and (number is None or not 0 < int(number[1]) < 1 << 16)):
        raise BadReference(f"{_shown(authority)} is no host name", hint="a host is such as ghcr.io or localhost:5000")
    return host, int(number[1]) if number else None


def _check_text(text: str) -> None:
    if not text:
        raise BadReference("the reference is empty", hint="give one such as ai/smollm2 or hf.co/org/repo")
    if len(text) > MAX_REFERENCE:
        raise BadReference(f"the reference has {len(text)} characters", hint=f"{MAX_REFERENCE} are allowed")
    for each in text:
        if unicodedata.category(each) in ("Cc", "Cf", "Cs", "Zl", "Zp"):
            raise BadReference(
                f"{_shown(text)} has the invisible character U+{ord(each):04X}", hint="type the reference by hand"
            )


def _check_plain(text: str) -> None:
    """Names are plain ASCII: letters of other scripts that look the same would name somebody else's model."""
    for each in text:
        if not each.isascii():
            name = unicodedata.name(each, "a character without a name").lower()
            raise BadReference(
                f"{_shown(text)} has {name} (U+{ord(each):04X}), which no registry's names can have",
                hint="it may only look like the letter you mean: type the reference by hand",
            )
        if each.isspace() or each in "\\\"'<>|^`{}":
            raise BadReference(f"{_shown(text)} has {each!r} in it", hint="a reference is such as ai/smollm2:latest")


def _file_path(text: str) -> str | None:
    if text.lower().startswith("file:"):
        path = text[5:]
        if path.startswith("//"):
            host, slash, rest = path[2:].partition("/")
            if host not in ("", "localhost"):
                raise BadReference(f"{_shown(text)} is a file of another host", hint="write file:///path/to/file")
            path = slash + rest
        if not path:
            raise BadReference("file: without a path", hint="write file:///path/to/file")
        return path
    if _DRIVE_LIKE.match(text):
        return text
    return text if text.lower().endswith((".gguf", ".safetensors")) and "/" not in text else None


def _url(scheme: str, rest: str) -> Ref:
    authority, slash, path = rest.partition("/")
    # A password may have had a slash in it: what stands behind the colon is no port then.
    if "@" in authority or ("@" in path and re.search(r":[^\]]*[^0-9\]]", authority) and not authority.startswith("[")):
        raise BadReference("the URL has a user in it", hint="use `corral login` rather than names in URLs")
    host, port = split_authority(authority)
    if host in _HF_HOSTS and scheme == "https" and port is None and not path.startswith(("api/", "datasets/")):
        return _hf_page(path)
    return Ref("url", host=authority.lower(), repository=f"{scheme}://{authority.lower()}{slash}{path}")


def _named(text: str) -> Ref:
    first, slash, rest = text.partition("/")
    if not slash:
        return _oci(f"{DOCKER_HOST}/ai/{text}")
    host = first.lower()
    if host in _HF_HOSTS:
        return _hf(rest)
    if host in _OLLAMA_HOSTS:
        return _ollama(rest)
    return _oci(text)


def _oci(text: str) -> Ref:
    text, digest = _take_digest(text)
    host, path = _take_host(text, DOCKER_HOST)
    if host in _DOCKER_HOSTS:
        host = DOCKER_HOST
    path, tag = _take_tag(path)
    path = path.lower()
    if host == DOCKER_HOST and "/" not in path:
        path = f"library/{path}" if text.partition("/")[1] else f"ai/{path}"
    if len(path) > 255 or _REPOSITORY.fullmatch(path) is None:
        raise BadReference(
            f"{_shown(path)} is no repository's name",
            hint="it has letters, digits and single . _ - between them, with / between its parts",
        )
    return Ref("oci", host, path, tag or ("" if digest else "latest"), digest)


def _ollama(text: str) -> Ref:
    text, digest = _take_digest(text)
    host, path = _take_host(text, OLLAMA_HOST)
    if host in _HF_HOSTS:
        return _hf(path)
    if host in _OLLAMA_HOSTS:
        host = OLLAMA_HOST
    path, tag = _take_tag(path)
    parts = path.split("/")
    if len(parts) == 1:
        parts = ["library", *parts]
    if len(parts) != 2 or not all(_PART.fullmatch(part) for part in parts):
        raise BadReference(f"{_shown(path)} is no name of an Ollama model", hint="write ollama://name:tag")
    return Ref("ollama", host, "/".join(parts), tag or ("" if digest else "latest"), digest)


def _hf(text: str) -> Ref:
    for host in _HF_HOSTS:
        text = text.removeprefix(f"{host}/")
    text, digest = _take_digest(text)
    text, at, revision = text.partition("@")
    path, tag = _take_tag(text)
    parts = path.split("/")
    if len(parts) < 2 or (at and not revision):
        raise BadReference(f"{_shown(text)} is no Hugging Face repository", hint="write hf.co/org/repo:QUANT")
    _check_parts(text, [*parts, *(revision.split("/") if revision else [])])
    if tag and len(parts) > 2:
        raise BadReference(f"{_shown(text)} names a file and a quantization", hint="give one of them")
    return Ref("hf", HF_HOST, "/".join(parts[:2]), tag, digest, "/".join(parts[2:]), revision)


def _hf_page(path: str) -> Ref:
    """A page's address as the browser shows it, or a download's."""
    parts = path.partition("?")[0].rstrip("/").split("/")
    if len(parts) < 2:
        raise BadReference("this is no model's page", hint="write hf.co/org/repo:QUANT")
    file, revision = [], ""
    if len(parts) > 2:
        if parts[2] not in ("blob", "resolve", "tree", "raw") or len(parts) < 4:
            raise BadReference(f"{_shown(path)} is no model's page", hint="write hf.co/org/repo:QUANT")
        revision, file = parts[3], parts[4:] if parts[2] != "tree" else []
    _check_parts(path, [*parts[:2], *file, *([revision] if revision else [])])
    return Ref("hf", HF_HOST, "/".join(parts[:2]), "", None, "/".join(file), "" if revision == "main" else revision)


def _check_parts(text: str, parts: list[str]) -> None:
    if not all(_PART.fullmatch(part) and not part.endswith(".") for part in parts):
        raise BadReference(f"{_shown(text)} has a part that is no name", hint="write hf.co/org/repo:QUANT")


def _take_digest(text: str) -> tuple[str, str | None]:
    rest, at, digest = text.rpartition("@")
    if not at or not digest.startswith("sha256:"):
        if ":" in digest and at:
            raise BadReference(
                f"{_shown(digest)} is no digest", hint="a digest is sha256: and 64 digits of 0-9 and a-f"
            )
        return text, None
    try:
        return rest, check_digest(digest)
    except ManifestError as error:
        raise BadReference(error.message, hint=error.hint) from error


def _take_host(text: str, default: str) -> tuple[str, str]:
    first, slash, rest = text.partition("/")
    if not slash or not ("." in first or ":" in first or first.lower() == "localhost"):
        return default, text
    split_authority(first)
    return first.lower(), rest


def _take_tag(path: str) -> tuple[str, str]:
    head, slash, last = path.rpartition("/")
    name, colon, tag = last.partition(":")
    if "@" in path or (colon and _TAG.fullmatch(tag) is None):
        raise BadReference(f"{_shown(path)} has no good tag", hint="a tag has letters, digits, dots, _ and -")
    return head + slash + name, tag


def _untagged(reference: str) -> str:
    head, slash, last = reference.partition("@")[0].rpartition("/")
    return head + slash + last.partition(":")[0]


def _pinned(reference: str, at: str, digest: str) -> str:
    return f"{reference.partition('@')[0]}@{digest}" if at else reference


def _shown(text: str) -> str:
    from corral.hidden import proxy

    text = proxy(text)  # whoever wrote a user's name and password into it need not see them in a log
    return ascii(text if len(text) <= 120 else text[:117] + "…")
