"""A small sparse model and a corpus for it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForMaskedLM, AutoTokenizer

from raydist.models.biencoder import BiEncoder

WORDS = ("vector", "index", "retrieval", "document", "query", "model", "search", "rank", "score")


@pytest.fixture(scope="session")
def sparse_model(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny BERT with a random masked-language-model head, as a sparse model's folder."""
    base = tmp_path_factory.mktemp("mlm")
    torch.manual_seed(3)
    model = AutoModelForMaskedLM.from_pretrained(tiny_bert)
    with torch.no_grad():
        for parameter in model.cls.parameters():
            parameter.normal_(0, 0.5)
    model.save_pretrained(base)
    AutoTokenizer.from_pretrained(tiny_bert).save_pretrained(base)
    folder = tmp_path_factory.mktemp("sparse")
    BiEncoder.load(base, kind="sparse", device="cpu").save(folder)
    return folder


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("corpus") / "corpus.jsonl"
    rows = [
        {
            "id": f"d{n}",
            "title": "",
            "text": " ".join(WORDS[(n * i) % 9] for i in range(1, 4 + n % 9)),
        }
        for n in range(60)
    ]
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return path
