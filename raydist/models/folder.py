"""A bi-encoder's folder: its contract, and the layout of sentence-transformers.

One tower: the transformer at the root, `1_Pooling/`, `2_Normalize/`. Two towers: a Router at the
root with `query_0_Transformer/`, `document_0_Transformer/` and a pooling beside each. Such folders
are read to honour them, and written so that sentence-transformers loads them.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from raydist.errors import ArtifactError, ConfigError
from raydist.models.backbone import load_config, load_tokenizer, max_positions, position_limit
from raydist.models.contract import Contract, read_contract, reconcile
from raydist.models.pooling import POOLINGS, Pooling
from raydist.models.spec import BiEncoderSettings

_CONFIGS = "sentence_bert_config.json"
_ROLES = ("query", "document")
_MODES: dict[str, Pooling] = {"cls": "cls", "mean": "mean", "lasttoken": "last_token"}
_LEGACY_MODES = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_lasttoken": "lasttoken",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
}
_DEFAULT_MAX_LENGTH = 512
# In these, another value than a sentence-transformers folder's is a choice, not a contradiction.
_FREE_IN_ST = frozenset(
    {"query_max_length", "document_max_length", "answer_instruction", "dimensions", "towers"}
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
    "dimensions",
)


def requested(spec: BiEncoderSettings) -> dict[str, Any]:
    """Returns a model's settings by field of the contract; None leaves a field to the folder."""
    return {name: getattr(spec, name) for name in _REQUESTED}


def read_folder(folder: Path, spec: BiEncoderSettings) -> tuple[list[Path], Contract, Any]:
    """Returns the towers' folders, the contract and the tokenizer.

    Args:
        folder: of a model.
        spec: what is set beside the folder, or instead of it.
    """
    frozen = read_contract(folder)
    layout = read_st_folder(folder)
    if frozen is not None and frozen.kind != "biencoder":
        raise ArtifactError(f"model {folder}: holds a {frozen.kind}, expected a bi-encoder")
    places = list(layout.towers) if layout else [folder]
    tokenizer = load_tokenizer(places[0])
    may_differ = _ALL if spec.replace_contract else frozenset[str]()
    if frozen is None:
        config = load_config(places[0])
        limit = max_positions(config, tokenizer)
        default = min(limit, _DEFAULT_MAX_LENGTH)
        if layout:
            frozen = Contract(
                pooling=layout.pooling,
                normalize=layout.normalize,
                padding_side=tokenizer.padding_side,
                towers=len(places),
                query_instruction=layout.prompts[0] or "",
                document_instruction=layout.prompts[1] or "",
                query_max_length=min(layout.max_length[0] or limit, limit),
                document_max_length=min(layout.max_length[1] or limit, limit),
            )
            free = {"query_instruction"} if not layout.prompts[0] else set()
            free |= {"document_instruction"} if not layout.prompts[1] else set()
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
    if spec.towers == 2 and frozen.towers == 1:
        may_differ |= {"towers"}
    contract = reconcile(frozen, requested(spec), folder, may_differ=may_differ)
    if contract.towers not in (1, 2) or contract.towers < len(places):
        raise ConfigError(
            f"model.towers={contract.towers}: expected 1 or 2, and {folder} has {len(places)}"
        )
    return (places * 2)[: contract.towers], contract, tokenizer


def check_contract(contract: Contract, config: Any, truncate: int) -> None:
    """Raises ConfigError where the backbone of `config` cannot keep a contract."""
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


@dataclass(frozen=True)
class StFolder:
    """The contents of a sentence-transformers folder's JSON files.

    Attributes:
        towers: the folders of the one transformer, or of the query's and the document's.
        pooling: the pooling of all towers.
        normalize: whether a Normalize module follows.
        max_length: tokens kept of a (query, document), 0 = none stated.
        prompts: the instruction of a (query, document), None = none stated.
    """

    towers: tuple[Path, ...]
    pooling: Pooling
    normalize: bool
    max_length: tuple[int, int]
    prompts: tuple[str | None, str | None]


def _json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        return cast(dict[str, Any], json.loads(path.read_text(encoding="utf-8")))
    except ValueError as error:
        raise ArtifactError(f"{path}: not readable as JSON ({error})") from None


