"""Models that are plain files in a folder, as every peer without manifests has them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path, PurePosixPath

from corral.artifact import Role
from corral.errors import CorralError
from corral.models.peers.folders import Group, groups
from corral.models.peers.following import followed
from corral.models.peers.outside import OutsideFile, OutsideModel, failed
from corral.refs import Ref


def plain_models(
    holder: str,
    place: Path,
    files: Iterable[Path],
    name: Callable[[Group, bool], tuple[Ref, str]],
    *,
    digest_of_file: Callable[[Path], str | None] = lambda path: None,
    folder: Path | None = None,
    scope: Callable[[Group], object] = lambda group: None,
) -> Iterator[OutsideModel]:
    """The models among `files`, all below `folder` (by default `place`, out of which no stranger's link may lead).

    `name(group, alone)` gives a model's reference and what its holder calls it; `alone` says that no other group of the
    same `scope` has its quantization. `digest_of_file` gives what the holder says of a file.
    """
    folder = folder or place
    by_name = {PurePosixPath(path.relative_to(folder).as_posix()): path for path in files}
    found = groups(by_name)
    kinds = [(scope(group), group.quantization) for group in found]
    for group in found:
        ref, label = name(group, kinds.count((scope(group), group.quantization)) == 1)
        titles = _titles(group)
        try:
            members = tuple(
                _file(by_name[each], role, place, titles[each], digest_of_file(by_name[each]))
                for role, each in group.members
            )
        except CorralError as error:
            yield failed(holder, ref, label, error.message)
        else:
            yield OutsideModel(holder, ref, label, members, group.format, problem=group.problem)


def _titles(group: Group) -> dict[PurePosixPath, str]:
    """GGUF files need no folders, unless two have one name; safetensors keep their tree."""
    names = [each for _, each in group.members]
    if group.format == "gguf" and len({each.name for each in names}) == len(names):
        return {each: each.name for each in names}
    top = group.folder
    return {each: (each.relative_to(top) if each.is_relative_to(top) else each).as_posix() for each in names}


def _file(path: Path, role: Role, place: Path, title: str, digest: str | None) -> OutsideFile:
    real, size = followed(path, place)
    return OutsideFile(real, size, role, title, digest=digest)


def distinct(models: Iterable[OutsideModel]) -> list[OutsideModel]:
    """`models`, without those whose name has come before."""
    kept: dict[str, OutsideModel] = {}
    for model in models:
        kept.setdefault(model.name, model)
    return list(kept.values())
