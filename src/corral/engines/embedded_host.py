"""The child program that is the embedded engine: llama-server's arguments in, llama.cpp's own server out.

Run as `python -I embedded_host.py --model FILE --host PATH.sock …`; a fork server imports this module and xllamacpp
once and calls `serve(argv)` in each child. It answers until SIGTERM or SIGINT. What it cannot do ends it with a code
of `corral.engines.exits` and one last line that says why; llama.cpp's own words are in the lines above.
"""

from __future__ import annotations

import os
import signal
import sys
import time

if __name__ == "__main__":  # -I leaves out this file's folder and PYTHONPATH, so Corral need not even be installed
    _file = os.path.abspath(__file__)  # noqa: PTH100 - pathlib costs more than the rest of this file's start
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(_file))))  # noqa: PTH120

import _socket
from typing import Any, NoReturn

from corral.engines import exits
from corral.engines.flags import apply, parse, settle
from corral.errors import EngineFlagError

_MAGIC = b"GGUF"
_LONGEST_SOCKET_PATH = 103  # bytes; macOS has 104 with the final NUL, Linux 108


def command() -> tuple[str, ...]:
    """What is run, before the engine's own arguments."""
    # -I: no PYTHON* variable, user site or current folder can change what is imported.
    return (sys.executable, "-I", os.path.realpath(__file__))


def serve(argv: list[str]) -> NoReturn:
    """Loads the model that `argv` names and serves it until told to stop. Ends the process, whatever happens.

    While the model loads, SIGTERM ends the process at once by the signal itself: the engine's constructor holds the
    interpreter, so nothing here could answer. From the log's line `corral: ready` on, SIGTERM exits with 0.
    """
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)
    try:
        given = parse(argv)
    except EngineFlagError as exc:
        _end(exits.FLAG, f"{exc.message}; {exc.hint}")
    engine = _library()
    params = engine.CommonParams()
    try:
        apply(given, engine, params)
        settle(params)
    except EngineFlagError as exc:
        _end(exits.FLAG, f"{exc.message}; {exc.hint}")
    _check_model(params.model.path)
    _check_address(params)
    try:
        server = engine.Server(params)
    except (RuntimeError, ValueError, TypeError, MemoryError, OSError) as exc:
        _check_address(params, failed=True)
        _let_it_speak()
        _end(exits.REFUSED, f"llama.cpp could not serve {params.model.path}; its lines above say why ({exc})")
    _wait(params, server)


def _library() -> Any:
    try:
        import xllamacpp  # only here: a wrong flag is told in a third of the time
    except ImportError as exc:
        _end(exits.LIBRARY, f"the embedded engine's library does not load: {exc}")
    return xllamacpp


def _check_model(path: str) -> None:
    """Ends the process when the model is no readable GGUF file: llama.cpp would say less."""
    if not path:
        _end(exits.FLAG, "no model given; add --model FILE")
    try:
        with open(path, "rb") as file:  # noqa: PTH123
            magic = file.read(4)
    except OSError as exc:
        _end(exits.MODEL_FILE, f"cannot read the model {path}: {exc.strerror}")
    if magic != _MAGIC:
        _end(exits.MODEL_FILE, f"{path} is no GGUF file: it starts with {magic!r}")


def _check_address(params: Any, failed: bool = False) -> None:
    """Ends the process when its address is taken or cannot be listened on.

    With `failed` the engine has just ended: a socket file that it made itself says nothing then.
    """
    for host in params.hostnames:
        if host.endswith(".sock"):
            if failed:
                continue
            if len(os.fsencode(host)) > _LONGEST_SOCKET_PATH:
                _end(exits.ADDRESS, f"the socket path {host} is longer than {_LONGEST_SOCKET_PATH} bytes")
            if os.path.lexists(host):
                _end(exits.ADDRESS, f"the socket {host} is there already; each start needs one of its own")
            if not os.access(os.path.dirname(host) or ".", os.W_OK | os.X_OK):  # noqa: PTH120
                _end(exits.ADDRESS, f"the socket {host} cannot be made: its directory is missing or not writable")
            continue
        family = _socket.AF_INET6 if ":" in host else _socket.AF_INET
        probe = _socket.socket(family, _socket.SOCK_STREAM)
        try:
            probe.setsockopt(_socket.SOL_SOCKET, _socket.SO_REUSEADDR, 1)
            probe.bind((host, params.port))
        except OSError as exc:
            _end(exits.ADDRESS, f"cannot listen on {host} port {params.port}: {exc.strerror or exc}")
        finally:
            probe.close()


def _wait(params: Any, server: Any) -> NoReturn:
    """Serves until SIGTERM or SIGINT, then exits with 0 at once.

    The engine is not shut down politely: that waits for running answers, and whoever sends TERM has drained them.
    """
    read_end, write_end = os.pipe()
    os.set_blocking(write_end, False)
    signal.set_wakeup_fd(write_end)  # not pause(): the signal may reach one of the engine's own threads
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _note)
    _say("ready")
    os.read(read_end, 1)
    for host in params.hostnames:
        if host.endswith(".sock"):
            _remove(host)
    _end(0, "stopped")


def _note(number: int, frame: object) -> None:
    """The handler: the wake-up descriptor does the rest."""


def _remove(path: str) -> None:
    try:
        os.unlink(path)  # noqa: PTH108
    except OSError:
        return


def _end(code: int, words: str) -> NoReturn:
    """Writes `words` as the log's last line and ends the process without waiting for the engine's threads."""
    sys.stdout.flush()
    _say(words)
    os._exit(code)


def _let_it_speak() -> None:
    """Waits, a second at most, until the log has not grown for a tenth of one: llama.cpp writes its lines from a thread
    of its own, and those that say why it gave up are still on their way when the call fails."""
    seen, quiet = -1, 0
    for _ in range(50):
        size = os.fstat(2).st_size
        quiet = quiet + 1 if size == seen else 0
        if quiet == 5:
            return
        seen = size
        time.sleep(0.02)


def _say(words: str) -> None:
    """One line in the log, between llama.cpp's own. Where it takes no more (a full disk), the engine runs without."""
    try:
        sys.stderr.write(f"corral: {words}\n")
        sys.stderr.flush()
    except OSError:
        return


if __name__ == "__main__":
    serve(sys.argv[1:])
