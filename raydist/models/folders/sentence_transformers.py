"""The layout of sentence-transformers: read to honour it or to refuse it, and written.

One tower: the transformer at the root, `1_Pooling/` (of weights of terms `1_SpladePooling/`), then
projections (`2_Dense/`) and `Normalize`. Two towers: a Router at the root with
`query_0_Transformer/`, `document_0_Transformer/` and a pooling beside each. A table of the weights
of queries' tokens (`query_0_SparseStaticEmbedding/`) may take the place of the query's.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from raydist.errors import ArtifactError
from raydist.models.folders.contract import Contract
from raydist.models.spec import EncoderKind, Pooling, Saturation

CONFIG = "config_sentence_transformers.json"
TOWER = "sentence_bert_config.json"
_TOKENIZER = "tokenizer_config.json"
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
_KINDS: dict[str, EncoderKind] = {
    "SentenceTransformer": "biencoder",
    "SparseEncoder": "sparse",
    "MultiVectorEncoder": "multivector",
    "ColBERT": "multivector",  # PyLate's name
}
_POOLINGS = {"biencoder": "Pooling", "sparse": "SpladePooling"}
_TASKS = {
    "biencoder": {"feature-extraction": "last_hidden_state"},
    "sparse": {"fill-mask": "logits", "text-generation": "logits"},
}
"""What a transformer of a kind does, and which output of it is read."""
_ALL_LOGITS = {"text": {"logits_to_keep": 0}}
"""With which a decoder gives the logits at all tokens, not at the last alone."""
_SATURATIONS: dict[str, Saturation] = {"relu": "log1p", "log1p_relu": "log1p_twice"}
_TABLE = "SparseStaticEmbedding"


@dataclass(frozen=True)
class StFolder:
    """The contents of a sentence-transformers folder's JSON files.

    Attributes:
        kind: what a text becomes.
        towers: the folders of the one transformer, or of the query's and the document's.
        pooling: the pooling of all towers.
        normalize: whether a Normalize module follows.
        max_length: tokens kept of a (query, document), 0 = none stated.
        prompts: the instruction of a (query, document), None = none stated.
        truncate: dimensions kept of a vector, 0 = all.
        dense: the folders of the projections after the pooling.
        saturation: what makes a term's weight of its logit.
        table: the folder of the weights of queries' tokens, None where a transformer gives them.
        terms: the heaviest terms that are kept of a text, 0 = all.
    """

    kind: EncoderKind
    towers: tuple[Path, ...]
    pooling: Pooling
    normalize: bool
    max_length: tuple[int, int]
    prompts: tuple[str | None, str | None]
    truncate: int = 0
    dense: tuple[Path, ...] = ()
    saturation: Saturation = "log1p"
    table: Path | None = None
    terms: int = 0

    @property
    def fixed_table(self) -> bool:
        """Whether the table of queries' weights is not learned."""
        return self.table is not None and bool(read_json(self.table / "config.json").get("frozen"))


@dataclass(frozen=True)
class _Route:
    tower: Path
    pooling: Pooling
    dense: tuple[Path, ...]
    normalize: bool
    saturation: Saturation


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


def encoder_kind(folder: Path) -> EncoderKind:
    """Returns what a text becomes with a folder's modules.

    Raises:
        ArtifactError: something that raydist does not have.
    """
    model = read_json(folder / CONFIG).get("model_type") or "SentenceTransformer"
    if model not in _KINDS:
        raise ArtifactError(f"model {folder}: is a {model}, expected one of {', '.join(_KINDS)}")
    return _KINDS[model]


