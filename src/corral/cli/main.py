"""The program: runs one command and turns every way it can end into an exit code."""

from __future__ import annotations

import sys

TYPE_CHECKING = False  # typing's own costs some milliseconds, in which Ctrl-C would show a traceback
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

    import click

    from corral.cli.app import App
    from corral.errors import CorralError


def entry() -> NoReturn:
    """The `corral` command."""
    # Everything is imported inside, so that Ctrl-C is quiet from the first moment on.
    ended(lambda: run(sys.argv[1:]))


def ended(work: Callable[[], int]) -> NoReturn:
    """Does `work` and ends the process with its exit code."""
    try:
        code = work()
    except KeyboardInterrupt:
        code = _interrupted()
    except BrokenPipeError:
        code = _reader_left()
    except OSError as error:
        code = _no_room(error)
    sys.exit(code)


def run(args: list[str], root: click.Command | None = None, name: str = "corral") -> int:
    """Runs the command line `args` and gives its exit code; Ctrl-C and a reader that left are the caller's.

    `root` is another program than `corral`, called `name`.
    """
    import click

    from corral.cli import exits
    from corral.cli.app import App
    from corral.cli.group import completing, group
    from corral.errors import CorralError

    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    if completing():
        import corral.cli.bash  # noqa: F401  (registers itself)

        group.main(args, prog_name="corral")
    app, program = App(), root or group
    try:
        with program.make_context(name, list(args), obj=app) as ctx:
            result = program.invoke(ctx)
        code = result if isinstance(result, int) and not isinstance(result, bool) else exits.OK
    except click.exceptions.Exit as ended:
        code = ended.exit_code
    except click.exceptions.Abort:
        raise KeyboardInterrupt from None
    except click.ClickException as error:
        code = _usage(app, error)
    except CorralError as error:
        code = _failed(app, error)
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else exits.OK if ended.code is None else exits.FAILED
        if isinstance(ended.code, str):
            sys.stderr.write(ended.code + "\n")
    sys.stdout.flush()
    return code


def _usage(app: App, error: click.ClickException) -> int:
    import re

    import click

    from corral.api import ErrorInfo

    ctx = error.ctx if isinstance(error, click.UsageError) else None
    path = ctx.command_path if ctx is not None else "corral"
    hint = getattr(ctx, "hint", None) or f"see: {path} --help"
    message = error.format_message()
    message = message[:1].lower() + message[1:].removesuffix(".")
    message = re.sub(r"is not a valid (integer|float)( range)?$", "is not a number", message)
    app.fail(ErrorInfo("usage", message, hint, 400))
    return error.exit_code


def _failed(app: App, error: CorralError) -> int:
    from corral.cli import exits

    app.error(error)
    return exits.exit_code(error)


def _interrupted() -> int:
    import signal

    from corral.cli import exits

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second Ctrl-C must not break into the way out
    try:
        sys.stdout.flush()
        if sys.stderr.isatty():
            sys.stderr.write("\n")
    except OSError:
        _reader_left()
    return exits.INTERRUPTED


def _reader_left() -> int:
    from corral.cli import exits

    _write_nowhere()
    return exits.PIPE


def _no_room(error: OSError) -> int:
    """An output that takes no more; every other error of the system that nobody mapped is a bug, and raised again."""
    import errno

    from corral.cli import exits

    if error.filename is not None or error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO):
        raise error
    _write_nowhere()
    sys.stderr.write(f"error: cannot write the output: {error.strerror}\nhint: make room where it goes\n")
    return exits.FAILED


def _write_nowhere() -> None:
    import os

    # The interpreter flushes once more when it ends: into nothing, or it would complain.
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
