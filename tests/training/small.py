"""Small real things for tests of training: a random two-layer BERT and a few dozen samples."""

from __future__ import annotations

from pathlib import Path

from raydist.models.biencoder import BiEncoder
from raydist.models.crossencoder import CrossEncoderModel
from raydist.models.scratch import create
from raydist.records import Sample

WORDS = (
    *("river", "stone", "lamp", "garden", "winter", "bread", "mirror", "candle", "forest"),
    *("engine", "harbour", "letter", "copper", "music", "paper", "bridge", "silver", "orange"),
    *("window", "market"),
)


def texts() -> list[str]:
    """Sixty different short texts."""
    n = len(WORDS)
    return [
        " ".join(WORDS[(i * a + b) % n] for b in range(3 + i % 5))
        for i in range(20)
        for a in (1, 3, 7)
    ]


def samples(count: int = 24, negatives: int = 5, scores: bool = False) -> list[Sample]:
    """Samples whose query shares words with its positive."""
    pool = texts()
    drawn = []
    for i in range(count):
        positive = pool[i % len(pool)] + f" {WORDS[i % len(WORDS)]}"
        others = [pool[(i * 7 + 11 * j + 5) % len(pool)] for j in range(negatives)]
        drawn.append(
            Sample(
                query=" ".join(positive.split()[:3]),
                documents=(positive, *others),
                scores=tuple(5.0 - j * 0.7 + (i % 3) for j in range(negatives + 1))
                if scores
                else None,
                query_id=f"q{i}",
            )
        )
    return drawn


def checkpoint(folder: Path) -> Path:
    """Writes a random BERT of 2 layers x 32 with a vocabulary of the texts."""
    create(texts(), folder, layers=2, hidden=32, heads=2, vocab=300, seed=1)
    return folder


def encoder(folder: Path, **options: object) -> BiEncoder:
    """The random BERT as a bi-encoder, dropout off by default."""
    settings = {"dropout": 0.0, "device": "cpu", "pooling": "mean", "normalize": True, **options}
    return BiEncoder.load(folder, **settings)  # type: ignore[arg-type]


def reranker(folder: Path, **options: object) -> CrossEncoderModel:
    """The random BERT as a cross-encoder with a fresh head."""
    settings = {"dropout": 0.0, "device": "cpu", **options}
    return CrossEncoderModel.load(folder, **settings)  # type: ignore[arg-type]
