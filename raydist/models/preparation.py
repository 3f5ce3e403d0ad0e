"""What a bi-encoder's folder says about its texts, and what may still be chosen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from raydist.errors import ArtifactError, ConfigError
from raydist.models.backbone import load_config, load_tokenizer, max_positions, position_limit
from raydist.models.contract import Contract, read_contract, reconcile
from raydist.models.pooling import POOLINGS
from raydist.models.st_folder import read_st_folder

_DEFAULT_MAX_LENGTH = 512
# Of these, another wish than a sentence-transformers folder's is a choice, not a contradiction.
_FREE_IN_ST = frozenset(
    {"query_max_length", "document_max_length", "answer_instruction", "dimensions", "towers"}
)
_ALL = frozenset(Contract.__dataclass_fields__)


def prepare(
    folder: Path, asked: dict[str, Any], replace_contract: bool
) -> tuple[list[Path], Contract, Any]:
    """Returns the towers' folders, the contract and the tokenizer.

    Args:
        folder: of a model.
        asked: explicit wishes by field of the contract; None = not said.
        replace_contract: whether wishes win over what the folder froze.
    """
    frozen = read_contract(folder)
    found = read_st_folder(folder)
    if frozen is not None and frozen.kind != "biencoder":
        raise ArtifactError(f"model {folder}: holds a {frozen.kind}, expected a bi-encoder")
    places = list(found.towers) if found else [folder]
    tokenizer = load_tokenizer(places[0])
    may_differ = _ALL if replace_contract else frozenset[str]()
    if frozen is None:
        config = load_config(places[0])
        limit = max_positions(config, tokenizer)
        default = min(limit, _DEFAULT_MAX_LENGTH)
        if found:
            frozen = Contract(
                pooling=found.pooling,
                normalize=found.normalize,
                padding_side=tokenizer.padding_side,
                towers=len(places),
                query_instruction=found.prompts[0] or "",
                document_instruction=found.prompts[1] or "",
                query_max_length=min(found.max_length[0] or limit, limit),
                document_max_length=min(found.max_length[1] or limit, limit),
            )
            free = {"query_instruction"} if not found.prompts[0] else set()
            free |= {"document_instruction"} if not found.prompts[1] else set()
            may_differ |= _FREE_IN_ST | free
        else:
            causal = any(n.endswith("ForCausalLM") for n in (config.architectures or []))
            frozen = Contract(
                pooling="last_token" if causal else "cls",
                padding_side="left" if causal else tokenizer.padding_side,
                query_max_length=default,
                document_max_length=default,
            )
            may_differ = _ALL
    if asked["towers"] == 2 and frozen.towers == 1:
        may_differ |= {"towers"}
    contract = reconcile(frozen, asked, folder, may_differ=may_differ)
    if contract.towers not in (1, 2) or contract.towers < len(places):
        raise ConfigError(
            f"model.towers={contract.towers}: expected 1 or 2, and {folder} has {len(places)}"
        )
    return (places * 2)[: contract.towers], contract, tokenizer


def check(contract: Contract, config: Any, truncate: int) -> None:
    """Raises ConfigError for what the backbone of `config` cannot do."""
    if contract.pooling not in POOLINGS:
        raise ConfigError(
            f"model.pooling={contract.pooling!r}: expected one of {', '.join(POOLINGS)}"
        )
    limit = position_limit(config)
    for role in ("query", "document"):
        length = contract.max_length(role)
        if not 2 <= length <= limit:
            raise ConfigError(f"model.{role}_max_length={length}: expected 2 to {limit}")
    hidden = int(config.hidden_size)
    for name, sizes in (
        ("dimension", [truncate] if truncate else []),
        ("model.dimensions", contract.dimensions),
    ):
        for size in sizes:
            if not 1 <= size <= hidden:
                raise ConfigError(f"{name}={size}: expected 1 to {hidden}")
    if list(contract.dimensions) != sorted(set(contract.dimensions)):
        raise ConfigError(f"model.dimensions={contract.dimensions}: expected ascending numbers")
