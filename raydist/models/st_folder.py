"""The layout of sentence-transformers: read to honour it or to refuse it, and written.

One tower: the transformer at the root, `1_Pooling/`, then projections (`2_Dense/`) and `Normalize`.
Two towers: a Router at the root with `query_0_Transformer/`, `document_0_Transformer/` and a
pooling beside each.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from raydist.errors import ArtifactError
from raydist.models.contract import Contract
from raydist.models.spec import Pooling

CONFIG = "config_sentence_transformers.json"
_TOWER = "sentence_bert_config.json"
_ROLES = ("query", "document")
_MODES: dict[str, Pooling] = {
    "cls": "cls",
    "mean": "mean",
    "lasttoken": "last_token",
    "max": "max",
    "weightedmean": "weighted_mean",
    "mean_sqrt_len_tokens": "mean_sqrt_len",
}
_LEGACY_MODES = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_lasttoken": "lasttoken",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
}
_DOCUMENT_PROMPTS = ("document", "passage", "corpus")


@dataclass(frozen=True)
class StFolder:
    """The contents of a sentence-transformers folder's JSON files.

    Attributes:
        towers: the folders of the one transformer, or of the query's and the document's.
        pooling: the pooling of all towers.
        normalize: whether a Normalize module follows.
        max_length: tokens kept of a (query, document), 0 = none stated.
        prompts: the instruction of a (query, document), None = none stated.
        truncate: dimensions kept of a vector, 0 = all.
        dense: the folders of the projections after the pooling.
    """

    towers: tuple[Path, ...]
    pooling: Pooling
    normalize: bool
    max_length: tuple[int, int]
    prompts: tuple[str | None, str | None]
    truncate: int = 0
    dense: tuple[Path, ...] = ()


@dataclass(frozen=True)
class _Route:
    tower: Path
    pooling: Pooling
    dense: tuple[Path, ...]
    normalize: bool


def read_json(path: Path) -> dict[str, Any]:
    """Returns the object in a file, empty where there is no file.

    Raises:
        ArtifactError: it is not JSON.
    """
    if not path.is_file():
        return {}
    try:
        return cast(dict[str, Any], json.loads(path.read_text(encoding="utf-8")))
    except ValueError as error:
        raise ArtifactError(f"{path}: not readable as JSON ({error})") from None


def modules_of(folder: Path) -> list[tuple[str, Path]]:
    """Returns the kind and the folder of each module that modules.json names, in order."""
    modules = cast(list[dict[str, Any]], read_json(folder / "modules.json") or [])
    try:
        modules = sorted(modules, key=lambda module: int(module["idx"]))
        return [(_kind(module["type"]), folder / str(module["path"])) for module in modules]
    except (KeyError, TypeError, ValueError):
        raise ArtifactError(
            f"{folder / 'modules.json'}: expected a list of modules with idx, type and path"
        ) from None


def read_st_folder(folder: Path) -> StFolder | None:
    """Returns the contents of modules.json and of the files it names, None where there is none.

    Raises:
        ArtifactError: a module or a setting that raydist would silently get wrong.
    """
    if not (folder / "modules.json").is_file():
        return None
    where = folder / "modules.json"
    config = read_json(folder / CONFIG)
    model = config.get("model_type") or "SentenceTransformer"
    if model != "SentenceTransformer":
        raise ArtifactError(f"model {folder}: is a {model}, expected a bi-encoder of one vector")
    modules = modules_of(folder)
    if modules and modules[0][0] in ("Router", "Asym"):
        routes = _routes(modules[0][1])
        routes = {role: [*route, *modules[1:]] for role, route in routes.items()}
    else:
        routes = {"": modules}
    read = [_route(where, route) for route in routes.values()]
    if len({(each.pooling, each.dense, each.normalize) for each in read}) != 1:
        raise ArtifactError(f"{where}: queries and documents differ in more than the transformer")
    towers = tuple(dict.fromkeys(each.tower for each in read))
    truncate = int(config.get("truncate_dim") or 0)
    if truncate and read[0].normalize:
        raise ArtifactError(
            f"{folder / CONFIG}: truncate_dim={truncate} after a Normalize module is not supported;"
            f" remove it, and embed with dimension={truncate}"
        )
    prompts = config.get("prompts") or {}
    default = prompts.get(config.get("default_prompt_name"))
    named = (prompts.get(name) for name in _DOCUMENT_PROMPTS)
    document = next((prompt for prompt in named if prompt), None)
    lengths = [_lengths(tower) for tower in (towers[0], towers[-1])]
    return StFolder(
        towers,
        read[0].pooling,
        read[0].normalize,
        (lengths[0][0], lengths[1][1]),
        (prompts.get("query") or default, document or default),
        truncate,
        read[0].dense,
    )


def _kind(name: Any) -> str:
    return str(name).rsplit(".", 1)[-1]


def _routes(place: Path) -> dict[str, list[tuple[str, Path]]]:
    router = read_json(place / "router_config.json") or read_json(place / "config.json")
    structure: Mapping[str, Sequence[str]] = router.get("structure") or {}
    if set(structure) != set(_ROLES):
        raise ArtifactError(
            f"{place}: routes {', '.join(structure) or 'none'}; expected query and document"
        )
    types = router.get("types") or {}
    return {
        role: [(_kind(types.get(name) or name.rpartition("_")[2]), place / name) for name in names]
        for role, names in ((role, structure[role]) for role in _ROLES)
    }


def _route(where: Path, modules: Sequence[tuple[str, Path]]) -> _Route:
    """Returns a route: a transformer, its pooling, projections, and Normalize at the end."""
    tower = pooling = None
    dense: list[Path] = []
    normalize = False
    for kind, place in modules:
        if kind == "Transformer" and tower is None:
            tower = place
        elif kind == "Pooling" and tower is not None and pooling is None:
            pooling = _pooling(place)
        elif kind == "Dense" and pooling is not None and not normalize:
            dense.append(place)
        elif kind == "Normalize" and pooling is not None:
            normalize = True
        else:
            raise ArtifactError(
                f"{where}: a module {kind} is not supported at its place; expected Transformer, "
                "Pooling, any Dense, Normalize"
            )
    if tower is None or pooling is None:
        raise ArtifactError(f"{where}: expected a Transformer and a Pooling")
    return _Route(tower, pooling, tuple(dense), normalize)


def _lengths(tower: Path) -> tuple[int, int]:
    config = read_json(tower / _TOWER)
    unknown = {
        "do_lower_case": config.get("do_lower_case"),
        "query_expansion": config.get("query_expansion"),
        "processing_kwargs": config.get("processing_kwargs"),
    }
    task = config.get("transformer_task", "feature-extraction")
    if task != "feature-extraction":
        unknown[f"transformer_task={task}"] = True
    outputs = (config.get("modality_config") or {}).get("text") or {}
    if outputs.get("method_output_name", "last_hidden_state") != "last_hidden_state":
        unknown[f"method_output_name={outputs['method_output_name']}"] = True
    if wrong := [name for name, value in unknown.items() if value]:
        raise ArtifactError(f"{tower / _TOWER}: {wrong[0]} is not supported")
    both = config.get("max_seq_length") or 0
    return config.get("query_length") or both, config.get("document_length") or both


def _pooling(place: Path) -> Pooling:
    config = read_json(place / "config.json")
    mode = config.get("pooling_mode")
    if mode is None:
        modes = [name for key, name in _LEGACY_MODES.items() if config.get(key)]
        mode = modes[0] if len(modes) == 1 else modes or "mean"
    if isinstance(mode, list) and len(mode) == 1:
        mode = mode[0]
    if not isinstance(mode, str) or mode not in _MODES:
        raise ArtifactError(
            f"{place}/config.json: pooling {mode!r} is not supported; one of {', '.join(_MODES)} is"
        )
    if config.get("include_prompt") is False:
        raise ArtifactError(f"{place}/config.json: include_prompt=false is not supported")
    return _MODES[mode]


def write_st_folder(
    folder: Path, contract: Contract, hidden: int, *, truncate: int = 0, dense: int = 0
) -> tuple[tuple[Path, ...], tuple[Path, ...]]:
    """Writes the JSON files around the transformers; returns the folders to fill.

    The first are the towers', the second those of the projections.

    Args:
        folder: an existing folder.
        contract: pooling, normalisation, prompts and lengths.
        hidden: the width of the token vectors.
        truncate: dimensions kept of a vector, 0 = all.
        dense: number of projections after the pooling.
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
    projections: list[Path] = []
    for _ in range(dense):
        modules.append((f"{len(modules)}_Dense", "Dense"))
        projections.append(folder / modules[-1][0])
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
        folder / CONFIG,
        {
            "prompts": {
                "query": contract.query_instruction,
                "document": contract.document_instruction,
            },
            "default_prompt_name": None,
            "similarity_fn_name": "cosine" if contract.normalize else "dot",
            **({"truncate_dim": truncate} if truncate and not contract.normalize else {}),
        },
    )
    for tower in towers:
        tower.mkdir(exist_ok=True)
        _dump(tower / _TOWER, _tower_config(contract, tower))
    return towers, tuple(projections)


def write_st_reranker(folder: Path, prompt: str, activation: str) -> None:
    """Writes the JSON files around a cross-encoder whose queries have a prompt."""
    kind = "sentence_transformers.base.modules.transformer.Transformer"
    _dump(folder / "modules.json", [{"idx": 0, "name": "0", "path": "", "type": kind}])
    _dump(
        folder / _TOWER,
        {
            "transformer_task": "sequence-classification",
            "modality_config": {"text": {"method": "forward", "method_output_name": "logits"}},
            "module_output_name": "scores",
        },
    )
    _dump(
        folder / CONFIG,
        {
            "model_type": "CrossEncoder",
            "activation_fn": activation,
            "prompts": {"query": prompt},
            "default_prompt_name": "query",
        },
    )


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
