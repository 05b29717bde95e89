"""`corral listen lan`: a server that others in the network may use, set up right in one step."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from corral.cli.app import App
from corral.lazy_dataclass import dataclass

if TYPE_CHECKING:
    from corral.api_access import KeyMade

LAN_PORT = 8643


@dataclass(frozen=True, slots=True)
class _Set:
    """What was set up."""

    file: Path
    url: str
    ca: Path | None
    fingerprint: str | None
    made: KeyMade | None
    live: bool


@click.group("listen")
def command() -> None:
    """Let others in the network use this server.

    \b
    Example:
      corral listen lan
    """


@command.command("lan")
@click.option("--port", type=click.IntRange(1, 65535), default=LAN_PORT, show_default=True, help="The port to open.")
@click.option("--name", default="lan", show_default=True, metavar="NAME", help="What the key is called.")
@click.option("--no-key", is_flag=True, help="Make no key: there is one already.")
@click.option("--no-tls", is_flag=True, help="Without TLS: keys and answers can be read by everybody on the way.")
@click.option("--config", "file", type=click.Path(path_type=Path), metavar="FILE", help="The models.yaml to write to.")
@click.pass_obj
def lan(app: App, port: int, name: str, no_key: bool, no_tls: bool, file: Path | None) -> None:
    """Open an address to the network: with a key, with TLS, in models.yaml, and shown with a QR code.

    This machine's own address stays as it is, open to whoever is on the machine. Again renews the certificate.

    \b
    Examples:
      corral listen lan
      corral listen lan --no-key --port 443
    """
    done = _set_up(app, port, None if no_key else name, not no_tls, file)
    if app.json:
        app.print_json(
            {
                "file": str(done.file), "url": done.url, "ca": None if done.ca is None else str(done.ca),
                "fingerprint": done.fingerprint, "key": None if done.made is None else done.made.key.id,
                "secret": None if done.made is None else done.made.secret, "live": done.live,
            }
        )  # fmt: skip
        return
    app.say(f"{done.url}/v1")
    if done.made is not None:
        app.say(done.made.secret)
    target = done.url if done.made is None else f"{done.url}/#key={done.made.secret}"
    app.write(_qr(target))
    app.note(f"It is in {done.file}" + (", and the server listens there now" if done.live else ": corral serve"))
    if done.made is not None:
        app.note(f"The second line is the key {done.made.key.id}, shown this once. The code holds it too.")
    if done.ca is not None:
        app.note(f"Clients have to trust {done.ca}")
        app.note(f"  SHA-256 {done.fingerprint}")


def _set_up(app: App, port: int, name: str | None, tls: bool, file: Path | None) -> _Set:
    from corral.access import certificates
    from corral.api_access import KeyAsk
    from corral.cli.offline_keys import keys_of
    from corral.errors import ConfigError

    host = certificates.lan_address()
    if host is None:
        raise ConfigError("this machine is in no network", hint="connect it, and try again")
    issued = certificates.init(app.paths.tls_dir) if tls else None
    entry: dict[str, Any] = {"address": f"0.0.0.0:{port}"}
    if issued is not None:
        entry["tls"] = {"cert": str(issued.files.cert), "key": str(issued.files.key)}
    made = None if name is None else keys_of(app).create_key(KeyAsk(name))
    target = _write(app, entry, port, file)
    return _Set(
        target, f"{'https' if tls else 'http'}://{host}:{port}", None if issued is None else issued.files.ca,
        None if issued is None else issued.fingerprint, made, _take_up(app, target),
    )  # fmt: skip


def _write(app: App, entry: dict[str, Any], port: int, file: Path | None) -> Path:
    """Adds the entry to `listen`, in place of an earlier one of the same port. Raises ConfigError."""
    from corral.config.atomic import replace_file
    from corral.config.document import parse_document
    from corral.config.edit import with_key
    from corral.config.init import starter_text
    from corral.config.load import examine
    from corral.config.settings import DEFAULT_PORT
    from corral.errors import ConfigError

    target = file or examine(paths=app.paths, insecure=True).loaded.file or app.paths.user_config
    text = target.read_text(encoding="utf-8") if target.exists() else starter_text()
    data = parse_document(text, str(target)).data
    listen = data.get("listen") if isinstance(data, dict) else None
    before = listen if isinstance(listen, list) else [f"127.0.0.1:{DEFAULT_PORT}"] if listen is None else [listen]
    kept = [each for each in before if not _is_at(each, port)]
    try:
        made = with_key(text, "listen", [*kept, entry])
    except ValueError as error:
        raise ConfigError(f"{target}: {error}", hint=f"add under `listen`: {entry}") from error
    replace_file(target, made)
    return target


def _is_at(entry: Any, port: int) -> bool:
    text = entry.get("address", "") if isinstance(entry, dict) else entry
    return str(text).rpartition(":")[2] == str(port)


def _take_up(app: App, file: Path) -> bool:
    """Has a server that runs with this file listen there now."""
    from corral.errors import CorralError

    try:
        client = app.client()
        running = client.status().config_file
        if running is None or Path(running).resolve() != file.resolve():
            return False
        client.reload()
    except CorralError:
        return False
    return True


def _qr(text: str) -> str:
    import io

    import segno

    out = io.StringIO()
    segno.make(text, error="l", micro=False).terminal(out, compact=True)
    return out.getvalue().rstrip("\n")
