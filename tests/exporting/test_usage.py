"""The room in a few lines: a trained model becomes a folder for other libraries."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from sentence_transformers import SentenceTransformer

from raydist.exporting.hub import export_model
from raydist.models.biencoder import BiEncoder

TEXTS = ["a heron fishes", "at dawn"]


def test_an_exported_model_gives_equal_vectors_elsewhere(tiny_bert: Path, tmp_path: Path) -> None:
    model = BiEncoder.load(tiny_bert, pooling="mean", normalize=True, device="cpu")
    model.save(tmp_path / "model")
    export_model(tmp_path / "model", tmp_path / "hf", name="org/model")
    elsewhere = SentenceTransformer(str(tmp_path / "hf"), device="cpu")
    vectors = model.encode_documents(TEXTS)
    np.testing.assert_allclose(elsewhere.encode_document(TEXTS), vectors, atol=1e-5)
    assert "SentenceTransformer(" in (tmp_path / "hf" / "README.md").read_text()
