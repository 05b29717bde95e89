"""`corral login`: a registry's credentials."""

from __future__ import annotations

import sys

import click

from corral.cli.app import App


@click.command("login")
@click.argument("registry", default="docker.io")
@click.option("--username", "-u", metavar="NAME", help="Without it, a terminal is asked.")
@click.option("--password-stdin", is_flag=True, help="Take the password from standard input, as it always is.")
@click.pass_obj
def command(app: App, registry: str, username: str | None, password_stdin: bool) -> None:
    """Check a user and password (or token) with a registry, and keep them in Corral's own file, mode 600.

    The password comes from standard input, or is asked for on a terminal; never from an option. What docker and
    podman keep is used too, and never changed.

    \b
    Example:
      corral login ghcr.io -u me --password-stdin < token.txt
    """
    from corral.cli.own_server import ensure

    interactive = sys.stdin.isatty() and not password_stdin
    if username is None:
        if not interactive:
            raise click.UsageError("name the user with --username", click.get_current_context())
        username = input(f"User at {registry}: ").strip()
    if interactive:
        import getpass

        password = getpass.getpass(f"Password of {username} at {registry}: ")
    else:
        password = sys.stdin.read(1 << 16).rstrip("\r\n")
    if not password:
        raise click.UsageError("there is no password on standard input", click.get_current_context())
    done = ensure(app).login(registry, username, password)
    if app.json:
        app.print_json(done)
    else:
        app.say(done.text)
