"""Models that are plain files in a folder, as every peer without manifests has them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath

from corral.errors import CorralError
from corral.models.peers.folders import Group, groups
from corral.models.peers.following import followed
from corral.models.peers.outside import OutsideFile, OutsideModel, Role, failed
from corral.refs import Ref

_NOT_IN_NAMES = re.compile(r"[^a-z0-9._-]+")
_RUNS = re.compile(r"[._-]{2,}")


def plain_models(
    holder: str,
    place: Path,
    files: Iterable[Path],
    name: Callable[[Group, bool], tuple[Ref, str]],
    digest_of_file: Callable[[Path], str | None] = lambda path: None,
    folder: Path | None = None,
) -> Iterator[OutsideModel]:
    """The models among `files`, all below `folder` (by default `place`, out of which no stranger's link may lead).

    `name(group, alone)` gives a model's reference and what its holder calls it; `alone` is false when another group of
    the same folder has the same quantization, or none. `digest_of_file` gives what the holder says of a file.
    """
    folder = folder or place
    by_name = {PurePosixPath(path.relative_to(folder).as_posix()): path for path in files}
    found = groups(by_name)
    kinds = [(group.folder, group.quantization) for group in found]
    for group in found:
        ref, label = name(group, kinds.count((group.folder, group.quantization)) == 1)
        try:
            members = tuple(
                _file(by_name[each], role, place, each, digest_of_file(by_name[each])) for each, role in _members(group)
            )
        except CorralError as error:
            yield failed(holder, ref, label, error.message)
        else:
            yield OutsideModel(holder, ref, label, members, group.format, problem=group.problem)


def _members(group: Group) -> Iterator[tuple[PurePosixPath, Role]]:
    for each in group.weights:
        yield each, "weights"
    if group.projector is not None:
        yield group.projector, "mmproj"
    for each in group.others:
        yield each, "config"


def _file(path: Path, role: Role, place: Path, name: PurePosixPath, digest: str | None) -> OutsideFile:
    real, size = followed(path, place)
    return OutsideFile(real, size, role, name.name, digest=digest)


def local_ref(holder: str, parts: Iterable[str], tag: str = "") -> Ref:
    """A name for what has none of its own: `localhost/<holder>/<parts>:<tag>`, in the letters that registries allow."""
    kept = [word for part in parts if (word := plain_word(part))]
    return Ref("oci", "localhost", "/".join([holder, *kept]), plain_word(tag) or "latest")


def plain_word(text: str) -> str:
    """`text` in the letters that a registry's names may have; "" when nothing is left of it."""
    word = _NOT_IN_NAMES.sub("-", text.lower())
    return _RUNS.sub(lambda match: match[0][0], word).strip("._-")


def distinct(models: Iterable[OutsideModel]) -> list[OutsideModel]:
    """`models`, without those whose name has come before."""
    seen: Mapping[str, OutsideModel] = {}
    kept = dict(seen)
    for model in models:
        kept.setdefault(model.name, model)
    return list(kept.values())
