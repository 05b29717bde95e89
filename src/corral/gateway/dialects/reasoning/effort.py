"""How much a model shall think: what clients say, in the way that its engine and template understand. Pure."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from corral.gateway.dialects.reasoning.style import Style

LEVELS: Final = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
BUDGETS: Final = {"low": 1024, "medium": 8192, "high": -1}
"""Tokens that a model which can only be switched on and off may think; −1 = as many as it likes."""

_CLAMPED: Final = {"minimal": "low", "xhigh": "high", "max": "high"}


class Effort(NamedTuple):
    """What counts of a wish, and the fields of a llama.cpp request that say it."""

    level: str  # "none", "low", "medium" or "high"
    fields: dict[str, Any]

    def header(self, asked: object) -> bytes:
        """What the client is told of it."""
        text = self.level if asked == self.level else f"{self.level}; asked={asked}"
        return "".join(sign if sign.isprintable() else "?" for sign in text).encode("ascii", "replace")[:100]


def effort_of(asked: object, style: Style, *, budget: int | None = None) -> Effort:
    """`asked` is one of `LEVELS`; anything else counts as medium. `budget` bounds the thoughts in tokens, where the
    engine can. A model that does not think has "none"."""
    word = asked.strip().lower() if isinstance(asked, str) else ""
    level = _CLAMPED.get(word, word if word in LEVELS else "medium")
    if style.effort == "none":
        return Effort("none", {})
    if style.effort == "levels":
        level = "low" if level == "none" else level  # it cannot be told not to think
        fields: dict[str, Any] = {"reasoning_effort": level, "chat_template_kwargs": {"reasoning_effort": level}}
    else:
        fields = {"chat_template_kwargs": {"enable_thinking": level != "none"}}
        budget = BUDGETS.get(level) if budget is None else budget
    if budget is not None and level != "none" and budget >= 0:
        fields["thinking_budget_tokens"] = budget
    return Effort(level, fields)


def level_of_budget(tokens: int) -> str:
    """The level that a budget of thoughts comes closest to."""
    return "low" if tokens < 4096 else "medium" if tokens < 16384 else "high"


def applied(request: dict[str, Any], effort: Effort) -> dict[str, Any]:
    """`request` with `effort` in it; what it says to the template itself counts more."""
    made = {key: value for key, value in request.items() if key != "reasoning_effort"} | effort.fields
    own = request.get("chat_template_kwargs")
    if isinstance(own, dict):
        made["chat_template_kwargs"] = {**effort.fields.get("chat_template_kwargs", {}), **own}
    return made
