"""`corral pull`: a model from a registry, Hugging Face, Ollama or a URL into the store."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from corral.cli.app import App

if TYPE_CHECKING:
    from corral.api_downloads import DownloadInfo


@click.command("pull")
@click.argument("ref", required=False)
@click.option("--name", "-t", metavar="NAME", help="What the store is to call it. Default: its full reference.")
@click.option("--sha256", metavar="HEX", help="What the file of a URL must be.")
@click.option("--all", "everything", is_flag=True, help="Every stored model that came from a registry; with --update.")
@click.option("--update", is_flag=True, help="Fetch what changed upstream.")
@click.option("--detach", "-d", is_flag=True, help="Return at once; the server fetches.")
@click.pass_obj
def command(
    app: App, ref: str | None, name: str | None, sha256: str | None, everything: bool, update: bool, detach: bool
) -> int:
    """Fetch a model. The server does it: Ctrl-C leaves it running, and the same command attaches again.

    REF is a reference such as ai/smollm2, ghcr.io/me/coder:v2, hf.co/org/repo:Q4_K_M, ollama://llama3.2,
    https://example.com/model.gguf, or a short name; its full form is printed.

    \b
    Examples:
      corral pull ai/smollm2
      corral pull hf.co/bartowski/SmolLM2-360M-Instruct-GGUF:Q4_K_M
      corral pull --all --update
    """
    from corral.api_downloads import PullAsk
    from corral.cli.own_server import ensure

    if (ref is None) is not everything or (everything and (name or sha256)):
        raise click.UsageError("name one model, or --all --update", click.get_current_context())
    if everything and not update:
        raise click.UsageError("--all goes with --update", click.get_current_context())
    client = ensure(app)
    if ref is not None and not (update and not _is_reference(ref)):
        jobs = [client.pull(PullAsk(ref, name, sha256))]
    else:
        jobs = client.update([ref] if ref is not None else [])
    done = [_one(app, job, detach) for job in jobs]
    if app.json:
        app.print_json(done if everything else done[0])
    elif not jobs:
        app.say("No stored model came from a registry.")
    return max((_code(job) for job in done), default=0)


def _is_reference(ref: str) -> bool:
    return "/" in ref


def _one(app: App, job: DownloadInfo, detach: bool) -> DownloadInfo:
    from corral.cli.follow import attach

    if not app.json:
        app.say(job.ref if job.ref == job.name else f"{job.ref} as {job.name}")
    if detach:
        if not app.json:
            app.note(f"See it with: corral downloads {job.id}")
        return job
    job = attach(app, app.client(), job)
    if not app.json:
        if job.state == "done":
            app.say(f"{job.name} is here: {job.digest}")
        else:
            app.note(f"{job.name} is {job.state}; go on with: corral downloads resume {job.id}")
    return job


def _code(job: DownloadInfo) -> int:
    return 0 if job.state != "cancelled" else 1
