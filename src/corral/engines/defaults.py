"""What a stored model itself wants, as engine flags: parameters, projector, adapters, template, first messages."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from corral.config.atomic import replace_file
from corral.config.settings import ModelSettings
from corral.engines import flags
from corral.errors import ModelFileError
from corral.lazy_dataclass import dataclass
from corral.models.content import CONTEXT_PARAM, Content
from corral.models.formats.gguf import read_header
from corral.models.unpack import Placed

_FLAGS: Final[Mapping[str, str]] = {
    "temperature": "--temp", "top_k": "--top-k", "top_p": "--top-p", "min_p": "--min-p", "typical_p": "--typical",
    "repeat_last_n": "--repeat-last-n", "repeat_penalty": "--repeat-penalty", "presence_penalty": "--presence-penalty",
    "frequency_penalty": "--frequency-penalty", "seed": "--seed", "num_predict": "--predict", "num_keep": "--keep",
    "mirostat": "--mirostat", "mirostat_tau": "--mirostat-ent", "mirostat_eta": "--mirostat-lr",
    "stop": "--reverse-prompt",
}  # fmt: skip
"""llama-server's flags by Ollama's names. Source: Ollama's documentation of the Modelfile, PARAMETER."""

_OURS: Final = frozenset(
    {CONTEXT_PARAM, "num_gpu", "main_gpu", "num_thread", "num_batch", "use_mmap", "use_mlock", "numa", "low_vram"}
)
"""Of the machine, not of the model: Corral's own keys decide."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """A model's settings with its own defaults below them, and what could not be honoured."""

    model: ModelSettings
    warnings: tuple[str, ...]


def apply(model: ModelSettings, placed: Placed, content: Content, templates: Path) -> Wanted:
    """`model` with `placed` as its source. What the settings say themselves wins. Writes below `templates` at most.

    Raises ModelFileError for a format that no engine here opens.
    """
    if placed.format != "gguf":
        raise ModelFileError(
            f"{model.name} is a {placed.format} model, and llama.cpp opens GGUF files only",
            hint="serve it with `engine: vllm`, or look for its GGUF: corral search NAME",
        )
    args, warnings = _params(model, content.params)
    for flag, path in (("--mmproj", placed.mmproj), ("--model-draft", placed.draft)):
        if path is not None and not flags.has(model.args, flag):
            args += [flag, str(path)]
    if not flags.has(model.args, "--lora"):
        args += [word for path in placed.adapters for word in ("--lora", str(path))]
    if not any(flags.has(model.args, name) for name in ("--chat-template", "--chat-template-file")):
        template, doubt = _template(placed, content)
        if template is not None:
            args += ["--jinja", "--chat-template-file", str(_written(templates, template))]
        warnings += doubt
    context = model.context or _context(content)
    served = replace(model, source=placed.main, args=(*args, *model.args), context=context, roots=())
    return Wanted(served, tuple(warnings))


def apply_folder(model: ModelSettings, placed: Placed, content: Content, templates: Path) -> Wanted:
    """The same for an engine that opens a folder of safetensors, such as vLLM. Raises ModelFileError."""
    if placed.format != "safetensors":
        raise ModelFileError(
            f"{model.name} is a {placed.format} model, and {model.engine} opens safetensors only",
            hint="take `engine` away: llama.cpp serves GGUF files",
        )
    args, warnings = [], []
    if content.template is not None and "--chat-template" not in model.args:
        args = ["--chat-template", str(_written(templates, content.template))]
    if content.params:
        warnings.append(f"its own parameters {', '.join(content.params)} are not used by {model.engine}")
    if content.system is not None or content.messages:
        warnings.append(f"its system prompt and first messages are not used by {model.engine}")
    context = model.context or _context(content)
    return Wanted(
        replace(model, source=placed.main, args=(*args, *model.args), context=context, roots=()), tuple(warnings)
    )


def _context(content: Content) -> int | None:
    return content.context_size


def _params(model: ModelSettings, params: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    args: list[str] = []
    unknown = []
    for name, value in params.items():
        flag = _FLAGS.get(name)
        if flag is None:
            if name not in _OURS:
                unknown.append(name)
            continue
        if flags.has(model.args, flag):
            continue
        for each in value if isinstance(value, list) else [value]:
            args += [flag, _spelt(each)]
    return args, [f"its own parameters {', '.join(unknown)} have no meaning here"] if unknown else []


def _spelt(value: Any) -> str:
    # llama-server takes escapes in texts, so a backslash must be one.
    return str(value).replace("\\", "\\\\").replace("\n", "\\n") if isinstance(value, str) else json.dumps(value)


def _template(placed: Placed, content: Content) -> tuple[str | None, list[str]]:
    """The chat template to give to the engine; None when the weights' own serves as it is."""
    own = content.template or (placed.template.read_text(encoding="utf-8") if placed.template is not None else None)
    if content.system is None and not content.messages:
        return own, []
    base = own or read_header(placed.main).chat_template
    if not base:
        return None, ["its system prompt cannot be used: the model has no chat template"]
    return _with_first(base, content.system, content.messages), []


def _with_first(template: str, system: str | None, messages: Sequence[Mapping[str, Any]]) -> str:
    """`template` with messages put before every conversation, the system one where it has none."""
    first = [{"role": each["role"], "content": each["content"]} for each in messages]
    lines = []
    if first:
        lines.append(
            f"{{%- set corral_rest = messages[1:] if messages and messages[0]['role'] == 'system' else messages -%}}"
            f"{{%- set corral_head = messages[:1] if messages and messages[0]['role'] == 'system' else [] -%}}"
            f"{{%- set messages = corral_head + {_jinja(first)} + corral_rest -%}}"
        )
    if system is not None:
        whole = [{"role": "system", "content": system}]
        lines.append(
            f"{{%- if not messages or messages[0]['role'] != 'system' -%}}"
            f"{{%- set messages = {_jinja(whole)} + messages -%}}{{%- endif -%}}"
        )
    return "".join(lines) + template


def _jinja(value: Sequence[Mapping[str, Any]]) -> str:
    """A list of messages as a Jinja literal. `%}` in a text cannot end the block: it is inside quotes."""
    items = ", ".join(
        "{" + ", ".join(f"'{key}': {_quoted(str(text))}" for key, text in each.items()) + "}" for each in value
    )
    return f"[{items}]"


def _quoted(text: str) -> str:
    escaped = (
        text.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n").replace("\r", "\\r").replace("\t", "\\t")
    )
    return f"'{escaped}'"


def _written(directory: Path, text: str) -> Path:
    """A file with `text`, named by its hash, so that the same text is the same launch."""
    path = directory / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.jinja"
    if not path.exists():
        directory.mkdir(parents=True, exist_ok=True)
        replace_file(path, text)
    return path
