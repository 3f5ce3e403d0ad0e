"""Rankings of documents by their passages: by the best one (MaxP), or the mean of the best few.

A ranking of passages is read as far as the first k documents need, so they are right whatever the
number of passages: four times as deep again for queries of which they are not certain.

By the best one, documents are in the order of their first passages in the ranking, ties included,
as with Anserini's `-selectMaxPassage`.

Shapes: L rows of a ranking, G (query, document) pairs, Q queries.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from raydist.dense.spec import ByDocument
from raydist.protocols import Scanning, Selective
from raydist.records import RUN, Query, Run
from raydist.run_writer import group_starts
from raydist.strings import codes

_MOST = 1 << 22  # rows of a ranking of passages, but for a single query

Search = Callable[[Sequence[Any], int], Run]
"""Returns the best passages of queries."""


Sizes = tuple[pa.Array, np.ndarray]
"""The ids of documents, and how many passages each has."""


def sizes_of(retriever: object, by: ByDocument) -> Callable[[], Sizes] | None:
    """Returns what counts, once, the passages that a search of vectors finds.

    None for other searches, and where nobody needs to know.
    """
    if by.passages == 1 or not isinstance(retriever, Scanning):
        return None
    vectors = cast(Selective, retriever)
    return cache(lambda: _sizes(vectors.doc_ids, by))


def first_depth(k: int, by: ByDocument) -> int:
    """Returns how many passages are looked at first."""
    return 2 * k * by.passages


def rank_documents(
    search: Search,
    queries: Sequence[Any],
    k: int,
    *,
    by: ByDocument,
    sizes: Callable[[], Sizes] | None = None,
) -> Run:
    """Returns the best k documents of each query, in the order of the queries.

    Args:
        search: finds passages.
        queries: `Query`, or id and terms.
        k: documents of a query.
        by: how passages make a document's score.
        sizes: gives the numbers of passages (`sizes_of`), which saves looking at more of them.
    """
    parts, left, depth, tag = [RUN.empty_table()], list(queries), first_depth(k, by), "raydist"
    while left:
        step, again = max(1, _MOST // depth), []
        for at in range(0, len(left), step):
            run = search(left[at : at + step], depth)
            tag = run.tag
            table, open_ids = _grouped(run.table, k, depth, by, sizes)
            parts.append(table)
            again += [query for query in left[at : at + step] if _name(query) in open_ids]
        left, depth = again, 4 * depth
    table = pa.concat_tables(parts)
    if len(parts) > 2:
        names = pa.array([_name(query) for query in queries], table["query_id"].type)
        place_L = pc.index_in(table["query_id"], value_set=names).to_numpy()
        table = table.take(pa.array(np.argsort(place_L, kind="stable")))
    return Run(table, tag)


def _name(query: Any) -> str:
    return query.query_id if isinstance(query, Query) else str(query[0])


def _documents(ids: pa.Array | pa.ChunkedArray, by: ByDocument) -> pa.Array | pa.ChunkedArray:
    """Returns the ids of passages' documents; an id that is no passage's stays."""
    escaped = "".join(f"\\x{{{ord(letter):x}}}" for letter in by.delimiter)
    return pc.replace_substring_regex(ids, f"{escaped}[0-9][0-9_]*$", "")


def _sizes(ids: pa.Array | pa.ChunkedArray, by: ByDocument) -> Sizes:
    counts = pc.value_counts(_documents(ids.cast(pa.large_string()), by))
    return counts.field("values"), counts.field("counts").to_numpy(False)


def _grouped(
    table: pa.Table,
    k: int,
    depth: int,
    by: ByDocument,
    sizes: Callable[[], Sizes] | None,
) -> tuple[pa.Table, set[str]]:
    """Returns the documents of queries that are certain, and the ids of the other queries."""
    if not table.num_rows:
        return table, set()
    starts_Q = group_starts(table["query_id"])
    length_Q = np.diff(np.append(starts_Q, table.num_rows))
    query_L = np.repeat(np.arange(len(starts_Q)), length_Q)
    scores_L = table["score"].to_numpy().astype(np.float64)
    doc_L, documents = codes(_documents(table["doc_id"], by))
    key_L = query_L * len(documents) + doc_L
    _, first_G, group_L, size_G = np.unique(
        key_L, return_index=True, return_inverse=True, return_counts=True
    )
    query_G, doc_G, n = query_L[first_G], doc_L[first_G], by.passages
    order_L = np.argsort(group_L, kind="stable")
    rank_L = np.empty(len(order_L), np.int64)
    rank_L[order_L] = np.arange(len(order_L)) - np.repeat(np.cumsum(size_G) - size_G, size_G)
    best_L = rank_L < n
    sum_G = np.bincount(group_L[best_L], scores_L[best_L], len(first_G))
    seen_G = np.minimum(size_G, n)
    score_G = (sum_G / seen_G).astype(np.float32)
    whole_Q = length_Q < depth  # all that there is was seen
    lowest_Q = scores_L[starts_Q + length_Q - 1]
    bound_G, certain_G = score_G, whole_Q[query_G] | (size_G >= n)
    if sizes is not None and not certain_G.all():
        names, counts = sizes()
        own = pc.index_in(documents.cast(names.type), value_set=names).to_numpy(False)
        all_G = np.minimum(counts[own[doc_G]], n)
        certain_G |= size_G >= all_G
        rest_G = (all_G - seen_G) * lowest_Q[query_G]
        bound_G = np.where(certain_G, score_G, ((sum_G + rest_G) / all_G).astype(np.float32))
    rows_G = np.lexsort((first_G, -score_G, query_G))
    rows_G = rows_G[certain_G[rows_G]]
    begin_Q = np.searchsorted(query_G[rows_G], np.arange(len(starts_Q)))
    place = np.arange(len(rows_G)) - begin_Q[query_G[rows_G]]
    best = rows_G[place < k]
    kth_Q = np.full(len(starts_Q), -np.inf)
    kth_Q[query_G[rows_G[place == k - 1]]] = score_G[rows_G[place == k - 1]]
    highest_Q = np.full(len(starts_Q), -np.inf)  # of what may still be more than it seems
    np.maximum.at(highest_Q, query_G[~certain_G], bound_G[~certain_G])
    done_Q = whole_Q | ((kth_Q > highest_Q) & (kth_Q >= lowest_Q))
    best = best[done_Q[query_G[best]]]
    names = table["query_id"].take(pa.array(starts_Q))
    columns = [names.take(pa.array(query_G[best])), documents.take(pa.array(doc_G[best]))]
    result = pa.table([*columns, pa.array(score_G[best])], names=RUN.names).cast(RUN)
    return result, set(names.filter(pa.array(~done_Q)).to_pylist())
