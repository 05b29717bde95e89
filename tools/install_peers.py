"""`make peers`: installs other gateways that `bench/gateway.py` measures, into an environment of their own."""

from __future__ import annotations

import subprocess
import sys
import venv
from pathlib import Path

from corral.config.paths import find_paths

WANTED = ("vllm-router==0.1.17", "litellm[proxy]==1.106.2")


def main() -> int:
    target = find_paths().cache_dir / "peers" / "py"
    mark = target / "whole"
    if mark.is_file() and mark.read_text() == "\n".join(WANTED):
        print(f"the peers are at {target}")
        return 0
    venv.create(target, clear=True, with_pip=True)
    command: list[str | Path] = [target / "bin" / "python", "-m", "pip", "install", "--quiet", *WANTED]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, check=False)
    if done.returncode:
        print(f"error: pip install: exit code {done.returncode}\nhint: its words are above", file=sys.stderr)
        return 1
    # LiteLLM has thousands of modules: where an environment forbids compiled ones, each of its starts takes minutes.
    subprocess.run(
        [target / "bin" / "python", "-m", "compileall", "-q", target / "lib"],
        check=False,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    mark.write_text("\n".join(WANTED))
    print(f"the peers are at {target}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
