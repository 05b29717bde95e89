"""The chat without its terminal: commands, parameters, messages of several lines."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral.cli.session import PARAMETERS, Draft, Session


def drafted(*lines: str) -> list[str | None]:
    draft = Draft()
    return [draft.take(line) for line in lines]


def test_draft() -> None:
    """Triple quotes gather lines, also after `/set system`; quotes elsewhere are text."""
    assert drafted('"""one', "  two", 'three"""') == [None, None, "one\n  two\nthree"]
    assert drafted('"""', "a", '"""') == [None, None, "a"]
    assert drafted('"""all in one"""') == ["all in one"]
    assert drafted('/set system """You', 'are kind."""') == [None, "/set system You\nare kind."]
    assert drafted('print("""x""")') == ['print("""x""")']


def test_memory() -> None:
    """A turn is remembered with what came of its answer; one without any answer is forgotten; /clear forgets all."""
    session = Session("m", system="S")
    session.answered("a", "b")
    session.answered("c", "")
    assert [m["content"] for m in session.messages("d")] == ["S", "a", "b", "d"]
    session.command("/clear")
    assert [m["content"] for m in session.messages("d")] == ["S", "d"]


def test_settings() -> None:
    """/set changes what is sent, /show tells it, and a value of the wrong kind changes nothing."""
    session = Session("m")
    for line in ("temperature 0.5", "max_tokens 7", "stop \\n", "seed x", "top_q 1"):
        session.command(f"/set parameter {line}")
    session.command("/set format json")
    session.command("/set nothink")
    assert session.options() == {
        "temperature": 0.5,
        "max_tokens": 7,
        "stop": ["\n"],
        "response_format": {"type": "json_object"},
        "chat_template_kwargs": {"enable_thinking": False},
    }
    assert "temperature        0.5" in session.command("/show parameters").text
    assert "whole number" in session.command("/set parameter seed 1.5").text
    session.command("/set parameter temperature")
    session.command("/set noformat")
    session.command("/set think")
    assert session.options() == {"max_tokens": 7, "stop": ["\n"]}
    session.command("/set system Be kind.")
    assert session.command("/show system").text == "Be kind."


@pytest.mark.parametrize("line", ["/bye", "/exit", " /bye "])
def test_leave(line: str) -> None:
    """/bye and /exit leave."""
    assert Session("m").command(line).leave


@given(
    st.text(max_size=40),
    st.sampled_from(["/", "/set ", "/set parameter ", "/show ", *map("/set parameter {} ".format, PARAMETERS)]),
)
def test_any_line(rest: str, lead: str) -> None:
    """No command line breaks the session, and each is answered."""
    reply = Session("m").command(lead + rest)
    assert reply.text or reply.leave or reply.show_info
