"""`Served`: a listener's certificate as TLS wants it, loaded anew when its files have changed."""

from __future__ import annotations

import os
import ssl
from pathlib import Path
from typing import Final

from corral import clock
from corral.config.settings import Tls
from corral.errors import ConfigError

LOOK_S: Final = 1.0
"""How often a new connection has the files looked at, at most."""

Stamps = tuple[tuple[int, int, int], ...]


class Served:
    """Use `context` for new connections, after `refresh`."""

    def __init__(self, tls: Tls) -> None:
        """Blocks for reading the files. Raises ConfigError."""
        self.tls = tls
        self._stamps = _stamps(tls)
        self.context = _context(tls)
        self._look_at = clock.monotonic() + LOOK_S
        self.problem: str | None = None

    def refresh(self) -> None:
        """Takes up files that have changed. Those that are no good, half written perhaps, are left alone: `problem`
        says why, and the certificate stays that of before."""
        now = clock.monotonic()
        if now < self._look_at:
            return
        self._look_at = now + LOOK_S
        try:
            stamps = _stamps(self.tls)
            if stamps == self._stamps:
                return
            _context(self.tls)  # a key that does not fit would spoil the context in use
            self.context.load_cert_chain(self.tls.cert, self.tls.key)
        except (ConfigError, OSError) as error:
            self.problem = str(error)
            return
        self._stamps, self.problem = stamps, None


def _stamps(tls: Tls) -> Stamps:
    try:
        found = [os.stat(each) for each in (tls.cert, tls.key)]  # noqa: PTH116 - once a second on the event loop
    except OSError as error:
        raise _bad(tls, Path(str(error.filename)), error.strerror or str(error)) from error
    return tuple((each.st_mtime_ns, each.st_ino, each.st_size) for each in found)


def _context(tls: Tls) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    try:
        context.load_cert_chain(tls.cert, tls.key, password=lambda: b"")  # an encrypted key is refused, not asked for
    except (OSError, ssl.SSLError) as error:
        why = error.strerror or "they do not fit each other, or are no PEM files"
        if isinstance(error, ssl.SSLError):
            why = f"{(error.reason or str(error)).lower().replace('_', ' ')}"
        raise _bad(tls, tls.cert, why) from error
    return context


def _bad(tls: Tls, file: Path, why: str) -> ConfigError:
    return ConfigError(
        f"the certificate {tls.cert} with the key {tls.key} cannot be used: {file}: {why}"
        if file != tls.cert
        else f"the certificate {tls.cert} with the key {tls.key} cannot be used: {why}",
        hint="both are PEM files; `corral tls init` makes a pair for this network",
    )
