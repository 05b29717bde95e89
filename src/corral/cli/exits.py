"""The exit codes, one table for the program, its help and its documentation."""

from __future__ import annotations

from corral.errors import CallerError, CorralError, NotInRegistry, NotInStore, UnknownModel, Unreachable

OK, FAILED, USAGE, NO_SERVER, UNKNOWN_MODEL, CONFIG, ENGINE, BUSY, INTERRUPTED, PIPE = 0, 1, 2, 3, 4, 5, 6, 7, 130, 141

MEANINGS = {
    OK: "done",
    FAILED: "failed, or `doctor` and `config check` found something that stops Corral",
    USAGE: "the command was called wrongly, or asks for what cannot be",
    NO_SERVER: "no server answers",
    UNKNOWN_MODEL: "no model has this name",
    CONFIG: "the configuration, a model file or the place (port, state directory) is wrong",
    ENGINE: "the engine is missing, refused, died or did not answer",
    BUSY: "not now: queue full, deadline passed, no room in memory, a key's limit, or shutting down",
    INTERRUPTED: "ended by Ctrl-C",
    PIPE: "the reader of the output left, as `head` does",
}
_BUSY_CODES = frozenset({"queue_full", "deadline_passed", "cannot_fit", "limit_reached", "shutting_down"})


def exit_code(error: CorralError) -> int:
    """The code that the program ends with when `error` reaches the top."""
    if isinstance(error, Unreachable):
        return NO_SERVER
    if isinstance(error, (UnknownModel, NotInStore, NotInRegistry)):
        return UNKNOWN_MODEL
    if error.code in _BUSY_CODES:
        return BUSY
    if error.fault == "config":
        return CONFIG
    if error.fault == "engine":
        return ENGINE
    return USAGE if isinstance(error, CallerError) else FAILED
