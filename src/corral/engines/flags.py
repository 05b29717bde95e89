"""Reading engine flags: from `args` as written to checked values, and on to the embedded engine's parameters.

Pure until `apply`, so that a wrong flag is found before anything is started.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from corral.engines.flag_table import ABSENT, FLAGS, REFUSED, Flag
from corral.errors import EngineFlagError

BY_NAME: dict[str, tuple[Flag, bool]] = {
    **{name: (flag, True) for flag in FLAGS for name in flag.names},
    **{name: (flag, False) for flag in FLAGS for name in flag.off},
}
"""Each spelling's flag, and whether that spelling turns it on."""


class Given(NamedTuple):
    """One flag as somebody wrote it, with its value read."""

    flag: Flag
    spelling: str
    value: Any


def canonical(name: str) -> str:
    """`name` as the table has it: in long names, `_` is as good as `-`."""
    return name.replace("_", "-") if name.startswith("--") else name


def parse(argv: Sequence[str]) -> list[Given]:
    """The flags in `argv`, in order. Raises EngineFlagError for the first that is unknown, incomplete or malformed."""
    found = []
    rest = list(argv)
    while rest:
        written = rest.pop(0)
        name = canonical(written)
        if name not in BY_NAME:
            raise unknown(written, BY_NAME, "the embedded engine")
        flag, on = BY_NAME[name]
        if flag.value is None:
            found.append(Given(flag, name, on))
            continue
        if not rest:
            raise _incomplete(written)
        found.append(Given(flag, name, _read(flag.value, written, rest.pop(0))))
    return found


def _read(reader: Any, written: str, text: str) -> Any:
    try:
        return reader(text)
    except ValueError as exc:
        raise EngineFlagError(
            f"the flag {written} {exc}, not {text!r}", hint=f"correct the value after {written} in `args`", flag=written
        ) from exc


def check_allowed(args: Iterable[str]) -> None:
    """Raises EngineFlagError for the first of `args` that is Corral's own to decide, or that no model may set."""
    for written in args:
        name = canonical(written)
        if name in REFUSED:
            raise EngineFlagError(
                f"the flag {written} is not for `args`: it {REFUSED[name]}", hint=f"remove {written}", flag=written
            )
        if name in BY_NAME and (owner := BY_NAME[name][0].owner):
            raise EngineFlagError(
                f"the flag {written} is Corral's own", hint=f"remove it and use the key `{owner}` instead", flag=written
            )


def check_known(args: Sequence[str], known: Mapping[str, int], who: str) -> None:
    """Raises EngineFlagError for the first of `args` that is not in `known`, or lacks its value.

    `known` has the number of values after each flag of the build that `who` names, as its own `--help` tells.
    """
    rest = list(args)
    while rest:
        written = rest.pop(0)
        name = canonical(written)
        if name not in known:
            raise unknown(written, known, who)
        if len(rest) < known[name]:
            raise _incomplete(written)
        del rest[: known[name]]


def _incomplete(written: str) -> EngineFlagError:
    hint = f"write it as the next item: [{written}, VALUE]"
    return EngineFlagError(f"the flag {written} wants a value", hint=hint, flag=written)


def has(args: Sequence[str], name: str) -> bool:
    """Whether `args` have the flag that `name` is one spelling of, switched on."""
    return any(BY_NAME.get(canonical(each)) == (BY_NAME[name][0], True) for each in args)


def last_value(args: Sequence[str], name: str) -> str | None:
    """The text after the last spelling of the flag `name` in `args`."""
    flag = BY_NAME[name][0]
    found = [at for at, each in enumerate(args) if BY_NAME.get(canonical(each), (None,))[0] is flag]
    return args[found[-1] + 1] if found and found[-1] + 1 < len(args) else None


def unknown(written: str, known: Iterable[str], who: str) -> EngineFlagError:
    """The error for a flag that `who` does not know, naming the nearest of `known`."""
    name = canonical(written)
    bare, equals, value = name.partition("=")
    known = list(known)
    if name in ABSENT and who == "the embedded engine":
        hint = "name a llama-server with the key `executable`, or remove the flag"
        return EngineFlagError(f"the embedded engine has no parameter for {written}", hint=hint, flag=written)
    if equals and bare in known:
        hint = f"write it as two items: [{bare}, {value}]"
    elif " " in written and written.partition(" ")[0] in known:
        hint = f"write it as items of their own: [{', '.join(written.split())}]"
    elif not written.startswith("-"):
        hint = f"{written!r} stands where a flag should; each flag takes at most one value"
    else:
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
        hint = f"the nearest it knows is {near[0]}" if near else "see docs/engines.md for the flags there are"
    return EngineFlagError(f"{who} does not know the flag {written}", hint=hint, flag=written)


def apply(given: Iterable[Given], engine: Any, params: Any) -> None:
    """Sets each parsed flag on `params`, the `CommonParams` of `engine` (the xllamacpp module).

    Raises EngineFlagError where the engine itself refuses a value.
    """
    for flag, spelling, value in given:
        try:
            flag.store(engine, params, value)
        except (ValueError, TypeError, AttributeError, AssertionError, OverflowError, RuntimeError) as exc:
            raise EngineFlagError(
                f"the embedded engine refuses the value of {spelling}: {exc}",
                hint=f"correct or remove {spelling}",
                flag=spelling,
            ) from exc


def settle(params: Any) -> None:
    """What llama-server's own parser does after the last flag: values that follow from others.

    Threads for prompts follow those for generation, a draft model's follow the model's, earlier turns' thoughts stay.
    """
    draft = params.speculative.draft
    for owner, name, model in (
        (params, "cpuparams_batch", params.cpuparams),
        (draft, "cpuparams", params.cpuparams),
        (draft, "cpuparams_batch", params.cpuparams_batch),
    ):
        if getattr(owner, name).n_threads < 0 < model.n_threads:
            setattr(owner, name, model)
    if "preserve_reasoning" not in params.default_template_kwargs:
        params.default_template_kwargs = {**params.default_template_kwargs, "preserve_reasoning": "true"}
