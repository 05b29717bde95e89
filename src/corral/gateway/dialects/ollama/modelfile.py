"""Modelfiles, and the fields of `/api/create` that say the same: read into one `Recipe`."""

from __future__ import annotations

import json
import re
from dataclasses import field
from typing import Any, Final

from corral.descriptors import check_digest
from corral.errors import CallerError, ManifestError, NotOffered
from corral.gateway.dialects.ollama import asked
from corral.lazy_dataclass import dataclass

_INTS: Final = frozenset(
    {"num_ctx", "num_predict", "num_keep", "seed", "top_k", "repeat_last_n", "mirostat", "num_gpu", "num_thread",
     "num_batch", "main_gpu", "draft_num_predict"}
)  # fmt: skip
_FLOATS: Final = frozenset(
    {"temperature", "top_p", "min_p", "typical_p", "tfs_z", "repeat_penalty", "presence_penalty", "frequency_penalty",
     "mirostat_tau", "mirostat_eta"}
)  # fmt: skip
_BOOLS: Final = frozenset({"use_mmap", "use_mlock", "penalize_newline", "low_vram", "numa"})
_VERBS: Final = (
    "FROM", "PARAMETER", "TEMPLATE", "SYSTEM", "ADAPTER", "LICENSE", "MESSAGE",
    "REQUIRES", "RENDERER", "PARSER", "DRAFT",
)  # fmt: skip
_BLOB = re.compile(r"@?(sha256[:-][0-9a-f]{64})")
_ROLES: Final = ("system", "user", "assistant")


@dataclass(slots=True)
class Recipe:
    """How a model is made of others. `base` is a model's name; `files` and `adapters` are blobs by file name."""

    model: str = ""
    base: str = ""
    files: dict[str, str] = field(default_factory=dict)
    adapters: dict[str, str] = field(default_factory=dict)
    template: str | None = None
    system: str | None = None
    licenses: list[str] = field(default_factory=list)
    params: dict[str, Any] = field(default_factory=dict)
    messages: list[dict[str, str]] = field(default_factory=list)


def read_create(given: dict[str, Any]) -> Recipe:
    """The body of `/api/create`, a `modelfile` in it included. Raises CallerError, NotOffered."""
    recipe = Recipe()
    if source := asked.text(given, "modelfile"):
        parse(source, recipe)
    recipe.model = asked.model(given)
    if not recipe.model:
        raise CallerError("model is required", hint='send such as {"model": "mine", "from": "llama3.2"}', param="model")
    recipe.base = asked.text(given, "from") or recipe.base
    for name, found in (("files", recipe.files), ("adapters", recipe.adapters)):
        found.update({key: _digest(value) for key, value in asked.table(given, name).items()})
    for name in ("quantize", "quantization", "draft_quantize"):
        if asked.text(given, name):
            raise NotOffered(
                f"{name} is not offered here",
                hint="corral quantize MODEL --to Q4_K_M -t NAME does it; or pull one that is quantized",
            )
    if asked.table(given, "draft_files"):
        raise NotOffered("draft_files are not offered here", hint="set --model-draft in the model's args")
    template, system = given.get("template"), given.get("system")
    recipe.template = asked.text(given, "template") if template is not None else recipe.template
    recipe.system = asked.text(given, "system") if system is not None else recipe.system
    license = given.get("license")
    licenses = [license] if isinstance(license, str) and license else license or []
    if not isinstance(licenses, list) or not all(isinstance(each, str) for each in licenses):
        raise CallerError('"license" must be a text or a list of texts', hint="leave it out", param="license")
    recipe.licenses += licenses
    for name, value in asked.table(given, "parameters").items():
        recipe.params[name] = _parameter(name, value)
    recipe.messages += [_message(each) for each in asked.items(given, "messages")]
    if not recipe.base and not recipe.files:
        raise CallerError('neither "from" nor "files" was given', hint="say what the model is made of", param="from")
    return recipe


def parse(source: str, recipe: Recipe) -> None:
    """A Modelfile's lines into `recipe`. Raises CallerError with the number of the line, NotOffered."""
    for verb, value, at in _commands(source):
        match verb:
            case "FROM":
                _from(value, at, recipe)
            case "PARAMETER":
                _add_parameter(value, at, recipe)
            case "TEMPLATE":
                recipe.template = value
            case "SYSTEM":
                recipe.system = value
            case "ADAPTER":
                recipe.adapters[f"adapter-{len(recipe.adapters) + 1}.gguf"] = _blob(value, at)
            case "LICENSE":
                recipe.licenses.append(value)
            case "MESSAGE":
                _add_message(value, at, recipe)
            case "DRAFT":
                raise NotOffered("DRAFT is not offered here", hint="set --model-draft in the model's args")
            case _:
                pass  # REQUIRES, RENDERER and PARSER speak of Ollama's own program


