"""The doctor's look at the environments of engines that Corral installed. Nothing is started for it."""

from __future__ import annotations

from corral.cli.finding import Finding
from corral.config.paths import Paths
from corral.units import show_bytes


def environments(paths: Paths) -> list[Finding]:
    """Each environment; what is unfinished or lacks its Python; and, where there is none, how to get one."""
    import os

    from corral.environments.shelf import Shelf
    from corral.environments.variants import VARIANTS, installable

    found: list[Finding] = []
    for engine in installable():
        shelf = Shelf(paths.engines_dir, engine)
        current, there = shelf.current(), shelf.all()
        again = f"corral engine install {engine} --variant "
        for each in there:
            state = "current" if each == current else "kept for `corral engine rollback`"
            text = f"{each.version} ({each.variant}), {show_bytes(each.bytes)}, {state}: {each.path}"
            if os.access(each.interpreter, os.X_OK):
                found.append(Finding("engines", engine, "ok", text))
            else:  # it belonged to a Python that was removed or replaced
                remove = f"corral engine remove {engine} {each.id} && {again}{each.variant}"
                found.append(Finding("engines", engine, "warn", f"{text}: its Python is gone", remove))
        for path in shelf.unfinished():
            text = f"an installation was cut short: {path}; the next one removes it"
            found.append(Finding("engines", engine, "warn", text, f"{again}cpu"))
        if not there:
            first, *others = (each for each in VARIANTS if each.engine == engine)
            more = ", ".join(f"or {each.name}" for each in others)
            hint = f"{again}{first.name}" + (f"   ({more})" if others else "")
            found.append(Finding("engines", engine, "missing", f"not installed; it is {first.purpose}", hint))
    return found
