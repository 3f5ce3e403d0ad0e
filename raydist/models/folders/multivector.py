"""A multi-vector model's folder, as raydist, sentence-transformers and PyLate write them.

sentence-transformers' has a transformer, projections of its token vectors (`1_Dense/`), a
`MultiVectorMask`, `Normalize` and perhaps a `HierarchicalTokenPooling`; PyLate's has a transformer
and projections, and says the rest in one file (`pylate.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tokenizers import AddedToken

from raydist.errors import ArtifactError, ConfigError
from raydist.models.architecture import max_positions, position_limit
from raydist.models.backbone import base_folder, model_config
from raydist.models.folders.biencoder import EncoderFolder, requested
from raydist.models.folders.contract import Contract, read_contract, reconcile
from raydist.models.folders.kinds import is_multivector
from raydist.models.folders.pylate import (
    DOCUMENT,
    PUNCTUATION,
    QUERY,
    read_pylate,
    with_unknown,
)
from raydist.models.folders.sentence_transformers import (
    CONFIG,
    TOWER,
    dump,
    modules_of,
    read_json,
    read_st_folder,
)
from raydist.models.spec import BiEncoderSettings
from raydist.models.texts.tokenizer import append_eos, appends_eos, load_tokenizer

_ROOT = "sentence_transformers."
_TYPES = {
    "Transformer": "base.modules.transformer.",
    "Dense": "base.modules.dense.",
    "MultiVectorMask": "multi_vector_encoder.modules.multi_vector_mask.",
    "Normalize": "base.modules.normalize.",
    "HierarchicalTokenPooling": "multi_vector_encoder.modules.token_pooling.",
}
_TOKENS = {"module_input_name": "token_embeddings", "module_output_name": "token_embeddings"}
_FIXED = ("pooling", "dimensions", "saturation", "query_encoder", "query_terms", "document_terms")
"""Settings of a bi-encoder that mean nothing here."""
_OWN = ("expansion", "expansion_attends", "token_pooling")
_ALL = frozenset(Contract.__dataclass_fields__)


@dataclass(frozen=True)
class _Layout:
    tower: Path
    dense: tuple[Path, ...]
    contract: Contract
    prefixes: tuple[str, ...]
    pylate: bool


def read_late_folder(folder: Path, spec: BiEncoderSettings) -> EncoderFolder:
    """Returns what a folder says, without its weights; one of another kind gives its transformer.

    Raises:
        ConfigError: a setting contradicts the folder, or is out of bounds.
        ArtifactError: the folder does what raydist would silently get wrong.
    """
    if spec.towers == 2:
        raise ConfigError("model.towers=2: a multi-vector model has one")
    for name in _FIXED:
        if (value := getattr(spec, name)) is not None:
            raise ConfigError(f"model.{name}={value}: a multi-vector model has none; leave it out")
    multivector = is_multivector(folder)
    layout = _layout(folder) if multivector else None
    if layout is None:
        other = read_st_folder(folder)
        tower = other.towers[-1] if other else folder
    else:
        tower = layout.tower
    config = model_config(tower, trust_remote_code=spec.trust_remote_code)
    own = (tower / "tokenizer_config.json").is_file()
    place = tower if own else base_folder(tower)
    tokenizer = load_tokenizer(place, config, trust_remote_code=spec.trust_remote_code)
    limit = max_positions(config, tokenizer)
    may_differ = _ALL if spec.replace_contract or layout is None else frozenset[str]()
    frozen = read_contract(folder) if multivector else None
    if layout is None:
        frozen = Contract(
            kind="multivector",
            normalize=True,
            padding_side=tokenizer.padding_side,
            query_max_length=min(QUERY if spec.expansion != 0 else 512, limit),
            document_max_length=min(DOCUMENT, limit),
            expansion=min(QUERY, limit),
            skip=PUNCTUATION,
        )
    elif frozen is None:
        frozen = replace(
            layout.contract,
            padding_side=tokenizer.padding_side,
            query_max_length=min(layout.contract.query_max_length or limit, limit),
            document_max_length=min(layout.contract.document_max_length or limit, limit),
        )
        may_differ |= {"query_max_length", "document_max_length", "append_eos"}
        may_differ |= {"token_pooling"} if frozen.token_pooling == 1 else frozenset()
        _keep_whole(tokenizer, layout.prefixes)
        if layout.pylate:
            frozen = replace(frozen, skip=with_unknown(frozen.skip, tokenizer))
    frozen = replace(frozen, append_eos=appends_eos(tokenizer))
    values = {name: getattr(spec, name) for name in _OWN}
    if spec.skip is not None:
        values["skip"] = PUNCTUATION if spec.skip == "punctuation" else ()
    contract = reconcile(frozen, requested(spec) | values, folder, may_differ=may_differ)
    if layout is None and spec.expansion and spec.query_max_length is None:
        contract = replace(contract, query_max_length=spec.expansion)
    if contract.append_eos:
        append_eos(tokenizer)
    _check(contract, tokenizer, position_limit(config))
    if layout is None:
        return EncoderFolder((tower,), contract, config, tokenizer, fresh=spec.projection)
    return EncoderFolder((tower,), contract, config, tokenizer, layout.dense)


def _check(contract: Contract, tokenizer: Any, limit: int) -> None:
    """Raises ConfigError where a tokenizer or a transformer cannot keep a contract."""
    for role in ("query", "document"):
        if not 2 <= contract.max_length(role) <= limit:
            raise ConfigError(
                f"model.{role}_max_length={contract.max_length(role)}: expected 2 to {limit}"
            )
    if contract.expansion > contract.query_max_length:
        raise ConfigError(
            f"model.expansion={contract.expansion}: a query has {contract.query_max_length} tokens "
            "at most; raise query_max_length, too"
        )
    if contract.expansion and contract.padding_side == "left":
        raise ConfigError("model.expansion: needs padding_side=right")
    if contract.expansion and expansion_id(contract, tokenizer) is None:
        raise ConfigError(
            "model.expansion: the tokenizer has neither a mask nor an end token to fill queries "
            "with; set model.expansion=0"
        )


def expansion_id(contract: Contract, tokenizer: Any) -> int | None:
    """Returns the token that queries are filled with."""
    if contract.expansion_token:
        number: int = tokenizer.convert_tokens_to_ids(contract.expansion_token)
        return number
    mask: int | None = tokenizer.mask_token_id
    return tokenizer.eos_token_id if mask is None else mask


def skipped_ids(contract: Contract, tokenizer: Any) -> list[int]:
    """Returns the tokens that have no vector in documents: words that are one token."""
    unknown = tokenizer.unk_token_id
    words = {word: tokenizer.convert_tokens_to_ids(word) for word in contract.skip}
    known = {word: i for word, i in words.items() if i != unknown or word == tokenizer.unk_token}
    return sorted(i for i in set(known.values()) if i is not None)


def _keep_whole(tokenizer: Any, prefixes: Sequence[str]) -> None:
    """Lets the tokenizer read each prefix that it has a token for as that token.

    PyLate puts the token into the row; here it stands in the text.
    """
    vocabulary = tokenizer.get_vocab()
    whole: list[AddedToken] = []
    for prefix in filter(str.strip, prefixes):
        name = next((each for each in (prefix, prefix.split()[0]) if each in vocabulary), None)
        if name is not None and tokenizer.tokenize(name) != [name]:
            whole.append(AddedToken(name, normalized=False, special=True))
    if whole:
        tokenizer.add_special_tokens({"additional_special_tokens": whole})


def _layout(folder: Path) -> _Layout:
    """Returns what the JSON files of a multi-vector folder say.

    Raises:
        ArtifactError: a module or a setting that raydist would silently get wrong.
    """
    where = folder / "modules.json"
    modules = modules_of(folder)
    config = read_json(folder / CONFIG)
    if not modules:
        raise ArtifactError(f"{folder}: a multi-vector model without modules.json")
    kinds = [kind for kind, _ in modules]
    count = kinds.count("Dense")
    colbert = config.get("model_type") == "ColBERT"
    expected = ["Transformer", *["Dense"] * count]
    if not colbert:
        expected += ["MultiVectorMask", *[k for k in ("Normalize",) if k in kinds]]
        expected += [k for k in ("HierarchicalTokenPooling",) if k in kinds]
    if kinds != expected:
        raise ArtifactError(
            f"{where}: modules {', '.join(kinds)} are not supported; expected Transformer, any "
            "Dense, MultiVectorMask, Normalize, HierarchicalTokenPooling"
        )
    if (score := config.get("similarity_fn_name") or "maxsim").lower() != "maxsim":
        raise ArtifactError(f"{folder / CONFIG}: similarity {score} is not supported; MaxSim is")
    places = dict(modules)
    prompts = config.get("prompts") or {}
    prefixes = tuple(config.get(f"{role}_prefix") or "" for role in ("query", "document"))
    instructions = [
        prefix + (prompts.get(role) or "").removeprefix(prefix)
        for prefix, role in zip(prefixes, ("query", "document"))
    ]
    contract = Contract(
        kind="multivector",
        normalize=colbert or "Normalize" in kinds,
        query_instruction=instructions[0],
        document_instruction=instructions[1],
    )
    dense = tuple(place for kind, place in modules if kind == "Dense")
    if colbert:
        contract = read_pylate(contract, config)
    else:
        contract = _sentence_transformers(contract, places)
    return _Layout(modules[0][1], dense, contract, prefixes, colbert)


def _sentence_transformers(contract: Contract, places: dict[str, Path]) -> Contract:
    tower = read_json(places["Transformer"] / TOWER)
    mask = read_json(places["MultiVectorMask"] / "config.json")
    where = places["MultiVectorMask"] / "config.json"
    if (mask.get("skiplist_tasks") or ["document"]) != ["document"]:
        raise ArtifactError(f"{where}: skiplist_tasks other than document are not supported")
    if mask.get("keep_only_token_ids"):
        raise ArtifactError(f"{where}: keep_only_token_ids is not supported")
    for name in ("do_lower_case", "processing_kwargs"):
        if tower.get(name):
            raise ArtifactError(f"{places['Transformer'] / TOWER}: {name} is not supported")
    both = tower.get("max_seq_length") or 0
    expansion = tower.get("query_expansion") or {}
    query = tower.get("query_length") or both
    if expansion.get("strategy") == "fixed":
        query = expansion["length"]
    contract = replace(
        contract,
        query_max_length=query,
        document_max_length=tower.get("document_length") or both,
        expansion=expansion.get("length", 0),
        expansion_attends=bool(expansion.get("attend")),
        expansion_token=expansion.get("token") or "",
        skip=tuple(mask.get("skiplist_words") or ()),
    )
    if "HierarchicalTokenPooling" not in places:
        return contract
    where = places["HierarchicalTokenPooling"] / "config.json"
    pooling = read_json(where)
    if (pooling.get("tasks") or ["document"]) != ["document"]:
        raise ArtifactError(f"{where}: tasks other than document are not supported")
    return replace(
        contract,
        token_pooling=float(pooling.get("pool_factor", 1)),
        protected_tokens=int(pooling.get("num_protected_tokens", 1)),
        pooled_length=bool(pooling.get("normalize_embeddings", False)),
    )


def write_late_folder(
    folder: Path, contract: Contract, dense: int
) -> tuple[tuple[Path, ...], tuple[Path, ...]]:
    """Writes the JSON files around a multi-vector model; returns the folders to fill.

    The first is the transformer's, the second are those of the projections.
    """
    names = ["Transformer", *["Dense"] * dense, "MultiVectorMask"]
    names += ["Normalize"] if contract.normalize else []
    names += ["HierarchicalTokenPooling"] if contract.token_pooling > 1 else []
    paths = ["", *(f"{i}_{name}" for i, name in enumerate(names[1:], 1))]
    for path in paths[1:]:
        (folder / path).mkdir(exist_ok=True)
    dump(
        folder / "modules.json",
        [
            {"idx": i, "name": str(i), "path": path, "type": f"{_ROOT}{_TYPES[name]}{name}"}
            for i, (name, path) in enumerate(zip(names, paths))
        ],
    )
    prompts = {"query": contract.query_instruction, "document": contract.document_instruction}
    dump(
        folder / CONFIG,
        {
            "model_type": "MultiVectorEncoder",
            "prompts": prompts,
            "default_prompt_name": None,
            "similarity_fn_name": "maxsim",
        },
    )
    dump(folder / TOWER, _tower(contract))
    places = {name: folder / path / "config.json" for name, path in zip(names, paths)}
    dump(
        places["MultiVectorMask"],
        {
            "skiplist_words": list(contract.skip),
            "skiplist_tasks": ["document"],
            "keep_only_token_ids": None,
        },
    )
    if contract.normalize:
        dump(places["Normalize"], _TOKENS)
    if contract.token_pooling > 1:
        dump(
            places["HierarchicalTokenPooling"],
            {
                "pool_factor": contract.token_pooling,
                "num_protected_tokens": contract.protected_tokens,
                "normalize_embeddings": contract.pooled_length,
                "tasks": ["document"],
            },
        )
    return (folder,), tuple(folder / path for name, path in zip(names, paths) if name == "Dense")


def _tower(contract: Contract) -> dict[str, Any]:
    """Returns the transformer's settings."""
    expansion = None
    if contract.expansion:
        fixed = contract.expansion == contract.query_max_length
        expansion = {
            "strategy": "fixed" if fixed else "min",
            "attend": contract.expansion_attends,
            "token": contract.expansion_token or None,
            "length": contract.expansion,
        }
    output = {"method": "forward", "method_output_name": "last_hidden_state"}
    return {
        "transformer_task": "feature-extraction",
        "modality_config": {"text": output},
        "module_output_name": "token_embeddings",
        "query_length": contract.query_max_length,
        "document_length": contract.document_max_length,
        "query_expansion": expansion,
    }
