"""What whole configurations must obey beyond each key's own rule: names, ports, groups and limits that agree. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import combinations

from corral.config.listening import MAX_SOCKET_BYTES, clash, is_loopback
from corral.config.nearest import did_you_mean
from corral.config.problem import Key, Place, Problem
from corral.config.settings import Listen, ModelSettings, Settings
from corral.units import show_bytes

Where = Callable[[Key], Place]
"""Where a key stands; models by name: `("models", "demo", "port")`."""


def check(
    settings: Settings,
    where: Where = lambda key: Place(),
    *,
    insecure: bool = False,
    keyed: bool = False,
    names: Iterable[str] = (),
) -> list[Problem]:
    """Every problem of `settings`, errors and warnings. `names` are further names that somebody answers to, of models
    that have problems of their own. Addresses beyond loopback are allowed where there are keys
    (`keyed`), or it is said aloud (`insecure`)."""
    models = list(settings.models.values())
    own = [model for model in models if model.runner != "server"]  # the others take no place that could be wanted
    found = [
        *_listen(settings.listen, insecure, keyed),
        *_names(models),
        *_ports(settings.listen, models),
        *_default(settings, names),
        *_together(own),
        *_alone(own),
        *_limits(settings, own),
    ]
    return [Problem(p.message, p.hint, where(p.key), p.key, p.level) for p in found]


def _listen(listen: Sequence[Listen], insecure: bool, keyed: bool) -> Iterator[Problem]:
    for each in listen:
        beyond = not is_loopback(each) and not insecure and not each.insecure
        if beyond and not keyed:
            yield Problem(
                f"listening beyond loopback ({each}) needs keys, and there are none",
                "let `corral listen lan` set it all up, or make one with `corral keys create`; --insecure opens it to "
                "everybody",
                key=("listen",),
            )
        elif beyond and each.tls is None:
            yield Problem(
                f"{each} is without TLS: keys and answers can be read by whoever is on the way",
                "give it `tls`, see `corral tls init`, unless what is in front of it has it",
                key=("listen",),
                level="warning",
            )
        if each.path is not None and len(bytes(each.path)) > MAX_SOCKET_BYTES:
            yield Problem(
                f"the socket's path is longer than {MAX_SOCKET_BYTES} bytes", "use a shorter one", key=("listen",)
            )
    for one, other in combinations(listen, 2):
        if clash(one, other):
            yield Problem(f"{one} and {other} cannot both be listened on", "keep one of them", key=("listen",))


def _names(models: Sequence[ModelSettings]) -> Iterator[Problem]:
    taken: dict[str, str] = {}  # folded → as first written
    for model in models:
        for name in (model.name, *model.aliases):
            key = ("models", model.name, "name" if name == model.name else "aliases")
            before = taken.get(name.casefold())
            if before is None:
                taken[name.casefold()] = name
            elif before == name:
                yield Problem(f"the name {name!r} is given twice", "names and aliases must differ", key=key)
            else:
                yield Problem(
                    f"{name!r} and {before!r} differ only in case", "clients may mix them up", key=key, level="warning"
                )


def _ports(listen: Sequence[Listen], models: Sequence[ModelSettings]) -> Iterator[Problem]:
    taken = {each.port: f"`listen` ({each})" for each in listen if each.path is None and each.port}
    for model in models:
        if model.port is None:
            continue
        if model.port in taken:
            yield Problem(
                f"port {model.port} of {model.name!r} is already that of {taken[model.port]}",
                "give each its own",
                key=("models", model.name, "port"),
            )
        taken.setdefault(model.port, f"model {model.name!r}")


def _default(settings: Settings, names: Iterable[str]) -> Iterator[Problem]:
    wanted = settings.default_model
    known = [name for model in settings.models.values() for name in (model.name, *model.aliases)]
    if wanted is not None and wanted not in known and wanted not in names:
        hint = did_you_mean(wanted, known, "name one of `models`")
        yield Problem(f"default_model {wanted!r} is none of the models", hint, key=("default_model",))


def _together(models: Sequence[ModelSettings]) -> Iterator[Problem]:
    # What is to be resident together, but may not be.
    for flag, text in (("preload", "preloaded"), ("pin", "pinned")):
        flagged = [model for model in models if getattr(model, flag)]
        for one, other in combinations(flagged, 2):
            if one.exclusive or other.exclusive:
                why = f"{(one if one.exclusive else other).name!r} is exclusive"
            elif one.group is not None and one.group == other.group:
                why = f"both are in group {one.group!r}"
            else:
                continue
            yield Problem(
                f"{one.name!r} and {other.name!r} are both {text}, but {why}",
                f"keep `{flag}` on one of them",
                key=("models", other.name, flag),
            )


def _alone(models: Sequence[ModelSettings]) -> Iterator[Problem]:
    # What one model's keys say against each other, or against everybody else.
    for model in models:
        key = ("models", model.name)
        if model.exclusive and model.group is not None:
            yield Problem(
                f"{model.name!r} is exclusive, so its group {model.group!r} adds nothing",
                "keep one of `exclusive` and `group`",
                key=(*key, "group"),
                level="warning",
            )
        blocked = [m.name for m in models if m is not model and (model.exclusive or m.exclusive)]
        if not model.exclusive and model.group is not None:
            blocked += [m.name for m in models if m is not model and m.group == model.group and m.name not in blocked]
        if model.pin and blocked:
            yield Problem(
                f"once {model.name!r} is started it stays, and {', '.join(map(repr, blocked[:3]))} can never run",
                "take `pin` away, or `exclusive` and `group`",
                key=(*key, "pin"),
                level="warning",
            )


def _limits(settings: Settings, models: Sequence[ModelSettings]) -> Iterator[Problem]:
    most = settings.max_active
    preloaded = [model.name for model in models if model.preload]
    pinned = [model.name for model in models if model.pin]
    if most is not None and len(preloaded) > most:
        yield Problem(
            f"{len(preloaded)} models are preloaded, but max_active is {most}",
            "raise max_active, or take `preload` from some",
            key=("max_active",),
        )
    if most is not None and len(pinned) >= most and len(models) > len(pinned):
        yield Problem(
            f"once the {len(pinned)} pinned models are started, no other can be: max_active is {most}",
            "raise max_active, or take `pin` from some",
            key=("max_active",),
            level="warning",
        )
    for device, budget in settings.memory.items():
        if budget < 64 << 20:
            yield Problem(
                f"a budget of {show_bytes(budget)} on {device} holds hardly any model",
                "did you forget the unit, as in 16GiB?",
                key=("memory", device),
                level="warning",
            )
