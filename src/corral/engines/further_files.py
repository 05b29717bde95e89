"""The files beside its model that an engine is told to load: projector, draft model, adapters, a chat template.

They are looked at before a start, so that one that is not there costs nobody their place. Only whole paths are: others
are found from where the engine runs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from corral.engines import flags
from corral.errors import ModelFileError

_ONE = ("--mmproj", "--model-draft", "--chat-template-file", "--grammar-file")
_GGUF = ("--mmproj", "--model-draft", "--lora")


def named(args: Sequence[str]) -> Iterator[tuple[str, Path]]:
    """Each such file that `args` name, and the flag that does."""
    for name in _ONE:
        if name in flags.BY_NAME and (value := flags.last_value(args, name)) is not None:
            yield name, Path(value)
    yield from (("--lora", path) for path in adapters(args))


def adapters(args: Sequence[str]) -> Iterator[Path]:
    """The LoRA adapters among them."""
    for name in ("--lora", "--lora-scaled"):
        for part in (flags.last_value(args, name) or "").split(","):
            if path := part if name == "--lora" else part.rpartition(":")[0]:
                yield Path(path)


def check(args: Sequence[str]) -> None:
    """Raises ModelFileError for the first that cannot be loaded for what it is. Reads four bytes of each model file."""
    for name, path in named(args):
        if not path.is_absolute():
            continue
        if not path.is_file():
            what = "is not a file" if path.exists() else "is not there"
            raise ModelFileError(f"{path}, which {name} names, {what}", hint=f"correct {name} in `args`, or remove it")
        if name in _GGUF and (magic := _magic(path)) != b"GGUF":
            said = f"it begins with {magic!r}" if magic else "it is empty"
            hint = "it wants a GGUF file; was it downloaded to its end?"
            raise ModelFileError(f"{path}, which {name} names, is no model file: {said}", hint=hint)


def _magic(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(4)
    except OSError as error:
        hint = "make it readable for the user who runs Corral"
        raise ModelFileError(f"{path} cannot be read: {error.strerror}", hint=hint) from None
