"""A chat request in OpenAI's shape made ready for llama.cpp: what that does not do itself, or only seemingly. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from typing import Any, NamedTuple

from corral.errors import CallerError
from corral.gateway.dialects import tool_choice
from corral.gateway.dialects.reasoning.effort import applied, effort_of
from corral.gateway.dialects.reasoning.harmony import CHANNEL, Harmony
from corral.gateway.dialects.reasoning.style import Style
from corral.gateway.dialects.reasoning.tags import Cleaner
from corral.gateway.dialects.reasoning.think import Think

_SPECIAL = frozenset(("reasoning_effort", "num_ctx", "tool_choice", "n", "n_cmpl", "chat_template_kwargs"))
_AS_KEY = re.compile(rb'"(?:%b)"\s*:' % "|".join(sorted(_SPECIAL)).encode())


def is_plain(body: bytes, members: Collection[str] | None = None) -> bool:
    """Whether nothing in a request's JSON is `prepared`'s business: it can go to the engine as it is. `members` are the
    keys of its object, where they are known; else it is what looks like one, however deep."""
    if b"|channel|" in body:
        return False
    return _AS_KEY.search(body) is None if members is None else _SPECIAL.isdisjoint(members)


class Prepared(NamedTuple):
    """A request as the engine gets it."""

    request: dict[str, Any]
    headers: list[tuple[bytes, bytes]]  # what the client is told
    bound: bool  # the answer is JSON that is to become a call
    cleaner: Callable[[], Cleaner] | None
    num_ctx: int | None  # what was asked for
    prefill: str = ""  # what the answer was made to begin with


def prepared(request: dict[str, Any], style: Style, *, budget: int | None = None) -> Prepared:
    """`budget`: of thoughts, in tokens. Raises CallerError."""
    headers: list[tuple[bytes, bytes]] = []
    num_ctx = _num_ctx(request)
    request = {key: value for key, value in request.items() if key != "num_ctx"}
    thinks_not = False
    if (asked := request.get("reasoning_effort")) is not None:
        effort = effort_of(asked, style, budget=budget)
        request = applied(request, effort)
        headers.append((b"x-corral-reasoning-effort", effort.header(asked)))
        thinks_not = effort.level == "none"
    own = request.get("chat_template_kwargs")
    thinks_not = thinks_not or (isinstance(own, dict) and own.get("enable_thinking") is False)
    request, must_call = tool_choice.chosen(request)
    bound = must_call and not style.tools
    if bound:
        request = tool_choice.bound(request)
    cleaner = style.make()
    if request.get("reasoning_format") is not None:
        cleaner = None  # it says itself how it wants them
    elif cleaner is None and style.thinks and thinks_not:
        cleaner = Think  # what is thought all the same stays in the text
    if style.cleaner == "harmony":
        request = _without_tags(request)
    return Prepared(request, headers, bound, cleaner, num_ctx)


def _num_ctx(request: dict[str, Any]) -> int | None:
    wanted = request.get("num_ctx")
    if wanted is None:
        return None
    if not isinstance(wanted, int) or isinstance(wanted, bool) or wanted < 1:
        raise CallerError(
            "num_ctx must be a number of tokens", hint="leave it out, or send such as 8192", param="num_ctx"
        )
    return wanted


def _without_tags(request: dict[str, Any]) -> dict[str, Any]:
    """Earlier answers without Harmony's tags, which its template refuses; thoughts stay beside calls only."""
    messages = request.get("messages")
    if not isinstance(messages, list):
        return request
    return {**request, "messages": [_message(each) for each in messages]}


def _message(message: Any) -> Any:
    if not isinstance(message, dict) or message.get("role") != "assistant":
        return message
    content = message.get("content")
    if not isinstance(content, str) or CHANNEL not in content:
        return message
    cleaner = Harmony()
    pieces = [*cleaner.feed(content), *cleaner.end()]
    said, thought = ("".join(piece.text for piece in pieces if piece.kind == kind) for kind in ("text", "think"))
    made = {**message, "content": said}
    if thought and message.get("tool_calls") and not message.get("reasoning_content"):
        made["reasoning_content"] = thought
    return made


def bare(request: dict[str, Any]) -> dict[str, Any] | None:
    """`request` so that the engine gives the model's text as it is, unread; None when that cannot be asked."""
    if request.get("tools") or request.get("response_format"):
        return None
    messages = request.get("messages")
    if not isinstance(messages, list) or not messages:
        return None
    if isinstance(messages[-1], dict) and messages[-1].get("role") == "assistant":
        return None
    # llama.cpp reads nothing into an answer that has been begun; this is how each of them begins.
    return {**request, "messages": [*messages, {"role": "assistant", "content": CHANNEL}]}
