"""`dataclass` as the standard library's, with its methods made when they are first called.

The standard one writes, compiles and runs the text of five to eight methods for each class as it is defined, about a
millisecond of the processor: nearly half of a server's start, and most of these methods are never called. Here the
standard one only collects the fields. A method that the class does not have itself is made by its first call, and
stands in the class from then on; calls after that are as quick as ever. What never differs between classes (showing,
refusing to be changed) is one function for all of them.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Iterable
from reprlib import recursive_repr
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from dataclasses import dataclass as dataclass
else:

    def dataclass(cls=None, /, *, frozen=False, eq=True, slots=False, kw_only=False):
        """What `dataclasses.dataclass` does with the same options; those that nobody here needs are left out."""

        def wrap(cls):
            return _lazy(cls, frozen, eq, slots, kw_only)

        return wrap if cls is None else wrap(cls)


_FACTORY: Final = object()
"""Stands for a default that is made afresh by each call."""

_Make = Callable[[type[Any], tuple["dataclasses.Field[Any]", ...]], Callable[..., Any]]


def _lazy(cls: type[Any], frozen: bool, eq: bool, slots: bool, kw_only: bool) -> type[Any]:
    own = dict(cls.__dict__)
    if cls.__doc__ is None:
        cls.__doc__ = f"{cls.__name__}."  # else the standard one would look for a signature to show
    made = dataclasses.dataclass(init=False, repr=False, eq=False, slots=slots, kw_only=kw_only)(cls)
    found: dict[str, Any] = {"__signature__": _Signature(), "__repr__": _show}
    if "__init__" not in own:
        found["__init__"] = _later(made, "__init__", _init_of if not frozen else _frozen_init_of)
    if eq:
        found["__eq__"] = _later(made, "__eq__", _eq_of)
        if own.get("__hash__") is None:  # a class that defines __eq__ has None there
            found["__hash__"] = _later(made, "__hash__", _hash_of) if frozen else None
    if frozen:
        found |= {"__setattr__": _refuse_to_set, "__delattr__": _refuse_to_delete}
        if slots:
            found |= {"__getstate__": _state, "__setstate__": _set_state}
    for name, value in found.items():
        if name not in own or (name == "__hash__" and "__eq__" in own):
            setattr(made, name, value)
    return made


def _later(cls: type[Any], name: str, make: _Make) -> Callable[..., Any]:
    """A method that is made, and takes this one's place, when it is first called."""

    def first(self: Any, /, *args: Any, **kwargs: Any) -> Any:
        return _make(cls, name, make)(self, *args, **kwargs)

    first.__name__, first.__qualname__ = name, f"{cls.__qualname__}.{name}"
    first.__module__ = cls.__module__
    return first


def _make(cls: type[Any], name: str, make: _Make) -> Callable[..., Any]:
    method = make(cls, dataclasses.fields(cls))
    method.__qualname__, method.__module__ = f"{cls.__qualname__}.{name}", cls.__module__
    setattr(cls, name, method)
    return method


class _Signature:
    """`__signature__` of a class: not that of the method which stands in until the first call."""

    def __get__(self, instance: object, owner: type[Any]) -> inspect.Signature:
        of = next((each for each in owner.__mro__ if "__init__" in each.__dict__), object)
        if "__dataclass_fields__" not in of.__dict__ or "__signature__" not in of.__dict__:
            raise AttributeError("__signature__")
        frozen = of.__dict__.get("__setattr__") is _refuse_to_set
        init = _make(of, "__init__", _frozen_init_of if frozen else _init_of)
        found = inspect.signature(init)
        return found.replace(parameters=list(found.parameters.values())[1:])


def _init_of(cls: type[Any], fields: tuple[dataclasses.Field[Any], ...]) -> Callable[..., Any]:
    return _written_init(cls, fields, "self.{name} = {value}")


def _frozen_init_of(cls: type[Any], fields: tuple[dataclasses.Field[Any], ...]) -> Callable[..., Any]:
    return _written_init(cls, fields, "__set(self, {name!r}, {value})")


