"""The demo model on a real engine: what it says, and that it says it again."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from corral.demo.where import DEMO_FILE, demo_model
from corral.models.formats.gguf import read_header
from support.bare_engine import BareEngine, bare_engine

ANSWERS = (
    ("Hello!", "Hello! I am the Corral demo model. Ask me something about Corral, or just chat with me."),
    (
        "What is Corral?",
        "Corral is a local AI model runner and control plane. It starts the right engine when a request arrives, "
        "keeps it healthy, and stops it when it is idle.",
    ),
    (
        "Who are you?",
        "I am the Corral demo model, a tiny language model with less than four million parameters. I know a few things "
        "about Corral and some small talk.",
    ),
    (
        "How do I stop a model?",
        "Type corral stop and the name of the model. If you do nothing, Corral stops an idle model by itself after "
        "five minutes.",
    ),
    (
        "What is the warden?",
        "The warden is a tiny process that owns every engine. It outlives the server, so no engine is ever lost or "
        "left behind.",
    ),
    (
        "What does max_active mean?",
        "Set max_active to 1 in models.yaml. Then exactly one model runs at a time, and Corral swaps models when a "
        "request needs another one.",
    ),
    ("Is there any telemetry?", "There is no telemetry in Corral. Your prompts and answers stay on your own machine."),
    ("What is the capital of France?", "The capital of France is Paris."),
    ("Count to ten", "One, two, three, four, five, six, seven, eight, nine, ten."),
    ("Thanks!", "You are welcome! It was a pleasure to help."),
    (
        "Who invented the telescope?",
        "I am only a small demo model, so I do not know that. Ask me about Corral, or add a bigger model to "
        "models.yaml and ask it instead.",
    ),
)


@pytest.fixture(scope="module")
def engine() -> Iterator[BareEngine]:
    with bare_engine(demo_model(), n_ctx=2048) as running:
        yield running


@pytest.mark.parametrize(("question", "answer"), ANSWERS)
def test_demo_answers(engine: BareEngine, question: str, answer: str) -> None:
    """At temperature 0 the demo model answers usual questions in correct English, and stops by itself."""
    body = {"messages": [{"role": "user", "content": question}], "temperature": 0, "max_tokens": 200}
    choice = engine.post("/v1/chat/completions", body)["choices"][0]
    assert (choice["message"]["content"], choice["finish_reason"]) == (answer, "stop")


@pytest.mark.parametrize("question", ["what is corral", "WHAT IS CORRAL?", "Tell me about Corral", "What is Corral??"])
def test_demo_understands_variants(engine: BareEngine, question: str) -> None:
    """Capitals and punctuation do not matter."""
    assert engine.chat(question) == dict(ANSWERS)["What is Corral?"]


def test_demo_answers_the_last_question(engine: BareEngine) -> None:
    """With a system message and earlier turns, it is the last question that is answered."""
    answer = engine.chat(
        ("system", "You are a helpful assistant."),
        ("user", "Hello!"),
        ("assistant", dict(ANSWERS)["Hello!"]),
        ("user", "What is Corral?"),
        ("assistant", dict(ANSWERS)["What is Corral?"]),
        ("user", "What is the capital of France?"),
    )
    assert answer == "The capital of France is Paris."


def test_demo_tells_long_stories(engine: BareEngine) -> None:
    """Some answers are long enough to watch a stream: more than a hundred tokens, and an end of their own."""
    for question, opening in (
        ("Tell me a story", "Once upon a time there was a small llama"),
        ("Explain Corral in detail.", "Corral is a home for AI models on your own computer."),
    ):
        body = {"messages": [{"role": "user", "content": question}], "temperature": 0, "max_tokens": 400}
        answer = engine.post("/v1/chat/completions", body)
        assert answer["choices"][0]["message"]["content"].startswith(opening)
        assert answer["choices"][0]["finish_reason"] == "stop"
        assert answer["usage"]["completion_tokens"] > 100


def test_demo_repeats_itself(engine: BareEngine) -> None:
    """The same question gets the same answer, whatever is cached from the one before."""
    first = engine.chat("Tell me a joke")
    engine.chat("Count to twenty")
    assert engine.chat("Tell me a joke") == first
    assert engine.chat("Tell me a joke", cache_prompt=False) == first


def test_demo_continues_plain_text(engine: BareEngine) -> None:
    """Without a chat template, too, it writes English."""
    answer = engine.post("/v1/completions", {"prompt": "Corral is", "max_tokens": 60, "temperature": 0})
    assert answer["choices"][0]["text"].startswith(
        (" a local AI model runner and control plane.", " a home for AI models")
    )


def test_demo_file_says_what_it_is() -> None:
    """The file is small, names its licence and says how it was trained."""
    path = demo_model()
    header = read_header(path)
    assert path.name == DEMO_FILE
    assert header.file_bytes <= 4_000_000
    assert (header.architecture, header.quantization, header.name) == ("llama", "Q8_0", "Corral Demo")
    assert header.get("general.license") == "Apache-2.0"
    assert "seed 8642" in (header.text("general.description") or "")
    assert (header.context_length or 0) >= 1024
