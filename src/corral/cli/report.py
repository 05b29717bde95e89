"""`corral doctor --report`: one file with what a bug report needs, and no secrets. Works with and without a server."""

from __future__ import annotations

import json
import os
import platform
import re
import sys
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote

from corral import __version__, clock, journal, story
from corral.api import EventInfo, dump
from corral.errors import CorralError
from corral.hidden import MASK, Cleaner, arguments, in_addresses, is_secret, proxy

if TYPE_CHECKING:
    from corral.cli.app import App
    from corral.cli.finding import Finding
    from corral.config.settings import Settings

EVENTS: Final = 2000
LOG_BYTES: Final = 128 << 10
"""Of each log, its end."""
GENERATIONS: Final = 2
STORY_LINES: Final = 200
MODELS: Final = 50
_SHOWN_VARIABLES: Final = (
    "CORRAL_", "LLAMA_", "GGML_", "VK_", "CUDA_", "NVIDIA_", "HIP_", "ROCR_", "HSA_", "ONEAPI_", "OTEL_", "VLLM_",
    "HF_", "PYTHON", "LD_LIBRARY_PATH", "PATH", "LANG", "LC_", "XDG_", "DOCKER_HOST", "CONTAINER_HOST", "HTTP_PROXY",
    "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY",
)  # fmt: skip
_LONG: Final = 8
"""A value of a variable that is shorter, and not called a secret, is a word such as `auto`."""
_PAIR: Final = re.compile(r"""([A-Za-z0-9_][A-Za-z0-9_.-]*)["']?\s*[:=]\s*("[^"\n]*"|'[^'\n]*'|[^\s,}\]{\["']+)""")
_FLAG: Final = re.compile(r"""--?([A-Za-z0-9_-]+)["']?(?:\s*,\s*|=|\s+)["']?([^\s,\]"']+)""")
_README: Final = """\
A report of Corral {version}, made {when} by `corral doctor --report`, to go with a bug report.

Everything in it is text. Taken out: keys, tokens and passwords, all values of environment variables for engines,
headers and addresses with credentials, private keys, and the names of home directories. What an engine writes into its
log is up to the engine, and no rule finds everything: look through it before you send it to anybody.

{contents}
"""


def default_name(now: float | None = None) -> str:
    """What a report is called where nobody says."""
    return f"corral-report-{time.strftime('%Y%m%d-%H%M%S', time.localtime(now))}.zip"


def begin(file: Path) -> None:
    """Makes `file`, for this user alone. Raises OSError: one that is there is not written over."""
    os.close(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))


def write(app: App, file: Path, findings: Sequence[Finding], settings: Settings | None) -> list[tuple[str, str]]:
    """Writes the report into `file`, which `begin` made, and says what is in it: names, and what each is."""
    cleaner = Cleaner(_secrets(settings, _file(app)), _homes())
    parts: list[tuple[str, str, str]] = []
    for name, words, gather in _parts(app, findings, settings):
        try:
            text = gather()
        except (CorralError, OSError, ValueError) as error:
            text = f"could not be gathered: {error}\n"
        if text:
            parts.append((cleaner.text(name), words, _cleaned(cleaner, name, text)))
    contents = [(name, words) for name, words, _ in parts]
    wide = max(len(name) for name, _ in contents)
    listed = "\n".join(f"{name:<{wide}}  {words}" for name, words in contents)
    readme = _README.format(version=__version__, when=clock.iso(clock.wall()), contents=listed)
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("README.txt", readme)
        for name, _, text in parts:
            archive.writestr(name, text)
    return [("README.txt", "what is in it"), *contents]


def _cleaned(cleaner: Cleaner, name: str, text: str) -> str:
    """`text` without secrets. What has a form is cleaned value by value, so that it still has it."""
    with suppress(ValueError):
        if name.endswith(".json"):
            return _json(cleaner.data(json.loads(text)))
        if name.endswith(".jsonl"):
            lines = [json.dumps(cleaner.data(json.loads(line)), ensure_ascii=False) for line in text.splitlines()]
            return "".join(f"{line}\n" for line in lines)
        if name.endswith(".yaml") and not text.startswith("# It"):
            where, _, rest = text.partition("\n")
            return f"{cleaner.text(where)}\n{_yaml(cleaner.data(_of_yaml(rest)))}"
    return cleaner.text(text)


