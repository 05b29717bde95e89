"""The doctor's look at the configuration, the server and its port."""

from __future__ import annotations

import errno
import socket
from contextlib import closing

from corral.cli.app import App
from corral.cli.finding import Finding
from corral.config.settings import Listen, Settings
from corral.errors import ConfigError, CorralError, Unreachable


def configuration(app: App) -> tuple[list[Finding], Settings | None]:
    """What is configured, every problem of it, and the settings if they can be used."""
    from corral.config.load import examine

    try:
        examined = examine(paths=app.paths)
    except ConfigError as error:
        return [Finding("config", "file", "error", error.message, error.hint)], None
    settings, found = examined.loaded.settings, []
    file = examined.loaded.file
    if file is None:
        text, fix = "none: the built-in one is used, with the demo model", "corral config init"
    else:
        many = len(settings.models)
        text, fix = f"{file}, {many} model{'' if many == 1 else 's'}", ""
    found.append(Finding("config", "file", "ok", text, fix))
    for problem in examined.problems:
        level = "error" if problem.level == "error" else "warn"
        where = f"{problem.place}: " if str(problem.place) else ""
        found.append(Finding("config", "problem", level, where + problem.message, problem.hint))  # type: ignore[arg-type]
    return found, None if examined.errors else settings


def server(app: App, settings: Settings | None) -> list[Finding]:
    """Whether a server runs; when none does, whether its addresses are free."""
    try:
        status = app.client().status()
    except Unreachable as error:
        none = Finding("server", "server", "ok", f"{error.message}; commands such as run start one", "corral serve")
        if "ended without a word" in error.message or app.host:
            none = Finding("server", "server", "warn", error.message, "corral serve")
        listen = settings.listen if settings is not None else (Listen(),)
        return [none, *(_port(each) for each in listen if each.path is None and each.port)]
    except CorralError as error:
        return [Finding("server", "server", "error", error.message, error.hint)]
    text = f"version {status.version}, process {status.pid}, listens on {', '.join(status.listen)}"
    found = [Finding("server", "server", "ok", text)]
    return found + [Finding("server", "warning", "warn", warning) for warning in status.warnings]


def _port(listen: Listen) -> Finding:
    family = socket.AF_INET6 if ":" in listen.host else socket.AF_INET
    with closing(socket.socket(family, socket.SOCK_STREAM)) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((listen.host, listen.port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                text, fix = f"{listen} is taken by another program", f"corral serve --listen {listen.host}:0"
                return Finding("server", "port", "error", text, fix)
            return Finding(
                "server", "port", "error", f"{listen} cannot be used: {error.strerror}", "corral config check"
            )
    return Finding("server", "port", "ok", f"{listen} is free")
