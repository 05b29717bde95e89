"""From a document and what overrides it to `Settings`, with everything that is wrong on the way."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, ParamSpec, TypeVar

from corral.config import elsewhere, sources
from corral.config.check import check
from corral.config.document import Document
from corral.config.environment import Setting
from corral.config.explain import take
from corral.config.listening import is_loopback
from corral.config.nearest import did_you_mean
from corral.config.problem import Key, Place, Problem
from corral.config.scalar import in_words, shorten
from corral.config.schema import FileKeys, GlobalKeys, ModelKeys
from corral.config.settings import (
    GpuBackend,
    Listen,
    ModelSettings,
    Registry,
    Rung,
    Sandbox,
    Settings,
    Signed,
    Timeouts,
    Tls,
)
from corral.lazy_dataclass import dataclass

_OF_FOLDERS = ("vllm", "detector")
"""Engines whose models are folders."""

P = ParamSpec("P")
R = TypeVar("R")

_FILL = {"name": "unnamed"}  # for a model without one, which is never used
_HINT = "docs/configuration.md describes every key"
_PROGRAM_WORDS = ("auto", "embedded")


@dataclass(frozen=True, slots=True)
class Assembled:
    """Settings as far as they could be made out, and where in the document each given key stands."""

    settings: Settings
    given: Mapping[Key, Key]  # key with models by name → key in the document
    problems: tuple[Problem, ...]


def with_file(settings: Settings, file: Path | None) -> Settings:
    """`settings`, said to be read from `file`."""
    return dataclasses.replace(settings, file=file)


def assemble(
    document: Document,
    overrides: Sequence[Setting],
    *,
    base: Path,
    cwd: Path,
    env: Mapping[str, str],
    default_roots: tuple[Path, ...] = (),
    insecure: bool = False,
    keyed: Callable[[], bool] = lambda: False,
    short_names: Mapping[str, str] = MappingProxyType({}),
) -> Assembled:
    """Settings out of `document` with `overrides` laid over it, the later ones on top.

    `base` is the directory that relative paths of the document start from, `cwd` that of flags and variables; `env`
    is what `${VAR}` looks up; `default_roots` hold when the configuration lists no `roots` of its own;
    `short_names` are for sources that are references.
    """
    return _Assembly(document, overrides, base, cwd, env, default_roots, insecure, keyed, short_names).run()


class _Assembly:
    def __init__(
        self,
        document: Document,
        overrides: Sequence[Setting],
        base: Path,
        cwd: Path,
        env: Mapping[str, str],
        default_roots: tuple[Path, ...],
        insecure: bool,
        keyed: Callable[[], bool],
        short_names: Mapping[str, str],
    ) -> None:
        self.document = document
        self.overrides = overrides
        self.base = base
        self.cwd = cwd
        self.env = env
        self.default_roots = default_roots
        self.insecure, self.keyed = insecure, keyed
        self.short_names = short_names
        self.problems = list(document.problems)
        self.given: dict[Key, Key] = {}
        self.over: dict[Key, Place] = {}
        self.names: set[str] = set()  # of all models, those with problems too
        self.executables = {"llama.cpp": "auto", "vllm": "auto"}
        self.rungs: tuple[Rung, ...] | None = None
        self.cpu_fallback = True
        self.gpu_layers: int | Literal["auto"] = "auto"
        self.gpu_backend: GpuBackend = "auto"
        self.engines_env: Mapping[str, str] = {}
        self.sandbox: Sandbox = "off"
        self.limits = False
        self.allowed: tuple[Path, ...] = ()

    def run(self) -> Assembled:
        data = self._top()
        models = data.pop("models", None)
        settings = self._globals(data)
        settings = dataclasses.replace(settings, models=MappingProxyType(dict(self._models(models, settings))))
        if not settings.models and not self.problems:
            self._doubt("names no models", "add one under `models:`", ("models",))
        keyed = any(not is_loopback(each) for each in settings.listen) and self.keyed()
        self.problems += check(settings, self._where, insecure=self.insecure, keyed=keyed, names=self.names)
        return Assembled(settings, self.given, tuple(self.problems))

    def _top(self) -> dict[str, Any]:
        data = self.document.data
        if data is None:
            return {}
        if isinstance(data, dict):
            return dict(data)
        self._wrong(f"the file must be a mapping of keys to values, not {in_words(data)}", "", ())
        return {}

    # Global keys.

    def _globals(self, data: dict[str, Any]) -> Settings:
        for name, value in data.items():
            self.given[(name,)] = (name,)
            if isinstance(value, dict):
                self.given.update({(name, inner): (name, inner) for inner in value})
        if isinstance(pairs := data.get("env"), dict):
            data = {**data, "env": self._as_written(pairs, ("env",))}
        data = self._laid_over(data)
        keys, problems = take(GlobalKeys, data, {})
        for problem in problems:
            if len(problem.key) == 1 and problem.message.startswith("unknown key"):
                # `models` is a valid key, though not one of these.
                valid = list(FileKeys.model_fields)
                near = did_you_mean(problem.key[0], valid, f"valid: {', '.join(valid)}")
                problem = dataclasses.replace(problem, hint=near)
            self._add(problem, problem.key)
        programs = {"llama.cpp": keys.executables.llama_cpp, "vllm": keys.executables.vllm}
        self.executables = {name: self._program(text, ("executables", name)) for name, text in programs.items()}
        self.rungs, self.cpu_fallback = keys.on_out_of_memory, keys.cpu_fallback
        self.sandbox, self.limits = keys.sandbox, keys.limits
        self.gpu_layers, self.gpu_backend = keys.gpu_layers, keys.gpu_backend
        env = {name: self._expanded(("env", name), text) for name, text in keys.env.items()}
        self.engines_env = MappingProxyType({name: text for name, text in env.items() if text is not None})
        self.allowed = tuple(self._paths(keys.roots)) or self.default_roots
        timeouts = keys.timeouts
        return Settings(
            models={},
            listen=tuple(self._listens(keys.listen)),
            memory=MappingProxyType(dict(keys.memory)),
            headroom=keys.headroom,
            max_active=keys.max_active,
            max_wait_s=keys.max_wait,
            min_residency_s=keys.min_residency,
            max_queue=keys.max_queue,
            max_body_bytes=keys.max_body,
            default_model=keys.default_model,
            return_to_default_s=keys.return_to_default,
            timeouts=Timeouts(timeouts.start, timeouts.stop, timeouts.queue, timeouts.drain, timeouts.hang),
            roots=self.allowed,
            executables=MappingProxyType(self.executables),
            registries=MappingProxyType(self._registries(keys.registries)),
            allow_registries=keys.allow_registries,
            auto_pull=keys.auto_pull,
            require_signed=tuple(self._signed(keys.require_signed)),
            model_roots=tuple(self._paths(keys.model_roots, "model_roots")),
            download=keys.download,
            conversations_bytes=keys.conversations,
            on_out_of_memory=keys.on_out_of_memory,
            cpu_fallback=keys.cpu_fallback,
            gpu_layers=keys.gpu_layers,
            gpu_backend=keys.gpu_backend,
            env=self.engines_env,
            sandbox=keys.sandbox,
            limits=keys.limits,
            responses_ttl_s=keys.responses_ttl,
            resume=keys.resume,
            comments_after_s=keys.comments_after,
            require_keys=keys.require_keys,
            allowed_hosts=keys.allowed_hosts,
            allowed_origins=keys.allowed_origins,
            trusted_proxies=keys.trusted_proxies,
            log=keys.log,
            traces=keys.traces,
        )

    def _registries(self, registries: Mapping[str, Registry]) -> dict[str, Registry]:
        return {
            host: each if each.ca is None else dataclasses.replace(each, ca=self._file(each.ca, ("registries", host)))
            for host, each in registries.items()
        }

    def _signed(self, entries: Sequence[Signed]) -> Iterator[Signed]:
        for each in entries:
            yield dataclasses.replace(each, key=self._file(each.key, ("require_signed",)))

    def _file(self, text: str, key: Key) -> str:
        path = self._try(key, sources.absolute, text, self._base(key), self.env)
        if path is not None and not path.is_file():
            self._doubt(f"there is no file {path}", "what needs it will fail", key)
        return text if path is None else str(path)

    def _laid_over(self, data: dict[str, Any]) -> dict[str, Any]:
        data = dict(data)
        for each in self.overrides:
            first, *rest = each.key
            self.over[each.key] = each.place
            if rest:
                inner = data.get(first)
                data[first] = {**(inner if isinstance(inner, dict) else {}), rest[0]: each.value}
            else:
                data[first] = each.value
        return data

    def _listens(self, listen: Sequence[Listen]) -> Iterator[Listen]:
        for each in listen:
            if each.path is not None:
                path = self._try(("listen",), sources.absolute, str(each.path), self._base(("listen",)), self.env)
                each = dataclasses.replace(each, path=path or each.path)
            if each.tls is not None:
                cert, key = (Path(self._file(str(file), ("listen",))) for file in (each.tls.cert, each.tls.key))
                each = dataclasses.replace(each, tls=Tls(cert, key))
            if each.page is not None:
                index = Path(self._file(str(each.page / "index.html"), ("listen",)))
                each = dataclasses.replace(each, page=index.parent)
            yield each

    def _expanded(self, key: Key, text: str) -> str | None:
        """What a variable for engines stands for; one that the environment gives is literal."""
        return text if key in self.over else self._try(key, sources.expand, text, self.env)

    def _paths(self, texts: Sequence[str], name: str = "roots") -> Iterator[Path]:
        key = (name,)
        for text in texts:
            path = self._try(key, sources.absolute, text, self._base(key), self.env)
            if path is None:
                continue
            if not path.is_dir():
                self._doubt(f"the root {path} is not a directory", "create it, or correct it", key)
            yield path.resolve()

    # Models.

    def _models(self, models: Any, settings: Settings) -> Iterator[tuple[str, ModelSettings]]:
        first: dict[str, Place] = {}
        for at, entry in self._entries(models):
            where = self.document.place(at)
            if not isinstance(entry, dict):
                self._wrong(f"a model must be a mapping of keys to values, not {in_words(entry)}", "", at)
                continue
            keys, problems = take(ModelKeys, self._spelt(entry, at), _FILL)
            for problem in problems:
                self._add(problem, (*at, *problem.key))
            named = not any(problem.key[0] == "name" for problem in problems)
            if isinstance(entry.get("name"), str):
                self.names.add(entry["name"])
            if not named:
                continue
            if keys.name in first:
                self._wrong(
                    f"the name {keys.name!r} is given twice",
                    f"the first is in line {first[keys.name].line}",
                    (*at, "name"),
                )
                continue
            first[keys.name] = where
            self._give(keys.name, entry, at)
            if "source" not in entry and keys.runner != elsewhere.RUNNER:
                self._wrong("`source` is missing", "every model needs a name and a source", (*at, "source"))
            yield keys.name, self._model(keys, at, entry)

    def _entries(self, models: Any) -> Iterator[tuple[Key, Any]]:
        if models is None:
            return
        if isinstance(models, list):
            for position, entry in enumerate(models):
                yield ("models", str(position)), entry
        elif isinstance(models, dict):
            for name, entry in models.items():
                at = ("models", name)
                if isinstance(entry, dict) and entry.get("name", name) != name:
                    self._wrong(
                        f"the model under `{shorten(name)}` has another `name`", "keep one of them", (*at, "name")
                    )
                yield at, {**entry, "name": name} if isinstance(entry, dict) else entry
        else:
            self._wrong(f"`models` must be a list of models, not {in_words(models)}", "", ("models",))

    def _spelt(self, entry: dict[str, Any], at: Key) -> dict[str, Any]:
        # Flags and variables are texts however they look: 0.70 must not become 0.7.
        texts = self.document.texts
        entry = dict(entry)
        if isinstance(items := entry.get("args"), list):
            entry["args"] = [texts.get((*at, "args", str(i)), item) for i, item in enumerate(items)]
        if isinstance(pairs := entry.get("env"), dict):
            entry["env"] = self._as_written(pairs, (*at, "env"))
        return entry

    def _as_written(self, pairs: dict[str, Any], at: Key) -> dict[str, Any]:
        texts = self.document.texts
        return {name: item if item is None else texts.get((*at, name), item) for name, item in pairs.items()}

    def _give(self, name: str, entry: dict[str, Any], at: Key) -> None:
        self.given[("models", name)] = at
        for key, value in entry.items():
            self.given[("models", name, key)] = (*at, key)
            if key == "env" and isinstance(value, dict):
                self.given.update({("models", name, key, inner): (*at, key, inner) for inner in value})

    def _model(self, keys: ModelKeys, at: Key, entry: Mapping[str, Any]) -> ModelSettings:
        text, folder, wrong = keys.source, keys.engine in _OF_FOLDERS, len(self.problems)
        ref = self._try((*at, "source"), sources.source_ref, text, self.base, self.short_names) if text else None
        is_path = text and ref is None and len(self.problems) == wrong  # else enough is said: it is no path either
        source = Path(str(ref)) if ref is not None else self._source(text, at, folder) if text and is_path else None
        given = {key for key in keys.model_fields_set if getattr(keys, key) is not None}
        given |= {"endpoint"} if entry.get("endpoint") is not None else set()  # it may be wrong
        for problem in elsewhere.faults(keys.engine, keys.runner, given, stored=ref is not None):
            self._add(problem, (*at, *problem.key))
        own = keys.executable
        endpoint = keys.endpoint and self._try((*at, "endpoint"), elsewhere.located, keys.endpoint, self.base, self.env)
        key_file = keys.api_key_file and self._try(
            (*at, "api_key_file"), sources.absolute, keys.api_key_file, self.base, self.env
        )
        env = {name: self._try((*at, "env", name), sources.expand, text, self.env) for name, text in keys.env.items()}
        made = ModelSettings(
            name=keys.name,
            source=source or (Path(endpoint) if endpoint else self.base),
            aliases=keys.aliases,
            engine=keys.engine,
            executable=self.executables.get(keys.engine, "auto")
            if own is None
            else self._program(own, (*at, "executable")),
            runner=keys.runner,
            image=keys.image,
            context=keys.context,
            gpu_layers=self.gpu_layers if keys.gpu_layers is None else keys.gpu_layers,
            gpu_backend=keys.gpu_backend or self.gpu_backend,
            devices=keys.devices,
            split=keys.split,
            tensor_split=keys.tensor_split,
            parallel=keys.slots,
            args=keys.args,
            env=MappingProxyType(
                {**self.engines_env, **{name: text for name, text in env.items() if text is not None}}
            ),
            port=keys.port,
            idle_timeout_s=keys.idle_timeout,
            preload=keys.preload,
            pin=keys.pin,
            priority=keys.priority,
            exclusive=keys.exclusive,
            group=keys.group,
            replicas=keys.replicas,
            schedule=keys.schedule,
            on_out_of_memory=self.rungs if keys.on_out_of_memory is None else keys.on_out_of_memory,
            cpu_fallback=self.cpu_fallback if keys.cpu_fallback is None else keys.cpu_fallback,
            sandbox=keys.sandbox or self.sandbox,
            limits=self.limits if keys.limits is None else keys.limits,
            reasoning=keys.reasoning,
            max_num_seqs=keys.max_num_seqs,
            tensor_parallel=keys.tensor_parallel,
            pipeline_parallel=keys.pipeline_parallel,
            data_parallel=keys.data_parallel,
            quantization=keys.quantization,
            kv_cache_type=keys.kv_cache_type,
            kv_cache_bytes=keys.kv_cache,
            sleep=keys.sleep,
            endpoint=endpoint or None,
            served_model=keys.served_model,
            api_key_env=keys.api_key_env,
            api_key_file=key_file or None,
            roots=() if text == sources.BUILTIN_DEMO or ref is not None else self.allowed,
            ref=ref,
        )
        return made if keys.runner != elsewhere.RUNNER else elsewhere.taken(made, keys.model_fields_set)

    def _source(self, text: str, at: Key, folder: bool = False) -> Path | None:
        key = (*at, "source")
        path = self._try(key, sources.source_path, text, self.base, self.env)
        if path is None or text == sources.BUILTIN_DEMO:
            return path
        if not sources.is_inside(path, self.allowed):
            self._wrong(f"{path} is outside what is allowed", sources.allowed_hint(self.allowed), key)
        elif doubt := sources.unusable(path, folder):
            self._doubt(*doubt, key)
        return path

    def _program(self, text: str, key: Key) -> str:
        # A bare word is looked up on PATH when the engine starts; anything with a slash is a path.
        if text in _PROGRAM_WORDS or ("/" not in text and "$" not in text and not text.startswith("~")):
            return text
        path = self._try(key, sources.absolute, text, self._base(key), self.env)
        return text if path is None else str(path)

    def _base(self, key: Key) -> Path:
        place = self.over.get(key)
        if place is None:
            return self.base
        return self.cwd if place.line is None else Path(place.file).parent

    # Telling.

    def _try(self, key: Key, rule: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R | None:
        try:
            return rule(*args, **kwargs)
        except ValueError as error:
            self._wrong(f"`{key[-1]}` {error}", "", key)
            return None

    def _place(self, key: Key) -> Place:
        for length in range(len(key), 0, -1):
            if key[:length] in self.over:
                return self.over[key[:length]]
        return self.document.place(key)

    def _where(self, key: Key) -> Place:
        # `key` has models by name; a key that was not given stands where its model does.
        for length in range(len(key), 0, -1):
            if key[:length] in self.over:
                return self.over[key[:length]]
            if key[:length] in self.given:
                return self.document.place(self.given[key[:length]])
        return Place(self.document.file)

    def _add(self, problem: Problem, key: Key) -> None:
        self.problems.append(dataclasses.replace(problem, place=self._place(key), key=key, hint=problem.hint or _HINT))

    def _wrong(self, message: str, hint: str, key: Key) -> None:
        self._add(Problem(message, hint), key)

    def _doubt(self, message: str, hint: str, key: Key) -> None:
        self._add(Problem(message, hint, level="warning"), key)
