"""`corral tls`: a certificate for the own network."""

from __future__ import annotations

import click

from corral.cli.app import App


@click.group("tls")
def command() -> None:
    """Make a certificate for the own network, signed by an authority of one's own.

    \b
    Examples:
      corral tls init
      corral tls show
    """


@command.command("init")
@click.option("--name", "names", multiple=True, metavar="NAME", help="A further name or address of this machine.")
@click.pass_obj
def init(app: App, names: tuple[str, ...]) -> None:
    """Make a certificate for this machine's names and addresses. Again renews it; a running server takes it up.

    The authority is made once. Clients that trust its certificate, ca.pem, trust the server; its key stays here.

    \b
    Example:
      corral tls init --name box.example.org
    """
    from corral.access import certificates

    issued = certificates.init(app.paths.tls_dir, names)
    if app.json:
        app.print_json(
            {
                "ca": str(issued.files.ca), "cert": str(issued.files.cert), "key": str(issued.files.key),
                "names": issued.names, "fingerprint": issued.fingerprint, "until": issued.until,
            }
        )  # fmt: skip
        return
    app.say(f"Wrote {issued.files.cert} and its key, good until {issued.until}")
    app.say(f"It is for {', '.join(issued.names)}")
    app.say(f"Clients trust it once they trust {issued.files.ca}")
    app.say(f"  SHA-256 {issued.fingerprint}")


@command.command("show")
@click.pass_obj
def show(app: App) -> None:
    """Show which certificate `corral tls init` made, for which names, and how long it is good.

    \b
    Example:
      corral tls show
    """
    from corral.access import certificates

    shown = certificates.look(app.paths.tls_dir)
    if app.json:
        app.print_json(shown)
    else:
        app.print_pairs([(name, text) for name, text in shown.items()])
