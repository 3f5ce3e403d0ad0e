from __future__ import annotations

import numpy as np
import pytest

from raydist.errors import ConfigError
from raydist.models.biencoder import BiEncoder
from raydist.models.scratch import create

TEXTS = ["a bag of words", "a bag of vectors", "words and vectors"] * 4


def test_the_same_texts_and_seed_give_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        create(iter(TEXTS), tmp_path / name, hidden=16, heads=2, vocab=80, seed=3)
    for file in ("tokenizer.json", "model.safetensors", "config.json"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_it_has_the_requested_sizes_and_knows_its_words(tmp_path):
    create(TEXTS, tmp_path, layers=3, hidden=24, heads=4, vocab=90, max_length=32)
    model = BiEncoder.load(tmp_path, pooling="mean", device="cpu")
    config = model.towers[0].config
    assert (config.num_hidden_layers, config.hidden_size, config.vocab_size) == (3, 24, 44)
    assert model.contract.query_max_length == 32
    assert model.tokenizer.tokenize("Words of VECTORS") == ["words", "of", "vectors"]


def test_another_seed_gives_other_weights(tmp_path):
    vectors = [
        BiEncoder.load(
            create(TEXTS, tmp_path / str(seed), hidden=16, vocab=80, seed=seed), device="cpu"
        ).encode_queries(["bag"])
        for seed in (0, 1)
    ]
    assert not np.allclose(*vectors)


def test_heads_must_divide_the_width(tmp_path):
    with pytest.raises(ConfigError, match="not a multiple of heads=3"):
        create(TEXTS, tmp_path, hidden=16, heads=3)
