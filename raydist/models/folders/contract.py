"""The tokenisation contract: how texts become vectors or scores, frozen into a checkpoint folder.

A model is only as good as the way its texts are prepared: the same weights with another prefix,
length, pooling or padding side are another model, and nothing fails when they differ. So each
saved folder carries `raydist.json`, and loading it with another value is refused.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

from raydist.errors import ArtifactError, ConfigError
from raydist.fingerprints import tokenizer_fingerprint
from raydist.models.spec import EncoderKind, Pooling, QueryEncoder, Saturation

ModelKind = EncoderKind | Literal["crossencoder"]
CONTRACT_FILE = "raydist.json"
FORMAT = 1
OF_TOKENS = (
    "expansion",
    "expansion_attends",
    "expansion_token",
    "skip",
    "token_pooling",
    "protected_tokens",
    "pooled_length",
)
"""Fields that only multi-vector models have; others' files leave them out."""


@dataclass(frozen=True)
class Contract:
    """Everything beside the weights that decides a model's output.

    Attributes:
        kind: `biencoder` (one vector a text), `sparse` (weights of terms), `multivector` (a vector
            a token) or `crossencoder`.
        pooling: how token vectors become one; unused by a cross-encoder.
        normalize: whether vectors have unit length.
        padding_side: the side that short texts are padded on.
        towers: 1 (shared weights) or 2 (queries, documents).
        query_instruction: put before each query, verbatim (mind the trailing blank).
        document_instruction: put before each document.
        answer_instruction: put before each answer (role `answer`, which uses the query tower).
        query_max_length: tokens kept of a query, instruction and special tokens included. For a
            cross-encoder: tokens kept of the query's own text, 0 = cut the longer of the two.
        document_max_length: tokens kept of a document; for a cross-encoder, of the pair.
        append_eos: whether each text ends with the tokenizer's end token.
        dimensions: the nested (Matryoshka) dimensions trained for, ascending; empty if none.
        activation: what a cross-encoder's consumers apply to its logits: `identity` or `sigmoid`.
        saturation: what makes a term's weight of its logit; of sparse models.
        query_encoder: what weighs a query's terms; of sparse models.
        query_terms: the heaviest terms that are kept of a query, outside of training, 0 = all.
        document_terms: those that are kept of a document.
        expansion: tokens that a query has at least, filled up with `expansion_token`, 0 = none;
            this and what follows is of multi-vector models.
        expansion_attends: whether a query's own tokens see those that fill it up.
        expansion_token: the tokenizer's mask token if empty, or else its end token.
        skip: words whose tokens have no vector in documents.
        token_pooling: a document keeps a vector of so many, by clustering; 1 keeps all.
        protected_tokens: first vectors of a document that are in no cluster.
        pooled_length: whether vectors have unit length after the clustering, too.
    """

    kind: ModelKind = "biencoder"
    pooling: Pooling = "cls"
    normalize: bool = False
    padding_side: Literal["left", "right"] = "right"
    towers: int = 1
    query_instruction: str = ""
    document_instruction: str = ""
    answer_instruction: str = ""
    query_max_length: int = 512
    document_max_length: int = 512
    append_eos: bool = False
    dimensions: tuple[int, ...] = ()
    activation: Literal["identity", "sigmoid"] = "identity"
    saturation: Saturation = "log1p"
    query_encoder: QueryEncoder = "transformer"
    query_terms: int = 0
    document_terms: int = 0
    expansion: int = 0
    expansion_attends: bool = False
    expansion_token: str = ""
    skip: tuple[str, ...] = ()
    token_pooling: float = 1.0
    protected_tokens: int = 1
    pooled_length: bool = True

    @property
    def pairs(self) -> bool:
        """Whether the model reads query and document together."""
        return self.kind == "crossencoder"

    def terms(self, role: str) -> int:
        """Returns how many terms are kept of a text of `role`, 0 = all."""
        return self.document_terms if role == "document" else self.query_terms

    def instruction(self, role: str) -> str:
        """Returns the text put before a text of `role` (query, document or answer)."""
        return str(getattr(self, f"{role}_instruction"))

    def max_length(self, role: str) -> int:
        """Returns the tokens kept of a text of `role`; an answer is as long as a document."""
        return self.query_max_length if role == "query" else self.document_max_length

    def write(self, folder: Path, **provenance: Any) -> None:
        """Writes `raydist.json` into a folder that already holds its tokenizer."""
        record = {
            "format": FORMAT,
            **{
                name: value
                for name, value in asdict(self).items()
                if self.kind == "multivector" or name not in OF_TOKENS
            },
            "tokenizer": tokenizer_fingerprint(folder),
            **provenance,
        }
        text = json.dumps(record, indent=2, ensure_ascii=False) + "\n"
        (folder / CONTRACT_FILE).write_text(text, encoding="utf-8")


def read_contract(folder: Path) -> Contract | None:
    """Returns the contract frozen into a folder, None where it has none.

    Raises:
        ArtifactError: a newer format, an unreadable file, or a tokenizer that was replaced.
    """
    path = folder / CONTRACT_FILE
    if not path.is_file():
        return None
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ArtifactError(
            f"{path}: not readable as JSON ({error}); save the model again"
        ) from None
    if record.get("format", 0) > FORMAT:
        raise ArtifactError(
            f"{path}: format {record['format']} is newer than {FORMAT}, the newest read here"
        )
    frozen = record.get("tokenizer", "")
    if frozen and frozen != tokenizer_fingerprint(folder):
        raise ArtifactError(
            f"{folder}: tokenizer.json is not the one the model was saved with "
            f"(fingerprint {tokenizer_fingerprint(folder)}, frozen {frozen})"
        )
    names = {f.name for f in fields(Contract)}
    known = {name: value for name, value in record.items() if name in names}
    for name in ("dimensions", "skip"):
        known[name] = tuple(known.get(name, ()))
    return Contract(**known)


def frozen_attention(folder: Path) -> str:
    """Returns the attention that a folder's model was trained with, empty for the default."""
    path = folder / CONTRACT_FILE
    if not path.is_file():
        return ""
    return str(json.loads(path.read_text(encoding="utf-8")).get("attention", ""))


def reconcile(
    frozen: Contract, requested: Mapping[str, Any], folder: Path, *, may_differ: frozenset[str]
) -> Contract:
    """Returns the contract to use: the frozen one, with the requested values that may differ.

    Args:
        frozen: the folder's contract.
        requested: values by field name; None leaves a field to the folder.
        folder: named in the error.
        may_differ: fields in which a requested value wins over the folder.

    Raises:
        ConfigError: naming every other field in which both differ.
    """
    explicit = {name: value for name, value in requested.items() if value is not None}
    clash = [
        f"model.{name}={value!r} but {getattr(frozen, name)!r} in the checkpoint"
        for name, value in explicit.items()
        if name not in may_differ and value != getattr(frozen, name)
    ]
    if clash:
        raise ConfigError(
            f"{folder} prepares texts differently: {'; '.join(clash)}. "
            "Leave the fields out to use the checkpoint's, or set model.replace_contract=true to "
            "train it into another model"
        )
    return replace(frozen, **explicit)
