"""`CORRAL_*` variables and `.env` files: which there are, and what they say about which key."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from dotenv.parser import parse_stream

from corral.config.nearest import did_you_mean
from corral.config.problem import Key, Place, Problem
from corral.config.scalar import read_scalar
from corral.config.trust import file_fault
from corral.lazy_dataclass import dataclass

MAX_DOTENV_BYTES = 64 << 10


@dataclass(frozen=True, slots=True)
class Variable:
    """One variable that overrides one key of the file."""

    name: str
    key: Key
    form: Literal["value", "list", "pairs", "paths", "text", "vulkan"] = "value"


VARIABLES = (
    Variable("CORRAL_LISTEN", ("listen",), "list"),
    Variable("CORRAL_DEFAULT_MODEL", ("default_model",)),
    Variable("CORRAL_MAX_ACTIVE", ("max_active",)),
    Variable("CORRAL_MEMORY", ("memory",), "pairs"),
    Variable("CORRAL_MAX_QUEUE", ("max_queue",)),
    Variable("CORRAL_MAX_BODY", ("max_body",)),
    Variable("CORRAL_TIMEOUT_START", ("timeouts", "start")),
    Variable("CORRAL_TIMEOUT_STOP", ("timeouts", "stop")),
    Variable("CORRAL_TIMEOUT_QUEUE", ("timeouts", "queue")),
    Variable("CORRAL_TIMEOUT_DRAIN", ("timeouts", "drain")),
    Variable("CORRAL_TIMEOUT_HANG", ("timeouts", "hang")),
    Variable("CORRAL_ROOTS", ("roots",), "paths"),
    Variable("CORRAL_ALLOW_REGISTRIES", ("allow_registries",), "list"),
    Variable("CORRAL_AUTO_PULL", ("auto_pull",)),
    Variable("CORRAL_CONVERSATIONS", ("conversations",)),
    Variable("CORRAL_MODEL_ROOTS", ("model_roots",), "paths"),
    Variable("CORRAL_LOG_FORMAT", ("log", "format")),
    Variable("CORRAL_LOG_REQUESTS", ("log", "requests")),
    Variable("CORRAL_EXECUTABLE_LLAMA_CPP", ("executables", "llama.cpp")),
)
"""Variables that stand for keys: they may be in the environment and in a `.env` file."""

GPU_VARIABLES = (
    Variable("LLAMA_GPU_LAYERS", ("gpu_layers",)),
    Variable("LLAMA_VULKAN_ENABLE", ("gpu_backend",), "vulkan"),
    *(
        Variable(name, ("env", name), "text")
        for name in (
            "VK_ICD_FILENAMES", "VK_DRIVER_FILES", "VK_ADD_DRIVER_FILES", "GGML_VK_VISIBLE_DEVICES",
            "NVIDIA_VISIBLE_DEVICES", "CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES",
            "HSA_OVERRIDE_GFX_VERSION", "ONEAPI_DEVICE_SELECTOR",
        )
    ),
)  # fmt: skip
"""Names that people set for other programs' GPUs; they mean the same here."""

PLACES = (
    "CORRAL_CONFIG",
    "CORRAL_CONFIG_DIR",
    "CORRAL_STATE_DIR",
    "CORRAL_CACHE_DIR",
    "CORRAL_RUNTIME_DIR",
    "CORRAL_DATA_DIR",
    "CORRAL_HOST",
    "CORRAL_KEY",
    "CORRAL_CA",
)
"""Variables that say where things are. They are read before any file is, so a `.env` file cannot set them."""

_BY_NAME = {each.name: each for each in (*VARIABLES, *GPU_VARIABLES)}
_OWN_PREFIXES = ("CORRAL_TEST_", "CORRAL_BENCH_", "CORRAL_COMPLETE_", "CORRAL_MARK", "CORRAL_VENV")
# Of the project's own tests, completion scripts, engine processes and set-up: no settings, so nothing to warn about.


@dataclass(frozen=True, slots=True)
class Setting:
    """One value for one key from outside the file."""

    key: Key
    value: Any  # as YAML would have given it
    place: Place


