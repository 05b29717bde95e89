"""Where Corral keeps things on this machine. Standard library only: every command imports it."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Mapping
from pathlib import Path

from corral.errors import ConfigError
from corral.lazy_dataclass import dataclass


@dataclass(frozen=True, slots=True)
class Paths:
    """The five directories, the machine-wide file, and the names in them that more than one part must know."""

    config_dir: Path
    state_dir: Path
    cache_dir: Path
    runtime_dir: Path  # sockets; short, because a socket's path may have 103 bytes at most
    data_dir: Path  # models: large, and worth keeping
    system_config: Path = Path("/etc/corral/models.yaml")  # for every user of the machine

    @property
    def user_config(self) -> Path:
        return self.config_dir / "models.yaml"

    @property
    def store_dir(self) -> Path:
        """The model store, an OCI image layout."""
        return self.data_dir / "models"

    @property
    def engines_dir(self) -> Path:
        """Environments of engines, by engine and identity: see `environments`."""
        return self.data_dir / "engines"

    @property
    def access_file(self) -> Path:
        """Keys, what is spent of their budgets, and usage."""
        return self.state_dir / "access.db"

    @property
    def tls_dir(self) -> Path:
        """The certificate of this server, and the authority that signed it."""
        return self.config_dir / "tls"

    @property
    def conversations_dir(self) -> Path:
        """What engines had read when they stopped, for this user only."""
        return self.cache_dir / "conversations"

    @property
    def lock_file(self) -> Path:
        """Locked with flock by the one daemon of this state directory."""
        return self.state_dir / "lock"

    @property
    def daemon_file(self) -> Path:
        """JSON about the running daemon: pid, socket, listen, version, started_wall_s."""
        return self.state_dir / "daemon.json"

    @property
    def control_socket(self) -> Path:
        """The daemon's unix socket: every route, for the same user's commands."""
        return self.runtime_dir / "corral.sock"

    @property
    def handover_socket(self) -> Path:
        """Where a server that is to take over waits for the one that runs."""
        return self.runtime_dir / "handover.sock"

    @property
    def warden_socket(self) -> Path:
        return self.runtime_dir / "warden.sock"

    @property
    def warden_dir(self) -> Path:
        """The warden's own records, one file per engine."""
        return self.state_dir / "warden"

    @property
    def units_dir(self) -> Path:
        """Engines' sockets, one per unit and generation."""
        return self.runtime_dir / "u"

    @property
    def logs_dir(self) -> Path:
        """Per model: `<quoted name>/<generation>.log`."""
        return self.state_dir / "logs"

    @property
    def trust_file(self) -> Path:
        """Directories whose models.yaml and .env may be used, one absolute path a line."""
        return self.config_dir / "trusted"

    def make(self) -> None:
        """Creates the state and runtime directories, for this user only.

        Raises ConfigError when they cannot be made or the runtime directory belongs to somebody else.
        """
        try:
            for each in (self.state_dir, self.logs_dir, self.warden_dir):
                each.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.runtime_dir.parent.mkdir(parents=True, exist_ok=True)
            for each in (self.runtime_dir, self.units_dir):
                each.mkdir(mode=0o700, exist_ok=True)
                found = each.lstat()
                if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
                    raise ConfigError(
                        f"{each} is not a directory of this user", hint="remove it, or set XDG_RUNTIME_DIR"
                    )
                if stat.S_IMODE(found.st_mode) & 0o077:
                    each.chmod(0o700)
        except OSError as error:
            raise ConfigError(
                f"cannot make {error.filename}: {error.strerror}",
                hint="set CORRAL_STATE_DIR to a directory this user may write to",
            ) from error


def find_paths(env: Mapping[str, str] | None = None) -> Paths:
    """The directories by CORRAL_{CONFIG,STATE,CACHE,RUNTIME,DATA}_DIR, else XDG's, else the platform's custom."""
    env = os.environ if env is None else env
    home = Path(env.get("HOME") or Path.home())

    def pick(name: str, xdg: str, default: Path) -> Path:
        if own := env.get(f"CORRAL_{name}_DIR"):
            return Path(own).expanduser().absolute()
        base = env.get(xdg)
        return (Path(base) / "corral") if base and Path(base).is_absolute() else default / "corral"

    state = pick("STATE", "XDG_STATE_HOME", home / ".local" / "state")
    return Paths(
        config_dir=pick("CONFIG", "XDG_CONFIG_HOME", home / ".config"),
        state_dir=state,
        cache_dir=pick("CACHE", "XDG_CACHE_HOME", home / ".cache"),
        runtime_dir=_runtime_dir(env, state),
        data_dir=pick("DATA", "XDG_DATA_HOME", home / ".local" / "share"),
    )


def _runtime_dir(env: Mapping[str, str], state: Path) -> Path:
    if own := env.get("CORRAL_RUNTIME_DIR"):
        return Path(own).expanduser().absolute()
    import hashlib  # it loads OpenSSL

    # One per state directory, so that two servers with states of their own do not meet; hashed, to stay short.
    tag = hashlib.sha256(os.fsencode(state)).hexdigest()[:8]
    base = env.get("XDG_RUNTIME_DIR")
    if base and len(base) <= 48 and Path(base).is_dir():
        return Path(base) / f"corral-{tag}"
    return _temporary() / f"corral-{os.getuid()}-{tag}"


def _temporary() -> Path:
    if sys.platform != "win32":
        return Path("/tmp")
    import tempfile  # slow, and seldom needed

    return Path(tempfile.gettempdir())
