"""Ollama's way to say who asks: a token from the registry for a signature with the key that `ollama` made.

Source: Ollama's `server/auth.go` and `auth/auth.go` (0.33).
"""

from __future__ import annotations

import base64
import hashlib
import os
import secrets
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Final
from urllib.parse import urlencode, urlsplit, urlunsplit

from corral import clock
from corral.descriptors import decode_json
from corral.errors import NotAllowedThere
from corral.registry.answers import failure
from corral.registry.challenges import parse_challenges
from corral.registry.egress import Egress, Headers

_MAX_KEY_BYTES: Final = 16 << 10
_MAX_TOKEN: Final = 16 << 10
_NEW_KEY: Final = "`ollama signin` makes one"
_HINT: Final = "run `ollama signin` for this key, or check that its account may read the model"


def key_file(env: Mapping[str, str] | None = None) -> Path:
    """Where `ollama` keeps this user's key."""
    env = os.environ if env is None else env
    return Path(env.get("HOME") or Path.home()) / ".ollama" / "id_ed25519"


class OllamaTokens:
    """Tokens for private models, by repository. May be used from several threads."""

    def __init__(self, egress: Egress, path: Path | None = None) -> None:
        self._egress = egress
        self._path = path
        self._tokens: dict[tuple[str, str], str] = {}
        self._lock = threading.Lock()

    def headers(self, host: str, repository: str) -> dict[str, str]:
        """What goes with a request; nothing, until the registry has asked who we are."""
        with self._lock:
            token = self._tokens.get((host, repository))
        return {"Authorization": f"Bearer {token}"} if token else {}

    def renew(self, base: str, host: str, repository: str, asked: Headers) -> bool:
        """Gets a token as a 401 with the headers `asked` says; False when there is no key to get it with.

        Raises NotAllowedThere when the registry wants the key shown to another host, or gives no token for it.
        """
        path = self._path or key_file()
        challenges = parse_challenges(asked.get_all("www-authenticate"))
        challenge = next((each for each in challenges if each.scheme == "bearer"), None)
        if challenge is None or not path.is_file():
            return False
        realm = urlsplit(challenge.parameters.get("realm", ""))
        home = urlsplit(base)
        if (realm.scheme, realm.netloc) != (home.scheme, home.netloc):
            hint = "its key is only ever shown to the registry itself"
            raise NotAllowedThere(f"{host} wants tokens fetched from another host, {realm.netloc[:100]!r}", hint=hint)
        query = {
            "nonce": secrets.token_urlsafe(16),
            "scope": challenge.parameters.get("scope", "").split(" "),
            "service": challenge.parameters.get("service", ""),
            "ts": str(int(clock.wall())),
        }
        url = urlunsplit(realm._replace(query=urlencode(query, doseq=True), fragment=""))
        with self._egress.request("GET", url, headers={"Authorization": _signed(path, url)}, redirects=0) as response:
            if response.status != 200:
                error = failure(response, f"token for {repository}", host)
                error.hint = _HINT
                raise error
            token = decode_json(response.read(_MAX_TOKEN), f"the token of {host}").get("token")
        if not isinstance(token, str) or not token.isascii() or not token.isprintable():
            raise NotAllowedThere(f"{host} gives no token for {repository}", hint=_HINT)
        with self._lock:
            self._tokens[host, repository] = token
        return True


def _signed(path: Path, url: str) -> str:
    """The key's public half, and its signature of a GET of `url` without a body."""
    # Here, as few ask for private models: it would cost every start of the server a tenth of a second and 8 MB.
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_ssh_private_key

    try:
        with path.open("rb") as file:
            key = load_ssh_private_key(file.read(_MAX_KEY_BYTES), password=None)
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise NotAllowedThere(f"the key {path} cannot be used: {str(error)[:100]}", hint=_NEW_KEY) from error
    if not isinstance(key, Ed25519PrivateKey):
        raise NotAllowedThere(f"the key {path} is no Ed25519 key", hint=_NEW_KEY)
    public = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).split()[1].decode()
    empty = base64.b64encode(hashlib.sha256(b"").hexdigest().encode()).decode()
    signature = base64.b64encode(key.sign(f"GET,{url},{empty}".encode())).decode()
    return f"{public}:{signature}"
