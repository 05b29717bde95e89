"""Where the server is that files are written for: the one that runs, or the one that the configuration would start."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from corral.errors import ConfigError, Unreachable

if TYPE_CHECKING:
    from corral.cli.app import App
    from corral.config.settings import Listen, Settings
    from corral.deploy.site import Heard, Site


def site_of(app: App, address: str | None, ca: Path | None) -> Site:
    """The site at `address`, else at --host or CORRAL_HOST, else the nearest that the server listens on.

    `ca` is a file with the authority to trust. Raises CallerError and ConfigError.
    """
    from corral.deploy.site import nearest

    named = address or app.host or os.environ.get("CORRAL_HOST")
    if named:
        return _named(named, _read(ca or _given_ca()))
    found = nearest(_heard(app))
    own = _read(_own_ca(app)) if found.own_ca and ca is None else None
    return _site(found, _read(ca) or own)


def _named(text: str, ca: str | None) -> Site:
    from corral.connection import parse_address
    from corral.deploy.site import Site, is_loopback

    address = parse_address(text)
    if address.socket is not None:
        raise ConfigError(
            f"{text} is a unix socket, and Prometheus speaks TCP only",
            hint="add an address to `listen` in models.yaml, such as 127.0.0.1:8642",
        )
    path = f"{address.base}/metrics"
    return Site(address.host, address.port, address.tls, ca, not is_loopback(address.host), path)


def _site(heard: Heard, ca: str | None) -> Site:
    from corral.deploy.site import Site, metrics_path

    return Site(heard.host, heard.port, heard.tls, ca, heard.key, metrics_path(heard))


def _heard(app: App) -> list[Heard]:
    """What the running server listens on, with what its configuration says of each address; without one, what the
    configuration has."""
    from corral.config.load import load

    try:
        status = app.client().status()
    except Unreachable:
        settings = load(paths=app.paths, insecure=True).settings
        return [_described(app, each, settings) for each in settings.listen if each.path is None]
    settings = load(
        None if status.config_file is None else Path(status.config_file), paths=app.paths, insecure=True
    ).settings
    return [_described(app, each, settings) for each in _running(status.listen, settings)]


def _running(told: list[str], settings: Settings) -> list[Listen]:
    """The TCP addresses of `told` as settings: those the configuration has with all that it says of them."""
    from corral.config.listening import parse_listen

    found = []
    for listen in map(parse_listen, told):
        # Port 0 is any free one; which it became only the server says.
        same = [each for each in settings.listen if each.host == listen.host and each.port in (listen.port, 0)]
        found += [replace(same[0], port=listen.port) if same else listen] if listen.path is None else []
    return found


def _described(app: App, listen: Listen, settings: Settings) -> Heard:
    from corral.access.certificates import files_in
    from corral.config.listening import is_loopback
    from corral.deploy.site import Heard

    key = settings.require_keys if is_loopback(listen) else not listen.insecure
    own = listen.tls is not None and listen.tls.cert.resolve() == files_in(app.paths.tls_dir).cert.resolve()
    return Heard(listen.host, listen.port, listen.tls is not None, own, key, listen.dialect)


def _own_ca(app: App) -> Path:
    from corral.access.certificates import files_in

    return files_in(app.paths.tls_dir).ca


def _given_ca() -> Path | None:
    given = os.environ.get("CORRAL_CA")
    return Path(given) if given else None


def _read(file: Path | None) -> str | None:
    if file is None:
        return None
    try:
        return file.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no PEM file"
        raise ConfigError(f"cannot read {file}: {why}", hint="name the authority's certificate: --ca FILE") from error
