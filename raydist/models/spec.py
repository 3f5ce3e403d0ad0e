"""Options of models: `model=PATH_OR_NAME` is `model.path=PATH_OR_NAME`."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from os import PathLike
from typing import Annotated, Any, ClassVar, Literal, Self

from annotated_types import Ge, Gt, Lt, MinLen

from raydist.spec import ADDED, EXECUTION, Reads

EncoderKind = Literal["biencoder", "sparse", "multivector"]
FolderLayout = Literal["sentence-transformers", "pylate"]
"""Whose library loads a folder, beside raydist."""
"""What a text becomes: one vector, weights of the vocabulary's terms, or a vector a token."""
Pooling = Literal["cls", "mean", "last_token", "max", "weighted_mean", "mean_sqrt_len", "sum"]
"""How token vectors become one; `sum`, and else `max`, for weights of terms."""
Saturation = Literal["log1p", "log1p_twice"]
"""What makes a term's weight of its logit x: log(1 + max(x, 0)), or the same again of that."""
QueryEncoder = Literal["transformer", "table", "fixed"]
"""What weighs a query's terms."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scratch:
    """A model from nothing: a WordPiece vocabulary trained on the data and a random BERT."""

    layers: Annotated[int, Ge(1)] = 2
    """Transformer layers."""
    hidden: Annotated[int, Ge(8)] = 128
    """Width; a multiple of `heads`."""
    heads: Annotated[int, Ge(1)] = 2
    """Attention heads."""
    vocab: Annotated[int, Ge(32)] = 8192
    """Most WordPiece entries."""
    max_length: Annotated[int, Ge(8)] = 512
    """Positions that the model has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lora:
    """Low-rank adapters instead of all weights; saved models have them merged."""

    r: Annotated[int, Ge(1)] = 16
    """Rank of the matrices."""
    alpha: Annotated[float, Gt(0)] = 32
    """Scale of the adapters, divided by the rank."""
    dropout: Annotated[float, Ge(0), Lt(1)] = 0.0
    """Dropout before the adapters."""
    targets: tuple[str, ...] = ()
    """Names of the modules that get adapters; all linear ones if empty."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSettings:
    """What can be set of all models that are trained."""

    primary: ClassVar[str] = "path"

    path: Annotated[Annotated[str, MinLen(1)] | None, Reads("model")] = None
    """The folder or hub name to start from."""
    scratch: Scratch | None = None
    """Start from nothing instead."""
    padding_side: Literal["left", "right"] | None = None
    """Side on which short texts are padded; the folder's own if not given."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Of the weights in memory; bfloat16 where float32 copies of what is trained are kept: LoRA of
    a bi-encoder, or DeepSpeed's stages from 1 on."""
    autocast: Literal["bfloat16", "float32"] | None = None
    """Precision of the matrix products while weights stay float32; if not given, bfloat16 on GPUs
    that have it, else float32."""
    tf32: Annotated[bool, ADDED] = False
    """Let GPUs compute float32 matrix products in TF32: faster, with ten bits of a mantissa."""
    compile: Annotated[bool, EXECUTION] = False
    """Compile the transformer (torch.compile): the first steps take minutes, the others less."""
    attention: str = "sdpa"
    """sdpa (what the model has, where it has none), eager, varlen (no padding, bi-encoders), or
    flash_attention_2 and flash_attention_3 where installed."""
    trust_remote_code: Annotated[bool, EXECUTION] = False
    """Run the code that a folder brings with it: only of authors whom you trust."""
    gradient_checkpointing: Annotated[bool, EXECUTION] = False
    """Recompute activations in the backward pass: less memory, more time."""
    lora: Lora | None = None
    """Train low-rank adapters only."""
    dropout: Annotated[float, Ge(0), Lt(1)] | None = None
    """Replaces every dropout probability of the model."""
    replace_contract: bool = False
    """Let the values given here win over what the folder froze."""

    @property
    def half_autocast(self) -> bool:
        """Whether matrix products are computed in half precision; undecided is no."""
        return self.autocast == "bfloat16"

    def __post_init__(self) -> None:
        if (self.path is None) == (self.scratch is None):
            raise ValueError("one of path and scratch is required")

    @classmethod
    def of(cls, model: str | PathLike[str] | Self, **settings: Any) -> Self:
        """Returns the settings of a folder or hub name, or others with some of them replaced."""
        if isinstance(model, cls):
            return replace(model, **settings)
        return cls(path=str(model), **settings)


