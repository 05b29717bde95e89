"""Credentials that are on this machine: in docker's, podman's and Corral's own files, and in helper programs."""

from __future__ import annotations

import base64
import binascii
import contextlib
import fcntl
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import field
from pathlib import Path
from typing import Any

from corral.errors import ConfigError
from corral.lazy_dataclass import dataclass
from corral.registry.policy import canonical

MAX_FILE_BYTES = 4 << 20
MAX_HELPER_BYTES = 256 << 10
HELPER_S = 20.0

_HELPER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_DOCKER_KEY = "https://index.docker.io/v1/"


@dataclass(frozen=True, slots=True)
class Basic:
    """A user and a password."""

    user: str
    password: str = field(repr=False)

    @property
    def header(self) -> str:
        return "Basic " + base64.b64encode(f"{self.user}:{self.password}".encode()).decode()


@dataclass(frozen=True, slots=True)
class IdentityToken:
    """What a token server gave at login: shown to it again for each new token."""

    token: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class RegistryToken:
    """A token for the registry itself."""

    token: str = field(repr=False)


Credentials = Basic | IdentityToken | RegistryToken


class Keyring:
    """Looks credentials up, newest files and programs each time; writes only Corral's own file."""

    def __init__(
        self, own_file: Path | None, env: Mapping[str, str], warn: Callable[[str], None] = lambda text: None
    ) -> None:
        self._own = own_file
        self._env = env
        self._warn = warn

    def find(self, host: str, repository: str = "") -> Credentials | None:
        """What is kept for `repository` of `host`, in the first of `files()` that has something for it."""
        for path in self.files():
            data = self._read(path)
            if data and (found := self._in_file(data, path, canonical(host), repository)) is not None:
                return found
        return None

    def files(self) -> list[Path]:
        """Corral's own file, then podman's, then docker's."""
        env = self._env
        home = Path(env.get("HOME") or Path.home())
        found = [self._own] if self._own else []
        if named := env.get("REGISTRY_AUTH_FILE"):
            found.append(Path(named))
        if runtime := env.get("XDG_RUNTIME_DIR"):
            found.append(Path(runtime) / "containers" / "auth.json")
        found.append(Path(env.get("XDG_CONFIG_HOME") or home / ".config") / "containers" / "auth.json")
        found.append(Path(env.get("DOCKER_CONFIG") or home / ".docker") / "config.json")
        return found

    def store(self, host: str, credentials: Basic) -> None:
        """Keeps `credentials` in Corral's own file, which only this user may read. Raises ConfigError."""
        text = base64.b64encode(f"{credentials.user}:{credentials.password}".encode()).decode()
        with self._changing() as auths:
            auths[canonical(host)] = {"auth": text}

    def remove(self, host: str) -> bool:
        """Forgets what Corral's own file has for `host`; whether it had something. Raises ConfigError."""
        if self._own is None or not self._own.exists():
            return False
        with self._changing() as auths:
            return auths.pop(canonical(host), None) is not None

    @contextlib.contextmanager
    def _changing(self) -> Iterator[dict[str, Any]]:
        if self._own is None:
            raise ConfigError("there is no directory to keep credentials in", hint="set CORRAL_CONFIG_DIR")
        try:
            self._own.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            with (self._own.parent / (self._own.name + ".lock")).open("a") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                data = self._read(self._own)
                auths = data.get("auths")
                data["auths"] = auths = auths if isinstance(auths, dict) else {}
                yield auths
                self._write(self._own, json.dumps(data, indent=1).encode())
        except OSError as error:
            raise ConfigError(
                f"cannot write {self._own}: {error.strerror}", hint="is the directory this user's?"
            ) from error

    @staticmethod
    def _write(path: Path, data: bytes) -> None:
        fd, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # 0600 from the start
        try:
            with os.fdopen(fd, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise

    def _read(self, path: Path) -> dict[str, Any]:
        try:
            if path.stat().st_size > MAX_FILE_BYTES:
                self._warn(f"{path} is too large to hold credentials; it is not read")
                return {}
            data = json.loads(path.read_bytes())
        except (FileNotFoundError, NotADirectoryError):
            return {}
        except (OSError, ValueError, RecursionError) as error:
            self._warn(f"{path} cannot be read for credentials: {error}")
            return {}
        return data if isinstance(data, dict) else {}

    def _in_file(self, data: Mapping[str, Any], path: Path, host: str, repository: str) -> Credentials | None:
        helpers = _mapping(data.get("credHelpers"))
        for key, name in helpers.items():
            if _plain(key) == host and (found := self._ask(name, key, path)) is not None:
                return found
        auths = {_plain(key): _mapping(value) for key, value in _mapping(data.get("auths")).items()}
        parts = repository.split("/") if repository else []
        for count in range(len(parts), -1, -1):
            entry = auths.get("/".join([host, *parts[:count]]))
            if entry and (found := self._entry(entry, path)) is not None:
                return found
        if store := data.get("credsStore"):
            return self._ask(store, _DOCKER_KEY if host == "docker.io" else host, path)
        return None

    def _entry(self, entry: Mapping[str, Any], path: Path) -> Credentials | None:
        if isinstance(token := entry.get("identitytoken"), str) and token:
            return IdentityToken(token)
        if isinstance(token := entry.get("registrytoken"), str) and token:
            return RegistryToken(token)
        if not isinstance(text := entry.get("auth"), str) or not text:
            return None
        try:
            user, colon, password = base64.b64decode(text, validate=True).decode().rstrip("\0").partition(":")
        except (binascii.Error, UnicodeDecodeError):
            user, colon, password = "", "", ""
        if not colon:
            self._warn(f"{path} has an entry that is no user and password")
            return None
        return IdentityToken(password) if user == "<token>" else Basic(user, password)

    def _ask(self, name: object, server: str, path: Path) -> Credentials | None:
        """What docker-credential-NAME says: the server's name goes in, JSON comes out.

        A helper that is missing or fails is said and passed over: much is public, and needs no credentials.
        """
        if not isinstance(name, str) or _HELPER.fullmatch(name) is None:
            self._warn(f"{path} names a credential helper with an odd name; it is not run")
            return None
        program = shutil.which(f"docker-credential-{name}", path=self._env.get("PATH"))
        if program is None:
            self._warn(f"{path} names docker-credential-{name}, which is not installed")
            return None
        code, output = _run(program, server, self._env)
        if code != 0:
            if b"not found" not in output:
                self._warn(f"docker-credential-{name} failed for {server}")
            return None
        try:
            answer = json.loads(output)
            user, secret = answer["Username"], answer["Secret"]
        except (ValueError, KeyError, TypeError, RecursionError):
            user = secret = None
        if not isinstance(user, str) or not isinstance(secret, str):
            self._warn(f"docker-credential-{name} gave no user and secret for {server}")
            return None
        return IdentityToken(secret) if user == "<token>" else Basic(user, secret)


def _run(program: str, server: str, env: Mapping[str, str]) -> tuple[int, bytes]:
    process = subprocess.Popen(
        [program, "get"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=dict(env),
        start_new_session=True,
    )

    def end() -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)

    timer = threading.Timer(HELPER_S, end)
    timer.start()
    try:
        with process:
            assert process.stdin is not None
            assert process.stdout is not None
            with contextlib.suppress(BrokenPipeError):
                process.stdin.write(server.encode() + b"\n")
                process.stdin.close()
            output = process.stdout.read(MAX_HELPER_BYTES)
            if len(output) == MAX_HELPER_BYTES:
                end()
            return process.wait(), output
    finally:
        timer.cancel()
        timer.join()


def _mapping(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _plain(key: str) -> str:
    """A key of an auth file as host[/path]: `https://index.docker.io/v1/` is `docker.io`."""
    bare = key.removeprefix("https://").removeprefix("http://").rstrip("/")
    for version in ("/v1", "/v2"):
        bare = bare.removesuffix(version)
    host, slash, path = bare.partition("/")
    return canonical(host) + slash + path
