"""What vLLM says before it ends, in words. Pure.

Its last lines are noise: several processes end one after another, with stacks of their own and lists of what leaked. So
the whole end of its log is looked through, the first cause first. Source: vLLM 0.32's messages, and PyTorch's.
"""

from __future__ import annotations

import re
from typing import Final, Literal, NamedTuple

Kind = Literal["memory", "device", "architecture", "file", "flag", "library", "address", "exit"]


class Said(NamedTuple):
    kind: Kind
    text: str
    hint: str


class _Rule(NamedTuple):
    kind: Kind
    pattern: re.Pattern[str]
    text: str
    hint: str


GPU_MEMORY: Final = "the GPU's memory was not enough"  # as in `reasons`: what is made smaller goes by it
_LESS: Final = "use a shorter `context`, fewer `max_num_seqs`, FP8 or a smaller model, or stop other models first"
_ARGS: Final = "look at `args` of this model in models.yaml; flags are spelled as vLLM's own `--help` has them"

_RULES: Final = tuple(
    _Rule(kind, re.compile(pattern), text, hint)  # type: ignore[arg-type]
    for kind, pattern, text, hint in (
        (
            "memory",
            r"ValueError: (?P<why>Free memory on device .*? is less than desired GPU memory utilization.*)",
            GPU_MEMORY + " ({why})",
            "something else took it meanwhile; `corral status` shows what others use",
        ),
        (
            "memory",
            r"ValueError: (?P<why>To serve at least one request with the model.*?KV cache.*?needed.*?available.*?\.)",
            "there is no room for one sequence of full length ({why})",
            "set a shorter `context`, or more `kv_cache`",
        ),
        (
            "memory",
            r"ValueError: (?P<why>No available memory for the cache blocks)",
            "there is no room for a cache ({why})",
            _LESS,
        ),
        ("memory", r"(?P<why>(?:CUDA|HIP) out of memory\. Tried to allocate [^.]*)", GPU_MEMORY + " ({why})", _LESS),
        (
            "memory",
            r"ValueError: (?P<why>Available memory on node .*? is less than requested memory for kv.*)",
            "the memory was not enough ({why})",
            _LESS,
        ),
        (
            "memory",
            r"(?P<why>DefaultCPUAllocator: can't allocate memory.*)",
            "the memory was not enough ({why})",
            _LESS,
        ),
        (
            "device",
            r"(?P<why>Found no NVIDIA driver on your system|No CUDA GPUs are available|no HIP GPUs are available"
            r"|Failed to infer device type|CUDA driver version is insufficient[^\n]*"
            r"|libcuda\.so\.1: cannot open shared object file)",
            "it finds no GPU that it can use ({why})",
            "`corral doctor` looks at the GPU and its driver; corral engine install vllm --variant cpu does without",
        ),
        (
            "device",
            r"(?P<why>(?:CUDA|HIP) error: [^\n]*|NCCL error[^\n]*)",
            "the GPU failed ({why})",
            "see `corral logs`",
        ),
        (
            "architecture",
            r"(?P<why>Model architectures \[[^\]]*\] (?:are not supported for now|failed to be inspected))",
            "it does not serve such models ({why})",
            "a newer vLLM may: corral engine install vllm --version …",
        ),
        (
            "architecture",
            r"RuntimeError: (?P<why>Unsupported CPU attention configuration: [^\n]*)",
            "its attention on the processor cannot compute this model ({why})",
            "serve it on a GPU, or as GGUF with llama.cpp",
        ),
        (
            "file",
            r"(?P<why>does not appear to have a file named [^\n]*|Error no file named [^\n]*"
            r"|Cannot find any model weights[^\n]*|SafetensorError[^\n]*|header too large[^\n]*"
            r"|(?:KeyError|ValueError): [^\n]*(?:weight|parameter)[^\n]*not found[^\n]*)",
            "the model's files are not whole ({why})",
            "download the model again, all of its files",
        ),
        (
            "file",
            r"(?P<why>User-specified max_model_len \(\d+\) is greater than the derived max_model_len[^\n.]*)",
            "`context` is longer than the model was made for ({why})",
            "lower `context`",
        ),
        (
            "file",
            r"(?P<why>contains custom code which must be executed[^\n]*|trust_remote_code=True[^\n]*)",
            "the model brings code of its own, which is not run unasked ({why})",
            "read it; args: [--trust-remote-code] allows it",
        ),
        ("flag", r"error: (?P<why>unrecognized arguments: [^\n]*|argument [^\n]*)", "it refuses a flag ({why})", _ARGS),
        (
            "flag",
            r"(?P<why>Unknown quantization method: [^\n]*|The quantization method [^\n]* is not supported[^\n]*"
            r"|Quantization method specified in the model config[^\n]*)",
            "it cannot quantize so ({why})",
            "take `quantization` away, or choose another",
        ),
        (
            "library",
            r"(?:ModuleNotFoundError|ImportError|PackageNotFoundError): (?P<why>[^\n]*)",
            "its environment is damaged ({why})",
            "install it again: corral engine install vllm --variant …",
        ),
    )
)
_ERROR: Final = re.compile(
    r"^(?:\([^)]*\) )?(?:ERROR [^\]]*\] )?(?P<error>\w*(?:Error|Exception): [^\n]{3,})", re.MULTILINE
)
_VAGUE: Final = re.compile(
    r"EngineCore|Engine core|WorkerProc|RuntimeError: Worker failed|ResourceWarning|KeyboardInterrupt"
)


def explain(log: str) -> Said | None:
    """Why a vLLM with this log ended; None where it does not tell."""
    best: tuple[int, Said] | None = None
    for rule in _RULES:
        if (match := rule.pattern.search(log)) is not None and (best is None or match.start() < best[0]):
            why = " ".join((match["why"] or "").split())[:300]
            best = match.start(), Said(rule.kind, rule.text.format(why=why), rule.hint)
    if best is not None:
        return best[1]
    causes = [match["error"].strip() for match in _ERROR.finditer(log) if not _VAGUE.search(match["error"])]
    if not causes:
        return None
    return Said("exit", f"it failed with {causes[0][:300]}", "see `corral logs` for its last lines")
