"""`_configure`: how a model is to be started. What is given takes the place of what was; the rest stays. (Docker's own
forgets the rest.) So each has a value that takes it back: `context-size` -1, `runtime-flags` [], `keep_alive` "".

Flags pass a list of those that only tune: none that names a file, a host or a program. (Without such a list anybody
who could reach Docker's port could write files with `--log-file`: CVE-2026-28400.)
"""

from __future__ import annotations

import math
import shlex
from dataclasses import replace
from typing import Any, Final

from corral.config.tuning import Tuning
from corral.errors import CallerError, EngineFlagError, NotOffered
from corral.gateway.dialects.docker.shapes import BACKEND, BACKENDS, Entry, duration
from corral.gateway.dialects.fields import get, need, object_of, wrong
from corral.gateway.dialects.ollama.times import keep_alive_s
from corral.lazy_dataclass import dataclass

_EXAMPLE: Final = '{"model": "ai/smollm2", "context-size": 8192}'
_MODES: Final = ("completion", "embedding", "reranking", "image-generation")
_OF_MODE: Final = {"embedding": "--embedding", "reranking": "--reranking"}

_TUNES: Final = """
    -t --threads -tb --threads-batch --prio --poll --cpu-strict --numa --load-mode --mlock --no-mmap --mmap
    --repack --no-repack -nr --no-host --perf --no-perf --check-tensors
    -sm --split-mode -ts --tensor-split -mg --main-gpu -fit --fit -fitt --fit-target -fitc --fit-ctx
    -kvo --kv-offload -nkvo --no-kv-offload --op-offload --no-op-offload -cmoe --cpu-moe -ncmoe --n-cpu-moe
    -n --predict --n-predict -b --batch-size -ub --ubatch-size --keep --swa-full -fa --flash-attn
    -ctk --cache-type-k -ctv --cache-type-v -kvu --kv-unified --no-kv-unified --ctx-checkpoints -cram --cache-ram
    --cache-prompt --no-cache-prompt --cache-reuse --context-shift --no-context-shift
    -cb --cont-batching -nocb --no-cont-batching --warmup --no-warmup
    --rope-scaling --rope-scale --rope-freq-base --rope-freq-scale
    --yarn-orig-ctx --yarn-ext-factor --yarn-attn-factor --yarn-beta-slow --yarn-beta-fast
    --embedding --embeddings --reranking --rerank --pooling
    --jinja --no-jinja --reasoning-format --reasoning-budget --chat-template-kwargs
    -s --seed --temp --top-k --top-p --min-p --typical --repeat-last-n --repeat-penalty --presence-penalty
    --frequency-penalty --dry-multiplier --dry-base --dry-allowed-length --dry-penalty-last-n --mirostat --mirostat-lr
    --mirostat-ent --samplers --ignore-eos
"""
ALLOWED: Final = frozenset(_TUNES.split())
_ELSEWHERE: Final = {
    "-c": "context-size", "--ctx-size": "context-size", "-ngl": "gpu_layers in models.yaml",
    "--n-gpu-layers": "gpu_layers in models.yaml", "--gpu-layers": "gpu_layers in models.yaml",
    "-np": "parallel in models.yaml", "--parallel": "parallel in models.yaml",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Asked:
    """One `_configure`. None: not said."""

    model: str
    mode: str | None = None
    context: int | None = None  # -1: as many as fit
    flags: tuple[str, ...] | None = None
    idle_timeout_s: float | None = None
    usual_idle: bool = False  # what was said of it before is taken back
    budget: int | None = None

    def over(self, before: Tuning) -> Tuning:
        """`before` with what is asked for."""
        tuning = before
        if self.context is not None:
            tuning = replace(tuning, context=self.context if self.context > 0 else None)
        if self.idle_timeout_s is not None or self.usual_idle:
            tuning = replace(tuning, idle_timeout_s=self.idle_timeout_s)
        if self.flags is None and self.mode is None and self.budget is None:
            return tuning
        args = list(self.flags if self.flags is not None else before.args or ())
        if self.mode is not None:
            args = [each for each in args if each not in _OF_MODE.values()]
            args += [_OF_MODE[self.mode]] if self.mode in _OF_MODE else []
        if self.budget is not None:
            args = [*_without(args, "--reasoning-budget"), "--reasoning-budget", str(self.budget)]
        return replace(tuning, args=tuple(args) or None)


def read(body: bytes) -> Asked:
    """Raises NotJson, CallerError, EngineFlagError, NotOffered."""
    given = object_of(body, _EXAMPLE)
    if get(given, "speculative", dict):
        raise NotOffered(
            "a draft model cannot be set here", hint="write args: [--model-draft, FILE] into models.yaml for it"
        )
    if get(given, "vllm", dict):
        raise NotOffered("there is no vLLM here", hint="leave vllm out: llama.cpp serves every model")
    mode = get(given, "mode", str)
    if mode is not None and mode not in _MODES:
        raise wrong("mode", f"must be one of {', '.join(_MODES)}")
    if mode == "image-generation":
        raise NotOffered("no engine here makes images", hint="use completion, embedding or reranking")
    context = get(given, "context-size", int)
    if context is not None and (context < -1 or context == 0 or context > 1 << 30):
        raise wrong("context-size", f"must be a number of tokens, or -1 for what fits, not {context}")
    budget = get(get(given, "llamacpp", dict) or {}, "reasoning-budget", int, "llamacpp.")
    idle = keep_alive_s(given.get("keep_alive"))
    return Asked(
        need(given, "model", str),
        mode,
        context,
        _flags(given),
        idle,
        "keep_alive" in given and idle is None,
        budget,
    )


def _flags(given: dict[str, Any]) -> tuple[str, ...] | None:
    flags = get(given, "runtime-flags", list)
    raw = get(given, "raw-runtime-flags", str)
    if flags is None and raw is None:
        return None
    if flags is not None and not all(isinstance(each, str) for each in flags):
        raise wrong("runtime-flags", "must be a list of texts")
    try:
        words = [*(flags or ()), *shlex.split(raw or "")]
    except ValueError as exc:
        raise wrong("raw-runtime-flags", f"cannot be read: {exc}") from exc
    return checked(words)


def checked(words: list[str]) -> tuple[str, ...]:
    """Flags with their values, `--a=b` taken apart. Raises EngineFlagError for one that may not be set from outside."""
    found: list[str] = []
    for word in words:
        name, equals, value = word.partition("=") if word.startswith("--") else (word, "", "")
        if name.startswith("-") and not _is_number(name):
            if name.replace("_", "-") not in ALLOWED:
                raise _refused(name)
            found.append(name)
            found += [value] if equals else []
        else:
            value = word
            found.append(word)
        if "/" in value or "\\" in value or "\0" in value:
            raise EngineFlagError(
                f"the value {value[:80]!r} may not be set from outside", hint="it could be a path: use models.yaml"
            )
    return tuple(found)


def _refused(name: str) -> EngineFlagError:
    if (instead := _ELSEWHERE.get(name)) is not None:
        return EngineFlagError(f"the flag {name[:80]} is not set as a flag", hint=f"use {instead}", flag=name[:80])
    return EngineFlagError(
        f"the flag {name[:80]} may not be set from outside", hint="write it to `args` in models.yaml", flag=name[:80]
    )


def _is_number(text: str) -> bool:
    return text[1:2].isdigit() or text[1:2] == "."


def _without(args: list[str], flag: str) -> list[str]:
    while flag in args:
        at = args.index(flag)
        args = args[:at] + args[at + 2 :]
    return args


def shown(name: str, tuning: Tuning, entry: Entry | None) -> dict[str, Any]:
    """An entry of `GET _configure`, with Go's own names of its fields."""
    config: dict[str, Any] = {}
    if tuning.context is not None:
        config["context-size"] = tuning.context
    if tuning.args:
        config["runtime-flags"] = list(tuning.args)
    if tuning.idle_timeout_s is not None:
        config["keep_alive"] = "-1" if math.isinf(tuning.idle_timeout_s) else duration(tuning.idle_timeout_s)
    args = tuning.args or ()
    mode = next(
        (mode for mode, flag in _OF_MODE.items() if flag in args), entry.mode if entry is not None else "completion"
    )
    return {
        "Backend": BACKEND, "Model": name, "ModelID": entry.id if entry is not None else "", "Mode": mode,
        "Config": config,
    }  # fmt: skip


def backend_of(name: str) -> str:
    """The backend in a path. Raises CallerError, NotOffered."""
    if name not in BACKENDS:
        raise CallerError(f"unknown backend {name[:80]!r}", hint=f"known are {', '.join(BACKENDS)}")
    if name != BACKEND:
        raise NotOffered(f"there is no {name} here", hint="leave the backend out: llama.cpp serves every model")
    return name
