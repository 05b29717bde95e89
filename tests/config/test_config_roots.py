"""Where model files may lie."""

from __future__ import annotations

from pathlib import Path

import pytest

from corral.config.sources import check_inside, is_inside
from corral.config.trust import trust
from corral.engines.llamacpp import LlamaCpp
from corral.errors import ModelFileError
from support.configs import Place
from support.ggufs import write_chain


def errors(place: Place) -> list[str]:
    return [problem.message for problem in place.examine().errors]


def test_the_users_own_file_may_name_any_path(tmp_path: Path) -> None:
    """Without `roots`, the user's models.yaml is not limited."""
    place = Place(tmp_path)
    place.user("models: [{name: m, source: /anywhere/m.gguf}]")
    assert not errors(place)
    assert place.load().settings.models["m"].roots == ()


def test_a_source_outside_the_roots_is_refused(tmp_path: Path) -> None:
    """With `roots`, a source elsewhere is an error that names them."""
    place = Place(tmp_path)
    (tmp_path / "ok").mkdir()
    place.user(
        f"""\
        roots: {tmp_path}/ok
        models:
          a: {{source: {tmp_path}/ok/a.gguf}}
          b: {{source: {tmp_path}/b.gguf}}
          c: {{source: {tmp_path}/ok/../c.gguf}}
          d: {{source: builtin:demo}}
        """
    )
    assert errors(place) == [
        f"{tmp_path}/b.gguf is outside what is allowed",
        f"{tmp_path}/ok/../c.gguf is outside what is allowed",
    ]


def test_links_out_of_the_roots_are_followed(tmp_path: Path) -> None:
    """A link inside a root that leads out of it is outside; one that leads into a root is inside."""
    place = Place(tmp_path)
    ok, out = tmp_path / "ok", tmp_path / "out"
    ok.mkdir()
    out.mkdir()
    (out / "m.gguf").touch()
    (ok / "m.gguf").touch()
    (ok / "leak.gguf").symlink_to(out / "m.gguf")
    (out / "in.gguf").symlink_to(ok / "m.gguf")
    (ok / "loop").symlink_to(ok / "loop")
    place.user(f"roots: [{ok}]\nmodels:\n  a: {{source: {ok}/leak.gguf}}\n  b: {{source: {out}/in.gguf}}\n")
    assert errors(place) == [f"{ok}/leak.gguf is outside what is allowed"]
    with pytest.raises(ModelFileError, match="outside what is allowed") as caught:
        check_inside(ok / "leak.gguf", (ok,))
    assert str(ok) in caught.value.hint
    check_inside(ok / "m.gguf", (ok,))
    assert not is_inside(tmp_path / "okay", (ok,))


def test_a_trusted_directorys_file_is_limited_to_that_directory(tmp_path: Path) -> None:
    """A models.yaml of a trusted working directory reaches files of that directory, unless it lists roots."""
    place = Place(tmp_path)
    file = place.write(
        place.cwd / "models.yaml", f"models:\n  a: {{source: a.gguf}}\n  b: {{source: {tmp_path}/b.gguf}}\n"
    )
    trust(place.paths, place.cwd)
    assert errors(place) == [f"{tmp_path}/b.gguf is outside what is allowed"]
    place.write(file, f"roots: ['.', {tmp_path}]\n" + file.read_text())
    assert not errors(place)
    assert place.load().settings.roots == (place.cwd, tmp_path)


def test_a_link_that_was_changed_later_is_refused_at_the_start(tmp_path: Path) -> None:
    """A source that was inside its roots when the file was read, and no longer is, does not start."""
    place = Place(tmp_path)
    ok, out = tmp_path / "ok", tmp_path / "out"
    ok.mkdir()
    out.mkdir()
    write_chain(out / "m.gguf", ["hello"])
    write_chain(ok / "real.gguf", ["hello"])
    (ok / "m.gguf").symlink_to(ok / "real.gguf")
    place.user(f"roots: {ok}\nmodels: [{{name: m, source: {ok}/m.gguf}}]")
    model = place.load().settings.models["m"]
    assert LlamaCpp().footprint(model).total_bytes > 0
    (ok / "m.gguf").unlink()
    (ok / "m.gguf").symlink_to(out / "m.gguf")
    with pytest.raises(ModelFileError, match="outside what is allowed"):
        LlamaCpp().footprint(model)


def test_a_root_that_is_no_directory_is_a_warning(tmp_path: Path) -> None:
    """A root that is not there may be a disk that is not mounted yet."""
    place = Place(tmp_path)
    place.user("roots: /nowhere/at/all\nmodels: [{name: m, source: builtin:demo}]")
    (warning,) = place.load().warnings
    assert "is not a directory" in warning.message
