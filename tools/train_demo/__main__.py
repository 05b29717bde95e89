"""Trains the demo model on the CPU and writes it: `python tools/train_demo --out src/corral/demo/corral-demo.gguf`."""

from __future__ import annotations

import argparse
import itertools
import math
import random
import time
from collections.abc import Iterator
from pathlib import Path

import corpus
import export
import torch
from network import Llama, Shape
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor
from torch.nn import functional

SEED = 8642
STEPS = 1100
BATCH_TOKENS = 1800
PEAK_RATE = 4e-3
OPENING_TOKENS = 10
LATER_WEIGHT = 0.25
IGNORED = -100  # the label of a token that is read, not learned

Sample = tuple[list[int], list[int]]
"""Token ids and, for each, the label: itself, or IGNORED."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="the GGUF file to write")
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--threads", type=int, default=1, help="another number rounds differently")
    options = parser.parse_args()
    torch.manual_seed(SEED)
    torch.set_num_threads(options.threads)
    torch.use_deterministic_algorithms(True)

    shape = Shape()
    tokenizer = train_tokenizer(shape.vocabulary)
    model = Llama(shape)
    count = sum(parameter.numel() for parameter in model.parameters())
    print(f"{count:,} parameters, {tokenizer.get_vocab_size()} tokens in the vocabulary")
    loss = train(model, batches(tokenizer, SEED), steps=options.steps)
    story = (
        "A tiny model that shows Corral at work. It was trained by tools/train_demo on text which that script writes "
        f"itself: seed {SEED}, {options.steps} steps, final loss {loss:.4f}."
    )
    export.write(options.out, model, tokenizer, story=story)
    print(f"{options.out}: {options.out.stat().st_size:,} bytes")


def train_tokenizer(size: int) -> Tokenizer:
    """A byte-level BPE like GPT-2's with `size` tokens, learned from the corpus."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=list(corpus.SPECIAL),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    texts = ("".join(piece.text for piece in talk) for talk in itertools.islice(corpus.dialogues(SEED + 1), 24_000))
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def samples(tokenizer: Tokenizer, seed: int) -> Iterator[Sample]:
    for talk in corpus.dialogues(seed):
        ids: list[int] = []
        labels: list[int] = []
        for piece in talk:
            encoded = tokenizer.encode(piece.text).ids
            ids += encoded
            labels += encoded if piece.learned else [IGNORED] * len(encoded)
        yield ids, labels


def batches(tokenizer: Tokenizer, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches of about BATCH_TOKENS tokens, padded, of dialogues of like length in random order."""
    rng = random.Random(seed)
    source = samples(tokenizer, seed)
    while True:
        pool = sorted(itertools.islice(source, 1024), key=lambda sample: len(sample[0]))
        groups: list[list[Sample]] = [[]]
        for sample in pool:
            if groups[-1] and len(sample[0]) * (len(groups[-1]) + 1) > BATCH_TOKENS:
                groups.append([])
            groups[-1].append(sample)
        rng.shuffle(groups)
        for group in groups:
            longest = max(len(ids) for ids, _ in group)
            yield (
                torch.tensor([ids + [0] * (longest - len(ids)) for ids, _ in group]),
                torch.tensor([labels + [IGNORED] * (longest - len(labels)) for _, labels in group]),
            )


def opening_weights(learned: Tensor) -> Tensor:
    """Weights by place in an answer: its first tokens decide which answer it is, the rest follows by heart."""
    count = learned.long().cumsum(dim=1)
    before = torch.where(learned, torch.zeros_like(count), count).cummax(dim=1).values
    return torch.where(count - before <= OPENING_TOKENS, 1.0, LATER_WEIGHT)


def train(model: Llama, source: Iterator[tuple[Tensor, Tensor]], *, steps: int) -> float:
    """Train for `steps` batches; the result is the mean loss of the last fifty."""
    matrices = [p for p in model.parameters() if p.dim() == 2]
    gains = [p for p in model.parameters() if p.dim() == 1]
    groups = [{"params": matrices, "weight_decay": 0.05}, {"params": gains, "weight_decay": 0.0}]
    optimiser = torch.optim.AdamW(groups, lr=PEAK_RATE, betas=(0.9, 0.98))
    warm = max(1, steps // 25)
    began = time.monotonic()
    recent: list[float] = []
    for step, (tokens, labels) in enumerate(itertools.islice(source, steps)):
        rate = PEAK_RATE * min((step + 1) / warm, 0.5 * (1 + math.cos(math.pi * step / steps)) + 0.01)
        for group in optimiser.param_groups:
            group["lr"] = rate
        hidden = model(tokens[:, :-1])
        wanted = labels[:, 1:]
        learned = wanted != IGNORED
        logits = hidden[learned] @ model.token_embd.weight.T
        losses = functional.cross_entropy(logits, wanted[learned], reduction="none")
        weights = opening_weights(learned)[learned]
        loss = (losses * weights).sum() / weights.sum()
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        recent = [*recent[-49:], loss.item()]
        if step % 50 == 49:
            print(
                f"step {step + 1:5}  loss {sum(recent) / len(recent):.4f}  {time.monotonic() - began:4.0f} s",
                flush=True,
            )
    return sum(recent) / len(recent)


if __name__ == "__main__":
    main()
