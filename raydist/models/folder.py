"""A bi-encoder's folder: what it freezes, and what may be set beside it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from raydist.errors import ArtifactError, ConfigError
from raydist.models.architecture import is_causal, max_positions, position_limit, width
from raydist.models.backbone import base_folder, model_config
from raydist.models.contract import Contract, read_contract, reconcile
from raydist.models.pooling import POOLINGS
from raydist.models.projection import output_width
from raydist.models.spec import BiEncoderSettings
from raydist.models.st_folder import StFolder, read_st_folder
from raydist.models.tokenizer import append_eos, appends_eos, ends_with_cls, load_tokenizer

_DEFAULT_MAX_LENGTH = 512
# In these, another value than a sentence-transformers folder's is a choice, not a contradiction.
_FREE_IN_ST = frozenset(
    {
        "query_max_length",
        "document_max_length",
        "answer_instruction",
        "dimensions",
        "towers",
        "append_eos",
    }
)
_ALL = frozenset(Contract.__dataclass_fields__)
_REQUESTED = (
    "pooling",
    "normalize",
    "query_instruction",
    "document_instruction",
    "answer_instruction",
    "query_max_length",
    "document_max_length",
    "padding_side",
    "towers",
    "append_eos",
    "dimensions",
)


def requested(spec: BiEncoderSettings) -> dict[str, Any]:
    """Returns a model's settings by field of the contract; None leaves a field to the folder."""
    return {name: getattr(spec, name) for name in _REQUESTED}


@dataclass(frozen=True)
class EncoderFolder:
    """What the files of a bi-encoder's folder say, its weights aside.

    Attributes:
        places: the folder of each tower's transformer.
        contract: the folder's, with what is set beside it.
        config: of the first tower.
        tokenizer: of the first tower, which the others share.
        dense: the folders of projections after the pooling.
        truncate: dimensions that the folder keeps of a vector, 0 = all.
    """

    places: tuple[Path, ...]
    contract: Contract
    config: Any
    tokenizer: Any
    dense: tuple[Path, ...] = ()
    truncate: int = 0

    @property
    def length(self) -> int:
        """The length of a whole vector."""
        return output_width(self.dense, width(self.config))


def read_folder(folder: Path, spec: BiEncoderSettings) -> EncoderFolder:
    """Returns what a model's folder says, without its weights.

    Args:
        folder: of a model.
        spec: what is set beside the folder, or instead of it.
    """
    frozen = read_contract(folder)
    layout = read_st_folder(folder)
    if frozen is not None and frozen.kind != "biencoder":
        raise ArtifactError(f"model {folder}: holds a {frozen.kind}, expected a bi-encoder")
    places = layout.towers if layout else (folder,)
    config = model_config(places[0], trust_remote_code=spec.trust_remote_code)
    own = (places[0] / "tokenizer_config.json").is_file()
    tokenizer = load_tokenizer(
        places[0] if own else base_folder(places[0]),
        config,
        trust_remote_code=spec.trust_remote_code,
    )
    may_differ = _ALL if spec.replace_contract else frozenset[str]()
    if frozen is None:
        frozen, free = _contract_of(layout, config, tokenizer)
        may_differ |= free
    frozen = replace(frozen, append_eos=appends_eos(tokenizer))
    if spec.towers == 2 and frozen.towers == 1:
        may_differ |= {"towers"}
    if spec.append_eos is False and frozen.append_eos:
        raise ConfigError("model.append_eos=false: the folder's own tokenizer appends it")
    contract = reconcile(frozen, requested(spec), folder, may_differ=may_differ)
    if contract.append_eos:
        append_eos(tokenizer)
    if contract.towers not in (1, 2) or contract.towers < len(places):
        raise ConfigError(
            f"model.towers={contract.towers}: expected 1 or 2, and {folder} has {len(places)}"
        )
    if contract.towers == 2 and layout and layout.dense:
        raise ConfigError(f"model.towers=2: {folder} has projections (Dense) after its pooling")
    return EncoderFolder(
        (places * 2)[: contract.towers],
        contract,
        config,
        tokenizer,
        layout.dense if layout else (),
        layout.truncate if layout else 0,
    )


def _contract_of(
    layout: StFolder | None, config: Any, tokenizer: Any
) -> tuple[Contract, frozenset[str]]:
    """Returns the contract of a folder without one, and in what a user may differ from it."""
    limit = max_positions(config, tokenizer)
    if layout is None:
        default = min(limit, _DEFAULT_MAX_LENGTH)
        causal = is_causal(config)
        plain = Contract(
            pooling="last_token" if causal or ends_with_cls(tokenizer) else "cls",
            padding_side="left" if causal else tokenizer.padding_side,
            query_max_length=default,
            document_max_length=default,
        )
        return plain, _ALL
    query, document = layout.prompts
    contract = Contract(
        pooling=layout.pooling,
        normalize=layout.normalize,
        padding_side=tokenizer.padding_side,
        towers=len(layout.towers),
        query_instruction=query or "",
        document_instruction=document or "",
        query_max_length=min(layout.max_length[0] or limit, limit),
        document_max_length=min(layout.max_length[1] or limit, limit),
    )
    free = {"query_instruction"} if not query else set()
    free |= {"document_instruction"} if not document else set()
    return contract, _FREE_IN_ST | free


def check_contract(contract: Contract, config: Any, length: int, truncate: int) -> None:
    """Raises ConfigError where the backbone of `config` cannot keep a contract.

    Args:
        contract: what is to be kept.
        config: of the transformer.
        length: of a whole vector.
        truncate: dimensions kept of it, 0 = all.
    """
    if contract.pooling == "cls" and is_causal(config):
        raise ConfigError(
            f"model.pooling=cls: the first token of {config.model_type} sees no other, so that all "
            "texts would get one vector; expected last_token or a mean"
        )
    if contract.pooling not in POOLINGS:
        raise ConfigError(
            f"model.pooling={contract.pooling!r}: expected one of {', '.join(POOLINGS)}"
        )
    limit = position_limit(config)
    for role in ("query", "document"):
        tokens = contract.max_length(role)
        if not 2 <= tokens <= limit:
            raise ConfigError(f"model.{role}_max_length={tokens}: expected 2 to {limit}")
    for name, sizes in (
        ("dimension", [truncate] if truncate else []),
        ("model.dimensions", contract.dimensions),
    ):
        for size in sizes:
            if not 1 <= size <= length:
                raise ConfigError(f"{name}={size}: expected 1 to {length}")
    if list(contract.dimensions) != sorted(set(contract.dimensions)):
        raise ConfigError(f"model.dimensions={contract.dimensions}: expected ascending numbers")
