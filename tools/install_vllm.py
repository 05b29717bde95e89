"""`make vllm`: installs vLLM for the CPU, once, for the tests of tier `vllm`, by `corral engine install vllm`.

The place is `<cache>/tests/engines/vllm/<identity>/`, beside nothing of the user's own: which environment is current
for their models is theirs to say. What is there already is found again.
"""

from __future__ import annotations

import os
import subprocess
import sys

from corral.config.paths import find_paths


def main() -> int:
    env = os.environ | {"CORRAL_DATA_DIR": str(find_paths().cache_dir / "tests")}
    command = [sys.executable, "-P", "-m", "corral", "engine", "install", "vllm", "--variant", "cpu"]
    return subprocess.run(command, env=env, stdin=subprocess.DEVNULL, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