@dataclass(frozen=True, slots=True, kw_only=True)
class BiEncoderSettings(ModelSettings):
    """A bi-encoder: where it is, and how it is used."""

    family: ClassVar[Literal["biencoder"]] = "biencoder"

    kind: Annotated[EncoderKind | None, ADDED] = None
    """One vector a text (biencoder), weights of the vocabulary's terms (sparse: SPLADE), or a
    vector a token (multivector: ColBERT); the folder's own if not given, biencoder if it says
    nothing."""
    pooling: Pooling | None = None
    """How token vectors become one; the folder's own if not given, cls if it says nothing. sparse
    takes max (if not given) and sum, over the terms' weights at each token."""
    normalize: bool | None = None
    """Vectors of unit length; the folder's own if not given, false if it says nothing."""
    towers: Literal[1, 2] | None = None
    """One transformer for all texts, or one for queries and one for documents."""
    query_instruction: str | None = None
    """Text before each query, verbatim (mind the blank at its end)."""
    document_instruction: str | None = None
    """Text before each document."""
    answer_instruction: str | None = None
    """Text before each answer (Reinforced-IR)."""
    query_max_length: Annotated[int, Ge(2)] | None = None
    """Tokens kept of a query, all included."""
    document_max_length: Annotated[int, Ge(2)] | None = None
    """Tokens kept of a document or an answer, all included."""
    append_eos: Annotated[bool | None, ADDED] = None
    """End each text with the end token, as last-token pooling may need; the folder's own if not
    given."""
    dimensions: tuple[int, ...] | None = None
    """Nested (Matryoshka) dimensions to train for, ascending."""
    saturation: Annotated[Saturation | None, ADDED] = None
    """sparse: what makes a weight of a logit x: log1p is log(1 + max(x, 0)), log1p_twice the same
    again of that; the folder's own if not given, log1p if it says nothing."""
    query_encoder: Annotated[QueryEncoder | None, ADDED] = None
    """sparse: what weighs a query's terms: the transformer, with expansion; a table with a weight
    for each token, learned (table) or left as it is (fixed, 1 without `query_weights`); the
    folder's own if not given, transformer if it says nothing."""
    query_weights: Annotated[str | None, Reads(), ADDED] = None
    """sparse: a JSON file of tokens and the weights (idf) that a new table starts from; 1 if not
    given."""
    query_terms: Annotated[Annotated[int, Ge(0)] | None, ADDED] = None
    """sparse: the heaviest terms that are kept of a query, outside of training; 0 keeps all."""
    document_terms: Annotated[Annotated[int, Ge(0)] | None, ADDED] = None
    """sparse: the heaviest terms that are kept of a document, outside of training; 0 keeps all."""
    projection: Annotated[int, Ge(1), ADDED] = 128
    """multivector: the vectors' width, where the folder has no projection and gets a fresh one."""
    expansion: Annotated[Annotated[int, Ge(0)] | None, ADDED] = None
    """multivector: tokens that a query has at least, filled up with mask tokens; 0 is none. The
    folder's own if not given, 32 if it says nothing."""
    expansion_attends: Annotated[bool | None, ADDED] = None
    """multivector: whether a query's own tokens see those that fill it up; the folder's own if not
    given, false if it says nothing."""
    skip: Annotated[Literal["punctuation", "nothing"] | None, ADDED] = None
    """multivector: tokens of documents that get no vector; the folder's own if not given,
    punctuation if it says nothing."""
    token_pooling: Annotated[Annotated[float, Ge(1)] | None, ADDED] = None
    """multivector: a document keeps one vector of so many, by hierarchical clustering; the folder's
    own if not given, 1 (all) if it says nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CrossEncoderSettings(ModelSettings):
    """A cross-encoder: where it is, and how it is used."""

    family: ClassVar[Literal["crossencoder"]] = "crossencoder"

    max_length: Annotated[int, Ge(5)] | None = None
    """Tokens kept of a pair, all included."""
    query_max_length: Annotated[int, Ge(0)] | None = None
    """Tokens kept of the query before only the document is cut; 0 cuts the longer of the two."""

    @property
    def activation(self) -> Literal["identity", "sigmoid"] | None:
        """What makes scores of the logits; the folder's own if None."""
        return None