def _commands(source: str) -> list[tuple[str, str, int]]:
    """Verb, value and line number of each command; a value in triple quotes may have several lines."""
    found = []
    lines = source.splitlines()
    at = 0
    while at < len(lines):
        line, begun = lines[at].strip(), at + 1
        at += 1
        if not line or line.startswith("#"):
            continue
        verb, _, value = line.partition(" ")
        verb, value = verb.upper(), value.strip()
        if verb not in _VERBS:
            raise _at(begun, f"unknown command {verb[:40]!r}", f"known are {', '.join(_VERBS[:7])}")
        if not value:
            raise _at(begun, f"{verb} says nothing", "write its value on the same line")
        before, quotes, rest = value.partition('"""')
        if quotes and (not before or verb == "MESSAGE"):
            while '"""' not in rest:
                if at >= len(lines):
                    raise _at(begun, 'the text in """ has no end', 'close it with """')
                rest += "\n" + lines[at]
                at += 1
            value = before + rest.partition('"""')[0]
        elif len(value) > 1 and value[0] == value[-1] == '"':
            value = value[1:-1]
        found.append((verb, value, begun))
    return found


def _from(value: str, at: int, recipe: Recipe) -> None:
    if _BLOB.fullmatch(value):
        recipe.files[f"model-{len(recipe.files) + 1}.gguf"] = _blob(value, at)
    elif value.startswith(("/", "./", "../", "~")) or value.lower().endswith(".gguf"):
        raise _at(
            at,
            f"FROM names the file {value[:80]}, which a server does not open for its clients",
            "send it as a blob (ollama create does), or on the server: corral package FILE -t NAME",
        )
    else:
        recipe.base = value


def _blob(value: str, at: int) -> str:
    match = _BLOB.fullmatch(value)
    if match is None:
        raise _at(at, f"{value[:80]} is no blob's digest", "send the file with POST /api/blobs first")
    return match[1].replace("-", ":")


def _digest(value: Any) -> str:
    try:
        return check_digest(value.replace("sha256-", "sha256:") if isinstance(value, str) else "")
    except ManifestError as error:
        raise CallerError(f"invalid digest {str(value)[:80]!r}", hint=error.hint) from error


def _add_parameter(value: str, at: int, recipe: Recipe) -> None:
    name, _, said = value.partition(" ")
    name, said = name.lower(), said.strip()
    if len(said) > 1 and said[0] == said[-1] == '"':
        try:
            said = str(json.loads(said))
        except ValueError:
            said = said[1:-1]
    if name == "stop":
        recipe.params.setdefault("stop", []).append(said)
        return
    try:
        read: Any = int(said) if name in _INTS else float(said) if name in _FLOATS else said
    except ValueError as error:
        raise _at(at, f"PARAMETER {name} cannot be {said[:40]!r}", "it is a number") from error
    if name in _BOOLS:
        read = said.lower() == "true"
    recipe.params[name] = _parameter(name, read)


def _parameter(name: str, value: Any) -> Any:
    if name == "stop":
        value = [value] if isinstance(value, str) else value
        fine = isinstance(value, list) and all(isinstance(each, str) for each in value)
    elif name in _INTS or name in _FLOATS:
        fine = isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e30
        if fine and name in _INTS:
            fine = value == int(value)
            value = int(value)
    elif name in _BOOLS:
        fine = isinstance(value, bool)
    else:
        raise CallerError(f"unknown parameter {name[:40]!r}", hint="see Ollama's list of parameters", param=name[:40])
    if not fine:
        raise CallerError(f"parameter {name} cannot be {str(value)[:40]!r}", hint="see Ollama's list of parameters")
    return value


def _add_message(value: str, at: int, recipe: Recipe) -> None:
    role, _, said = value.partition(" ")
    if role.lower() not in _ROLES:
        raise _at(at, f"MESSAGE of {role[:40]!r}", f"a role is one of {', '.join(_ROLES)}")
    recipe.messages.append({"role": role.lower(), "content": said.strip()})


def _message(given: Any) -> dict[str, str]:
    if not isinstance(given, dict):
        raise CallerError("a message is no object", hint='send such as {"role": "user", "content": "…"}')
    return {"role": asked.text(given, "role").lower() or "user", "content": asked.text(given, "content")}


def _at(line: int, what: str, hint: str) -> CallerError:
    return CallerError(f"the Modelfile, line {line}: {what}", hint=hint)
