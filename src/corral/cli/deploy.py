"""`corral deploy`: files that let other programs run beside Corral."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import urlsplit

import click

from corral.cli.app import App

if TYPE_CHECKING:
    from corral.deploy.deployment import Deployment

T = TypeVar("T")

_OUT = click.option(
    "--out", type=click.Path(file_okay=False, path_type=Path), metavar="DIR",
    help="The folder to write to. Default: corral-TARGET here.",
)  # fmt: skip
_FORCE = click.option("--force", is_flag=True, help="Overwrite files that were changed, or are not Corral's.")


@click.group("deploy")
def command() -> None:
    """Write the files that let other programs run beside Corral.

    Each target writes a folder and says what to do with it; nothing is started. Again brings the files up to date:
    what was changed in them since is never overwritten unless --force says so.

    \b
    Examples:
      corral deploy prometheus
      corral deploy grafana --out /srv/grafana-corral
    """


def seconds(ctx: click.Context, param: click.Parameter, value: str) -> float:
    """A time such as 90s or 2m."""
    from corral.units import parse_duration

    return _read(parse_duration, ctx, param, value)


def whole_seconds(ctx: click.Context, param: click.Parameter, value: str) -> int:
    found = seconds(ctx, param, value)
    if found < 1 or found != int(found):
        raise click.BadParameter(f"{value!r} is not a number of whole seconds, at least one", ctx, param)
    return int(found)


def scrape_seconds(ctx: click.Context, param: click.Parameter, value: str) -> int:
    found = whole_seconds(ctx, param, value)
    if found > 60:
        raise click.BadParameter("rates of five minutes need a scrape each minute at least", ctx, param)
    return found


def share(ctx: click.Context, param: click.Parameter, value: str) -> float:
    """A share such as 95% or 0.95, above 0 and below 1."""
    text = value.strip()
    try:
        found = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        found = -1.0
    if not 0 < found < 1:
        raise click.BadParameter(f"{value!r} is not a share such as 95%", ctx, param)
    return found


def first_token(ctx: click.Context, param: click.Parameter, value: str) -> float:
    found = seconds(ctx, param, value)
    if not 0.005 <= found <= 160:
        raise click.BadParameter("it must be between 5ms and 160s, the bounds of what is told apart", ctx, param)
    return found


def size(ctx: click.Context, param: click.Parameter, value: str) -> int:
    from corral.units import parse_bytes

    return _read(parse_bytes, ctx, param, value)


def _read(reading: Callable[[str], T], ctx: click.Context, param: click.Parameter, value: str) -> T:
    try:
        return reading(value)
    except ValueError as error:
        raise click.BadParameter(str(error), ctx, param) from error


def web_address(ctx: click.Context, param: click.Parameter, value: str) -> str:
    """A URL of http or https."""
    from corral.connection import parse_address
    from corral.errors import CallerError

    try:
        good = "://" in value and bool(urlsplit(value).hostname) and parse_address(value).socket is None
    except (CallerError, ValueError):
        good = False
    if not good:
        raise click.BadParameter(f"{value!r} is not a URL such as http://127.0.0.1:9090", ctx, param)
    return value.strip()


_COUNT = click.IntRange(1)


@command.command("prometheus")
@_OUT
@_FORCE
@click.option("--address", metavar="URL", help="Corral as Prometheus reaches it. Default: what the server listens on.")
@click.option(
    "--ca",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="The authority (PEM) to trust. Default: the own one, where the certificate is from `tls init`.",
)
@click.option(
    "--key-file",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="A file with a key of scope metrics. Default: corral.key in the folder, where a key is needed.",
)
@click.option("--make-key", is_flag=True, help="Make that key now, with the scope metrics, and keep it in the folder.")
@click.option(
    "--every",
    "every_s",
    callback=scrape_seconds,
    default="5s",
    metavar="TIME",
    help="Between two scrapes. Default: 5s.",
)
@click.option("--alertmanager", metavar="HOST:PORT", help="Where alerts are sent to. Default: nowhere.")
@click.option(
    "--down-after",
    callback=whole_seconds,
    default="1m",
    metavar="TIME",
    help="Alert when it is silent so long. Default: 1m.",
)
@click.option(
    "--failures-from",
    type=_COUNT,
    default=3,
    metavar="N",
    help="Alert when a model's engines failed so often in 15 minutes. Default: 3.",
)
@click.option(
    "--queue-over",
    type=_COUNT,
    default=10,
    metavar="N",
    help="Alert when more requests wait for a model, for the time of --queue-for. Default: 10.",
)
@click.option(
    "--queue-for",
    callback=whole_seconds,
    default="2m",
    metavar="TIME",
    help="How long they must have waited. Default: 2m.",
)
@click.option(
    "--first-token-over",
    callback=first_token,
    default="10s",
    metavar="TIME",
    help="Alert when a model's p95 until the first token is longer. Default: 10s.",
)
@click.option(
    "--errors-over", callback=share, default="5%", metavar="SHARE", help="Alert when more requests fail. Default: 5%."
)
@click.option(
    "--memory-over",
    callback=share,
    default="95%",
    metavar="SHARE",
    help="Alert when models hold more of a device's budget. Default: 95%.",
)
@click.option(
    "--memory-free-under",
    callback=size,
    default="256MiB",
    metavar="SIZE",
    help="Alert when less of a device's memory is free. Default: 256MiB.",
)
@click.option(
    "--disk-free-under",
    callback=share,
    default="10%",
    metavar="SHARE",
    help="Alert when less disk is free. Default: 10%.",
)
@click.option(
    "--stuck-after",
    callback=whole_seconds,
    default="2m",
    metavar="TIME",
    help="Alert when a download brings nothing for longer. Default: 2m.",
)
@click.option(
    "--degraded-after",
    callback=whole_seconds,
    default="5m",
    metavar="TIME",
    help="Alert when an engine does without its GPU for so long. Default: 5m.",
)
@click.option(
    "--key-budget-over",
    callback=share,
    default="90%",
    metavar="SHARE",
    help="Tell when a key has used more of its budget. Default: 90%.",
)
@click.pass_obj
def prometheus(
    app: App,
    out: Path | None,
    force: bool,
    address: str | None,
    ca: Path | None,
    key_file: Path | None,
    make_key: bool,
    every_s: int,
    alertmanager: str | None,
    down_after: int,
    failures_from: int,
    queue_over: int,
    queue_for: int,
    first_token_over: float,
    errors_over: float,
    memory_over: float,
    memory_free_under: int,
    disk_free_under: float,
    stuck_after: int,
    degraded_after: int,
    key_budget_over: float,
) -> None:  # fmt: skip
    """Write Prometheus's configuration for this server, rules and alerts, and promtool's tests of them.

    A key never stands in the configuration: Prometheus reads it from a file of its own. docs/operate.md says what each
    alert means and what to do.

    \b
    Examples:
      corral deploy prometheus
      corral deploy prometheus --make-key --queue-over 30 --first-token-over 20s
    """
    from corral.cli.deploy_site import site_of
    from corral.deploy.prometheus.limits import Limits
    from corral.deploy.prometheus.scraping import KEY_FILE, Wish
    from corral.deploy.prometheus.target import prometheus as target

    limits = Limits(
        down_s=down_after, failures=failures_from, waiting=queue_over, waiting_s=queue_for,
        first_token_s=first_token_over, errors=errors_over, memory=memory_over, memory_free_bytes=memory_free_under,
        disk_free=disk_free_under, stuck_s=stuck_after, degraded_s=degraded_after, key_budget=key_budget_over,
    )  # fmt: skip
    folder = (out or Path("corral-prometheus")).absolute()
    site = site_of(app, address, ca)
    if make_key or key_file is not None:
        from dataclasses import replace

        site = replace(site, key=True)
    wish = Wish(limits, every_s, KEY_FILE if key_file is None else str(key_file.absolute()), alertmanager)
    made = (folder / KEY_FILE).exists()
    _written(app, folder, target(site, wish, str(folder), keyed=made or make_key), force)
    if make_key and not made and key_file is None:
        _make_key(app, folder / KEY_FILE)


def _make_key(app: App, file: Path) -> None:
    from corral.api_access import KeyAsk
    from corral.cli.offline_keys import keys_of
    from corral.config.atomic import replace_file

    made = keys_of(app).create_key(KeyAsk("prometheus", ["metrics"]))
    replace_file(file, made.secret + "\n", 0o600)
    app.note(f"The key {made.key.id} is in {file}. It must be readable by the user that Prometheus runs as.")


@command.command("grafana")
@_OUT
@_FORCE
@click.option(
    "--prometheus",
    "url",
    callback=web_address,
    default="http://127.0.0.1:9090",
    metavar="URL",
    help="Prometheus as Grafana reaches it. Default: http://127.0.0.1:9090.",
)
@click.option(
    "--every",
    "every_s",
    callback=scrape_seconds,
    default="5s",
    metavar="TIME",
    help="Prometheus's time between two scrapes of Corral. Default: 5s.",
)
@click.option(
    "--dashboards",
    metavar="DIR",
    help="Where Grafana will see the dashboards, as in a container. Default: where they are written.",
)
@click.pass_obj
def grafana(app: App, out: Path | None, force: bool, url: str, every_s: int, dashboards: str | None) -> None:
    """Write Grafana's dashboards of Corral, and the files with which a Grafana finds them and its Prometheus.

    Overview, one model, devices and memory, downloads and disks, keys and usage, the engines' own metrics.

    \b
    Examples:
      corral deploy grafana
      corral deploy grafana --prometheus http://prometheus:9090 --dashboards /var/lib/grafana/dashboards
    """
    from corral.deploy.grafana.target import Wish
    from corral.deploy.grafana.target import grafana as target

    folder = (out or Path("corral-grafana")).absolute()
    _written(app, folder, target(Wish(url, every_s, dashboards), str(folder)), force)


def _written(app: App, folder: Path, deployment: Deployment, force: bool) -> None:
    """Writes the files, says which, and what comes next."""
    from corral.deploy.place import write

    done = write(folder, deployment, force=force)
    if app.json:
        app.print_json(
            {
                "target": deployment.target, "folder": str(folder),
                "files": [{"path": str(each.path), "how": each.how} for each in done],
                "next": [{"words": each.words, "command": each.command} for each in deployment.steps],
            }
        )  # fmt: skip
        return
    for each in done:
        app.say(f"{each.how:<12}{each.path}")
    for step in deployment.steps:
        app.note(step.words)
        if step.command:
            app.note(f"  {step.command}")