@dataclass(frozen=True, slots=True)
class Dotenv:
    """What one `.env` file says."""

    file: Path
    values: Mapping[str, str]
    lines: Mapping[str, int]
    problems: tuple[Problem, ...] = ()


def read_dotenv(file: Path) -> Dotenv:
    """The `.env` file `file`; values are literal, nothing in them is expanded. A missing one says nothing."""
    place = Place(str(file))

    def refused(message: str, hint: str) -> Dotenv:
        return Dotenv(file, {}, {}, (Problem(message, hint, place, level="warning"),))

    try:
        if not file.is_file():
            return Dotenv(file, {}, {})
        if (fault := file_fault(file)) is not None:
            return refused(f"{fault}, so not used", f"then: chmod o-w {file}")
        with file.open("rb") as opened:
            raw = opened.read(MAX_DOTENV_BYTES + 1)
        if len(raw) > MAX_DOTENV_BYTES:
            return refused(f"is larger than {MAX_DOTENV_BYTES >> 10} KiB, so not used", "shorten it")
        text = raw.decode("utf-8-sig")
    except OSError as error:
        return refused(f"cannot be read: {error.strerror}", "check its owner and mode")
    except UnicodeDecodeError:
        return refused("is not UTF-8 text, so not used", "save it as UTF-8")
    values: dict[str, str] = {}
    lines: dict[str, int] = {}
    problems = []
    for binding in parse_stream(io.StringIO(text)):
        # The parser counts a binding's line from the blank lines before it.
        original = binding.original.string
        line = binding.original.line + len(original) - len(original.lstrip("\r\n"))
        if binding.error:
            problems.append(
                Problem("this line is not NAME=value", "correct it", Place(str(file), line), level="warning")
            )
        elif binding.key is not None and binding.value is not None and "\0" not in binding.value:
            values[binding.key] = binding.value
            lines[binding.key] = line
    return Dotenv(file, values, lines, tuple(problems))


def from_environment(env: Mapping[str, str], dotenvs: Sequence[Dotenv]) -> tuple[list[Setting], list[Problem]]:
    """What variables say, weakest first: each of `dotenvs` in turn, then the environment; and warnings about names
    that mean nothing."""
    settings: list[Setting] = []
    problems: list[Problem] = []
    for dotenv in dotenvs:
        for name, text in dotenv.values.items():
            place = Place(str(dotenv.file), dotenv.lines[name])
            if name in PLACES:
                problems.append(
                    Problem(
                        f"{name} has no effect in a .env file",
                        "set it in the environment",
                        place,
                        level="warning",
                    )
                )
            else:
                _take(name, text, place, settings, problems)
    for name, text in sorted(env.items()):
        if name not in PLACES:
            _take(name, text, Place(name), settings, problems)
    return settings, problems


def _take(name: str, text: str, place: Place, settings: list[Setting], problems: list[Problem]) -> None:
    variable = _BY_NAME.get(name)
    if variable is None and (not name.startswith("CORRAL_") or name.startswith(_OWN_PREFIXES)):
        return
    if variable is None:
        hint = did_you_mean(name, [*(each.name for each in VARIABLES), *PLACES], "docs/configuration.md lists them")
        where = place if place.line is not None else Place("environment")
        problems.append(Problem(f"unknown variable {name}, ignored", hint, where, level="warning"))
    elif text.strip() or variable.form == "text":  # an empty list of devices is no devices
        settings.append(Setting(variable.key, _read(variable.form, text.strip()), place))


def _read(form: str, text: str) -> Any:
    if form == "list":
        return [part.strip() for part in text.split(",") if part.strip()]
    if form == "paths":
        return [part for part in text.split(os.pathsep) if part]
    if form == "pairs":
        pairs = [part.partition("=") for part in text.split(",") if part.strip()]
        # Text that is no list of pairs goes on as it is: the key's own rule says what it should have been.
        return {name.strip(): value.strip() for name, _, value in pairs} if all(sep for _, sep, _ in pairs) else text
    if form == "text":
        return text
    if form == "vulkan":
        return "vulkan" if text.lower() in ("1", "true", "on", "yes") else "not-vulkan"
    return read_scalar(text)
