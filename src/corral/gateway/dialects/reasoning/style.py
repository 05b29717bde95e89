"""How a model reasons, judged by its chat template, its architecture and its engine's flags. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Final, Literal, NamedTuple

from corral.gateway.dialects.reasoning.harmony import Harmony
from corral.gateway.dialects.reasoning.tags import Cleaner
from corral.gateway.dialects.reasoning.think import PAIRS, Think

Kind = Literal["none", "harmony", "think"]

HARMONY_ARCHITECTURES: Final = frozenset(("gpt-oss", "gpt_oss", "gptoss"))
THINKING_ARCHITECTURES: Final = frozenset(
    (
        "qwen3",
        "qwen3moe",
        "qwen3next",
        "qwen35",
        "qwen35moe",
        "deepseek2",
        "glm4moe",
        "seed_oss",
        "minimax-m2",
        "kimi-k2",
    )
)
"""Those whose models write `<think>` although a template that was put in the place of theirs does not know of it."""

_OPENED = re.compile(
    r"(?:<think>|<thinking>|<thought>|<reasoning>|\[THINK\]|◁think▷)(?:\\n|\s)*['\"]?\s*-?\}\}"
    r"(?:\s|\{%-?\s*(?:end)?if\b[^%]*%\})*$"
)


class Style(NamedTuple):
    """What is to be known of a model's thoughts."""

    cleaner: Kind = "none"  # what its engine leaves to us
    opened: bool = False  # its prompts end with an opening tag
    thinks: bool = False
    effort: Literal["none", "levels", "switch"] = "none"  # how it is told how much
    tools: bool = False  # its template has a place for tools

    def make(self) -> Callable[[], Cleaner] | None:
        """What makes the cleaner of a message; None where none is needed."""
        if self.cleaner == "harmony":
            return Harmony
        return (lambda: Think(opened=self.opened)) if self.cleaner == "think" else None


def style_of(
    template: str,
    architecture: str,
    flags: Sequence[str] = (),
    wanted: Literal["auto", "none", "harmony", "think"] = "auto",
) -> Style:
    """`wanted` is the model's `reasoning` key. llama.cpp tells apart what its template has tags for, unless its flags
    say otherwise; of Harmony it leaves what is malformed."""
    harmony = "<|channel|>" in template or architecture in HARMONY_ARCHITECTURES
    tagged = any(tag in template for pair in PAIRS.items() for tag in pair)
    thinks = harmony or tagged or architecture in THINKING_ARCHITECTURES or "enable_thinking" in template
    left = not tagged or _leaves_tags(flags)
    cleaner: Kind = "harmony" if harmony else "think" if thinks and left else "none"
    effort: Literal["none", "levels", "switch"] = "none"
    if harmony or "reasoning_effort" in template:
        effort = "levels"
    elif thinks:
        effort = "switch"
    if wanted != "auto":
        cleaner = wanted
    return Style(
        cleaner, _OPENED.search(template) is not None, thinks, effort, re.search(r"\btools\b", template) is not None
    )


def _leaves_tags(flags: Sequence[str]) -> bool:
    for at, flag in enumerate(flags):
        name, _, value = flag.partition("=")
        if name in ("--no-jinja", "--skip-chat-parsing"):
            return True
        if name in ("--reasoning-format", "-rf") and (value or "".join(flags[at + 1 : at + 2])) == "none":
            return True
    return False
