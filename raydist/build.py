"""From configurations to objects: the only module that knows both."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from raydist.errors import ConfigError

if TYPE_CHECKING:
    from raydist.bow.spec import Scoring
    from raydist.config.serve import ServeConfig
    from raydist.protocols import Selective
    from raydist.serving.search import Searcher


def open_retriever(
    folder: str,
    *,
    scoring: Scoring,
    ties: str = "docid",
    threads: int = 1,
    in_memory: bool = False,
    model: str | None = None,
    approximate: bool = False,
) -> Selective:
    """Returns what searches a folder (or its local copy): its manifest says what it is."""
    from raydist import storage
    from raydist.manifest import read_manifest

    place = storage.local(folder)
    if read_manifest(place, ["bow-index", "vectors"])["kind"] == "vectors":
        from raydist.dense.retriever import DenseRetriever

        return DenseRetriever.open(place, model=model, approximate=approximate)
    from raydist.bow.index import BowIndex
    from raydist.bow.search.retriever import BowRetriever

    index = BowIndex.open(place, in_memory=in_memory)
    return BowRetriever(index, scoring, ties=ties, threads=threads)


def text_store(index: str) -> Path:
    """Returns the folder of the texts that were stored beside an index (or its local copy)."""
    from raydist import storage
    from raydist.manifest import read_manifest

    place = storage.local(index)
    # After documents were added, the store has another name.
    folder = place / (read_manifest(place).get("store") or "store")
    if not (folder / "store.json").is_file():
        raise ConfigError(
            f"index = {index}: no document store there; build the index with store=true, "
            "or give corpus="
        )
    return folder


def open_searcher(config: ServeConfig) -> Searcher:
    """Returns what searches the served index folders, with the texts of all that have some."""
    from pathlib import PurePath

    from raydist.dense.fusion import fuse
    from raydist.serving.search import Searcher

    retrievers: dict[str, Selective] = {}
    stores = []
    for folder in config.index:
        retriever = open_retriever(folder, scoring=config.scoring)
        name = PurePath(folder).name
        retrievers[name if name not in retrievers else folder] = retriever
        store = getattr(getattr(retriever, "index", None), "store", None)
        stores += [store] if store is not None else []
    return Searcher(retrievers, stores, partial(fuse, fusion=config.fusion))
