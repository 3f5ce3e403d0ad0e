"""The reranker of a verb: `reranker=` takes a kind, a released name or a folder.

A folder's kind is told by its `config.json`: a causal language model is a Qwen3 reranker, a
sequence classifier a cross-encoder, anything else a bi-encoder.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, TypeAdapter, field_validator

from raydist.config.base import Block, FromScalar, execution
from raydist.models.packaged import packaged
from raydist.rerank.released import PREFIX, RELEASED, SUFFIX, TASK

_KINDS = ("bm25", "cross_encoder", "qwen3", "biencoder")


class Bm25Reranking(Block):
    """BM25 over a query's own candidates."""

    kind: Literal["bm25"] = "bm25"
    """BM25; needs no model."""
    k1: float = Field(1.5, ge=0)
    """Saturation of the term frequency."""
    b: float = Field(0.75, ge=0, le=1)
    """How much a document's length counts."""
    epsilon: float = Field(0.25, ge=0)
    """Share of the mean idf given to terms in more than half of the candidates."""
    index: str | None = None
    """A bag-of-words index: its analysis and its statistics instead of the candidates' own."""


class _Neural(Block):
    primary: ClassVar[str | None] = "model"

    device: str = execution("")
    """cpu, cuda, cuda:1, ...; empty is what is there."""
    dtype: Literal["", "float32", "bfloat16", "float16"] = ""
    """Of the weights; empty is bfloat16 on an accelerator, else float32."""
    batch_tokens: int = execution(0, ge=0)
    """Most tokens of a batch, padding included; 0 goes by the device."""
    threads: int = execution(2, ge=1)
    """Threads that tokenise."""
    truncation: Literal["truncate", "chunk_max", "error"] = "truncate"
    """A document that does not fit is cut, scored in pieces (the best counts), or refused."""


class CrossEncoderReranking(_Neural):
    """A sequence classifier that reads query and document together."""

    kind: Literal["cross_encoder"] = "cross_encoder"
    """Scores as sentence-transformers' CrossEncoder."""
    model: str = Field(min_length=1)
    """A folder, a finished training run, or a name on the Hugging Face hub."""
    max_length: int = Field(0, ge=0)
    """Tokens of a pair, special tokens included; 0 is the model's own."""
    query_max_length: int = Field(0, ge=0)
    """Tokens kept of a query; 0 cuts the longer of query and document."""


class Qwen3Reranking(_Neural):
    """A causal language model that answers yes or no."""

    kind: Literal["qwen3"] = "qwen3"
    """Score: the probability of yes."""
    model: str = Field(RELEASED[0], min_length=1)
    """Qwen/Qwen3-Reranker-0.6B, -4B, -8B, or a local folder."""
    max_length: int = Field(8192, ge=1)
    """Most tokens of a prompt, prefix and suffix included."""
    task: str = TASK
    """What the model is told to look for."""
    prefix: str = PREFIX
    """The prompt's beginning."""
    suffix: str = SUFFIX
    """The prompt's end."""
    share_prefix: bool = execution(True)
    """Compute what comes before the document once per query."""

    @field_validator("model")
    @classmethod
    def _released_or_local(cls, model: str) -> str:
        if model not in RELEASED and not Path(model).is_dir():
            raise ValueError(f"neither a local folder nor one of {', '.join(RELEASED)}")
        return model


class BiEncoderReranking(_Neural):
    """A bi-encoder: dot products of query and document vectors; each is encoded on its own."""

    kind: Literal["biencoder"] = "biencoder"
    """Scores are similarities."""
    model: str = Field(min_length=1)
    """A folder, a finished training run, or a name on the Hugging Face hub."""


class RegisteredReranking(_Neural):
    """A model of MLflow's registry; its folder tells of which kind it is."""

    kind: Literal["registered"] = "registered"
    """Any of the others."""
    model: str = Field(pattern=r"^models:/[^/@]+(@[^/@]+|/\d+)$")
    """models:/NAME@ALIAS or models:/NAME/VERSION."""


def reranker_from_scalar(text: str) -> dict[str, Any]:
    """Returns the block that a kind, a released name, a folder or a hub name stands for."""
    word = text.strip()
    if word in _KINDS:
        return {"kind": word}
    if word.startswith("Qwen/"):
        return {"kind": "qwen3", "model": word}
    place = packaged(word)
    # A training run has a config.json of its own, which is not its model's.
    for folder in (place / "checkpoint-final", place):
        if (folder / "modules.json").is_file() or (folder / "config.json").is_file():
            return {"kind": _kind(folder), "model": word}
    return {"kind": "cross_encoder", "model": word}


def _kind(folder: Path) -> str:
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        architectures = [str(name) for name in config.get("architectures") or []]
    except (OSError, ValueError, AttributeError):
        architectures = []
    if any(name.endswith("ForCausalLM") for name in architectures):
        return "qwen3"
    if any(name.endswith("ForSequenceClassification") for name in architectures):
        return "cross_encoder"
    return "biencoder"


def _from_text(value: Any) -> Any:
    return reranker_from_scalar(value) if isinstance(value, str) else value


RerankerConfig = Annotated[
    Bm25Reranking | CrossEncoderReranking | Qwen3Reranking | BiEncoderReranking,
    Field(discriminator="kind"),
    BeforeValidator(_from_text),
    FromScalar(reranker_from_scalar),
]
"""A reranker of any kind."""


def _served_from_scalar(text: str) -> dict[str, Any]:
    if text.strip().startswith("models:/"):
        return {"kind": "registered", "model": text.strip()}
    return reranker_from_scalar(text)


def _served_from_text(value: Any) -> Any:
    return _served_from_scalar(value) if isinstance(value, str) else value


ServedRerankerConfig = Annotated[
    Bm25Reranking
    | CrossEncoderReranking
    | Qwen3Reranking
    | BiEncoderReranking
    | RegisteredReranking,
    Field(discriminator="kind"),
    BeforeValidator(_served_from_text),
    FromScalar(_served_from_scalar),
]
"""A reranker of any kind, or a registered one."""


def settled(config: ServedRerankerConfig, folder: str) -> RerankerConfig:
    """Returns the configuration of a reranker whose model lies in `folder` now."""
    if not isinstance(config, RegisteredReranking):
        return config
    options = config.model_dump(exclude={"kind", "model"}, exclude_unset=True)
    found: RerankerConfig = TypeAdapter(RerankerConfig).validate_python(
        reranker_from_scalar(folder) | options
    )
    return found