Part = tuple[str, str, Callable[[], str]]


def _parts(app: App, findings: Sequence[Finding], settings: Settings | None) -> Iterator[Part]:
    state = app.paths.state_dir
    yield "versions.txt", "Corral, Python, the system", _versions
    yield "packages.txt", "Python packages beside it", _packages
    yield "doctor.txt", "what `corral doctor` found", lambda: _doctor(findings)
    yield "hardware.json", "memory, processor, GPUs", _hardware
    yield "engines.json", "engines that are here", lambda: _engines(app)
    yield "environment.txt", "variables that matter, without secrets", _environment
    yield "config.yaml", "the configuration as it is used", lambda: _config(settings)
    yield "server.json", "what the running server says of itself", lambda: _server(app)
    events = list(journal.read(state))
    yield "events.jsonl", f"the last {EVENTS} events", lambda: _events(events[-EVENTS:])
    for model in _failed(events):
        name = f"stories/{_plain(model)}.txt"
        yield name, f"what happened to {model}", partial(_story, events, model)
    yield "serve.log", "the end of the log of a server that a command started", lambda: _tail(state / "serve.log")
    yield "warden.log", "the end of the warden's log", lambda: _tail(state / "warden.log")
    for path in _logs(app.paths.logs_dir):
        name = f"logs/{_plain(unquote(path.parent.name))}/{path.name}"
        yield name, "the end of an engine's log", partial(_tail, path)


def _versions() -> str:
    lines = {
        "corral": __version__,
        "python": f"{platform.python_implementation()} {platform.python_version()} ({sys.executable})",
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "distribution": _distribution(),
        "libc": " ".join(platform.libc_ver()),
        "user": "root" if hasattr(os, "geteuid") and os.geteuid() == 0 else "not root",
        "time": clock.iso(clock.wall()),
    }
    return "".join(f"{name}: {value}\n" for name, value in lines.items() if value.strip())


def _distribution() -> str:
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME", "")
    except OSError:
        return ""


def _packages() -> str:
    found = {f"{each.metadata['Name']} {each.version}" for each in metadata.distributions() if each.metadata["Name"]}
    return "".join(f"{line}\n" for line in sorted(found, key=str.lower))


def _doctor(findings: Sequence[Finding]) -> str:
    lines = []
    for each in findings:
        lines.append(f"{each.area:<10} {each.level:<8} {each.name}: {' '.join(each.text.split())}")
        if each.fix:
            lines.append(f"{'':<20}-> {each.fix}")
    return "\n".join(lines) + "\n"


def _hardware() -> str:
    from dataclasses import asdict

    from corral.hardware.probe import probe

    return _json(asdict(probe()))


def _engines(app: App) -> str:
    from corral.engine_list import engines

    return _json([dump(each) for each in engines(app.paths)])


def _environment() -> str:
    lines = []
    for name, value in sorted(os.environ.items()):
        if name.upper().startswith(_SHOWN_VARIABLES):
            # Headers for collectors hold keys under any name.
            hidden = is_secret(name) or "HEADERS" in name
            shown = proxy(value) if name.upper().endswith("_PROXY") else value
            lines.append(f"{name}: {MASK if hidden else shown}\n")
    return "".join(lines)


def _config(settings: Settings | None) -> str:
    from corral.config.render import as_data

    if settings is None:
        return "# It cannot be used: doctor.txt says why.\n"
    data = as_data(settings, masked=True)
    for each in (data, *data["models"]):
        each["env"] = dict.fromkeys(each["env"], MASK)
    where = f"# {settings.file}\n" if settings.file is not None else "# built-in defaults\n"
    return where + _yaml(data)


def _server(app: App) -> str:
    try:
        client = app.client()
        status = client.status()
    except CorralError as error:
        return _json({"running": False, "why": error.message})
    found: dict[str, Any] = {"running": True, "status": dump(status)}
    for name, ask in (
        ("units", client.units), ("models", client.models), ("devices", client.devices),
        ("downloads", client.downloads), ("health", client.health),
    ):  # fmt: skip
        try:
            found[name] = dump(ask())
        except CorralError as error:
            found[name] = {"error": error.message}
    return _json(found)


def _events(events: Sequence[EventInfo]) -> str:
    return "".join(json.dumps(dump(each), ensure_ascii=False, default=str) + "\n" for each in events)


