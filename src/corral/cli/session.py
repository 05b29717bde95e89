"""A chat without a terminal: what was said, how the model is asked, and the commands that change it. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import field
from typing import Any

from corral.lazy_dataclass import dataclass

HELP = '''\
/set system TEXT            tell the model what it is to be; without a text: nothing
/set parameter NAME VALUE   temperature, top_p, top_k, min_p, seed, max_tokens, stop,
                            repeat_penalty, presence_penalty, frequency_penalty; without a value: its default
/set format json            answers are one JSON value; back: /set noformat
/set verbose                show rates after each answer; back: /set quiet
/set nothink                ask the model not to think first; back: /set think
/show [info|parameters|system]
/clear                      forget what was said
/bye, /exit                 leave; so does Ctrl-D
"""                         begins and ends a message of several lines
Ctrl-C stops an answer.'''


def _stops(text: str) -> list[str]:
    return [text.replace("\\n", "\n")]


PARAMETERS: dict[str, Callable[[str], Any]] = {
    "temperature": float,
    "top_p": float,
    "top_k": int,
    "min_p": float,
    "seed": int,
    "max_tokens": int,
    "stop": _stops,
    "repeat_penalty": float,
    "presence_penalty": float,
    "frequency_penalty": float,
}
"""Fields of the request's body that may be set, and how each is read."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What a command answers: words to print, and what else the terminal has to do."""

    text: str = ""
    leave: bool = False
    show_info: bool = False


class Draft:
    """Gathers one message, which may span lines between triple quotes."""

    def __init__(self) -> None:
        self._lines: list[str] | None = None

    @property
    def open(self) -> bool:
        """A triple quote has been opened and not yet closed."""
        return self._lines is not None

    def take(self, line: str) -> str | None:
        """The message that `line` completes; None while more is to come."""
        if self._lines is None:
            lead, quote, rest = line.partition('"""')
            if not quote or lead.strip() not in ("", "/set system"):
                return line
            if rest.rstrip().endswith('"""'):
                return lead + rest.rstrip().removesuffix('"""')
            self._lines = [lead + rest] if lead + rest else []
            return None
        if line.rstrip().endswith('"""'):
            last = line.rstrip().removesuffix('"""')
            message = "\n".join([*self._lines, *([last] if last else [])])
            self._lines = None
            return message
        self._lines.append(line)
        return None

    def drop(self) -> None:
        """Forgets a message that was begun."""
        self._lines = None


@dataclass
class Session:
    """One chat with one model."""

    model: str
    system: str | None = None
    parameters: dict[str, Any] = field(default_factory=dict)
    json_format: bool = False
    think: bool = True
    verbose: bool = False
    turns: list[dict[str, str]] = field(default_factory=list)

    def messages(self, prompt: str) -> list[dict[str, str]]:
        """All that is sent to have `prompt` answered."""
        first = [{"role": "system", "content": self.system}] if self.system else []
        return [*first, *self.turns, {"role": "user", "content": prompt}]

    def options(self) -> dict[str, Any]:
        """The other fields of the request's body."""
        options = dict(self.parameters)
        if self.json_format:
            options["response_format"] = {"type": "json_object"}
        if not self.think:
            options["chat_template_kwargs"] = {"enable_thinking": False}
        return options

    def answered(self, prompt: str, answer: str) -> None:
        """Remembers a turn, also one that was stopped half-way; one without any answer is as if not asked."""
        if answer:
            self.turns += [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]

    def command(self, line: str) -> Reply:
        """Carries out a line that begins with a slash."""
        name, _, rest = line.strip().partition(" ")
        if name in ("/bye", "/exit"):
            return Reply(leave=True)
        if name in ("/?", "/help"):
            return Reply(HELP)
        if name == "/clear":
            self.turns.clear()
            return Reply("Forgotten.")
        if name == "/show":
            return self._show(rest.strip() or "info")
        if name == "/set":
            return self._set(rest.strip())
        return Reply(
            f"There is no {name}; /? shows what there is. To send a text that begins with /, put a space first."
        )

    def _show(self, what: str) -> Reply:
        if what == "info":
            return Reply(show_info=True)
        if what == "system":
            return Reply(self.system or "No system message is set.")
        if what == "parameters":
            return Reply(self._settings())
        return Reply("Show what? /show info, /show parameters or /show system")

    def _settings(self) -> str:
        lines = [f"{name:<18} {_shown(value)}" for name, value in sorted(self.parameters.items())]
        switches = [("format", "json" if self.json_format else "text")]
        switches += [
            ("think", "as the model does" if self.think else "no"),
            ("verbose", "yes" if self.verbose else "no"),
        ]
        return "\n".join(lines + [f"{name:<18} {value}" for name, value in switches])

    def _set(self, rest: str) -> Reply:
        what, _, value = rest.partition(" ")
        value = value.strip()
        if what == "system":
            self.system = value or None
            return Reply("The system message is set." if value else "No system message any more.")
        if what == "parameter":
            return self._set_parameter(value)
        if what == "format" and value == "json":
            self.json_format = True
            return Reply("Answers are JSON now.")
        switches = {
            "noformat": ("json_format", False, "Answers are text now."),
            "verbose": ("verbose", True, "Rates are shown after each answer."),
            "quiet": ("verbose", False, "Rates are no longer shown."),
            "think": ("think", True, "The model thinks as it likes."),
            "nothink": ("think", False, "The model is asked not to think first."),
        }
        if what in switches and not value:
            name, on, text = switches[what]
            setattr(self, name, on)
            return Reply(text)
        known = "system, parameter, format json, noformat, verbose, quiet, think, nothink"
        return Reply(f"Set what? {known}" if not what else f"/set does not know {rest!r}; it knows: {known}")

    def _set_parameter(self, rest: str) -> Reply:
        name, _, value = rest.partition(" ")
        if name not in PARAMETERS:
            said = f"There is no parameter {name!r}. " if name else ""
            return Reply(f"{said}The parameters are: {', '.join(PARAMETERS)}")
        if not value.strip():
            self.parameters.pop(name, None)
            return Reply(f"{name} is the engine's default again.")
        try:
            self.parameters[name] = PARAMETERS[name](value.strip())
        except ValueError:
            kind = "a whole number" if PARAMETERS[name] is int else "a number"
            return Reply(f"{name} wants {kind}, not {value.strip()!r}.")
        return Reply(f"{name} is {_shown(self.parameters[name])} now.")


def _shown(value: Any) -> str:
    return ", ".join(map(repr, value)) if isinstance(value, list) else str(value)
