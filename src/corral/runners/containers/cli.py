"""The `podman` or `docker` program as what drives containers. Each call is a child process with a deadline."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from corral.errors import EngineMissing, StartFailed
from corral.runners.containers import argv
from corral.runners.containers.engine import ASK_WITHIN_S
from corral.runners.containers.host import Host, Image, Kind, Seen, docker_host, image_of, podman_host, seen_of
from corral.runners.containers.local import has_init, has_subuids, owner
from corral.runners.containers.spec import ContainerSpec

_GONE = ("no such container", "no container with name or id", "does not exist in database", "no such object")
_NO_IMAGE = ("no such image", "image not known", "no such object", "failed to find image", "unable to find image")
_NOT_RUNNING = ("is not running", "can only kill running", "container state improper", "cannot kill container")


class Cli:
    """One program. It keeps nothing but what the container engine said of itself."""

    def __init__(self, kind: Kind, environment: Mapping[str, str] | None = None) -> None:
        self._kind: Kind = kind
        self._environment = environment
        self._host: Host | None = None
        self._asking = threading.Lock()

    @property
    def name(self) -> str:
        return self._kind

    @property
    def program(self) -> str:
        """Raises EngineMissing."""
        if (found := shutil.which(self._kind)) is None:
            package = "docker.io" if self._kind == "docker" else "podman"
            raise EngineMissing(
                f"the program {self._kind} is not on PATH",
                hint=f"install it (Debian: apt-get install {package}), or set `runner: process`; see `corral doctor`",
            )
        return found

    @property
    def keeps_logs(self) -> bool:
        return self._kind == "podman"

    def host(self) -> Host:
        with self._asking:
            if self._host is None:
                self._host = self._ask_host()
            return self._host

    def _ask_host(self) -> Host:
        told = self._json("info", "--format", "json" if self._kind == "podman" else "{{json .}}")
        if self._kind == "podman":
            return podman_host(told, subuids=has_subuids(), init=has_init(), owner=owner())
        if told.get("ServerErrors"):
            raise self._refused("docker info", str(told["ServerErrors"][0]))
        return docker_host(told, self._json("version", "--format", "{{json .Server}}"), owner=owner())

    def image(self, reference: str) -> Image | None:
        done = self._run("image", "inspect", reference)
        if done.returncode:
            if any(each in done.stderr.lower() for each in _NO_IMAGE):
                return None
            raise self._refused("image inspect", done.stderr)
        return image_of(json.loads(done.stdout)[0])

    def run(self, spec: ContainerSpec, log: Path) -> None:
        """Podman lets a container inherit its own output, which is the log file then: nobody stands between."""
        driver = "passthrough" if self._kind == "podman" else "json-file"
        command = argv.run_command(self.program, self._kind, spec, log_driver=driver)
        before = log.stat().st_size if log.exists() else 0
        output = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            done = self._child(command.argv, command.env, output if self._kind == "podman" else subprocess.PIPE)
        finally:
            os.close(output)
        if done.returncode:
            with log.open("rb") as file:
                file.seek(before)
                said = done.stderr or file.read(1 << 16).decode(errors="replace")
            raise self._refused("run", said, model=spec.labels.get("model", ""))

    def ask(self, spec: ContainerSpec, within_s: float = ASK_WITHIN_S) -> tuple[int, str]:
        command = argv.ask_command(self.program, self._kind, spec)
        done = self._child(command.argv, command.env, subprocess.PIPE, within_s)
        if done.returncode in (125, 126, 127):  # the container engine's own
            raise self._refused("run", done.stderr)
        return done.returncode, done.stdout + done.stderr

    def inspect(self, name: str) -> Seen | None:
        done = self._run("container", "inspect", name)
        if done.returncode:
            if any(each in done.stderr.lower() for each in _GONE):
                return None
            raise self._refused("inspect", done.stderr)
        return seen_of(json.loads(done.stdout)[0])

    def ours(self, label: str) -> list[str]:
        done = self._run("ps", "--all", "--filter", f"label={label}", "--format", "{{.Names}}")
        if done.returncode:
            raise self._refused("ps", done.stderr)
        return done.stdout.split()

    def wait(self, name: str, within_s: float) -> int | None:
        try:
            done = self._child((self.program, "wait", name), {}, subprocess.PIPE, within_s)
        except StartFailed:
            return None
        text = done.stdout.strip()
        return int(text) if done.returncode == 0 and text.lstrip("-").isdigit() and int(text) >= 0 else None

    def kill(self, name: str, signal: str) -> None:
        done = self._run("kill", "--signal", signal, name)
        if done.returncode and not any(each in done.stderr.lower() for each in (*_GONE, *_NOT_RUNNING)):
            raise self._refused("kill", done.stderr)

    def remove(self, name: str) -> None:
        done = self._run("rm", "--force", "--volumes", name)
        if done.returncode and not any(each in done.stderr.lower() for each in _GONE):
            raise self._refused("rm", done.stderr)

    def follow(self, name: str, log: Path, since: str) -> Callable[[float], None]:
        words = [self.program, "logs", "--follow", *(("--since", since) if since else ()), name]
        output = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            child = subprocess.Popen(
                words, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=self._env({}), start_new_session=True
            )
        finally:
            os.close(output)

        def end(within_s: float) -> None:
            with suppress(subprocess.TimeoutExpired):
                child.wait(within_s)
            _end(child)

        return end

    def pull(self, reference: str, say: Callable[[str], None]) -> None:
        child = subprocess.Popen(
            [self.program, "pull", reference],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=self._env({}),
            text=True,
            errors="replace",
            start_new_session=True,
        )
        last = ""
        try:
            assert child.stdout is not None
            for line in child.stdout:
                if line.strip():
                    last = line.strip()
                    say(last)
            if child.wait():
                raise self._refused("pull", last)
        finally:
            _end(child)
            if child.stdout is not None:
                child.stdout.close()

    def _json(self, *words: str) -> dict[str, Any]:
        done = self._run(*words)
        if done.returncode:
            raise self._refused(" ".join(words[:1]), done.stderr)
        try:
            told = json.loads(done.stdout)
        except ValueError as exc:
            raise self._refused(words[0], "its answer is no JSON") from exc
        return told if isinstance(told, dict) else {}

    def _run(self, *words: str) -> subprocess.CompletedProcess[str]:
        return self._child((self.program, *words), {}, subprocess.PIPE)

    def _child(
        self, words: Sequence[str], more: Mapping[str, str], output: int, within_s: float = ASK_WITHIN_S
    ) -> subprocess.CompletedProcess[str]:
        child = subprocess.Popen(
            list(words),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.PIPE if output == subprocess.PIPE else output,
            env=self._env(more),
            text=True,
            errors="replace",
            start_new_session=True,
            cwd="/",
        )
        try:
            out, err = child.communicate(timeout=within_s)
        except subprocess.TimeoutExpired as exc:
            raise self._refused(" ".join(words[1:2]), f"no answer within {within_s:.0f} s") from exc
        finally:
            _end(child)
            for stream in (child.stdout, child.stderr):
                if stream is not None:
                    stream.close()
        return subprocess.CompletedProcess(list(words), child.returncode, out or "", err or "")

    def _env(self, more: Mapping[str, str]) -> dict[str, str]:
        return {**(os.environ if self._environment is None else self._environment), **more}

    def _refused(self, what: str, said: str, **details: Any) -> StartFailed:
        """With its last line of substance, which is the reason."""
        lines = [line.strip() for line in said.splitlines() if line.strip() and "level=warning" not in line]
        why = lines[-1].removeprefix("Error: ") if lines else "it said nothing"
        return StartFailed(
            f"{self._kind} {what} failed: {why}",
            hint=f"`corral doctor` looks at {self._kind}'s set-up",
            **{name: value for name, value in details.items() if value},
        )


def _end(child: subprocess.Popen[str] | subprocess.Popen[bytes]) -> None:
    if child.poll() is None:
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
    child.wait()
