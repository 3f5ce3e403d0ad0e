"""Reranking a large run: splits of whole queries through the restartable sharded map.

The run, its queries and the texts it needs are written once beside the shards, so that a worker
holds no more than its split.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from raydist.data.store.reader import DocumentStore
from raydist.protocols import Reranker
from raydist.records import QUERIES, RUN, Query, Run
from raydist.rerank.apply import Missing, rerank
from raydist.shard_files import Split, Stats, Work, shard_path
from raydist.shards import sharded_map


def query_splits(run: Run, pairs: int) -> list[dict[str, int]]:
    """Returns stretches of whole queries of at most `pairs` rows (a longer query goes alone)."""
    splits: list[dict[str, int]] = []
    first = row = 0
    for _, doc_ids, _ in run:
        if row > first and row + len(doc_ids) - first > pairs:
            splits.append({"first": first, "size": row - first})
            first = row
        row += len(doc_ids)
    if row > first:
        splits.append({"first": first, "size": row - first})
    return splits


def rerank_sharded(
    run: Run,
    queries: Sequence[Query],
    texts: Path,
    folder: Path,
    make_reranker: Callable[[], Reranker],
    *,
    depth: int = 0,
    missing: Missing = "error",
    split_pairs: int = 1024,
    tag: str = "raydist",
    workers: int = 0,
    cpus_per_worker: float = 1.0,
    gpus_per_worker: float = 0.0,
) -> tuple[Run, dict[str, Any]]:
    """Returns the reranked run, and what it took.

    Args:
        run: the candidates.
        queries: their texts.
        texts: a document store's folder.
        folder: where shards are kept until the work is done.
        make_reranker: called once per worker; picklable.
        depth: how many candidates of a query; 0 = all.
        missing: as for `rerank`.
        split_pairs: pairs of a split.
        tag: of the new run.
        workers: Ray actors; 0 works in this process.
        cpus_per_worker: CPUs of an actor.
        gpus_per_worker: GPUs of an actor.
    """
    folder.mkdir(parents=True, exist_ok=True)
    run = run.top(depth) if depth else run
    asked = set(run.query_ids)
    kept = [query for query in queries if query.query_id in asked]
    _write(run.table, folder / "run.arrow")
    _write(
        pa.table([[q.query_id for q in kept], [q.text for q in kept]], schema=QUERIES),
        folder / "queries.arrow",
    )
    splits = query_splits(run, split_pairs)
    stats = sharded_map(
        splits,
        partial(_make_worker, make_reranker, str(folder), str(texts), missing),
        folder / "shards",
        workers=workers,
        cpus_per_worker=cpus_per_worker,
        gpus_per_worker=gpus_per_worker,
        label="rerank",
        unit="pairs",
    )
    tables = [_read(shard_path(folder / "shards", number)) for number in range(len(splits))]
    facts = {
        "queries": len(asked),
        "pairs": sum(int(s["pairs"]) for s in stats),
        "without_text": sum(int(s["without_text"]) for s in stats),
        "seconds": sum(float(s["seconds"]) for s in stats),
    }
    return Run(pa.concat_tables(tables) if tables else RUN.empty_table(), tag), facts


def _make_worker(
    make_reranker: Callable[[], Reranker], folder: str, texts: str, missing: Missing
) -> Work:
    reranker = make_reranker()
    store = DocumentStore.open(texts)
    table = _read(Path(folder) / "run.arrow")
    queries = _read(Path(folder) / "queries.arrow")
    words = dict(zip(queries["query_id"].to_pylist(), queries["text"].to_pylist()))
    return partial(_work, reranker, store, table, words, missing)


def _work(
    reranker: Reranker,
    store: DocumentStore,
    table: pa.Table,
    queries: Mapping[str, str],
    missing: Missing,
    split: Split,
    target: Path,
) -> Stats:
    begun = time.perf_counter()
    part = Run(table.slice(split["first"], split["size"]))
    known = int((store.positions(part.table["doc_id"].to_pylist()) >= 0).sum())
    ranked = rerank(part, reranker, store, queries, missing=missing)
    _write(ranked.table, target)
    return {
        "pairs": known,
        "without_text": len(part) - known,
        "seconds": round(time.perf_counter() - begun, 4),
    }


def _write(table: pa.Table, path: Path) -> None:
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)


def _read(path: Path) -> pa.Table:
    with pa.memory_map(str(path)) as source:
        return pa.ipc.open_file(source).read_all()
