"""A bi-encoder's folder: what it freezes, and what may be set beside it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from raydist.errors import ArtifactError, ConfigError
from raydist.fingerprints import tokenizer_fingerprint
from raydist.models.architecture import is_causal, max_positions, position_limit, width
from raydist.models.backbone import base_folder, model_config
from raydist.models.folders.contract import Contract, read_contract, reconcile
from raydist.models.folders.sentence_transformers import StFolder, read_st_folder
from raydist.models.pooling import POOLINGS
from raydist.models.projection import output_width
from raydist.models.spec import BiEncoderSettings, QueryEncoder
from raydist.models.term_table import TermTable, load_table, read_weights
from raydist.models.texts.tokenizer import append_eos, appends_eos, ends_with_cls, load_tokenizer

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
        "kind",
        "query_encoder",
        "query_terms",
        "document_terms",
    }
)
_OF_SPARSE = ("saturation", "query_encoder", "query_terms", "document_terms")
_ALL = frozenset(Contract.__dataclass_fields__)
_REQUESTED = (
    "kind",
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
    *_OF_SPARSE,
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
        table: the folder of the weights of queries' tokens, None where there is none.
        fresh: width of a random projection that a new multi-vector model gets, 0 = none.
    """

    places: tuple[Path, ...]
    contract: Contract
    config: Any
    tokenizer: Any
    dense: tuple[Path, ...] = ()
    truncate: int = 0
    table: Path | None = None
    fresh: int = 0

    @property
    def length(self) -> int:
        """The length of a whole vector, the number of terms of a sparse one."""
        if self.contract.kind == "sparse":
            return int(self.config.get_text_config().vocab_size)
        return self.fresh or output_width(self.dense, width(self.config))

    def term_table(self, start: str | None = None) -> TermTable | None:
        """Returns the weights of queries' tokens, None where the transformer gives them.

        Args:
            start: a file of weights that a new table starts from; they are 1 if None.
        """
        frozen = self.contract.query_encoder == "fixed"
        if self.contract.query_encoder == "transformer":
            return None
        if self.table is not None:
            return TermTable(load_table(self.table, self.tokenizer), frozen=frozen)
        if start is not None:
            return TermTable(read_weights(Path(start), self.tokenizer), frozen=frozen)
        return TermTable(torch.ones(len(self.tokenizer.get_vocab())), frozen=frozen)


def read_folder(folder: Path, spec: BiEncoderSettings) -> EncoderFolder:
    """Returns what a model's folder says, without its weights.

    Args:
        folder: of a model.
        spec: what is set beside the folder, or instead of it.
    """
    frozen = read_contract(folder)
    layout = read_st_folder(folder)
    if frozen is not None and frozen.pairs:
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
    if spec.kind not in (None, frozen.kind) and "kind" in may_differ:
        # Another kind of model starts from the same transformer: how texts are read stays.
        pooling = "max" if spec.kind == "sparse" else frozen.pooling
        frozen = replace(frozen, kind=spec.kind, pooling=pooling, normalize=False, dimensions=())
        may_differ |= {"pooling", "normalize", *_OF_SPARSE}
        layout = None if layout is None else replace(layout, dense=(), truncate=0, table=None)
    frozen = replace(frozen, append_eos=appends_eos(tokenizer))
    if spec.towers == 2 and frozen.towers == 1:
        may_differ |= {"towers"}
    if frozen.kind == "sparse":  # of an index, not of what was learned
        may_differ |= {"query_terms", "document_terms"}
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
    read = EncoderFolder(
        (places * 2)[: contract.towers],
        contract,
        config,
        tokenizer,
        layout.dense if layout else (),
        layout.truncate if layout else 0,
        layout.table if layout else None,
    )
    _check_terms(read, folder, spec)
    return read


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
    table: QueryEncoder = "fixed" if layout.fixed_table else "table"
    contract = Contract(
        kind=layout.kind,
        pooling=layout.pooling,
        normalize=layout.normalize,
        padding_side=tokenizer.padding_side,
        towers=len(layout.towers),
        query_instruction=query or "",
        document_instruction=document or "",
        query_max_length=min(layout.max_length[0] or limit, limit),
        document_max_length=min(layout.max_length[1] or limit, limit),
        saturation=layout.saturation,
        query_encoder="transformer" if layout.table is None else table,
        query_terms=layout.terms,
        document_terms=layout.terms,
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
    if contract.kind == "sparse":
        _check_sparse(contract, truncate)
    elif contract.pooling == "sum":
        raise ConfigError(
            "model.pooling=sum: adds weights of terms (model.kind=sparse); vectors take a mean"
        )
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


def _check_sparse(contract: Contract, truncate: int) -> None:
    """Raises ConfigError where weights of terms do not go with a contract."""
    if contract.pooling not in ("max", "sum"):
        raise ConfigError(
            f"model.pooling={contract.pooling}: weights of terms (model.kind=sparse) take max or "
            "sum"
        )
    if contract.dimensions or truncate:
        raise ConfigError(
            "model.dimensions and dimension: weights of terms (model.kind=sparse) have no "
            "prefixes; model.document_terms keeps the heaviest"
        )


def _check_terms(read: EncoderFolder, folder: Path, spec: BiEncoderSettings) -> None:
    """Raises an error where what is set, or the folder, does not go with weights of terms.

    Raises:
        ConfigError: options of sparse models for another one, of another query encoder, or weights
            of another vocabulary.
        DataError: weights of queries' tokens that cannot be read.
        ArtifactError: queries and documents have other vocabularies.
    """
    contract = read.contract
    if contract.kind != "sparse":
        for name in (*_OF_SPARSE, "query_weights"):
            if getattr(spec, name) is not None:
                raise ConfigError(f"model.{name}: is for sparse models; set model.kind=sparse")
        return
    if contract.query_encoder != "transformer" and contract.towers == 2:
        raise ConfigError(
            f"model.towers=2: with query_encoder={contract.query_encoder} there is one "
            "transformer, for documents"
        )
    if spec.query_weights is not None and (
        contract.query_encoder == "transformer" or read.table is not None
    ):
        raise ConfigError(
            "model.query_weights: a new table starts from them (model.query_encoder=table or "
            "fixed); " + ("the folder has one" if read.table is not None else "this has none")
        )
    if spec.query_weights is not None:
        read_weights(Path(spec.query_weights), read.tokenizer)  # before work begins
    place = read.table or (read.places[0] if len(read.places) == 2 else None)
    if place is None:
        return
    own, other = (tokenizer_fingerprint(each) for each in (read.places[-1], place))
    if own != other:
        raise ArtifactError(
            f"model {folder}: {place.name} and {read.places[-1].name} have different tokenizers: "
            "queries and documents would have other vocabularies"
        )