def _written_init(cls: type[Any], fields: Iterable[dataclasses.Field[Any]], setting: str) -> Callable[..., Any]:
    names: dict[str, Any] = {"__set": object.__setattr__, "__factory": _FACTORY}
    plain: list[str] = []
    by_name: list[str] = []
    body: list[str] = []
    for field in fields:
        name, value = field.name, field.name
        makes = field.default_factory is not dataclasses.MISSING
        known = f"__default_{name}"
        if makes:
            names[known] = field.default_factory
            value = f"{known}() if {name} is __factory else {name}" if field.init else f"{known}()"
        elif field.default is not dataclasses.MISSING:
            names[known] = field.default
            value = name if field.init else known
        elif not field.init:
            continue
        if field.init:
            default = "=__factory" if makes else f"={known}" if known in names else ""
            (by_name if field.kw_only else plain).append(f"{name}{default}")
        body.append(setting.format(name=name, value=value))
    if hasattr(cls, "__post_init__"):
        body.append("self.__post_init__()")
    parameters = ", ".join(["self", *plain, *(["*", *by_name] if by_name else [])])
    init = _written("__init__", parameters, body or ["pass"], names)
    init.__annotations__ = {each.name: each.type for each in fields if each.init} | {"return": None}
    return init


def _eq_of(cls: type[Any], fields: tuple[dataclasses.Field[Any], ...]) -> Callable[..., Any]:
    compared = [each.name for each in fields if each.compare]
    ours, theirs = (_row(f"{who}.{name}" for name in compared) for who in ("self", "other"))
    body = [f"return {ours} == {theirs} if other.__class__ is self.__class__ else NotImplemented"]
    return _written("__eq__", "self, other", body, {})


def _hash_of(cls: type[Any], fields: tuple[dataclasses.Field[Any], ...]) -> Callable[..., Any]:
    hashed = [each.name for each in fields if (each.compare if each.hash is None else each.hash)]
    return _written("__hash__", "self", [f"return hash({_row(f'self.{name}' for name in hashed)})"], {})


def _row(words: Iterable[str]) -> str:
    return f"({''.join(f'{word}, ' for word in words)})"


def _written(name: str, parameters: str, body: list[str], names: dict[str, Any]) -> Callable[..., Any]:
    """The function of this text, which sees `names` alone. They are parameters of a function around it, so that they
    are quicker than globals."""
    lines = "\n".join(f"  {line}" for line in body)
    text = f"def around({', '.join(names)}):\n def {name}({parameters}):\n{lines}\n return {name}"
    space: dict[str, Any] = {}
    exec(text, space)  # of the names of fields, which are identifiers
    made: Callable[..., Any] = space["around"](**names)
    return made


@recursive_repr()
def _show(self: Any) -> str:
    shown = ", ".join(f"{each.name}={getattr(self, each.name)!r}" for each in dataclasses.fields(self) if each.repr)
    return f"{self.__class__.__qualname__}({shown})"


def _refuse_to_set(self: Any, name: str, value: object) -> None:
    _refuse(self, name, "assign to")
    object.__setattr__(self, name, value)


def _refuse_to_delete(self: Any, name: str) -> None:
    _refuse(self, name, "delete")
    object.__delattr__(self, name)


def _refuse(self: Any, name: str, what: str) -> None:
    """A subclass that is none itself may have attributes of its own."""
    kind = type(self)
    if "__dataclass_fields__" in kind.__dict__ or name in kind.__dataclass_fields__:
        raise dataclasses.FrozenInstanceError(f"cannot {what} field {name!r}")


def _state(self: Any) -> list[Any]:
    return [getattr(self, each.name) for each in dataclasses.fields(self)]


def _set_state(self: Any, state: Iterable[Any]) -> None:
    for each, value in zip(dataclasses.fields(self), state, strict=True):
        object.__setattr__(self, each.name, value)
