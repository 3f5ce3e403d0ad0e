"""From configurations to objects: opens what several commands and the service search."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from raydist.bow.spec import Bm25, BowSearchSpec
from raydist.dense.spec import DenseSearchSpec
from raydist.errors import ConfigError
from raydist.late.spec import LateSearchSpec

if TYPE_CHECKING:
    from raydist.config.mcp import McpConfig
    from raydist.config.serve import ServeConfig
    from raydist.protocols import Selective
    from raydist.serving.search import Searcher

MULTIVECTOR = "multivector-index"
INDEXES = ("bow-index", "bow-fields", "vectors", MULTIVECTOR)
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

        return DenseRetriever.open(local, dense)
    from raydist.bow.index import BowIndex
    from raydist.bow.search.retriever import BowRetriever

    if kind == "bow-fields":
        from raydist.bow.fields import open_fields
        from raydist.bow.search.fields import FieldsRetriever

        return FieldsRetriever(open_fields(local, in_memory=bow.in_memory), bow)
    if bow.fields is not None:
        raise ConfigError(
            f"fields: {folder} has none; leave them out, or build an index with fields=title,text"
        )
    weigh = None
    if (model := manifest.get("model")) is not None:
        from raydist.sparse.queries import QueryTerms

        weigh = QueryTerms.open(folder, model, dense.model)
    retriever = BowRetriever(BowIndex.open(local, in_memory=bow.in_memory), bow, weigh=weigh)
    sdm = isinstance(bow.scoring, Bm25) and bow.scoring.sdm is not None
    if bow.syntax == "lucene" or sdm:
        if bow.syntax == "lucene" and sdm:
            raise ConfigError("scoring.sdm: takes words, not syntax=lucene; leave one of them out")
        if bow.feedback is not None:
            key = "scoring.sdm" if sdm else "syntax = 'lucene'"
            raise ConfigError(f"{key}: feedback expands words; leave one of them out")
        from raydist.bow.structured.retriever import StructuredRetriever

        return StructuredRetriever(retriever)
    if bow.feedback is None:
        return retriever
    from raydist.bow.feedback.retriever import FeedbackRetriever

    return FeedbackRetriever(retriever, bow.feedback)


def text_store(index: str) -> Path:
    """Returns the document store of an index (or of its local copy)."""
    from raydist import storage
    from raydist.manifest import read_manifest

    local = storage.local(index)
    manifest = read_manifest(local)
    if manifest["kind"] == "bow-fields":  # the first one has the texts
        local /= manifest["fields"][0]
        manifest = read_manifest(local)
    # Adding documents gives the store another name.
    folder = local / (manifest.get("store") or "store")
    if not (folder / "store.json").is_file():
        raise ConfigError(
            f"index = {index}: has no document store; build the index with store=true, "
            "or give corpus="
        )
    return folder


def open_searcher(config: ServeConfig | McpConfig) -> Searcher:
    """Returns a searcher of the served index folders, with the texts of those that have any."""
    from pathlib import PurePath

    from raydist.dense.fusion import fuse
    from raydist.serving.search import Searcher
    from raydist.text.analyzer import Analyzer

    retrievers: dict[str, Selective] = {}
    stores, analyzers = [], []
    for folder in config.index:
        retriever = open_retriever(
            folder, BowSearchSpec(scoring=config.scoring, fields=config.fields)
        )
        name = PurePath(folder).name
        retrievers[name if name not in retrievers else folder] = retriever
        index = getattr(retriever, "index", None)
        if (store := getattr(index, "store", None)) is not None:
            stores.append(store)
            analyzers.append(getattr(index, "analyzer", None) or Analyzer())
    return Searcher(retrievers, stores, partial(fuse, fusion=config.fusion), analyzers)
