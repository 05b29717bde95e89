"""`docker model`: the plugin of Docker's command line, over Corral. `corral install docker-plugin` installs it.

Docker calls it as `docker-model model …`, Compose as `docker-model model …` for `models:` and `docker-model compose …`
for a provider. Source: docker/model-runner 642c7211, `cmd/cli`; docker/compose, `pkg/compose/model.go`.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

METADATA = "docker-cli-plugin-metadata"
VERSION = "1.2.6"
"""Docker Model Runner's version whose commands these are; Compose passes flags on to 1.0.6 and later."""


def entry() -> NoReturn:
    """The plugin."""
    from corral.cli.main import ended, run

    def work() -> int:
        args = sys.argv[1:]
        if args[:1] == [METADATA]:
            _describe()
            return 0
        if args[:1] == ["compose"]:
            from corral.cli import compose

            return run(args[1:], compose.command, "docker-model compose")
        from corral.cli.docker_model import group

        return run(asked(args), group, "docker model")

    ended(work)


def asked(args: list[str]) -> list[str]:
    """What stands behind `model`; Docker's own options stand before it."""
    at = 0
    while at < len(args) and args[at].startswith("-") and args[at] not in ("-h", "--help"):
        at += 1 if "=" in args[at] or args[at] in ("-D", "--debug", "--tls", "--tlsverify") else 2
    return args[at + 1 :] if args[at : at + 1] == ["model"] else args


def _describe() -> None:
    import json

    from corral import __version__

    made = {
        "SchemaVersion": "0.1.0",
        "Vendor": "Corral",
        "Version": f"v{VERSION}",
        "ShortDescription": f"Models that Corral {__version__} serves",
    }
    sys.stdout.write(json.dumps(made) + "\n")


if __name__ == "__main__":
    entry()
