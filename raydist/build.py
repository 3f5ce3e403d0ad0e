"""From configurations to objects: opens what several commands and the service search."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raydist.bow.spec import Bm25, BowSearchSpec
from raydist.dense.spec import DenseSearchSpec
from raydist.errors import ConfigError
from raydist.late.spec import LateSearchSpec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from raydist.bow.feedback.retriever import FeedbackRetriever
    from raydist.bow.sharded.plan import Launch
    from raydist.bow.sharded.search import ShardedSearch
    from raydist.config.mcp import McpConfig
    from raydist.config.serve import ServeConfig
    from raydist.dense.retriever import DenseAmong, DenseRetriever
    from raydist.protocols import Selective
    from raydist.serving.search import Searcher
    from raydist.sparse.queries import QueryTerms

MULTIVECTOR = "multivector-index"
ENCODED = ("vectors", MULTIVECTOR)
INDEXES = ("bow-index", "bow-fields", *ENCODED)
"""The kinds of outputs that can be searched, as their manifests name them."""


def open_retriever(
    folder: str,
    bow: BowSearchSpec = BowSearchSpec(),  # noqa: B008  frozen
    dense: DenseSearchSpec = DenseSearchSpec(),  # noqa: B008  frozen
    late: LateSearchSpec = LateSearchSpec(),  # noqa: B008  frozen
) -> Selective:
    """Returns a retriever over the index or vectors in a folder (or its local copy)."""
    from raydist import storage
    from raydist.manifest import read_manifest

    local = storage.local(folder)
    manifest = read_manifest(local, INDEXES)
    kind = manifest["kind"]
    if kind == MULTIVECTOR:
        from raydist.late.retriever import LateRetriever

        return LateRetriever.open(local, late, dense.model)
    if kind == "vectors":
        from raydist.dense.retriever import DenseRetriever

        vectors = DenseRetriever.open(local, dense)
        return vectors if bow.filter is None else vectors.where(bow.filter)
    from raydist.bow.index import BowIndex
    from raydist.bow.search.retriever import BowRetriever

    if kind == "bow-fields":
        from raydist.bow.fields import open_fields
        from raydist.bow.search.fields import FieldsRetriever

        return FieldsRetriever(open_fields(local, in_memory=bow.in_memory), bow)
    _check_queries(folder, bow)
    weigh = _query_terms(folder, manifest, dense)
    retriever = BowRetriever(BowIndex.open(local, in_memory=bow.in_memory), bow, weigh=weigh)
    from raydist.bow.structured.retriever import StructuredRetriever

    if bow.is_structured:
        return StructuredRetriever(retriever)
    if bow.feedback is None:
        return retriever
    from raydist.bow.feedback.retriever import FeedbackRetriever

    return FeedbackRetriever(retriever, bow.feedback)


def compile_search(
    manifests: Iterable[Mapping[str, Any]],
    bow: BowSearchSpec = BowSearchSpec(),  # noqa: B008  frozen
) -> None:
    """Begins to compile the kernels that searching such outputs takes and the cache does not have.

    It is called before they are opened: the models of queries load meanwhile.
    """
    from raydist.bow.ahead import kernels_of, prepare
    from raydist.late.ahead import MULTIVECTOR_SEARCH

    kernels: dict[str, str] = {}
    for manifest in manifests:
        late = manifest["kind"] == MULTIVECTOR
        kernels |= MULTIVECTOR_SEARCH if late else kernels_of(manifest, bow)
    prepare(kernels, processes=2)


def _query_terms(
    folder: str, manifest: Mapping[str, Any], dense: DenseSearchSpec
) -> QueryTerms | None:
    """Returns what weighs the terms of an index's queries, None where words are its terms."""
    if (model := manifest.get("model")) is None:
        return None
    from raydist.sparse.queries import QueryTerms

    return QueryTerms.open(folder, model, dense.model)


