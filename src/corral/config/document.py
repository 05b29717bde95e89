"""YAML text as plain data with the position of every key.

Nothing in a document can make this run code, grow without bound or take a key twice: tags are refused, size, depth
and the number of values (aliases expanded) are limited, and a duplicate key is a problem that names both lines.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import yaml

from corral.config.problem import Key, Place, Problem
from corral.config.scalar import read_scalar, shorten
from corral.lazy_dataclass import dataclass

MAX_BYTES = 256 << 10
MAX_VALUES = 20_000
MAX_DEPTH = 16

_CORE_TAGS = {f"tag:yaml.org,2002:{each}" for each in ("str", "seq", "map")}


@dataclass(frozen=True, slots=True)
class Document:
    """`data` (mappings, lists and scalars), where each key stands, and how each scalar was spelt."""

    file: str
    data: Any
    places: Mapping[Key, Place] = field(default_factory=lambda: MappingProxyType({}))
    texts: Mapping[Key, str] = field(default_factory=lambda: MappingProxyType({}))
    problems: tuple[Problem, ...] = ()  # when there are any, `data` is only what could be read

    def place(self, key: Key) -> Place:
        """Where `key` stands, or the nearest thing around it that stands somewhere."""
        for length in range(len(key), 0, -1):
            if key[:length] in self.places:
                return self.places[key[:length]]
        return Place(self.file)


def read_document(file: Path) -> Document:
    """The document in `file`. Never raises: what cannot be read is in `problems`."""
    shown = str(file)

    def failed(message: str, hint: str = "") -> Document:
        return Document(shown, None, problems=(Problem(message, hint, Place(shown)),))

    try:
        if file.is_dir():
            return failed("is a directory", "name the models.yaml in it")
        if not file.is_file():
            return failed("there is no such file" if not file.exists() else "is not a plain file", "check the path")
        with file.open("rb") as opened:
            raw = opened.read(MAX_BYTES + 1)
    except OSError as error:
        return failed(f"cannot be read: {error.strerror}", "check its owner and mode")
    except ValueError:
        return failed("is not a usable path", "check the path")
    if len(raw) > MAX_BYTES:
        return failed(f"is larger than {MAX_BYTES >> 10} KiB", "is this really a models.yaml?")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        problem = Problem("is not UTF-8 text", "save it as UTF-8", Place(shown, line))
        return Document(shown, None, problems=(problem,))
    return parse_document(text, shown)


def parse_document(text: str, file: str) -> Document:
    """The document `text`, called `file` in messages. Never raises: see `Document.problems`."""
    walk = _Walk(file)
    data: Any = None
    try:
        node = yaml.compose(text, Loader=yaml.BaseLoader)
        data = None if node is None else walk.value(node, (), 0)
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        walk.problem("a control character is not allowed here", "remove it", Place(file, line))
    except yaml.MarkedYAMLError as error:
        walk.syntax(error)
    except RecursionError:
        walk.problem("values are nested too deeply", "a models.yaml needs four levels", Place(file))
    except _TooMuch as stop:
        walk.problem(str(stop), "write the values out", stop.place)
    except (yaml.YAMLError, ValueError, OverflowError, IndexError) as error:
        # PyYAML leaks these, for instance chr() on "\UFFFFFFFF" in a quoted text.
        walk.problem(f"this is not YAML: {error}", "check quotes and escapes", Place(file))
    return Document(file, data, walk.places, walk.texts, tuple(walk.problems))


class _TooMuch(Exception):
    def __init__(self, message: str, place: Place) -> None:
        super().__init__(message)
        self.place = place


class _Walk:
    """One pass over a node tree that fills the three tables of a document."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.places: dict[Key, Place] = {}
        self.texts: dict[Key, str] = {}
        self.problems: list[Problem] = []
        self._count = 0

    def problem(self, message: str, hint: str, place: Place, key: Key = ()) -> None:
        self.problems.append(Problem(message, hint, place, key))

    def syntax(self, error: yaml.MarkedYAMLError) -> None:
        mark = error.problem_mark or error.context_mark
        place = Place(self.file) if mark is None else Place(self.file, mark.line + 1, mark.column + 1)
        what = str(error.problem or error.context or "cannot be read")
        if "'\\t'" in what:
            self.problem("a tab stands where YAML wants spaces", "indent with spaces", place)
        else:
            self.problem(f"this is not YAML: {what}", _syntax_hint(what), place)

    def value(self, node: yaml.Node, key: Key, depth: int) -> Any:
        place = self._place(node)
        self._count += 1
        if self._count > MAX_VALUES:
            raise _TooMuch(f"more than {MAX_VALUES} values, aliases expanded", place)
        if depth > MAX_DEPTH:
            raise _TooMuch("values are nested too deeply", place)
        if node.tag not in _CORE_TAGS:
            self.problem(f"the tag {node.tag!r} means nothing here", "remove it", place, key)
            return None
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, key)
        if isinstance(node, yaml.SequenceNode):
            items = []
            for position, child in enumerate(node.value):
                inner = (*key, str(position))
                self.places[inner] = self._place(child)
                items.append(self.value(child, inner, depth + 1))
            return items
        return self._mapping(node, key, depth)

    def _scalar(self, node: yaml.ScalarNode, key: Key) -> Any:
        text = str(node.value)
        if _has_surrogate(text):
            self.problem("half a surrogate pair is no character", "correct the \\u escape", self._place(node), key)
            return None
        self.texts[key] = text
        return read_scalar(text) if node.style is None else text

    def _mapping(self, node: yaml.Node, key: Key, depth: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name_node, child in node.value:
            place = self._place(name_node)
            plain = isinstance(name_node, yaml.ScalarNode) and name_node.tag in _CORE_TAGS
            name = str(name_node.value) if plain else ""
            if not plain or _has_surrogate(name):
                self.problem("a key must be a plain word", "put it in quotes if it has brackets", place, key)
            elif name in found:
                first = self.places[(*key, name)].line
                self.problem(f"`{shorten(name)}` is given twice", f"the first is in line {first}", place, (*key, name))
            else:
                self.places[(*key, name)] = place
                found[name] = self.value(child, (*key, name), depth + 1)
        return found

    def _place(self, node: yaml.Node) -> Place:
        return Place(self.file, node.start_mark.line + 1, node.start_mark.column + 1)


def _has_surrogate(text: str) -> bool:
    return any(0xD800 <= ord(char) <= 0xDFFF for char in text)


def _syntax_hint(what: str) -> str:
    if "mapping values are not allowed" in what:
        return "is the line before complete, and is a text with `: ` in quotes?"
    if "expected <block end>" in what:
        return "is everything of one list or mapping indented alike?"
    if "undefined alias" in what:
        return "put a text that begins with * in quotes"
    return "check the indentation, and quotes around texts with special signs"
