"""Reading engine flags: from `args` as written to checked values, and on to the embedded engine's parameters.

Pure until `apply`, so that a wrong flag is found before anything is started.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from corral.engines.flag_table import ABSENT, FLAGS, REFUSED, Flag
from corral.engines.flag_values import not_negative, number, positive
from corral.errors import EngineFlagError
from corral.hidden import argument

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
    for each in read(argv):
        if isinstance(each, EngineFlagError):
            raise each
        found.append(each)
    return found


def read(argv: Sequence[str]) -> Iterator[Given | EngineFlagError]:
    """The flags in `argv`, in order, and in its place what is wrong with one."""
    rest = list(argv)
    while rest:
        written = rest.pop(0)
        name = canonical(written)
        if name not in BY_NAME:
            yield unknown(written, BY_NAME, "the embedded engine")
            _drop_value(rest)
            continue
        flag, on = BY_NAME[name]
        if flag.value is None:
            yield Given(flag, name, on)
        elif not rest:
            yield _incomplete(written)
        else:
            try:
                yield Given(flag, name, _read(flag.value, written, rest.pop(0)))
            except EngineFlagError as error:
                yield error


def _drop_value(rest: list[str]) -> None:
    """Takes off what is most likely the value of a flag that nobody knows."""
    if rest and not rest[0].startswith("-"):
        del rest[0]


def _read(reader: Any, written: str, text: str) -> Any:
    try:
        return reader(text)
    except ValueError as exc:
        raise EngineFlagError(
            f"the flag {written} {exc}, not {text!r}", hint=f"correct the value after {written} in `args`", flag=written
        ) from exc


def check_allowed(args: Iterable[str]) -> None:
    """Raises EngineFlagError for the first of `args` that is Corral's own to decide, or that no model may set."""
    for error in not_allowed(args):
        raise error


def not_allowed(args: Iterable[str]) -> Iterator[EngineFlagError]:
    """What is wrong with each of `args` that no model may set."""
    for written in args:
        name = canonical(written)
        if name in REFUSED:
            shown = argument(written)
            why = f"the flag {shown} is not for `args`: it {REFUSED[name]}"
            yield EngineFlagError(why, hint=f"remove {shown}", flag=shown)
        elif name in BY_NAME and (owner := BY_NAME[name][0].owner):
            yield owned(written, owner)


def owned(written: str, owner: str) -> EngineFlagError:
    """The error for a flag of which the key `owner` of models.yaml decides."""
    hint = f"remove it and use the key `{owner}` instead"
    if owner == "require_keys":
        hint = "remove it: only Corral reaches engines. `corral keys create` and `require_keys` have clients show a key"
    shown = argument(written)
    return EngineFlagError(f"the flag {shown} is Corral's own", hint=hint, flag=shown)


def check_known(args: Sequence[str], known: Mapping[str, int], who: str) -> None:
    """Raises EngineFlagError for the first of `args` that is not in `known`, or lacks its value.

    `known` has the number of values after each flag of the build that `who` names, as its own `--help` tells.
    """
    for error in not_known(args, known, who):
        raise error


def not_known(args: Sequence[str], known: Mapping[str, int], who: str) -> Iterator[EngineFlagError]:
    """What is wrong with each of `args` that is not in `known`, or lacks its value."""
    rest = list(args)
    while rest:
        written = rest.pop(0)
        name = canonical(written)
        if name not in known:
            yield unknown(written, known, who)
            _drop_value(rest)
            continue
        if len(rest) < known[name]:
            yield _incomplete(written)
        del rest[: known[name]]


def no_numbers(args: Sequence[str]) -> Iterator[EngineFlagError]:
    """What is wrong with the values of `args` that every build reads as a number, whatever else it may know."""
    rest = list(args)
    while rest:
        written = rest.pop(0)
        flag = BY_NAME.get(canonical(written), (None,))[0]
        if flag is not None and flag.value is not None and rest:
            text = rest.pop(0)
            if flag.value in (number, positive, not_negative):
                try:
                    _read(number, written, text)
                except EngineFlagError as error:
                    yield error


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
    bare, equals, value = canonical(argument(written, "VALUE")).partition("=")
    written, spoken = argument(written), written
    known = list(known)
    if name in ABSENT and who == "the embedded engine":
        hint = "name a llama-server with the key `executable`, or remove the flag"
        return EngineFlagError(f"the embedded engine has no parameter for {written}", hint=hint, flag=written)
    if equals and bare in known:
        hint = f"write it as two items: [{bare}, {value}]"
    elif " " in spoken and spoken.partition(" ")[0] in known:
        hint = f"write it as items of their own: [{', '.join(written.split())}]"
    elif not written.startswith("-"):
        hint = f"{written!r} stands where a flag should; each flag takes at most one value"
    else:
        near = _nearest(name, known)
        hint = f"the nearest it knows is {near}" if near else "see docs/engines.md for the flags there are"
    return EngineFlagError(f"{who} does not know the flag {written}", hint=hint, flag=written)


def _nearest(name: str, known: Iterable[str]) -> str | None:
    # Without their dashes, which all have: with them `--nonsense` would look like `--seed`.
    bare = {each.lstrip("-"): each for each in known}
    near = difflib.get_close_matches(name.lstrip("-"), bare, n=1, cutoff=0.6)
    return bare[near[0]] if near else None


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
