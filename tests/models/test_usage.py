"""Models in a few lines: created, loaded, used, saved."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from raydist.models.biencoder import BiEncoder
from raydist.models.crossencoder import CrossEncoderModel
from raydist.models.scratch import create

TEXTS = ["a river of stones", "the lamp in the garden", "bread for the winter"] * 4


def test_a_bi_encoder_turns_texts_into_vectors(tmp_path: Path) -> None:
    create(TEXTS, tmp_path / "start", hidden=32, vocab=100)
    model = BiEncoder.load(tmp_path / "start", pooling="mean", normalize=True, device="cpu")
    vectors = model.encode_documents(TEXTS[:3])
    assert vectors.shape == (3, 32)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, rtol=1e-6)
    model.save(tmp_path / "saved")  # with the pooling, so that it need not be named again
    again = BiEncoder.load(tmp_path / "saved", device="cpu")
    assert np.array_equal(again.encode_documents(TEXTS[:3]), vectors)


def test_a_cross_encoder_scores_pairs(tmp_path: Path) -> None:
    create(TEXTS, tmp_path, hidden=32, vocab=100)
    model = CrossEncoderModel.load(tmp_path, fresh_head=True, device="cpu")
    pairs = model.tokenize(["river", "river"], TEXTS[:2])
    assert model(model.pad(pairs)).shape == (2,)
