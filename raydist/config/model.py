"""The model of a verb: `model=PATH_OR_NAME` is `model.path=PATH_OR_NAME`."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from raydist.config.base import Block, execution


class ScratchConfig(Block):
    """A model from nothing: a WordPiece vocabulary trained on the data and a random BERT."""

    layers: int = Field(2, ge=1)
    """Transformer layers."""
    hidden: int = Field(128, ge=8)
    """Width; a multiple of `heads`."""
    heads: int = Field(2, ge=1)
    """Attention heads."""
    vocab: int = Field(8192, ge=32)
    """Most WordPiece entries."""
    max_length: int = Field(512, ge=8)
    """Positions that the model has."""


class LoraConfig(Block):
    """Low-rank adapters instead of all weights; saved models have them merged."""

    r: int = Field(16, ge=1)
    """Rank of the matrices."""
    alpha: float = Field(32, gt=0)
    """Scale of the adapters, divided by the rank."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Dropout before the adapters."""
    targets: tuple[str, ...] = ()
    """Names of the modules that get adapters; all linear ones if empty."""

    def arguments(self) -> dict[str, Any]:
        """Returns the keyword arguments of `peft.LoraConfig`."""
        targets: Any = list(self.targets) if self.targets else "all-linear"
        return {
            "r": self.r,
            "lora_alpha": self.alpha,
            "lora_dropout": self.dropout,
            "target_modules": targets,
        }


class EncoderSource(Block):
    """A trained bi-encoder: where it is, and what its folder does not say by itself."""

    primary: ClassVar[str | None] = "path"

    path: str = Field(min_length=1)
    """A folder, a finished training run, or a name on the Hugging Face hub."""
    pooling: Literal["cls", "mean", "last_token"] | None = None
    """How token vectors become one; the folder's own if not given."""
    normalize: bool | None = None
    """Vectors of unit length; the folder's own if not given."""
    query_instruction: str | None = None
    """Text before each query; the folder's own if not given."""
    document_instruction: str | None = None
    """Text before each document; the folder's own if not given."""
    query_max_length: int | None = Field(None, ge=2)
    """Tokens kept of a query, all included; the folder's own if not given."""
    document_max_length: int | None = Field(None, ge=2)
    """Tokens kept of a document, all included; the folder's own if not given."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Of the weights; auto is bfloat16 on an accelerator that has it, else float32."""
    attention: str = "sdpa"
    """sdpa, eager, or flash_attention_2 where it is installed."""
    replace_contract: bool = False
    """Let the values given here win over what the folder froze."""

    def arguments(self) -> dict[str, Any]:
        """Returns the keyword arguments of `BiEncoder.load`, the path and `dtype=auto` left out."""
        given = {name: getattr(self, name) for name in type(self).model_fields if name != "path"}
        if self.dtype == "auto":
            del given["dtype"]
        return {name: value for name, value in given.items() if value is not None}


class _Trained(Block):
    """What every model that is trained has in common."""

    primary: ClassVar[str | None] = "path"

    path: str | None = Field(None, min_length=1)
    """The folder or hub name to start from."""
    scratch: ScratchConfig | None = None
    """Start from nothing instead."""
    padding_side: Literal["left", "right"] | None = None
    """Side on which short texts are padded; the folder's own if not given."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Of the weights in memory; bfloat16 where float32 copies of what is trained are kept: LoRA of
    a bi-encoder, or DeepSpeed's stages from 1 on."""
    autocast: Literal["bfloat16"] | None = None
    """Precision of the matrix products while weights stay float32."""
    attention: str = "sdpa"
    """sdpa, eager, or flash_attention_2 where it is installed."""
    gradient_checkpointing: bool = execution(False)
    """Recompute activations in the backward pass: less memory, more time."""
    lora: LoraConfig | None = None
    """Train low-rank adapters only."""
    dropout: float | None = Field(None, ge=0, lt=1)
    """Replaces every dropout probability of the model."""
    replace_contract: bool = False
    """Let the values given here win over what the folder froze."""

    @model_validator(mode="after")
    def _one_start(self) -> _Trained:
        if (self.path is None) == (self.scratch is None):
            raise ValueError("one of path and scratch is required")
        return self

    def arguments(self) -> dict[str, Any]:
        """Returns the keyword arguments of the model's `load`, without the path."""
        given = {name: getattr(self, name) for name in type(self).model_fields}
        given |= {"lora": self.lora.arguments() if self.lora else None}
        return {
            name: value
            for name, value in given.items()
            if name not in ("path", "scratch") and value is not None
        }


class ModelConfig(_Trained):
    """A bi-encoder to train."""

    pooling: Literal["cls", "mean", "last_token"] | None = None
    """How token vectors become one; the folder's own if not given, cls if it says nothing."""
    normalize: bool | None = None
    """Vectors of unit length; the folder's own if not given, false if it says nothing."""
    towers: Literal[1, 2] | None = None
    """One transformer for all texts, or one for queries and one for documents."""
    query_instruction: str | None = None
    """Text before each query, as it stands (mind the blank at its end)."""
    document_instruction: str | None = None
    """Text before each document."""
    answer_instruction: str | None = None
    """Text before each answer (Reinforced-IR)."""
    query_max_length: int | None = Field(None, ge=2)
    """Tokens kept of a query, all included."""
    document_max_length: int | None = Field(None, ge=2)
    """Tokens kept of a document or an answer, all included."""
    dimensions: tuple[int, ...] | None = None
    """Nested (Matryoshka) dimensions to train for, ascending."""


class RerankerModelConfig(_Trained):
    """A cross-encoder to train."""

    max_length: int | None = Field(None, ge=5)
    """Tokens kept of a pair, all included."""
    query_max_length: int | None = Field(None, ge=0)
    """Tokens kept of the query before only the document is cut; 0 cuts the longer of the two."""


def check_precision(model: ModelConfig | RerankerModelConfig, zero: int) -> list[str]:
    """Returns what is wrong with half-precision weights, one line at most; for the verbs."""
    # A reranker's LoRA trains its head as well, which stays in the model's own precision.
    adapters_alone = model.lora is not None and isinstance(model, ModelConfig)
    if model.dtype == "float32" or zero or adapters_alone:
        return []
    return [
        f"model.dtype = {model.dtype}: small updates of such weights are lost in rounding; "
        "model.autocast=bfloat16 computes in half precision and keeps them, deepspeed.zero=1 "
        "keeps float32 copies"
    ]
