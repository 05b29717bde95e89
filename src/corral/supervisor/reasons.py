"""Why an engine ended, in words: from its exit and its last lines. Pure."""

from __future__ import annotations

import re
import signal
from collections import Counter
from collections.abc import Sequence
from typing import Literal

from corral.engines import exits
from corral.lazy_dataclass import dataclass
from corral.runners.runner import Exit
from corral.supervisor import reasons_vllm
from corral.supervisor.request_lines import without_notes
from corral.units import show_bytes, show_duration

Kind = Literal[
    "stopped",
    "server",
    "flag",
    "address",
    "library",
    "architecture",
    "memory",
    "file",
    "device",
    "cpu",
    "signal",
    "exit",
    "unseen",
    "hang",
]

PASSING: frozenset[Kind] = frozenset({"signal", "unseen", "address", "hang"})
"""Of ends that most likely have nothing to do with the model: each start has an address of its own."""

LINES_KEPT = 5


@dataclass(frozen=True, slots=True)
class Reason:
    """`text` is one sentence that names the model; `hint` what to do next; `lines` the engine's last words."""

    text: str
    kind: Kind
    hint: str
    lines: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Rule:
    kind: Kind
    pattern: re.Pattern[str]
    text: str  # a format string for the pattern's named groups
    hint: str


def _rule(kind: Kind, pattern: str, text: str, hint: str) -> _Rule:
    return _Rule(kind, re.compile(pattern), text, hint)


_FLAG_HINT = "look at `args` of this model in models.yaml; flags are spelled as llama-server's `--help` has them"
_FILE_HINT = "fetch or copy the file again, and compare its size with the original's"
_MEMORY_HINT = "use a smaller context, fewer slots or a smaller quantization, or stop other models first"
_LIMIT_HINT = (
    "use a smaller context, fewer slots or a smaller quantization; the limit is what it was expected to take and a "
    "quarter more"
)

GPU_MEMORY = "the GPU's memory was not enough"
"""Stands in the text where it was not the machine's own memory."""

