"""How many threads tiny models are computed with."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

import corral.demo
from corral.engines import threads
from corral.engines.executables import Build
from corral.models.formats.gguf import Header, read_header

DEMO_MODEL = Path(corral.demo.__path__[0]) / "corral-demo.gguf"
EMBEDDED = Build("embedded", Path("/x.so"), "xllamacpp 1", {}, ())


@pytest.fixture
def header() -> Header:
    return read_header(DEMO_MODEL)


def test_a_tiny_model_has_one_thread(header: Header) -> None:
    """A model whose weights are little work is computed by one thread: others would only wait for each other."""
    assert header.weights_bytes <= threads.TINY_BYTES
    assert threads.arguments(header, EMBEDDED, ()) == ("--threads", "1")


def test_any_other_has_as_many_as_its_engine_likes(header: Header) -> None:
    """A model with more weights than that is left to the engine."""
    copies = threads.TINY_BYTES // header.weights_bytes + 1
    assert threads.arguments(replace(header, tensors=header.tensors * copies), EMBEDDED, ()) == ()


@pytest.mark.parametrize("flag", ["-t", "--threads", "--mmproj", "-md", "--lora"])
def test_flags_of_its_own_come_first(header: Header, flag: str) -> None:
    """A model whose flags say how many, or bring weights of their own, is left alone."""
    assert threads.arguments(header, EMBEDDED, (flag, "3")) == ()


def test_a_build_that_does_not_know_the_flag_is_not_given_it(header: Header) -> None:
    """`--threads` goes only to a `llama-server` whose help lists it."""
    other = replace(EMBEDDED, kind="llama-server")
    assert threads.arguments(header, other, ()) == ()
    assert threads.arguments(header, replace(other, flags={"--threads": 1}), ()) == ("--threads", "1")
