"""Configuration of `raydist embed`."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, model_validator

from raydist.config.base import Flat, Verb, execution
from raydist.data.spec import CorpusSource
from raydist.dense.spec import EmbeddingSpec
from raydist.late.spec import LateSpec
from raydist.models.spec import EncoderSource
from raydist.spec import ADDED, Reads


class EmbedConfig(Verb):
    """Turns a corpus into vector shards."""

    corpus: CorpusSource | None = None
    """The documents."""
    delete: Annotated[str | None, Reads(), ADDED] = None
    """Instead of `corpus`: a file of ids to delete from the vectors, one per line."""
    purge: bool = execution(False)
    """With `delete`: rewrite the segments concerned, which removes the bytes at once; otherwise the
    next `raydist merge` removes them."""
    model: EncoderSource | None = None
    """The bi-encoder or multi-vector model; with --append the one that embedded the folder."""
    out: str = Field(min_length=1)
    """The folder to write."""
    embedding: Flat[EmbeddingSpec]
    late: Flat[LateSpec]

    def identity(self) -> dict[str, Any]:
        """Returns the fields that decide the result.

        Vectors are the same for all values of `duplicates` but `last`.
        """
        last = {"duplicates": "last"} if self.embedding.duplicates == "last" else {}
        return {**super().identity(), **last}

    @model_validator(mode="after")
    def _documents_or_ids(self) -> EmbedConfig:
        if (self.corpus is None) == (self.delete is None):
            raise ValueError("give one of corpus=, documents to embed, and delete=, ids to remove")
        if self.purge and self.delete is None:
            raise ValueError(
                "purge: give delete= too; raydist merge removes what is deleted already"
            )
        return self