Output = Literal["real", "log_prob", "prob"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CrossEncoderStudent(CrossEncoderSettings):
    """A cross-encoder; it gets a fresh head where its folder has none."""

    kind: Literal["crossencoder"] = "crossencoder"
    """Reads query and document together."""
    output: Output = "real"
    """What it emits: real numbers, or (for listwise_softmax_ce) their sigmoids as probabilities;
    log_prob is the same in logarithms. The saved model then gives probabilities."""

    @property
    def activation(self) -> Literal["identity", "sigmoid"] | None:
        """What makes scores of the logits; the folder's own if None."""
        return None if self.output == "real" else "sigmoid"


@dataclass(frozen=True, slots=True, kw_only=True)
class BiEncoderStudent(BiEncoderSettings):
    """A bi-encoder, scoring by the dot product."""

    kind: EncoderKind = "biencoder"
    """Reads query and document apart: as one vector each, as weights of terms (sparse), or as a
    vector a token (multivector)."""
    output: Output = "real"
    """What it emits in training: real numbers, or (for listwise_softmax_ce) their sigmoids as
    probabilities; log_prob is the same in logarithms."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderSource:
    """A trained bi-encoder: its folder, and options that the folder does not have."""

    primary: ClassVar[str] = "path"

    path: Annotated[str, MinLen(1), Reads("model")]
    """A folder, a finished training run, or a name on the Hugging Face hub."""
    pooling: Pooling | None = None
    """How token vectors become one; the folder's own if not given."""
    normalize: bool | None = None
    """Vectors of unit length; the folder's own if not given."""
    query_instruction: str | None = None
    """Text before each query; the folder's own if not given."""
    document_instruction: str | None = None
    """Text before each document; the folder's own if not given."""
    query_max_length: Annotated[int, Ge(2)] | None = None
    """Tokens kept of a query, all included; the folder's own if not given."""
    document_max_length: Annotated[int, Ge(2)] | None = None
    """Tokens kept of a document, all included; the folder's own if not given."""
    append_eos: Annotated[bool | None, ADDED] = None
    """End each text with the end token, as last-token pooling may need; the folder's own if not
    given."""
    query_terms: Annotated[Annotated[int, Ge(0)] | None, ADDED] = None
    """sparse: the heaviest terms that are kept of a query, 0 = all; the folder's own if not
    given."""
    document_terms: Annotated[Annotated[int, Ge(0)] | None, ADDED] = None
    """sparse: the heaviest terms that are kept of a document, 0 = all; the folder's own if not
    given."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Of the weights; auto is bfloat16 on an accelerator that has it, else float32."""
    attention: str = "sdpa"
    """sdpa (what the model has, where it has none), eager, varlen (no padding), or
    flash_attention_2 and flash_attention_3 where installed."""
    trust_remote_code: Annotated[bool, EXECUTION] = False
    """Run the code that a folder brings with it: only of authors whom you trust."""
    replace_contract: bool = False
    """Let the values given here win over what the folder froze."""

    def settings(self, auto: str = "float32") -> BiEncoderSettings:
        """Returns what `BiEncoder.load` takes, `auto` for the type of the weights if it is auto."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        values["dtype"] = auto if self.dtype == "auto" else self.dtype
        return BiEncoderSettings(**values)


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderPlace:
    """The encoder of vectors: where it is now, and how it is loaded."""

    primary: ClassVar[str] = "path"

    path: Annotated[Annotated[str, MinLen(1)] | None, Reads("model")] = None
    """Its folder or hub name; where it was when the corpus was embedded if not given."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Of the weights."""
    attention: str = "sdpa"
    """sdpa (what the model has, where it has none), eager, varlen (no padding), or
    flash_attention_2 and flash_attention_3 where installed."""
    trust_remote_code: Annotated[bool, EXECUTION] = False
    """Run the code that a folder brings with it: only of authors whom you trust."""


def check_precision(model: ModelSettings, zero: int) -> list[str]:
    """Returns the verbs' complaint about half-precision weights, at most one line."""
    # A reranker's LoRA trains its head as well, which stays in the model's own precision.
    adapters_alone = model.lora is not None and isinstance(model, BiEncoderSettings)
    if model.dtype == "float32" or zero or adapters_alone:
        return []
    return [
        f"model.dtype = {model.dtype}: small updates of such weights are lost in rounding; "
        "model.autocast=bfloat16 computes in half precision and keeps them, deepspeed.zero=1 "
        "keeps float32 copies"
    ]
