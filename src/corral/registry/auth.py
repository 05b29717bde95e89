"""Authentication with registries: which credentials go where, tokens and their renewal, login."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, BinaryIO
from urllib.parse import urlencode

from corral import clock
from corral.errors import BadReference, EgressRefused, ManifestError, NotAllowedThere
from corral.lazy_dataclass import dataclass
from corral.refs_parse import split_authority
from corral.registry.answers import failure
from corral.registry.challenges import Challenge, parse_challenges
from corral.registry.credentials import Basic, Credentials, IdentityToken, Keyring, RegistryToken
from corral.registry.egress import Egress, Response
from corral.registry.policy import Target, canonical, listed, parse_url

__all__ = ["Auth", "Basic", "Credentials", "IdentityToken", "RegistryToken"]

AUTH_FILE = "auth.json"
MAX_TOKEN_BYTES = 64 << 10
DEFAULT_TOKEN_S = 60.0
"""How long a token lives when its server does not say. Source: Docker Registry token authentication specification."""

KNOWN_REALMS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {"docker.io": ("auth.docker.io",), "registry.gitlab.com": ("gitlab.com",)}
)
"""Registries whose own documentation names another host as their token server."""


@dataclass(frozen=True, slots=True)
class _Token:
    value: str
    until: float


class Auth:
    """Requests to registries with the credentials they ask for. Safe to use from many threads.

    Credentials are shown only to a registry that asked for them, and to its token server where that is the same host,
    one of `KNOWN_REALMS`, or one of the policy's `realms`.
    """

    def __init__(
        self,
        egress: Egress,
        config_dir: Path | None = None,
        *,
        env: Mapping[str, str] | None = None,
        warn: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.egress = egress
        self._keyring = Keyring(
            config_dir / AUTH_FILE if config_dir else None, os.environ if env is None else env, warn
        )
        self._headers: dict[tuple[str, tuple[str, ...]], _Token] = {}
        self._locks: dict[tuple[str, tuple[str, ...]], threading.Lock] = {}
        self._guard = threading.Lock()

    def credentials(self, host: str, repository: str = "") -> Credentials | None:
        """What this machine has for `host`, or for one repository of it."""
        return self._keyring.find(host, repository)

    def login(self, host: str, user: str, password: str) -> None:
        """Checks `user` and `password` with the registry, and keeps them in Corral's own file.

        Raises NotAllowedThere when the registry does not take them, RegistryError, BadReference, ConfigError.
        """
        host = canonical(host)
        split_authority(host)
        if not user or ":" in user or not (user + password).isprintable():
            raise BadReference(
                "no user's name is such", hint="a name is not empty, and has no colon or control character"
            )
        given = Basic(user, password)
        base = self.egress.base_url(host)
        with self.egress.request("GET", f"{base}/v2/", auth_host=host) as answer:
            status, challenges = answer.status, parse_challenges(answer.headers.get_all("www-authenticate"))
        if status == 401:
            header = self._answer(host, challenges, (), given).value
            with self.egress.request("GET", f"{base}/v2/", headers={"authorization": header}, auth_host=host) as answer:
                if answer.status in (401, 403):
                    raise NotAllowedThere(f"{host} does not know this user and password", hint="check both")
                if answer.status >= 400:
                    raise failure(answer, "its API", host)
        elif status >= 400:
            raise failure(answer, "its API", host)
        self._keyring.store(host, given)
        self._forget(host)

    def logout(self, host: str) -> bool:
        """Forgets what `login` kept for `host`; whether it had something. What docker and podman keep stays."""
        self._forget(canonical(host))
        return self._keyring.remove(host)

    def request(
        self,
        method: str,
        url: str,
        *,
        host: str,
        scopes: tuple[str, ...] = (),
        headers: Mapping[str, str] = MappingProxyType({}),
        body: bytes | BinaryIO | None = None,
        length: int | None = None,
        sent: Callable[[int], None] | None = None,
        redirects: int = 5,
    ) -> Response:
        """`Egress.request` for the registry `host`, with the credentials or the token it wants for `scopes`.

        A token that has run out is renewed; a file as body is then sent again from where it stood. The answer may still
        be 401. URLs of other hosts are asked without credentials. Raises NotAllowedThere, RegistryError.
        """
        host = canonical(host)
        base = parse_url(self.egress.base_url(host))
        target = parse_url(url, base)
        ours = target.origin == base.origin
        key = (host, scopes)
        header = self._cached(key) if ours else ""
        start = body.tell() if body is not None and not isinstance(body, bytes) else 0
        for attempt in (1, 2):
            response = self.egress.request(
                method,
                str(target),
                headers={**headers, "authorization": header} if header else headers,
                body=body,
                length=length,
                sent=sent,
                redirects=redirects,
                auth_host=host,
            )
            # A 401 of the place it redirected to is none of the registry's.
            if response.status != 401 or not ours or attempt == 2 or parse_url(response.url).origin != target.origin:
                break
            challenges = parse_challenges(response.headers.get_all("www-authenticate"))
            if not challenges:
                break
            renewed = self._renew(key, challenges, header)
            if not renewed:
                break
            response.close()
            header = renewed
            if body is not None and not isinstance(body, bytes):
                body.seek(start)
        return response

    def _cached(self, key: tuple[str, tuple[str, ...]]) -> str:
        with self._guard:
            known = self._headers.get(key)
        return known.value if known is not None and known.until > clock.monotonic() else ""

    def _renew(self, key: tuple[str, tuple[str, ...]], challenges: list[Challenge], refused: str) -> str:
        """A header other than `refused`, or "". Threads that need the same one wait for one answer."""
        with self._guard:
            lock = self._locks.setdefault(key, threading.Lock())
        with lock:
            known = self._cached(key)
            if known and known != refused:
                return known
            host, scopes = key
            repository = next((each.split(":")[1] for each in scopes if each.startswith("repository:")), "")
            answer = self._answer(host, challenges, scopes, self.credentials(host, repository))
            with self._guard:
                self._headers[key] = answer
            return answer.value if answer.value != refused else ""

    def _forget(self, host: str) -> None:
        with self._guard:
            for key in [key for key in self._headers if key[0] == host]:
                del self._headers[key]

    def _answer(
        self, host: str, challenges: list[Challenge], scopes: tuple[str, ...], given: Credentials | None
    ) -> _Token:
        """The Authorization header for the first challenge that can be met."""
        for challenge in challenges:
            if challenge.scheme == "bearer":
                if isinstance(given, RegistryToken):
                    return _Token(f"Bearer {given.token}", float("inf"))
                return self._fetch_token(host, challenge, scopes, given)
            if challenge.scheme == "basic" and isinstance(given, Basic):
                return _Token(given.header, float("inf"))
        known = ", ".join(sorted({challenge.scheme[:20] for challenge in challenges}))
        if any(challenge.scheme == "basic" for challenge in challenges):
            raise NotAllowedThere(f"{host} wants a user and a password", hint=f"corral login {host}")
        raise NotAllowedThere(f"{host} wants authentication of an unknown kind: {known}", hint="it is not supported")

    def _fetch_token(
        self, host: str, challenge: Challenge, scopes: tuple[str, ...], given: Credentials | None
    ) -> _Token:
        realm, named, trusted = self._check_realm(host, challenge.parameters.get("realm", ""))
        if given is not None and not trusted:
            given = None
        fields = [("service", challenge.parameters[key]) for key in ("service",) if key in challenge.parameters]
        asked = dict.fromkeys([*scopes, *challenge.parameters.get("scope", "").split()])
        headers = {"accept": "application/json"}
        if isinstance(given, IdentityToken):
            fields += [("grant_type", "refresh_token"), ("refresh_token", given.token), ("client_id", "corral")]
            form = urlencode([*fields, ("scope", " ".join(asked))]).encode()
            headers["content-type"] = "application/x-www-form-urlencoded"
            response = self.egress.request("POST", str(realm), headers=headers, body=form, redirects=0, auth_host=named)
        else:
            fields += [("scope", scope) for scope in asked]
            if isinstance(given, Basic):
                fields.append(("account", given.user))
                headers["authorization"] = given.header
            joint = "&" if "?" in realm.path else "?"
            url = f"{realm}{joint}{urlencode(fields)}" if fields else str(realm)
            response = self.egress.request("GET", url, headers=headers, redirects=0, auth_host=named)
        if response.status in (401, 403):
            response.close()
            raise self._refused(host, realm, given, trusted)
        if response.status != 200:
            raise failure(response, f"a token at {realm.authority}", host)
        with response:
            return _read_token(response.read(MAX_TOKEN_BYTES), realm)

    def _check_realm(self, host: str, text: str) -> tuple[Target, str, bool]:
        """The token server, the authority that its request counts as named by, and whether it may see credentials.

        Raises EgressRefused.
        """
        if not text:
            raise EgressRefused(f"{host} names no token server", hint="it is misconfigured")
        realm = parse_url(text)
        base = parse_url(self.egress.base_url(host))
        policy = self.egress.policy
        if base.scheme == "https" and realm.scheme != "https":
            raise EgressRefused(
                f"{host} sends us to {realm.scheme}://{realm.authority} for a token",
                hint="credentials are not sent unprotected; the registry is misconfigured",
            )
        if (realm.host, realm.port) == (base.host, base.port):
            return realm, host, True
        if listed(realm.host, realm.port, KNOWN_REALMS.get(host, ())):
            return realm, host, True
        if listed(realm.host, realm.port, policy.realms.get(host, ())):
            return realm, realm.authority, True
        if policy.allow is not None:
            self.egress.gate.check_registry(realm.authority)
        return realm, host, False

    def _refused(self, host: str, realm: Target, given: Credentials | None, trusted: bool) -> NotAllowedThere:
        if given is not None:
            return NotAllowedThere(f"{host} does not take the credentials kept for it", hint=f"corral login {host}")
        if not trusted and self.credentials(host) is not None:
            return NotAllowedThere(
                f"{host} wants its credentials sent to another host, {realm.authority}; they were not",
                hint=f"if that is right, set realms: [{realm.authority}] for {host} under registries in models.yaml",
            )
        return NotAllowedThere(f"{host} wants credentials", hint=f"corral login {host}")


def _read_token(data: bytes, realm: Target) -> _Token:
    try:
        answer: Any = json.loads(data)
        value = answer.get("token") or answer.get("access_token")
        seconds = answer.get("expires_in", DEFAULT_TOKEN_S)
    except (ValueError, AttributeError, RecursionError) as error:
        raise ManifestError(f"{realm.authority} gave no token", hint="the registry is misconfigured") from error
    if not isinstance(value, str) or not value or not value.isascii() or not value.isprintable():
        raise ManifestError(f"{realm.authority} gave no token", hint="the registry is misconfigured")
    if not isinstance(seconds, (int, float)) or isinstance(seconds, bool) or not 0 < seconds < 1 << 31:
        seconds = DEFAULT_TOKEN_S
    # Renewed a little early; a clock that is off only costs a 401 and another token.
    return _Token(f"Bearer {value}", clock.monotonic() + max(seconds * 0.9, seconds - 30.0))
