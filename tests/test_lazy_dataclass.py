"""The dataclass whose methods are made later, held against the standard library's."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import pickle
import subprocess
import sys
from collections.abc import Callable
from dataclasses import field
from typing import Any, ClassVar

import pytest

from corral import lazy_dataclass

Decorator = Callable[..., Any]


def classes(dataclass: Decorator) -> dict[str, Any]:
    """The same classes by one or the other."""

    @dataclass(frozen=True, slots=True)
    class Plain:
        """Two and a half."""

        a: int
        b: str = "x"
        more: list[int] = field(default_factory=list, compare=False)
        hidden: int = field(default=3, repr=False, hash=False)
        fixed: int = field(default=7, init=False)
        made: list[int] = field(default_factory=lambda: [1], init=False, compare=False)
        kind: ClassVar[str] = "plain"

    @dataclass(frozen=True, slots=True)
    class Below(Plain):
        c: float = field(default=0.5, kw_only=True)

    @dataclass(slots=True)
    class Changed:
        a: int
        b: int = 0
        total: int = field(init=False)

        def __post_init__(self) -> None:
            self.total = self.a + self.b

    @dataclass(frozen=True, eq=False)
    class Itself:
        a: int

    @dataclass(frozen=True, slots=True)
    class Own:
        a: int

        def __repr__(self) -> str:
            return "own"

        def __eq__(self, other: object) -> bool:
            return True

    @dataclass
    class Nothing:
        pass

    @dataclass(kw_only=True)
    class Named:
        a: int
        b: int = 2

    @dataclass(frozen=True)
    class Above:
        a: int

    class Under(Above):
        pass

    return {each.__name__: each for each in (Plain, Below, Changed, Itself, Own, Nothing, Named, Above, Under)}


STANDARD, LAZY = classes(dataclasses.dataclass), classes(lazy_dataclass.dataclass)


def told(does: Callable[[], Any]) -> str:
    """What comes of it, for comparing: a result or an error, without the class's address."""
    try:
        return repr(does())
    except Exception as error:  # noqa: BLE001 - whatever it is, both must raise it
        return f"{type(error).__name__}: {error}"


CALLS: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = [
    ("Plain", (1,), {}),
    ("Plain", (1, "y", [2]), {"hidden": 4}),
    ("Plain", (), {}),
    ("Plain", (1, 2, 3, 4, 5), {}),
    ("Plain", (1,), {"fixed": 8}),
    ("Plain", (1,), {"nobody": 8}),
    ("Below", (1, "z"), {"c": 2.5}),
    ("Below", (1, "z", [], 3, 2.5), {}),
    ("Changed", (1, 2), {}),
    ("Changed", (1,), {"a": 2}),
    ("Own", (1,), {}),
    ("Nothing", (), {}),
    ("Named", (), {"a": 1}),
    ("Named", (1,), {}),
    ("Above", (1,), {}),
    ("Under", (1,), {}),
]


@pytest.mark.parametrize(("name", "args", "named"), CALLS)
def test_made_shown_and_refused_alike(name: str, args: tuple[Any, ...], named: dict[str, Any]) -> None:
    """A call gives the same object, shown by the same words, or the same error in the same words."""
    found = [told(lambda kind=kind: kind[name](*args, **named)) for kind in (STANDARD, LAZY)]  # type: ignore[misc]
    assert found[0] == found[1]


VALUES: dict[str, list[Callable[[Any], Any]]] = {
    "Plain": [
        lambda k: k(1),
        lambda k: k(1, more=[9]),
        lambda k: k(1, hidden=4),
        lambda k: k(2),
        lambda k: k(1, "y"),
    ],
    "Below": [lambda k: k(1), lambda k: k(1, c=2.0)],
    "Changed": [lambda k: k(1, 2), lambda k: k(1, 2), lambda k: k(3)],
    "Itself": [lambda k: k(1), lambda k: k(1)],
    "Own": [lambda k: k(1), lambda k: k(2)],
    "Nothing": [lambda k: k(), lambda k: k()],
    "Named": [lambda k: k(a=1), lambda k: k(a=1, b=3)],
    "Under": [lambda k: k(1), lambda k: k(2)],
}


@pytest.mark.parametrize("name", VALUES)
def test_compared_hashed_copied_and_changed_alike(name: str) -> None:
    """Equality and hash by pairs, copies, `replace`, setting and deleting: each says the same."""
    assert _said_of(STANDARD[name], VALUES[name]) == _said_of(LAZY[name], VALUES[name])


def _said_of(kind: Any, makes: list[Callable[[Any], Any]]) -> list[str]:
    values = [make(kind) for make in makes]
    first = values[0]
    said = [f"{a == b} {a == 1} {a != b}" for a in values for b in values]
    said += [told(lambda a=a, b=b: hash(a) == hash(b)) for a in values for b in values]  # type: ignore[misc]
    if kind.__eq__ is not object.__eq__:  # else the address is shown
        said += [told(lambda: copy.copy(first)), told(lambda: copy.deepcopy(first))]
        said += [told(lambda: dataclasses.replace(first, a=5))]
    # Of names that are no fields, the standard one with slots says that it cannot find its own class.
    for word in ("a",) if hasattr(kind, "__slots__") else ("a", "nobody"):
        said.append(told(lambda word=word: setattr(copy.copy(first), word, 1)))  # type: ignore[misc]
        said.append(told(lambda word=word: delattr(copy.copy(first), word)))  # type: ignore[misc]
    return said


@pytest.mark.parametrize("name", STANDARD)
def test_looked_at_alike(name: str) -> None:
    """Fields, slots, positions for `match`, signature and whether it can be hashed at all are the same."""

    def look(kind: Any) -> list[object]:
        return [
            [(each.name, each.type, each.init, each.kw_only) for each in dataclasses.fields(kind)],
            getattr(kind, "__slots__", None),
            kind.__match_args__,
            [(each.name, each.kind, each.annotation) for each in inspect.signature(kind).parameters.values()],
            kind.__hash__ is None,
            kind.__init__.__qualname__,
        ]

    assert look(STANDARD[name]) == look(LAZY[name])


@lazy_dataclass.dataclass(frozen=True, slots=True)
class Sent:
    a: int
    b: tuple[int, ...] = ()


def test_sent_to_another_process() -> None:
    """A frozen one with slots can be pickled."""
    assert pickle.loads(pickle.dumps(Sent(1, (2,)))) == Sent(1, (2,))


def test_a_method_is_made_once() -> None:
    """The first call puts the method in its place; the class's own stay, and what refers to itself can be shown."""

    @lazy_dataclass.dataclass
    class Once:
        a: Any = None

    before = Once.__init__
    one = Once()
    after = Once.__init__
    one.a = one
    assert before is not after
    assert Once().a is None
    assert Once.__init__ is after
    assert repr(one).endswith("Once(a=...)")
    before(one, 3)  # who still holds the first one gets the same
    assert one.a == 3


def test_a_server_loads_without_making_methods() -> None:
    """Loading a server writes no methods of dataclasses: each of them costs a millisecond of its start."""
    program = (
        "import dataclasses\n"
        "made, standard = [], dataclasses._process_class\n"
        "def count(cls, init, *rest):\n"
        "    if init and cls.__module__.startswith('corral'): made.append(cls.__name__)\n"
        "    return standard(cls, init, *rest)\n"
        "dataclasses._process_class = count\n"
        "import corral.serve, corral.daemon\n"
        "print(made)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"
