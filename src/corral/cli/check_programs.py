"""The doctor's look at engines and tools, each asked in a child process with a deadline."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

from corral.cli.finding import Finding, install
from corral.hardware.backends import backends_in

DEADLINE_S = 20.0
# In a child: an engine's libraries may crash or hang when they meet a broken driver.
_ASK_EMBEDDED = """
import json, xllamacpp
devices = [(d["name"], d["description"], d["type"].name) for d in xllamacpp.get_device_info()]
print(json.dumps({"version": xllamacpp.__version__, "build": xllamacpp.BUILD_INFO, "devices": devices,
                  "system": xllamacpp.get_system_info()}))
"""


def engines(python: str = sys.executable) -> list[Finding]:
    """The embedded llama.cpp of the interpreter `python`, and a `llama-server` on PATH."""
    return [_embedded(python), _llama_server()]


def _embedded(python: str) -> Finding:
    name, again = "llama.cpp embedded", f"{python} -m pip install --force-reinstall xllamacpp"
    code, out, err = _ask([python, "-I", "-c", _ASK_EMBEDDED])
    if code is None:
        return Finding("engines", name, "error", f"does not answer: {err}", again)
    try:
        told = json.loads(out.strip().splitlines()[-1]) if code == 0 else None
    except (ValueError, IndexError):
        told = None
    if not isinstance(told, dict):
        last = (err.strip().splitlines() or ["it said nothing"])[-1]
        how = f"was killed by signal {-code}" if code < 0 else f"ended with {code}"
        absent = "No module named" in last
        text = "is not installed" if absent else f"does not load ({how}): {last}"
        return Finding("engines", name, "error", text, again.replace(" --force-reinstall", "") if absent else again)
    gpus = [device for _, device, kind in told["devices"] if not kind.endswith("_CPU")]
    build = told["build"].get("compiler", "")
    sets = [word for word in ("AVX512", "AVX2", "NEON") if f"{word} = 1" in told["system"]]
    text = f"{told['version']} ({', '.join(filter(None, [build, *sets]))}); devices: {', '.join(['cpu', *gpus])}"
    return Finding("engines", name, "ok", text)


def _llama_server() -> Finding:
    path = shutil.which("llama-server")
    if path is None:
        text = "not on PATH: the embedded engine is used"
        brew, build = "brew install llama.cpp", "corral engine install llama.cpp   (builds it, in minutes)"
        return Finding("engines", "llama-server", "missing", text, brew if sys.platform == "darwin" else build)
    code, out, err = _ask([path, "--version"])
    if code != 0:
        last = ((err or out).strip().splitlines() or ["it said nothing"])[-1]
        text = f"{path} does not tell its version: {last}"
        return Finding("engines", "llama-server", "warn", text, f"{path} --version")
    version = next((line for line in (out + err).splitlines() if line.startswith("version")), "version unknown")
    through = backends_in({Path(path).resolve().parent})
    gpus = f"; reaches GPUs through {', '.join(through)}" if through else ""
    return Finding("engines", "llama-server", "ok", f"{path}, {version}{gpus}")


_TOOLS = (
    ("podman", "engines in containers: models with `runner: podman`", ["--version"]),
    ("docker", "engines in containers: models with `runner: docker`", ["--version"]),
    ("git", "working on Corral itself", ["--version"]),
    ("curl", "trying the examples of the documentation", ["--version"]),
)


def tools() -> list[Finding]:
    """Programs that Corral or its documentation uses; none of them is needed to serve a model."""
    found = []
    for name, purpose, version in _TOOLS:
        path = shutil.which(name)
        if path is None:
            fix = install("docker.io" if name == "docker" else name, brew=name)
            found.append(Finding("tools", name, "missing", f"not on PATH; it is for {purpose}", fix))
            continue
        code, out, err = _ask([path, *version], 5.0)
        first = (out.strip().splitlines() or err.strip().splitlines() or [""])[0]
        if code == 0:
            found.append(Finding("tools", name, "ok", first[:80]))
        else:
            found.append(Finding("tools", name, "warn", f"{path} does not work: {first or err}", f"{path} --version"))
    return found


def _ask(argv: list[str], deadline_s: float = DEADLINE_S) -> tuple[int | None, str, str]:
    """Exit status (None: it could not be started, or had to be ended at the deadline), output and errors."""
    try:
        run = subprocess.run(argv, capture_output=True, timeout=deadline_s, stdin=subprocess.DEVNULL)
    except subprocess.TimeoutExpired:
        return None, "", f"no answer within {deadline_s:.0f} s"
    except OSError as error:
        return None, "", error.strerror or str(error)
    return run.returncode, run.stdout.decode("utf-8", "replace"), run.stderr.decode("utf-8", "replace")