# The first rule that matches any line wins: causes stand before their consequences. Source of the wordings: llama.cpp
# builds 11434 and 11549, glibc's loader, CPython 3.11, and ggml's CUDA and Vulkan backends.
_RULES = (
    _rule(
        "device",
        r"\"--device\": (?P<why>invalid device: .+)",
        "the GPU that it was to use is gone ({why})",
        "`corral doctor` looks at the GPU and its driver; gpu_layers: 0 does without it",
    ),
    _rule(
        "flag",
        r"device (?P<device>\S+) does not support split buffers",
        "{device} cannot split a model by rows",
        "set split: layer for this model, or leave it out",
    ),
    _rule("flag", r"invalid argument: (?P<flag>\S+)", "it does not know the flag {flag}", _FLAG_HINT),
    _rule(
        "flag",
        r"error while handling argument \"(?P<flag>[^\"]+)\": (?P<why>.+)",
        "it refuses the flag {flag} ({why})",
        _FLAG_HINT,
    ),
    _rule(
        "address",
        r"couldn't bind HTTP server socket, hostname: (?P<socket>/.+), port: \d+",
        "it cannot listen on the socket {socket}",
        "the socket's directory must exist and be writable, and nothing else be there under that name",
    ),
    _rule(
        "address",
        r"couldn't bind HTTP server socket, hostname: (?P<host>[^,]+), port: (?P<port>\d+)",
        "it cannot listen on {host} port {port}, which is taken or not an address of this machine",
        "`ss -ltnp` shows what listens where",
    ),
    _rule(
        "address",
        r"(?P<why>[Aa]ddress already in use)",
        "its address is taken",
        "`ss -ltnp` shows what listens where",
    ),
    _rule(
        "library",
        r"error while loading shared libraries: (?P<library>[^:]+):",
        "the library {library} is missing",
        "install the engine again, or set LD_LIBRARY_PATH in `env` of this model",
    ),
    _rule(
        "library",
        r"Library not loaded: (?P<library>.+)",
        "the library {library} is missing",
        "install the engine again",
    ),
    _rule(
        "library",
        r"(?:ModuleNotFoundError|ImportError): (?P<why>.+)",
        "a Python module cannot be imported ({why})",
        "install Corral again; `corral doctor` shows which engines are here",
    ),
    _rule(
        "architecture",
        r"unknown model architecture: '(?P<name>[^']*)'",
        "it does not know the model's architecture {name!r}",
        "a newer build of the engine may; `corral doctor` shows the versions here",
    ),
    _rule(
        "memory",
        r"(?P<why>(?:CUDA|ROCm|MUSA) error: (?:out of memory|CUBLAS_STATUS_ALLOC_FAILED|the resource allocation failed)"
        r"|(?:cuda|hip)Malloc failed: out of memory|CUDA out of memory|ErrorOutOfDeviceMemory"
        r"|UR_RESULT_ERROR_OUT_OF_DEVICE_MEMORY"
        r"|CommandBufferCallbackErrorOutOfMemory|Device memory allocation of size \d+ failed"
        r"|(?:unable|failed) to allocate (?:CUDA|ROCm|MUSA|Vulkan|SYCL|Metal|MTL|RPC)\S* buffer)",
        GPU_MEMORY + " ({why})",
        "use fewer gpu_layers, a smaller context or a smaller quantization, or stop other models first",
    ),
    _rule(
        "device",
        r"(?P<why>(?:CUDA|ROCm|MUSA) error: .+"
        r"|(?<!failed to initialize CUDA: )(?<!failed to initialize ROCm: )no (?:CUDA|ROCm)-capable device is detected"
        r"|ErrorDeviceLost|ErrorInitializationFailed|ErrorIncompatibleDriver|UR_RESULT_ERROR_DEVICE_LOST"
        r"|Memory access fault by GPU.*|HW Exception by GPU.*|HSA_STATUS_ERROR_\w+"
        r"|kIOGPUCommandBufferCallbackError\w+|Remote RPC server crashed or returned malformed response"
        r"|Failed to connect to \S+:\d+)",
        "the GPU failed ({why})",
        "`corral doctor` looks at the GPU and its driver; gpu_layers: 0 does without it",
    ),
    _rule(
        "memory",
        r"(?P<why>std::bad_alloc|MemoryError|[Cc]annot allocate memory|[Oo]ut of memory"
        r"|(?:failed|unable) to (?:m?alloc(?:ate)?|reserve)\b.*|failed to mmap.*|[Ii]nsufficient memory)",
        "the memory was not enough ({why})",
        _MEMORY_HINT,
    ),
    _rule(
        "file",
        r"failed to open (?:GGUF file )?'(?P<file>[^']+)'(?: \(|: )(?P<why>[^)]+)",
        "it cannot open {file} ({why})",
        "check the path and who may read it",
    ),
    _rule(
        "file",
        r"invalid magic characters: (?P<magic>'.*'), expected 'GGUF'|(?P<empty>failed to read magic)",
        "the model file is no GGUF file",
        "`source` must name a file in the GGUF format; a download page saved instead of the file is a common cause",
    ),
    _rule(
        "file",
        r"this GGUF file is version (?P<version>\d+) but this software only supports up to version (?P<most>\d+)",
        "the model file is of GGUF version {version}, and this engine reads up to {most}",
        "use a newer build of the engine, or convert the file",
    ),
    _rule(
        "file",
        r"(?P<why>model is corrupted or incomplete|failed to read (?:header|key-value pairs|tensor (?:info|data))"
        r"|unexpectedly reached end of file|tensor '[^']*' not found|missing tensor '[^']*')",
        "the model file is damaged or cut short ({why})",
        _FILE_HINT,
    ),
    _rule(
        "file",
        r"(?P<why>key not found in model: \S+|wrong number of tensors|wrong type .* in model|check_tensor_dims.+)",
        "the model file is not as its architecture needs it ({why})",
        "convert the model again with a current converter, or fetch another file of it",
    ),
    _rule(
        "file",
        r"failed to load (?:lora adapter|multimodal model),? '(?P<file>[^']+)'",
        "it cannot load {file}",
        _FILE_HINT,
    ),
)

# The embedded host says what is wrong in its last line, and of what kind by its exit code.
_OWN_LINE = "corral: "
_OWN_CODES: dict[int, tuple[Kind, str]] = {
    exits.FLAG: ("flag", _FLAG_HINT),
    exits.MODEL_FILE: ("file", "check `source` of this model in models.yaml, and who may read the file"),
    exits.LIBRARY: ("library", "install Corral again; `corral doctor` shows which engines are here"),
    exits.DEVICE: ("device", "`corral doctor` looks at the GPU and its driver; gpu_layers: 0 does without it"),
    exits.ADDRESS: ("address", "`ss -ltnp` and `ss -lx` show what listens where"),
}

_SIGNALS: dict[int, tuple[Kind, str, str]] = {
    signal.SIGILL: (
        "cpu",
        "it used an instruction that this processor does not have",
        "use a build of the engine made for this processor",
    ),
    signal.SIGSEGV: ("signal", "it crashed, touching memory that is not its own", "please report it to the engine"),
    signal.SIGBUS: (
        "file",
        "it crashed, reading mapped memory that is not there",
        "the model file may have been cut short while in use, or the disk have failed",
    ),
    signal.SIGABRT: ("signal", "it gave up by itself", "its last lines say why; see `corral logs`"),
    signal.SIGFPE: ("signal", "it crashed in a calculation", "please report it to the engine"),
    signal.SIGTERM: ("signal", "something outside Corral ended it", "look for what sends TERM to it"),
}


