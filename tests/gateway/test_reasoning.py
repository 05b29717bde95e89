"""The cleaners: thoughts come apart from what is said, however a stream is cut and however malformed its tags are."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral.gateway.dialects.reasoning.harmony import Harmony
from corral.gateway.dialects.reasoning.tags import Cleaner, Piece, joined
from corral.gateway.dialects.reasoning.think import PAIRS, Think

HARMONY = ("<|start|>", "<|end|>", "<|channel|>", "<|message|>", "<|return|>", "<|call|>", "<|constrain|>")
WORDS = ("analysis", "commentary", "final", "assistant", "assistantfinal", " to=functions.get", "We ", "??", "x", "\n")
MAKERS: list[Callable[[], Cleaner]] = [Harmony, Think, lambda: Think(opened=True)]


def cleaned(make: Callable[[], Cleaner], *parts: str) -> list[Piece]:
    cleaner = make()
    return joined([*(piece for part in parts for piece in cleaner.feed(part)), *cleaner.end()])


def both(pieces: list[Piece]) -> tuple[str, str]:
    """What was thought and what was said."""
    thought, said = ("".join(piece.text for piece in pieces if piece.kind == kind) for kind in ("think", "text"))
    return thought, said


FENCED = "see:\n```\n<|start|>assistant<|channel|>analysis<|message|>x<|end|><|start|>assistant\n```\nok"


@pytest.mark.parametrize(
    ("text", "thought", "said"),
    [
        ("<|channel|>analysis<|message|>R<|end|><|start|>assistant<|channel|>final<|message|>A<|return|>", "R", "A"),
        ("<|channel|>analysis<|message|>I think<|end|>yes", "I think", "yes"),  # the second header was dropped
        ("<|channel|>Hello there.", "", "Hello there."),  # free text where a header should be
        ("<|channel|>??", "", ""),
        ("<|channel|>?? analysis<|message|>R", "R", ""),
        ("<|channel|>commentary 2?<|message|>x<|end|>", "", "x"),
        ("<|channel|>commentary<|channel|>commentary<|message|>x<|end|>", "", "x"),
        ("yes sure", "", "yes sure"),  # no markup at all
        ('<|channel|>commentary<|message|>{"a":1}<|end|>', "", '{"a":1}'),  # after tool results
        ("analysisWe need…assistantfinalFour", "We need…", "Four"),  # markers dropped, words kept
        ("assistantfinalFour", "", "Four"),
        ("analysisWe need", "We need", ""),
        ("analysis of variance", "", "analysis of variance"),
        ("<|channel|>analysis<|message|>We were cut", "We were cut", ""),
        ("<|channel|>anal", "", ""),
        (
            "<|channel|>commentary<|message|>I'll look.<|end|><|start|>assistant<|channel|>final<|message|>A",
            "",
            "I'll look.\n\nA",
        ),
        (f"<|channel|>final<|message|>{FENCED}<|return|>", "", FENCED),  # an example, asked for
        ("it is written <|end|> at the end", "", "it is written <|end|> at the end"),
        ("A<|end|>", "", "A"),
        ("– – commentary", "", "– – commentary"),
    ],
)  # fmt: skip
def test_harmony_cases(text: str, thought: str, said: str) -> None:
    """Every known leak comes out as thought and text without a marker."""
    assert both(cleaned(Harmony, text)) == (thought, said)


@pytest.mark.parametrize(
    "text",
    [
        '<|channel|>commentary to=functions.get <|constrain|>json<|message|>{"a":1}<|call|>',
        '<|start|>assistant to=functions.get<|channel|>commentary json<|message|>{"a":1}<|call|>',
        '<|channel|>analysis to=functions.get code<|message|>{"a":1}<|end|>',
    ],
)
def test_harmony_calls(text: str) -> None:
    """A call names its tool in the header of the channel or of the role; the message is its arguments."""
    assert cleaned(Harmony, text) == [Piece("call", "get"), Piece("args", '{"a":1}')]


@pytest.mark.parametrize(
    ("text", "thought", "said"),
    [
        *((f"{opening}R{closing}\n\nA", "R", "A") for opening, closing in PAIRS.items()),
        ("\n\n<think>R</think>\n\nA", "R", "A"),
        ("</think>\n\nA", "", "A"),  # of a thought that the prompt had ended
        ("<think>We were cut", "We were cut", ""),
        ("it writes <think> first", "", "it writes <think> first"),
        ("A<channel|>", "", "A"),
        ("<think></think>A", "", "A"),
        ("  A", "", "  A"),
    ],
)
def test_think_cases(text: str, thought: str, said: str) -> None:
    """Tags count at the beginning of a message; what is said later may speak of them."""
    assert both(cleaned(Think, text)) == (thought, said)


def test_thoughts_that_the_prompt_began() -> None:
    """Where the template ends with the opening tag, the closing one is the first that comes."""
    assert both(cleaned(lambda: Think(opened=True), "R</think>\n\nA")) == ("R", "A")
    assert both(cleaned(lambda: Think(opened=True), "<think>R</think>A")) == ("R", "A")


pieces_of_text = st.lists(
    st.sampled_from((*HARMONY, *WORDS, *PAIRS, *PAIRS.values(), "```")) | st.text(max_size=6), max_size=14
)


@given(st.sampled_from(MAKERS), pieces_of_text, st.lists(st.integers(0, 200), max_size=40))
def test_any_cut_gives_the_same(make: Callable[[], Cleaner], parts: list[str], cuts: list[int]) -> None:
    """However a message is cut, the same is thought, said and called."""
    text = "".join(parts)
    at = [0, *sorted({cut for cut in cuts if cut < len(text)}), len(text)]
    pieces = [text[begin:end] for begin, end in pairwise(at)]
    assert cleaned(make, *pieces) == cleaned(make, text) == cleaned(make, *text)


@given(st.text(alphabet=st.characters(exclude_characters="<[◁`"), min_size=1))
def test_text_without_tags_is_left_alone(text: str) -> None:
    """What has no markers is said as it is, unless words of Harmony's headers stand at its beginning."""
    assert both(cleaned(Think, text)) == ("", text)
    if text.lstrip()[:1] not in tuple("acf"):
        assert both(cleaned(Harmony, text)) == ("", text)


@given(st.text(max_size=30), st.text(max_size=30), st.lists(st.integers(1, 5), max_size=60))
def test_well_formed_harmony_is_told_apart(thought: str, said: str, sizes: list[int]) -> None:
    """A thought and an answer come out whole, cut anywhere, as long as they hold no markers themselves."""
    if "<" in thought + said or "```" in said:
        return
    text = (
        f"<|channel|>analysis<|message|>{thought}<|end|><|start|>assistant<|channel|>final<|message|>{said}<|return|>"
    )
    parts, at = [], 0
    for size in sizes:
        parts.append(text[at : at + size])
        at += size
    assert both(cleaned(Harmony, *parts, text[at:])) == (thought, said)
