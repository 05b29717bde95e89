"""`corral completion`: the completion script of a shell."""

from __future__ import annotations

import click

from corral.cli.app import App

_INSTALL = {
    "bash": "source <(corral completion bash)      # in ~/.bashrc",
    "zsh": "source <(corral completion zsh)       # in ~/.zshrc, after compinit",
    "fish": "corral completion fish | source       # in ~/.config/fish/config.fish",
}


@click.command("completion")
@click.argument("shell", type=click.Choice(list(_INSTALL)))
@click.pass_obj
def command(app: App, shell: str) -> None:
    """Print the completion script of a shell. It completes commands, options and the names of models.

    \b
    Examples:
      source <(corral completion bash)      # in ~/.bashrc
      source <(corral completion zsh)       # in ~/.zshrc, after compinit
      corral completion fish | source       # in ~/.config/fish/config.fish
    """
    from click.shell_completion import get_completion_class

    import corral.cli.bash  # noqa: F401  (registers itself)
    from corral.cli.group import group

    kind = get_completion_class(shell)
    assert kind is not None
    script = kind(group, {}, "corral", "_CORRAL_COMPLETE").source()
    if app.json:
        app.print_json({"shell": shell, "script": script, "install": _INSTALL[shell].split("#")[0].strip()})
    else:
        click.echo(script)
