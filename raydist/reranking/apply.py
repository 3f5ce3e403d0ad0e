"""`rerank`: a Run reordered by a reranker; written once for all rerankers.

The candidates of all queries are flattened into batches for `Reranker.score`, the scores scattered
back, and each query's list sorted stably: equal scores keep the run's order. The result is a
permutation of the scored rows, and the input is never changed.

A large run is cut into splits of whole queries for the restartable sharded map. The run and its
queries are written once beside the shards, so that a worker holds no more than its split.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import pyarrow as pa

from raydist.data.splits import MOST
from raydist.data.store.reader import DocumentStore
from raydist.errors import ConfigError, DataError
from raydist.protocols import Reranker, TextStore
from raydist.records import QUERIES, Query, Run
from raydist.reranking.rows import TooLong
from raydist.reranking.spec import Reranking
from raydist.run_writer import group_starts
from raydist.shard_files import Split, Stats, Work, shard_path
from raydist.shards import sharded_map

Missing = Literal["error", "drop", "keep"]


def rerank(
    run: Run,
    reranker: Reranker,
    store: TextStore | Mapping[str, str],
    queries: Sequence[Query] | Mapping[str, str],
    *,
    depth: int = 0,
    missing: Missing = "error",
    batch_queries: int = 64,
    tag: str = "raydist",
) -> Run:
    """Returns `run` with each query's documents in the order of the reranker's scores.

    Args:
        run: the candidates; row order is their ranking.
        reranker: anything with `score`.
        store: document texts by id (title and text joined), as a store or a plain mapping.
        queries: query texts by id.
        depth: the most candidates of a query; the others are left out. 0 = all.
        missing: for a candidate without text: `error` refuses, `drop` leaves it out, `keep` puts it
            below the scored ones, in the old order, each a little lower.
        batch_queries: how many queries are scored in one call.
        tag: the new run's tag.

    Raises:
        TypeError: an argument has the wrong type; the message says which.
        ConfigError: `missing` is another word.
        DataError: a query or (with `missing="error"`) a document has no text, or a score is not a
            finite float32.
        TooLong: a text does not fit, and the reranker refuses such texts.
    """
    _check_types(run, reranker, store, queries, depth)
    if missing not in get_args(Missing):
        raise ConfigError(f"missing={missing!r}: expected one of {', '.join(get_args(Missing))}")
    texts = (
        {query.query_id: query.text for query in queries}
        if not isinstance(queries, Mapping)
        else queries
    )
    rankings: list[tuple[str, list[str], Any]] = []
    for batch in _batches(run.top(depth) if depth else run, batch_queries):
        lists = [_texts(query_id, doc_ids, store, texts, missing) for query_id, doc_ids in batch]
        try:
            all_scores = reranker.score([(query, documents) for query, documents, _ in lists])
        except TooLong as error:
            query_id, doc_ids = batch[error.request]
            raise error.named(_name(error, query_id, doc_ids, lists[error.request][2])) from None
        if len(all_scores) != len(lists):
            raise DataError(
                f"the reranker returned {len(all_scores)} lists for {len(lists)} queries"
            )
        for (query_id, doc_ids), (_, documents, has_text), scores in zip(batch, lists, all_scores):
            if len(scores) != len(documents):
                raise DataError(
                    f"query {query_id!r}: the reranker returned {len(scores)} scores for "
                    f"{len(documents)} documents"
                )
            ranking = sort_scored(query_id, doc_ids, has_text, scores, keep=missing == "keep")
            rankings.append((query_id, *ranking))
    return Run.from_lists(rankings, tag)


def _name(error: TooLong, query_id: str, doc_ids: Sequence[str], has_text: np.ndarray) -> str:
    if error.document is None:
        return f"query {query_id!r}"
    return f"query {query_id!r}: document {doc_ids[np.flatnonzero(has_text)[error.document]]!r}"


def _check_types(run: object, reranker: object, store: object, queries: object, depth: int) -> None:
    if not isinstance(run, Run):
        raise TypeError(f"run: expected a raydist Run, got {type(run).__name__}")
    if isinstance(reranker, type) or not isinstance(reranker, Reranker):
        raise TypeError(
            f"reranker: expected an object with score(batch), got {type(reranker).__name__}"
        )
    if not isinstance(store, Mapping) and not callable(getattr(store, "get", None)):
        raise TypeError(
            f"store: expected a document store or a mapping of texts, got {type(store).__name__}"
        )
    plain = isinstance(queries, Mapping) or (
        isinstance(queries, Sequence)
        and not isinstance(queries, str)
        and all(isinstance(query, Query) for query in queries)
    )
    if not plain:
        raise TypeError(
            f"queries: expected Query records or a mapping of texts, got {type(queries).__name__}"
        )
    if not isinstance(depth, int) or isinstance(depth, bool) or depth < 0:
        raise TypeError(f"depth: expected a whole number from 0, got {depth!r}")


def _batches(run: Run, size: int) -> Iterator[list[tuple[str, list[str]]]]:
    batch: list[tuple[str, list[str]]] = []
    for query_id, doc_ids, _ in run:
        batch.append((query_id, doc_ids))
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def _texts(
    query_id: str,
    doc_ids: Sequence[str],
    store: TextStore | Mapping[str, str],
    queries: Mapping[str, str],
    missing: Missing,
) -> tuple[str, list[str], np.ndarray]:
    """Returns the query's text, the documents' texts, and for each id whether it has one."""
    if query_id not in queries:
        raise DataError(f"query {query_id!r} is in the run, but has no text in queries")
    documents: Sequence[str | None]
    if isinstance(store, Mapping):
        documents = [store.get(doc_id) for doc_id in doc_ids]
        for doc_id, text in zip(doc_ids, documents):
            if text is not None:
                _check_text(text, "document", doc_id)
    else:
        documents = [each if each is None else each.contents for each in store.get(doc_ids)]
    has_text = np.array([text is not None for text in documents], bool)
    if missing == "error" and not has_text.all():
        absent = doc_ids[int(np.flatnonzero(~has_text)[0])]
        raise DataError(
            f"query {query_id!r}: document {absent!r} has no text in the corpus "
            f"({int((~has_text).sum())} of {len(doc_ids)}); use missing=drop to leave such "
            "documents out, or missing=keep to put them below the scored ones"
        )
    _check_text(queries[query_id], "query", query_id)
    return queries[query_id], [text for text in documents if text is not None], has_text


def _check_text(value: object, what: str, name: str) -> None:
    if not isinstance(value, str):
        raise TypeError(f"{what} {name!r}: expected its text, got {type(value).__name__}")


def sort_scored(
    query_id: str, doc_ids: Sequence[str], has_text: np.ndarray, scores: Sequence[float], keep: bool
) -> tuple[list[str], np.ndarray]:
    """Returns ids and float32 scores, best first; equal scores in the order of `doc_ids`.

    Args:
        query_id: for errors.
        doc_ids: the candidates.
        has_text: which of them were scored.
        scores: of those.
        keep: put the others below the scored ones, in their order.

    Raises:
        DataError: a score is not a finite float32.
    """
    values = np.asarray(scores, np.float64)
    outside = ~(np.abs(values) <= np.finfo(np.float32).max)
    if outside.any():
        raise DataError(
            f"query {query_id!r}: the reranker returned the score {values[outside][0]:g}; expected "
            "finite numbers that fit a float32"
        )
    order = np.argsort(-values, kind="stable")
    positions = np.flatnonzero(has_text).tolist()
    ids = [doc_ids[positions[i]] for i in order.tolist()]
    ranked = values[order].astype(np.float32)
    if keep and not has_text.all():
        rest = np.flatnonzero(~has_text).tolist()
        ids += [doc_ids[i] for i in rest]
        lowest = ranked[-1] if len(ranked) else np.float32(0)
        ranked = np.concatenate((ranked, _below(lowest, len(rest))))
    return ids, ranked


def _below(score: np.float32, count: int) -> np.ndarray:
    """Returns `count` float32 numbers, each lower than the one before, all below `score`."""
    step = max(1e-3, abs(float(score)) * 1e-5)
    return (float(score) - step * np.arange(1, count + 1)).astype(np.float32)


def query_splits(run: Run, pairs: int) -> list[dict[str, int]]:
    """Returns stretches of whole queries of at most `pairs` rows (a longer query goes alone)."""
    splits: list[dict[str, int]] = []
    first = row = 0
    for end in [*group_starts(run.table["query_id"])[1:].tolist(), len(run)]:
        if row > first and end - first > pairs:
            splits.append({"first": first, "size": row - first})
            first = row
        row = end
    if row > first:
        splits.append({"first": first, "size": row - first})
    return splits


@dataclass(frozen=True, slots=True, kw_only=True)
class RerankFacts:
    """The work that a reranked run took; `seconds` are those of all workers."""

    queries: int
    pairs: int
    without_text: int
    seconds: float


def rerank_sharded(
    run: Run,
    queries: Sequence[Query],
    open_texts: Callable[[], DocumentStore],
    folder: Path,
    make_reranker: Callable[[], Reranker],
    spec: Reranking = Reranking(),  # noqa: B008  frozen
) -> tuple[Iterator[pa.Table], RerankFacts]:
    """Returns the rows of the reranked run, split by split, and the facts for its manifest.

    Args:
        run: the candidates.
        queries: their texts.
        open_texts: called once per worker, on its machine; picklable.
        folder: where the shards are until the work is done.
        make_reranker: called once per worker; picklable.
        spec: which candidates, and by how many workers.
    """
    folder.mkdir(parents=True, exist_ok=True)
    run = run.top(spec.depth) if spec.depth else run
    query_ids = set(run.query_ids)
    needed = [query for query in queries if query.query_id in query_ids]
    _write(run.table, folder / "run.arrow")
    _write(
        pa.table([[q.query_id for q in needed], [q.text for q in needed]], schema=QUERIES),
        folder / "queries.arrow",
    )
    splits = query_splits(run, max(spec.split_pairs, -(-len(run) // MOST)))
    stats = sharded_map(
        splits,
        partial(
            _make_worker,
            make_reranker,
            folder / "run.arrow",
            folder / "queries.arrow",
            open_texts,
            spec.missing,
        ),
        folder / "shards",
        workers=spec.workers,
        cpus_per_worker=spec.cpus_per_worker,
        gpus_per_worker=spec.gpus_per_worker,
        label="rerank",
        unit="pair",
    )
    tables = (_read(shard_path(folder / "shards", number)) for number in range(len(splits)))
    facts = RerankFacts(
        queries=len(query_ids),
        pairs=sum(int(s["pairs"]) for s in stats),
        without_text=sum(int(s["without_text"]) for s in stats),
        seconds=sum(float(s["seconds"]) for s in stats),
    )
    return tables, facts


def _make_worker(
    make_reranker: Callable[[], Reranker],
    run: Path,
    queries: Path,
    open_texts: Callable[[], DocumentStore],
    missing: Missing,
) -> Work:
    reranker, store = make_reranker(), open_texts()
    columns = _read(queries)
    query_texts = dict(zip(columns["query_id"].to_pylist(), columns["text"].to_pylist()))
    return partial(_work, reranker, store, _read(run), query_texts, missing)


def _work(
    reranker: Reranker,
    store: DocumentStore,
    table: pa.Table,
    queries: Mapping[str, str],
    missing: Missing,
    split: Split,
    target: Path,
) -> Stats:
    start = time.perf_counter()
    part = Run(table.slice(split["first"], split["size"]))
    with_text = int((store.positions(part.table["doc_id"].to_pylist()) >= 0).sum())
    ranked = rerank(part, reranker, store, queries, missing=missing)
    _write(ranked.table, target)
    return {
        "pairs": with_text,
        "without_text": len(part) - with_text,
        "seconds": round(time.perf_counter() - start, 4),
    }


def _write(table: pa.Table, path: Path) -> None:
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)


def _read(path: Path) -> pa.Table:
    with pa.memory_map(str(path)) as source:
        return pa.ipc.open_file(source).read_all()
