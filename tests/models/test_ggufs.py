"""The test builders themselves, each served by a real engine."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.bare_engine import bare_engine
from support.ggufs import chain_text, write_bert, write_chain, write_random, write_unknown_arch

WORDS = ["The", "quick", "brown", "fox", "jumps", "over", "a", "lazy", "dog."]


@pytest.mark.parametrize("mib", [0, 4])
def test_chain_answers_its_words(tmp_path: Path, mib: float) -> None:
    """A chain model answers any prompt with exactly its words, at any temperature, and stops by itself; text that ends
    in one of them it goes on with."""
    with bare_engine(write_chain(tmp_path / "m.gguf", WORDS, mib=mib)) as engine:
        assert engine.chat("Say something") == chain_text(WORDS)
        assert engine.chat(("system", "Über"), ("user", "fox"), temperature=1.5) == chain_text(WORDS)
        for prompt, answer in (
            ("Say something", chain_text(WORDS)),
            ("quick fox", chain_text(WORDS).partition(" fox")[2]),
        ):
            choice = engine.post("/v1/completions", {"prompt": prompt, "max_tokens": 50})["choices"][0]
            assert (choice["text"], choice["finish_reason"]) == (answer, "stop")


def test_looping_chain_goes_on(tmp_path: Path) -> None:
    """A looping chain model repeats its words up to max_tokens."""
    with bare_engine(write_chain(tmp_path / "m.gguf", ["a", "b", "c"], loop=True)) as engine:
        assert engine.chat("?", max_tokens=7) == "a b c a b c a"


def test_long_chain_keeps_its_order(tmp_path: Path) -> None:
    """A chain of a thousand words comes out whole and in order."""
    words = [f"w{i}" for i in range(1000)]
    with bare_engine(write_chain(tmp_path / "m.gguf", words), n_ctx=2048) as engine:
        assert engine.chat("go", max_tokens=1500) == chain_text(words)


def test_chain_words_must_differ(tmp_path: Path) -> None:
    """A word given twice could not be followed by two different ones, so it is refused."""
    with pytest.raises(ValueError, match="each one once"):
        write_chain(tmp_path / "m.gguf", ["a", "b", "a"])


def test_random_runs_to_the_limit(tmp_path: Path) -> None:
    """A random model writes exactly max_tokens letters and spaces and never stops by itself."""
    with bare_engine(write_random(tmp_path / "m.gguf", seed=3)) as engine:
        choice = engine.post("/v1/completions", {"prompt": "hi", "max_tokens": 64, "temperature": 1})["choices"][0]
    assert choice["finish_reason"] == "length"
    assert len(choice["text"]) == 64
    assert set(choice["text"]) <= set("abcdefghijklmnopqrstuvwxyz ")


def test_random_has_the_size_asked_for(tmp_path: Path) -> None:
    """The size knob is right within a fifth."""
    for mib in (4, 30):
        assert write_random(tmp_path / "m.gguf", mib=mib).stat().st_size == pytest.approx(mib * (1 << 20), rel=0.2)


def test_bert_embeds(tmp_path: Path) -> None:
    """Texts that share words are closer to each other than to texts that do not."""
    texts = ["the llama is a model", "a model of the llama", "tokyo 42"]
    with bare_engine(write_bert(tmp_path / "m.gguf"), n_ctx=512, embedding=True) as engine:
        data = engine.post("/v1/embeddings", {"input": texts})["data"]
    vectors = [item["embedding"] for item in data]
    assert {len(vector) for vector in vectors} == {64}

    def likeness(a: int, b: int) -> float:
        return float(sum(x * y for x, y in zip(vectors[a], vectors[b], strict=True)))

    assert likeness(0, 1) > likeness(0, 2)


def test_bert_reranks(tmp_path: Path) -> None:
    """The reranking model puts the documents that speak of llamas first."""
    model = write_bert(tmp_path / "m.gguf", rank=True)
    documents = ["paris and tokyo", "llama llama llama", "the llama is a horse"]
    with bare_engine(model, n_ctx=512, embedding=True, pooling_type="LLAMA_POOLING_TYPE_RANK") as engine:
        results = engine.post("/rerank", {"query": "animals", "documents": documents})["results"]
    assert [item["index"] for item in sorted(results, key=lambda item: -item["relevance_score"])] == [1, 2, 0]


def test_unknown_architecture_is_refused(tmp_path: Path) -> None:
    """The engine itself does not know the architecture, so Corral is right to refuse it first."""
    with (
        pytest.raises(AssertionError, match="unknown model architecture: 'corralian'"),
        bare_engine(write_unknown_arch(tmp_path / "m.gguf")),
    ):
        pass