def explain(
    exit_: Exit, log_tail: str, model: str, *, oom_kills: int | None = None, engine: str = "llama.cpp"
) -> Reason:
    """Why `model`'s engine ended.

    `oom_kills` is how many processes the kernel killed for want of memory while it ran (the growth of `oom_kills_in`),
    None where that is not known.
    """
    log_tail = without_notes(log_tail)
    lines = _cleaned(log_tail)
    last = tuple(lines[-LINES_KEPT:])
    how = _how(exit_)
    if exit_.why and not exit_.asked:
        hint = f"start that server, or correct `endpoint` of {model}"
        return Reason(f"{model} cannot be reached: {exit_.why}", "server", hint, ())
    if exit_.asked:
        return Reason(f"{model} was stopped ({how})", "stopped", "", last)
    if exit_.limit_bytes and exit_.code != 0:
        limit = show_bytes(exit_.limit_bytes)
        text = f"{model} ended: its memory limit of {limit} was reached, and the kernel killed it"
        return Reason(text, "memory", _LIMIT_HINT, last)
    if exit_.signal == signal.SIGKILL:
        return _killed(model, last, oom_kills)
    if engine == "vllm":
        if oom_kills:  # one of its workers, and then the rest went by themselves
            return _killed(model, last, oom_kills)
        if (cause := reasons_vllm.explain(log_tail)) is not None:
            return Reason(f"{model} ended: {cause.text}", cause.kind, cause.hint, last)
    own = next((line.removeprefix(_OWN_LINE) for line in reversed(lines) if line.startswith(_OWN_LINE)), None)
    if own is not None and exit_.code in _OWN_CODES:
        kind, hint = _OWN_CODES[exit_.code]
        return Reason(f"{model} ended: {own[:300]}", kind, hint, last)
    for rule in _RULES:
        for line in lines:
            if match := rule.pattern.search(line):
                return Reason(f"{model} ended: {rule.text.format(**_named(match))}", rule.kind, rule.hint, last)
    if exit_.signal is not None:
        kind, text, hint = _SIGNALS.get(
            exit_.signal, ("signal", "a signal ended it", "see `corral logs` for its last lines")
        )
        return Reason(f"{model} ended: {text} ({how}){_quoted(lines)}", kind, hint, last)
    if exit_.code is None:
        text = f"{model} ended while Corral could not see how"
        return Reason(text, "unseen", "the warden was lost; warden.log in the state directory may say why", last)
    said = f": {own[:300]}" if own is not None else _quoted(lines)
    return Reason(f"{model} ended with {how}{said}", "exit", "see `corral logs` for its last lines", last)


def of_itself(said: str, model: str) -> Reason:
    """What an engine's own error comes to that says it has no memory left, or lost its GPU (`ailing`)."""
    for rule in _RULES:
        if rule.kind in ("memory", "device") and (match := rule.pattern.search(said)):
            return Reason(f"{model} ended: {rule.text.format(**_named(match))}", rule.kind, rule.hint, (said[:300],))
    return Reason(f"{model} ended: the memory was not enough ({said[:200]})", "memory", _MEMORY_HINT, (said[:300],))


def in_a_row(whys: Sequence[str], model: str, took_s: float) -> str:
    """One sentence for failures that followed each other, each kind of them counted."""
    counts = Counter(why.removeprefix(f"{model} ").removeprefix("ended: ") for why in whys)
    told = "; ".join(f"{why} ({count} times)" if count > 1 else why for why, count in counts.items())
    return f"{model} failed {len(whys)} times in a row within {show_duration(took_s)}: {told}"


def oom_kills_in(vmstat: str) -> int | None:
    """The kernel's count of processes it killed for want of memory, from the text of /proc/vmstat or of a cgroup's
    memory.events; None when it is not in there."""
    match = re.search(r"^oom_kill (\d+)$", vmstat, re.MULTILINE)
    return int(match[1]) if match else None


def signal_name(number: int) -> str:
    """`SIGSEGV` and the like; `signal 64` for one without a name."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _killed(model: str, last: tuple[str, ...], oom_kills: int | None) -> Reason:
    if oom_kills:
        return Reason(f"{model} ended: the kernel killed it for want of memory (SIGKILL)", "memory", _MEMORY_HINT, last)
    if oom_kills == 0:
        hint = "look for what sends KILL to it; the kernel did not run out of memory meanwhile"
        return Reason(f"{model} ended: something outside Corral killed it (SIGKILL)", "signal", hint, last)
    text = f"{model} ended: something outside Corral killed it, often the kernel for want of memory (SIGKILL)"
    return Reason(text, "signal", "`dmesg | grep -i oom` tells; " + _MEMORY_HINT, last)


def _how(exit_: Exit) -> str:
    if exit_.signal is not None:
        return signal_name(exit_.signal)
    return "no exit code" if exit_.code is None else f"exit code {exit_.code}"


def _quoted(lines: list[str]) -> str:
    return f": {lines[-1][:200]}" if lines else ""


def _named(match: re.Match[str]) -> dict[str, str]:
    return {name: (value or "").strip()[:200] for name, value in match.groupdict().items()}


def _cleaned(log_tail: str) -> list[str]:
    """The lines without what is noise to a reader: llama.cpp's elapsed time and level, terminal colours, empty ones."""
    plain = (re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", line) for line in log_tail.splitlines())
    stripped = (re.sub(r"^\d+\.\d\d\.\d{3}\.\d{3} [A-Z] ", "", line).strip() for line in plain)
    return [line for line in stripped if line]