def read_st_folder(folder: Path) -> StFolder | None:
    """Returns the contents of modules.json and of the files it names, None where there is none.

    Raises:
        ArtifactError: a module or a setting that raydist would silently get wrong.
    """
    if not (folder / "modules.json").is_file():
        return None
    where = folder / "modules.json"
    config = read_json(folder / CONFIG)
    kind = encoder_kind(folder)
    modules = modules_of(folder)
    if modules and modules[0][0] in ("Router", "Asym"):
        routes = _routes(modules[0][1])
        routes = {role: [*route, *modules[1:]] for role, route in routes.items()}
    else:
        routes = {"": modules}
    table = None
    if kind == "sparse" and [name for name, _ in routes.get("query", ())] == [_TABLE]:
        table = routes.pop("query")[0][1]
    read = [_route(where, route, kind) for route in routes.values()]
    heads = {(each.pooling, each.dense, each.normalize, each.saturation) for each in read}
    if len(heads) != 1:
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
    lengths = [_lengths(tower, kind) for tower in (towers[0], towers[-1])]
    length = lengths[0][0]
    if table is not None:
        length = int(min(read_json(table / _TOKENIZER).get("model_max_length") or 0, 1 << 20))
    return StFolder(
        kind,
        towers,
        read[0].pooling,
        read[0].normalize,
        (length, lengths[1][1]),
        (prompts.get("query") or default, document or default),
        truncate,
        read[0].dense,
        read[0].saturation,
        table,
        int(config.get("max_active_dims") or 0),
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


def _route(where: Path, modules: Sequence[tuple[str, Path]], kind: EncoderKind) -> _Route:
    """Returns a route: a transformer, its pooling, projections, and Normalize at the end."""
    tower = pooling = None
    dense: list[Path] = []
    normalize = False
    saturation: Saturation = "log1p"
    for module, place in modules:
        if module in ("Transformer", "MLMTransformer") and tower is None:
            tower = place
        elif module == _POOLINGS[kind] and tower is not None and pooling is None:
            if kind == "sparse":
                pooling, saturation = _splade_pooling(place)
            else:
                pooling = _pooling(place)
        elif module == "Dense" and pooling is not None and not normalize and kind == "biencoder":
            dense.append(place)
        elif module == "Normalize" and pooling is not None:
            normalize = True
        else:
            any_dense = ", any Dense" if kind == "biencoder" else ""
            raise ArtifactError(
                f"{where}: a module {module} is not supported at its place; expected Transformer, "
                f"{_POOLINGS[kind]}{any_dense}, Normalize"
            )
    if tower is None or pooling is None:
        raise ArtifactError(f"{where}: expected a Transformer and a {_POOLINGS[kind]}")
    return _Route(tower, pooling, tuple(dense), normalize, saturation)


def _lengths(tower: Path, kind: EncoderKind) -> tuple[int, int]:
    config = read_json(tower / TOWER)
    unknown = {
        "do_lower_case": config.get("do_lower_case"),
        "query_expansion": config.get("query_expansion"),
        "processing_kwargs": config.get("processing_kwargs"),
    }
    tasks = _TASKS[kind]
    task = config.get("transformer_task", next(iter(tasks)))
    if task == "text-generation":
        unknown["processing_kwargs"] = config.get("processing_kwargs") != _ALL_LOGITS
    if task not in tasks:
        unknown[f"transformer_task={task}"] = True
    outputs = (config.get("modality_config") or {}).get("text") or {}
    if task in tasks and outputs.get("method_output_name", tasks[task]) != tasks[task]:
        unknown[f"method_output_name={outputs['method_output_name']}"] = True
    if wrong := [name for name, value in unknown.items() if value]:
        raise ArtifactError(f"{tower / TOWER}: {wrong[0]} is not supported")
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


def _splade_pooling(place: Path) -> tuple[Pooling, Saturation]:
    config = read_json(place / "config.json")
    pooling = config.get("pooling_strategy", "max")
    activation = config.get("activation_function", "relu")
    if pooling not in ("max", "sum") or activation not in _SATURATIONS:
        raise ArtifactError(
            f"{place}/config.json: {pooling!r} of {activation!r} is not supported; expected max or "
            f"sum of one of {', '.join(_SATURATIONS)}"
        )
    return pooling, _SATURATIONS[activation]


def table_place(folder: Path) -> Path:
    """Returns the folder of the weights of queries' tokens, below a model's."""
    return folder / f"query_0_{_TABLE}"


def write_st_folder(
    folder: Path,
    contract: Contract,
    hidden: int,
    *,
    truncate: int = 0,
    dense: int = 0,
    causal: bool = False,
) -> tuple[tuple[Path, ...], tuple[Path, ...]]:
    """Writes the JSON files around the transformers; returns the folders to fill.

    The first are the towers', the second those of the projections.

    Args:
        folder: an existing folder.
        contract: pooling, normalisation, prompts and lengths.
        hidden: the width of the token vectors.
        truncate: dimensions kept of a vector, 0 = all.
        dense: number of projections after the pooling.
        causal: whether the language model predicts the next token, not masked ones.
    """
    pooling = _POOLINGS[contract.kind]
    if contract.towers == 1 and contract.query_encoder == "transformer":
        towers: tuple[Path, ...] = (folder,)
        modules = [("", "Transformer"), (f"1_{pooling}", pooling)]
        _write_pooling(folder / f"1_{pooling}", contract, hidden)
    else:
        modules = [("", "Router")]
        routes = {role: ["Transformer", pooling] for role in _ROLES}
        if contract.query_encoder != "transformer":
            routes["query"] = [_TABLE]
        names = {
            role: [f"{role}_{i}_{kind}" for i, kind in enumerate(routes[role])] for role in _ROLES
        }
        places = [folder / name for role in _ROLES for name in names[role]]
        towers = tuple(place for place in places if place.name.endswith("_Transformer"))
        for place in places:
            if place.name.endswith(pooling):
                _write_pooling(place, contract, hidden)
        dump(
            folder / "router_config.json",
            {
                "types": {
                    name: _module(kind, contract.kind)
                    for role in _ROLES
                    for name, kind in zip(names[role], routes[role])
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
    dump(
        folder / "modules.json",
        [
            {"idx": i, "name": str(i), "path": path, "type": _module(kind, contract.kind)}
            for i, (path, kind) in enumerate(modules)
        ],
    )
    dump(
        folder / CONFIG,
        {
            "prompts": {
                "query": contract.query_instruction,
                "document": contract.document_instruction,
            },
            "default_prompt_name": None,
            "similarity_fn_name": "cosine" if contract.normalize else "dot",
            **({"truncate_dim": truncate} if truncate and not contract.normalize else {}),
            **_of_sparse(contract),
        },
    )
    for tower in towers:
        tower.mkdir(exist_ok=True)
        dump(tower / TOWER, _tower_config(contract, tower, causal))
    return towers, tuple(projections)


def _module(kind: str, of: str) -> str:
    """Returns the class of a module in models of a kind."""
    if of == "biencoder" or kind == "Normalize":
        return f"sentence_transformers.models.{kind}"
    if kind in ("Transformer", "Router"):
        return f"sentence_transformers.base.modules.{kind.lower()}.{kind}"
    return f"sentence_transformers.sparse_encoder.modules.{kind}"


def _of_sparse(contract: Contract) -> dict[str, Any]:
    """Returns what a folder of weights of terms says beside that of vectors.

    There is one number of terms for queries and documents.
    """
    if contract.kind != "sparse":
        return {}
    kept = {contract.query_terms, contract.document_terms}
    terms = {"max_active_dims": contract.document_terms} if len(kept) == 1 and kept != {0} else {}
    return {"model_type": "SparseEncoder", **terms}


def write_st_reranker(folder: Path, prompt: str, activation: str) -> None:
    """Writes the JSON files around a cross-encoder whose queries have a prompt."""
    kind = "sentence_transformers.base.modules.transformer.Transformer"
    dump(folder / "modules.json", [{"idx": 0, "name": "0", "path": "", "type": kind}])
    dump(
        folder / TOWER,
        {
            "transformer_task": "sequence-classification",
            "modality_config": {"text": {"method": "forward", "method_output_name": "logits"}},
            "module_output_name": "scores",
        },
    )
    dump(
        folder / CONFIG,
        {
            "model_type": "CrossEncoder",
            "activation_fn": activation,
            "prompts": {"query": prompt},
            "default_prompt_name": "query",
        },
    )


def _tower_config(contract: Contract, tower: Path, causal: bool) -> dict[str, Any]:
    query, document = contract.query_max_length, contract.document_max_length
    task: dict[str, Any] = {}
    if contract.kind == "sparse":
        task = {
            "transformer_task": "text-generation" if causal else "fill-mask",
            "modality_config": {"text": {"method": "forward", "method_output_name": "logits"}},
            "module_output_name": "token_embeddings",
            **({"processing_kwargs": _ALL_LOGITS} if causal else {}),
        }
    if contract.towers == 2 or contract.query_encoder != "transformer":
        length = query if tower.name.startswith("query") else document
        return {"max_seq_length": length, "do_lower_case": False, **task}
    config: dict[str, Any] = {"max_seq_length": max(query, document), "do_lower_case": False}
    config |= task
    if query != document:
        # Read by sentence-transformers 6; an older one has a single length and needs its removal.
        config |= {"query_length": query, "document_length": document}
    return config


def _write_pooling(place: Path, contract: Contract, hidden: int) -> None:
    place.mkdir(exist_ok=True)
    if contract.kind == "sparse":
        activations = {saturation: name for name, saturation in _SATURATIONS.items()}
        strategy, activation = contract.pooling, activations[contract.saturation]
        dump(
            place / "config.json",
            {"pooling_strategy": strategy, "activation_function": activation},
        )
        return
    record: dict[str, Any] = {"word_embedding_dimension": hidden}
    pooling = {pooling: mode for mode, pooling in _MODES.items()}[contract.pooling]
    record |= {key: mode == pooling for key, mode in _LEGACY_MODES.items()}
    dump(place / "config.json", record | {"include_prompt": True})


def dump(path: Path, record: Any) -> None:
    """Writes a JSON file as these folders have them."""
    path.write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
