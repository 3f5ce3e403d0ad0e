"""A model from nothing: a WordPiece vocabulary trained on given texts and a random small BERT."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import torch
from tokenizers import BertWordPieceTokenizer
from transformers import BertConfig, BertModel, BertTokenizerFast

from raydist.errors import ConfigError

__all__ = ["create"]


def create(
    texts: Iterable[str],
    folder: str | Path,
    *,
    layers: int = 2,
    hidden: int = 128,
    heads: int = 2,
    vocab: int = 8192,
    max_length: int = 512,
    seed: int = 0,
) -> Path:
    """Writes a Hugging Face folder with a trained tokenizer and a random encoder; returns it.

    The same texts, sizes and seed give the same bytes of vocabulary and weights.

    Args:
        texts: read once, streamed; all the vocabulary there will be.
        folder: made if need be.
        layers: transformer layers.
        hidden: width; a multiple of `heads`. The inner layer is four times as wide.
        heads: attention heads.
        vocab: most WordPiece entries, the five special ones included.
        max_length: positions the model has.
        seed: of the weights.
    """
    if hidden % heads:
        raise ConfigError(f"model.scratch.hidden={hidden}: not a multiple of heads={heads}")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    trainer = BertWordPieceTokenizer(lowercase=True)
    trainer.train_from_iterator(texts, vocab_size=vocab, min_frequency=2, show_progress=False)
    tokenizer = BertTokenizerFast(
        vocab=trainer.get_vocab(), do_lower_case=True, model_max_length=max_length
    )
    tokenizer.save_pretrained(str(folder))
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=4 * hidden,
        max_position_embeddings=max_length,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = BertModel(config)
    model.save_pretrained(str(folder))
    return folder
