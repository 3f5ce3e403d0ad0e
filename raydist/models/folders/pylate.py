"""A multi-vector model's folder as PyLate writes it: read, and written for PyLate to load.

It has a transformer and projections of its token vectors, and says the rest in one file. PyLate
puts one token before a text, fills queries up to their length or not at all, leaves out a list of
words, and its vectors always have unit length: what else a model does, it cannot load.
"""

from __future__ import annotations

import string
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from raydist.errors import ConfigError
from raydist.models.folders.contract import Contract
from raydist.models.folders.sentence_transformers import CONFIG, TOWER, dump

PUNCTUATION = tuple(string.punctuation)
QUERY, DOCUMENT = 32, 180
"""Tokens of a query and of a document, as ColBERT has them."""
_ROLES = ("query", "document")


def read_pylate(contract: Contract, config: dict[str, Any]) -> Contract:
    """Returns the contract with what PyLate says in its one file; what it leaves out is its own."""
    length = config.get("query_length") or QUERY
    words = config.get("skiplist_words")
    expands = config.get("do_query_expansion") is not False
    return replace(
        contract,
        query_max_length=length,
        document_max_length=config.get("document_length") or DOCUMENT,
        expansion=length if expands else 0,
        expansion_attends=expands and bool(config.get("attend_to_expansion_tokens")),
        skip=PUNCTUATION if words is None else tuple(words),
    )


def with_unknown(words: Sequence[str], tokenizer: Any) -> tuple[str, ...]:
    """Returns the words that PyLate skips: it reads those that are no token as the unknown one."""
    name = tokenizer.unk_token
    unknown = name is not None and len(_known(words, tokenizer)) < len(words)
    return (*words, name) if unknown and name not in words else tuple(words)


def write_pylate_folder(
    folder: Path, contract: Contract, tokenizer: Any, dense: int
) -> tuple[tuple[Path, ...], tuple[Path, ...]]:
    """Writes the JSON files; returns the folders of the transformer and of the projections.

    Raises:
        ConfigError: the model does what PyLate cannot.
    """
    prefixes = _check(contract, tokenizer, dense)
    paths = ["", *(f"{i}_Dense" for i in range(1, dense + 1))]
    kinds = ["sentence_transformers.models.Transformer", *["pylate.models.Dense.Dense"] * dense]
    for path in paths[1:]:
        (folder / path).mkdir(exist_ok=True)
    dump(
        folder / "modules.json",
        [
            {"idx": i, "name": str(i), "path": path, "type": kind}
            for i, (path, kind) in enumerate(zip(paths, kinds))
        ],
    )
    dump(folder / TOWER, {"max_seq_length": contract.document_max_length, "do_lower_case": False})
    dump(
        folder / CONFIG,
        {
            "model_type": "ColBERT",
            "prompts": {"query": "", "document": ""},
            "default_prompt_name": None,
            "similarity_fn_name": "MaxSim",
            **{f"{role}_prefix": prefix for role, prefix in zip(_ROLES, prefixes)},
            "query_length": contract.query_max_length,
            "document_length": contract.document_max_length,
            "attend_to_expansion_tokens": contract.expansion_attends,
            "skiplist_words": _known(contract.skip, tokenizer),
            "do_query_expansion": contract.expansion > 0,
        },
    )
    return (folder,), tuple(folder / path for path in paths[1:])


def _known(words: Sequence[str], tokenizer: Any) -> list[str]:
    """Returns the words that are one token."""
    vocabulary = tokenizer.get_vocab()
    return [word for word in words if word in vocabulary]


def _check(contract: Contract, tokenizer: Any, dense: int) -> list[str]:
    """Returns the tokens before queries and documents, empty for none.

    Raises:
        ConfigError: the model does what PyLate cannot.
    """
    if contract.kind != "multivector":
        raise ConfigError(f"layout=pylate: is for multi-vector models, not for a {contract.kind}")
    reasons = []
    vocabulary = tokenizer.get_vocab()
    prefixes = []
    for role in _ROLES:
        text = contract.instruction(role)
        token = next((each for each in (text, text.strip()) if each in vocabulary), None)
        if text and token is None:
            reasons.append(f"model.{role}_instruction={text!r} is not one token")
        prefixes.append(token or "")
    if contract.token_pooling > 1:
        reasons.append(f"model.token_pooling={contract.token_pooling:g} is an argument there")
    if contract.expansion not in (0, contract.query_max_length):
        reasons.append(
            f"model.expansion={contract.expansion} is neither 0 nor "
            f"query_max_length={contract.query_max_length}"
        )
    if contract.expansion_token:
        reasons.append(f"queries are filled up with {contract.expansion_token!r}")
    if not contract.normalize:
        reasons.append("vectors are not of unit length")
    if not dense:
        reasons.append("there is no projection")
    if reasons:
        raise ConfigError(f"layout=pylate: PyLate cannot load such a model: {'; '.join(reasons)}")
    return prefixes
