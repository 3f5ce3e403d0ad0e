"""What a folder is by its files: loads neither transformers nor weights."""

from __future__ import annotations

from pathlib import Path

from raydist.models.folders.contract import ModelKind, read_contract
from raydist.models.folders.sentence_transformers import CONFIG, encoder_kind, modules_of, read_json


def recorded_kind(folder: Path) -> ModelKind | None:
    """Returns the kind of model that a folder says it is, None if it says nothing.

    Raises:
        ArtifactError: it says something that raydist does not have.
    """
    contract = read_contract(folder)
    if contract is not None:
        return contract.kind
    if read_json(folder / CONFIG).get("model_type") == "CrossEncoder":
        return "crossencoder"
    return encoder_kind(folder) if modules_of(folder) else None


def is_multivector(folder: Path) -> bool:
    """Returns whether a folder holds a multi-vector model."""
    return recorded_kind(folder) == "multivector"


def settled_kind(folder: Path) -> ModelKind | None:
    """Returns the kind of model that a folder can only be, None where it may become another.

    sentence-transformers' folders of vectors may: a reranker often starts from one.
    """
    kind = recorded_kind(folder)
    return None if kind == "biencoder" and read_contract(folder) is None else kind