def open_sharded(
    folder: str,
    shards: int,
    launch: Launch,
    bow: BowSearchSpec = BowSearchSpec(),  # noqa: B008  frozen
    dense: DenseSearchSpec = DenseSearchSpec(),  # noqa: B008  frozen
    *,
    texts: bool = False,
) -> ShardedSearch | FeedbackRetriever | DenseRetriever | DenseAmong:
    """Returns a retriever over an index or vectors that so many objects share.

    Args:
        folder: the index or vectors.
        shards: how many objects have some segments, or some rows, each.
        launch: makes them somewhere.
        bow: how a bag-of-words index is searched.
        dense: how vectors are.
        texts: whether they open the texts of an index, too.

    Raises ConfigError for what cannot be searched by shards.
    """
    from raydist import storage
    from raydist.bow.sharded.plan import HEADERS, open_shards
    from raydist.manifest import read_manifest

    if check_shards(folder, shards, bow, dense) == "vectors":
        from raydist.dense.retriever import DenseRetriever
        from raydist.dense.sharded import ShardedScan

        retriever = DenseRetriever.open(storage.local(folder), dense)
        retriever.scan = ShardedScan(folder, retriever.shards, shards, launch)
        return retriever if bow.filter is None else retriever.where(bow.filter)
    search = open_shards(folder, bow, shards, launch, texts=texts)
    search.weigh = _query_terms(folder, read_manifest(storage.local(folder, HEADERS)), dense)
    if bow.feedback is None:
        return search
    from raydist.bow.feedback.retriever import FeedbackRetriever

    return FeedbackRetriever(search, bow.feedback)


def manifest_of(folder: str, shards: int = 0) -> dict[str, Any]:
    """Returns an output's manifest; of what is searched by shards nothing else is copied here."""
    from raydist import storage
    from raydist.manifest import read_manifest

    if not shards:
        return read_manifest(storage.local(folder))
    from raydist.bow.sharded.plan import HEADERS

    return read_manifest(storage.local(folder, HEADERS))


def check_shards(
    folder: str,
    shards: int,
    bow: BowSearchSpec,
    dense: DenseSearchSpec = DenseSearchSpec(),  # noqa: B008  frozen
) -> str:
    """Returns what kind of output a folder is.

    Raises ConfigError where it cannot be searched by so many shards.
    """
    from raydist import storage
    from raydist.bow.sharded.plan import HEADERS, check
    from raydist.manifest import read_manifest

    manifest = read_manifest(storage.local(folder, HEADERS), INDEXES)
    kind: str = manifest["kind"]
    if kind == "bow-index":
        _check_queries(folder, bow)
        check(folder, manifest, bow, shards)
        return kind
    why = ""
    if kind == "bow-fields":
        why = "is an index of fields, whose segments differ"
    elif kind == MULTIVECTOR:
        why = "is a multi-vector index, whose lists are not shared"
    elif dense.approximate:
        why = "has an approximate index, whose parts are not shared"
    elif manifest.get("rescore_precision", "none") != "none":
        why = "has vectors in two forms, of which shards scan one"
    if why:
        raise ConfigError(
            f"shards: {folder} {why}; leave shards out (workers= of search, or replicas= of serve, "
            "share the queries)"
        )
    return kind


def _check_queries(folder: str, bow: BowSearchSpec) -> None:
    """Raises ConfigError for settings that an index of one text does not have, or not together."""
    if bow.fields is not None:
        raise ConfigError(
            f"fields: {folder} has none; leave them out, or build an index with fields=title,text"
        )
    sdm = isinstance(bow.scoring, Bm25) and bow.scoring.sdm is not None
    if bow.syntax == "lucene" and sdm:
        raise ConfigError("scoring.sdm: takes words, not syntax=lucene; leave one of them out")
    if (bow.syntax == "lucene" or sdm) and bow.feedback is not None:
        key = "scoring.sdm" if sdm else "syntax = 'lucene'"
        raise ConfigError(f"{key}: feedback expands words; leave one of them out")