def _failed(events: Sequence[EventInfo]) -> list[str]:
    """The models of which an engine failed, hung or was degraded, the latest first."""
    found: dict[str, None] = {}
    for each in reversed(events):
        if each.model is not None and (
            each.data.get("after") in ("backoff", "failed")
            or each.kind in ("unit.hung", "unit.ended", "unit.warning", "unit.fallback", "unit.ails", "bug")
        ):
            found.setdefault(each.model)
    return list(found)[:MODELS]


def _story(events: Sequence[EventInfo], model: str) -> str:
    told = story.tell(events, model, lines=STORY_LINES)
    lines = []
    for chapter in told.chapters:
        start = f"start {chapter.generation}" if chapter.generation is not None else "before"
        lines.append(f"{start}, {clock.iso(chapter.began_wall_s)}")
        lines += [f"  +{line.after_s:.3f} s  {line.text}" for line in chapter.lines]
    return "\n".join(lines) + "\n" if lines else ""


def _logs(folder: Path) -> list[Path]:
    """The newest logs of each model, the models that wrote last first."""
    found: list[list[Path]] = []
    with suppress(OSError):
        for model in folder.iterdir():
            logs = [each for each in model.glob("*.log") if each.stem.isdecimal()]
            newest = sorted(logs, key=lambda each: int(each.stem))[-GENERATIONS:]
            if newest:
                found.append(newest)
    found.sort(key=lambda logs: logs[-1].stat().st_mtime, reverse=True)
    return [each for logs in found[:MODELS] for each in logs]


def _tail(path: Path) -> str:
    """The end of a log in whole lines; empty where there is none."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - LOG_BYTES))
            data = file.read()
    except FileNotFoundError:
        return ""
    if size > LOG_BYTES:
        data = data.partition(b"\n")[2]
    return data.lstrip(b"\0").decode("utf-8", "replace")


def _secrets(settings: Settings | None, file: Path | None) -> Iterator[str]:
    """Values that must not be in the report, wherever they stand."""
    for name, value in os.environ.items():
        if name in ("PWD", "OLDPWD"):
            continue  # no password: where the shell stands
        if is_secret(name):
            yield value
            continue
        yield from in_addresses(value)
        if name.upper().endswith("_PROXY") and "://" not in value:
            yield from in_addresses(f"//{value}")
        if "HEADERS" in name:
            yield from (each.partition("=")[2].strip() for each in value.split(","))
    if file is not None:
        with suppress(OSError, ValueError):
            # As it stands: what cannot be read as a configuration may have secrets all the same.
            text = file.read_text("utf-8")
            for name, value in (*_PAIR.findall(text), *_FLAG.findall(text)):
                if is_secret(name) or (name.isupper() and len(value) >= _LONG):
                    yield value.strip("\"'")
            yield from in_addresses(text)
    if settings is None:
        return
    for env in (settings.env, *(each.env for each in settings.models.values())):
        yield from (value for name, value in env.items() if is_secret(name) or len(value) >= _LONG)
        for value in env.values():
            yield from in_addresses(value)
    for model in settings.models.values():
        for given, shown in zip(model.args, arguments(model.args), strict=True):
            if shown == MASK:
                yield given
            elif shown.endswith(f"={MASK}"):
                yield given.partition("=")[2]
            yield from in_addresses(given)


def _file(app: App) -> Path | None:
    """The configuration file, whether it can be used or not."""
    from corral.config.load import examine

    try:
        return examine(paths=app.paths).loaded.file
    except CorralError:
        return app.paths.user_config


def _homes() -> Iterator[str]:
    with suppress(RuntimeError):
        home = Path.home()
        yield str(home)
        yield str(home.resolve())


def _plain(name: str) -> str:
    """A model's name as a file's."""
    return "".join(char if char.isalnum() or char in "._-~" else "_" for char in name).lstrip(".")[:100] or "_"


def _yaml(value: Any) -> str:
    import yaml

    return str(yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=120))


def _of_yaml(text: str) -> Any:
    import yaml

    return yaml.safe_load(text)


def _json(value: Any) -> str:
    return json.dumps(value, indent=1, ensure_ascii=False, default=_odd) + "\n"


def _odd(value: Any) -> Any:
    return sorted(value) if isinstance(value, set | frozenset) else str(value)
