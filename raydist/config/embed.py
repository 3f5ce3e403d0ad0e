"""Configuration of `raydist embed`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from raydist.config.base import Verb, execution
from raydist.data.spec import CorpusSource
from raydist.dense.spec import AnnSpec
from raydist.models.spec import EncoderSource
from raydist.spec import Bytes


class EmbedConfig(Verb):
    """Turns a corpus into vector shards."""

    corpus: CorpusSource
    """The documents."""
    model: EncoderSource
    """The bi-encoder."""
    out: str = Field(min_length=1)
    """The folder to write."""
    precision: Literal["float32", "float16", "int8", "binary"] = "float32"
    """How vectors are stored."""
    dimension: int = Field(0, ge=0)
    """Dimensions to keep of each vector (a Matryoshka prefix); 0 keeps all."""
    ann: AnnSpec = AnnSpec()
    """An approximate index to build beside the vectors."""
    split_bytes: Bytes = 0
    """Size of a split of the corpus, the unit of restart; 0 chooses by the size of the corpus."""
    workers: int = execution(0, ge=0)
    """Ray actors; 0 works in this process, without Ray."""
    cpus_per_worker: float = execution(1.0, gt=0)
    """CPUs of an actor."""
    gpus_per_worker: float = execution(0.0, ge=0)
    """GPUs of an actor."""
    max_tokens: int = execution(0, ge=0)
    """Tokens in a batch, padding included; 0 chooses by the device."""
