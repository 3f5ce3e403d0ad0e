"""Configuration of `raydist embed`."""

from __future__ import annotations

from pydantic import Field

from raydist.config.base import Flat, Verb
from raydist.data.spec import CorpusSource
from raydist.dense.spec import EmbeddingSpec
from raydist.models.spec import EncoderSource


class EmbedConfig(Verb):
    """Turns a corpus into vector shards."""

    corpus: CorpusSource
    """The documents."""
    model: EncoderSource
    """The bi-encoder."""
    out: str = Field(min_length=1)
    """The folder to write."""
    embedding: Flat[EmbeddingSpec]