def read_st_folder(folder: Path) -> StFolder | None:
    """Returns the contents of modules.json and of the files it names, None where there is none.

    Raises:
        ArtifactError: a module or a pooling that raydist would silently get wrong.
    """
    if not (folder / "modules.json").is_file():
        return None
    modules = cast(list[dict[str, Any]], _json(folder / "modules.json"))
    towers: list[Path] = []
    poolings: list[Pooling] = []
    normalize = False
    for module in sorted(modules, key=lambda m: int(m["idx"])):
        place = folder / str(module["path"])
        match str(module["type"]).rsplit(".", 1)[-1]:
            case "Transformer":
                towers.append(place)
            case "Pooling":
                poolings.append(_pooling(place))
            case "Normalize":
                normalize = True
            case "Router" | "Asym":
                structure = _json(place / "router_config.json").get("structure", {})
                for role in _ROLES:
                    for name in structure.get(role, []):
                        if name.endswith("Transformer"):
                            towers.append(place / name)
                        elif name.endswith("Pooling"):
                            poolings.append(_pooling(place / name))
            case other:
                raise ArtifactError(f"{folder}/modules.json: a module {other} is not supported")
    if len(towers) == 2 and towers[0] == towers[1]:
        towers = towers[:1]
    if len(set(poolings)) != 1 or not 1 <= len(towers) <= 2:
        raise ArtifactError(
            f"{folder}/modules.json: expected a transformer (or a query and a document one) and a "
            f"pooling, not {len(towers)} transformers and the poolings {poolings}"
        )
    config = _json(folder / "config_sentence_transformers.json")
    prompts = config.get("prompts") or {}
    default = prompts.get(config.get("default_prompt_name"))
    query, document = (_lengths(tower) for tower in (towers[0], towers[-1]))
    return StFolder(
        tuple(towers),
        poolings[0],
        normalize,
        (query[0], document[1]),
        (prompts.get("query", default), prompts.get("document", default)),
    )


def _lengths(tower: Path) -> tuple[int, int]:
    config = _json(tower / _CONFIGS)
    if config.get("do_lower_case"):
        raise ArtifactError(
            f"{tower / _CONFIGS}: do_lower_case outside the tokenizer is not supported"
        )
    both = config.get("max_seq_length") or 0
    return config.get("query_length") or both, config.get("document_length") or both


def _pooling(place: Path) -> Pooling:
    config = _json(place / "config.json")
    mode = config.get("pooling_mode")
    if mode is None:
        modes = [name for key, name in _LEGACY_MODES.items() if config.get(key)]
        mode = modes[0] if len(modes) == 1 else modes or "mean"
    if not isinstance(mode, str) or mode not in _MODES:
        raise ArtifactError(
            f"{place}/config.json: pooling {mode!r} is not supported; one of {', '.join(_MODES)} is"
        )
    if config.get("include_prompt") is False:
        raise ArtifactError(f"{place}/config.json: include_prompt=false is not supported")
    return _MODES[mode]


def write_st_folder(folder: Path, contract: Contract, hidden: int) -> tuple[Path, ...]:
    """Writes the JSON files around the transformers; returns the towers' folders to fill.

    Args:
        folder: an existing folder.
        contract: pooling, normalisation, prompts and lengths.
        hidden: the width of the token vectors.
    """
    root = "sentence_transformers.models."
    if contract.towers == 1:
        towers: tuple[Path, ...] = (folder,)
        modules = [("", "Transformer"), ("1_Pooling", "Pooling")]
        _write_pooling(folder / "1_Pooling", contract, hidden)
    else:
        modules = [("", "Router")]
        names = {role: [f"{role}_0_Transformer", f"{role}_1_Pooling"] for role in _ROLES}
        towers = tuple(folder / names[role][0] for role in _ROLES)
        for role in _ROLES:
            _write_pooling(folder / names[role][1], contract, hidden)
        _dump(
            folder / "router_config.json",
            {
                "types": {
                    name: root + kind
                    for role in _ROLES
                    for name, kind in zip(names[role], ("Transformer", "Pooling"))
                },
                "structure": names,
                "parameters": {"default_route": "document", "allow_empty_key": True},
            },
        )
    if contract.normalize:
        modules.append((f"{len(modules)}_Normalize", "Normalize"))
        (folder / modules[-1][0]).mkdir(exist_ok=True)
    _dump(
        folder / "modules.json",
        [
            {"idx": i, "name": str(i), "path": path, "type": root + kind}
            for i, (path, kind) in enumerate(modules)
        ],
    )
    _dump(
        folder / "config_sentence_transformers.json",
        {
            "prompts": {
                "query": contract.query_instruction,
                "document": contract.document_instruction,
            },
            "default_prompt_name": None,
            "similarity_fn_name": "cosine" if contract.normalize else "dot",
        },
    )
    for tower in towers:
        tower.mkdir(exist_ok=True)
        _dump(tower / _CONFIGS, _tower_config(contract, tower))
    return towers


def _tower_config(contract: Contract, tower: Path) -> dict[str, Any]:
    query, document = contract.query_max_length, contract.document_max_length
    if contract.towers == 2:
        length = query if tower.name.startswith("query") else document
        return {"max_seq_length": length, "do_lower_case": False}
    config: dict[str, Any] = {"max_seq_length": max(query, document), "do_lower_case": False}
    if query != document:
        # Read by sentence-transformers 6; an older one has a single length and needs its removal.
        config |= {"query_length": query, "document_length": document}
    return config


def _write_pooling(place: Path, contract: Contract, hidden: int) -> None:
    place.mkdir(exist_ok=True)
    record: dict[str, Any] = {"word_embedding_dimension": hidden}
    pooling = {pooling: mode for mode, pooling in _MODES.items()}[contract.pooling]
    record |= {key: mode == pooling for key, mode in _LEGACY_MODES.items()}
    _dump(place / "config.json", record | {"include_prompt": True})


def _dump(path: Path, record: Any) -> None:
    path.write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
