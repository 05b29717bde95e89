"""Write `src/corral/engines/architectures.py`: which `gguf` release first names each model architecture.

    python tools/list_architectures.py 0.6.0 0.9.1 0.10.0 … > src/corral/engines/architectures.py

The releases, oldest first, are fetched with pip (`--no-deps`); the names are read from each wheel's `constants.py`
without importing it.
"""

from __future__ import annotations

import ast
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

HEADER = '''"""Which release of `gguf` first names each architecture; written by tools/list_architectures.py.

`gguf` is released from llama.cpp's own tree, so an engine built before that release cannot know the architecture.
"""

from __future__ import annotations

OLDEST = "{oldest}"
"""The oldest release looked at: what it names may be older still."""

NEWEST = "{newest}"
"""The newest release looked at."""

FIRST_RELEASE = {{
'''


def architectures(version: str, folder: Path) -> set[str]:
    """The names in `MODEL_ARCH_NAMES` of one release."""
    fetch = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary", ":all:", "-d", str(folder)]
    subprocess.run([*fetch, f"gguf=={version}"], check=True)
    (wheel,) = folder.glob(f"gguf-{version}-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        tree = ast.parse(archive.read("gguf/constants.py"))
    for node in tree.body:
        target = node.target if isinstance(node, ast.AnnAssign) else None
        if isinstance(target, ast.Name) and target.id == "MODEL_ARCH_NAMES":
            assert isinstance(node, ast.AnnAssign) and isinstance(node.value, ast.Dict)
            return {str(value.value) for value in node.value.values if isinstance(value, ast.Constant)}
    raise SystemExit(f"gguf {version} has no MODEL_ARCH_NAMES")


def main(versions: list[str]) -> None:
    first: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as folder:
        for version in versions:
            for name in architectures(version, Path(folder)):
                first.setdefault(name, version)
    sys.stdout.write(HEADER.format(oldest=versions[0], newest=versions[-1]))
    for name in sorted(first):
        sys.stdout.write(f'    "{name}": "{first[name]}",\n')
    sys.stdout.write('}\n"""Architecture name → release."""\n')


if __name__ == "__main__":
    main(sys.argv[1:])