def check_used(
    manifests: Sequence[Mapping[str, Any]],
    bow: BowSearchSpec,
    dense: DenseSearchSpec,
    late: LateSearchSpec = LateSearchSpec(),  # noqa: B008  frozen
) -> None:
    """Raises ConfigError for settings that none of the searched outputs takes."""
    if bow.effort < 1 and not any(each.get("unit") for each in manifests):
        raise ConfigError("effort: is for indexes of weighted terms, and index names none")
    kinds = {each["kind"] for each in manifests}
    if (name := _changed(late, "probes", "candidates", "exact")) and MULTIVECTOR not in kinds:
        raise ConfigError(f"{name}: is for multi-vector indexes, and index names none")
    if (name := _changed(dense, "approximate", "rescore_depth")) and "vectors" not in kinds:
        raise ConfigError(f"{name}: is for folders of vectors, and index names none")
    encoded = (each["kind"] in ENCODED or each.get("model") for each in manifests)
    if dense.model is not None and not any(encoded):
        raise ConfigError(
            "model: encodes the queries of vectors, and index names indexes of words alone"
        )


def _changed(spec: DenseSearchSpec | LateSearchSpec, *names: str) -> str | None:
    """Returns the first of some settings that is not the default's."""
    default = type(spec)()
    return next((each for each in names if getattr(spec, each) != getattr(default, each)), None)


def has_texts(index: str) -> bool:
    """Returns whether an index has a document store."""
    return (_store_of(index) / "store.json").is_file()


def text_store(index: str) -> Path:
    """Returns the document store of an index (or of its local copy)."""
    folder = _store_of(index)
    if not (folder / "store.json").is_file():
        raise ConfigError(
            f"index = {index}: has no document store; build the index with store=true, "
            "or give corpus="
        )
    return folder


def _store_of(index: str) -> Path:
    from raydist import storage
    from raydist.manifest import read_manifest

    local = storage.local(index)
    manifest = read_manifest(local)
    if manifest["kind"] == "bow-fields":  # the first one has the texts
        local /= manifest["fields"][0]
        manifest = read_manifest(local)
    # Adding documents gives the store another name.
    return local / (manifest.get("store") or "store")


def open_searcher(
    config: ServeConfig | McpConfig,
    launch: Callable[[str], Launch] | None = None,
    shards: int = 0,
) -> Searcher:
    """Returns a searcher of the served index folders, with the texts of those that have any.

    Args:
        config: names the folders.
        launch: returns what makes the shards of a folder somewhere; None opens it whole.
        shards: how many.
    """
    from pathlib import PurePath

    from raydist import storage
    from raydist.bow.sharded.plan import HEADERS
    from raydist.dense.fusion import fuse
    from raydist.manifest import read_manifest
    from raydist.serving.search import Searcher
    from raydist.text.analyzer import Analyzer

    retrievers: dict[str, Selective] = {}
    stores, analyzers, passages = [], [], []
    bow = BowSearchSpec(scoring=config.scoring, fields=config.fields)
    manifests = [read_manifest(storage.local(folder, HEADERS)) for folder in config.index]
    if launch is None:
        compile_search(manifests, bow)
    for folder, manifest in zip(config.index, manifests):
        retriever: Selective
        if launch is None:
            retriever = open_retriever(folder, bow)
            store = getattr(getattr(retriever, "index", None), "store", None)
        else:
            retriever = open_sharded(folder, shards, launch(folder), bow, texts=True)
            store = getattr(retriever, "texts", None)
        name = PurePath(folder).name if PurePath(folder).name not in retrievers else folder
        retrievers[name] = retriever
        if "chunk" in manifest:
            passages.append(name)
        if store is not None:
            stores.append(store)
            index = getattr(retriever, "index", None)
            analyzers.append(getattr(index, "analyzer", None) or Analyzer())
    return Searcher(retrievers, stores, partial(fuse, fusion=config.fusion), analyzers, passages)
