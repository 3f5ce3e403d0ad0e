"""Validation: retrieve with the model as it is now, and measure.

Q queries, k results, D dimensions, B documents of a block. The corpus or the fixed run is cut over
the ranks; every rank works on its share and the shares are merged so that any number of ranks gives
the ranking that one gives.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch

from raydist.dense.exact import merge_top, top_of_block
from raydist.errors import DataError
from raydist.evaluation.measures import Evaluation, evaluate
from raydist.models.encode import length_batches
from raydist.protocols import Encoder
from raydist.records import Document, Qrels, Query, Run
from raydist.rerank.apply import Missing, sort_scored
from raydist.rerank.biencoder import similarities


def _alone(value: Any) -> list[Any]:
    return [value]


@dataclass(frozen=True, slots=True)
class Ranks:
    """The processes that validate together.

    Attributes:
        rank: this process.
        world: number of processes.
        gather: takes a picklable value and returns every rank's, in order, on every rank.
    """

    rank: int = 0
    world: int = 1
    gather: Callable[[Any], list[Any]] = _alone

    def share(self, count: int) -> range:
        """Returns this rank's share of `count` items: consecutive, sizes differ by at most one."""
        return range(count * self.rank // self.world, count * (self.rank + 1) // self.world)


@dataclass(frozen=True, slots=True)
class Task:
    """Queries with their judgements. Queries without judgements are not searched."""

    queries: Sequence[Query]
    qrels: Qrels

    def __post_init__(self) -> None:
        known = {query.query_id for query in self.queries}
        judged = [query for query in self.queries if query.query_id in self.qrels]
        if not judged:
            raise DataError(
                f"validation: none of the {len(self.queries)} queries is judged: the qrels have "
                f"other query ids (for example {next(iter(self.qrels), 'none at all')!r})"
            )
        object.__setattr__(self, "queries", tuple(judged))
        object.__setattr__(self, "qrels", {q: d for q, d in self.qrels.items() if q in known})


class Retrieval(Protocol):
    """Turns a model and queries into a run; called by every rank at the same time."""

    def __call__(self, model: Any, queries: Sequence[Query]) -> Run | None:
        """Returns the run (the same on every rank), None where a score was not finite."""
        ...


@dataclass(frozen=True, slots=True)
class DenseRetrieval:
    """Exact search over a corpus (or a part of one) that the model encodes anew each time.

    Attributes:
        documents: the corpus.
        k: results per query.
        ranks: who shares the documents.
        block: documents whose vectors are held at once.
    """

    documents: Sequence[Document]
    k: int = 1000
    ranks: Ranks = Ranks()
    block: int = 8192

    def __call__(self, model: Any, queries: Sequence[Query]) -> Run | None:
        """Returns each query's best documents by dot product; equal scores in corpus order."""
        texts = [query.text for query in queries]
        queries_QD = torch.from_numpy(np.asarray(model.encode_queries(texts), np.float32))
        scores_Qk = torch.empty((len(queries), 0), dtype=torch.float32)
        rows_Qk = torch.empty((len(queries), 0), dtype=torch.int64)
        share = self.ranks.share(len(self.documents))
        for start in range(share.start, share.stop, self.block):
            stop = min(start + self.block, share.stop)
            part = [document.contents for document in self.documents[start:stop]]
            block_BD = torch.from_numpy(np.asarray(model.encode_documents(part), np.float32))
            scores, rows = top_of_block(queries_QD @ block_BD.T, self.k)
            scores_Qk, rows_Qk = merge_top(scores_Qk, rows_Qk, scores, rows + start, self.k)
        parts = self.ranks.gather((scores_Qk, rows_Qk))  # shares of ascending rows
        scores_Qk, rows_Qk = parts[0]
        for scores, rows in parts[1:]:
            scores_Qk, rows_Qk = merge_top(scores_Qk, rows_Qk, scores, rows, self.k)
        if not bool(torch.isfinite(scores_Qk).all()):
            return None
        ids = [document.doc_id for document in self.documents]
        return Run.from_lists(
            (query.query_id, [ids[row] for row in rows], scores)
            for query, rows, scores in zip(queries, rows_Qk.tolist(), scores_Qk.tolist())
        )


Score = Callable[[Any, Sequence[tuple[str, Sequence[str]]]], list[list[float]]]
"""Scores documents for queries with a model: (model, [(query, documents)]) -> [[score]]."""


@dataclass(frozen=True, slots=True)
class RunReranking:
    """Reorders the first `depth` documents of a fixed run by the model's scores.

    Attributes:
        run: the candidates.
        texts: doc_id -> text of every candidate.
        depth: candidates per query.
        ranks: who shares the queries.
        score: scores pairs with the model; `score_pairs` by default.
        missing: for candidates without text, as in `raydist.rerank.apply.rerank`.
    """

    run: Run
    texts: Mapping[str, str]
    depth: int = 100
    ranks: Ranks = Ranks()
    score: Score | None = None
    missing: Missing = "error"

    def __post_init__(self) -> None:
        for query_id, doc_ids, _ in self.run if self.missing == "error" else ():
            for doc_id in doc_ids[: self.depth]:
                if doc_id not in self.texts:
                    raise DataError(
                        f"validation: the corpus has no document {doc_id!r}, which the run "
                        f"lists for query {query_id!r}; retriever.missing=drop leaves such "
                        "documents out, keep puts them below the others"
                    )

    def __call__(self, model: Any, queries: Sequence[Query]) -> Run | None:
        """Returns the candidates by descending score; equal scores keep the run's order."""
        query_texts = {query.query_id: query.text for query in queries}
        rankings = [
            (query_id, doc_ids[: self.depth])
            for query_id, doc_ids, _ in self.run
            if query_id in query_texts
        ]
        share = rankings[self.ranks.rank :: self.ranks.world]
        batch = [
            (query_texts[q], [self.texts[d] for d in docs if d in self.texts]) for q, docs in share
        ]
        own_scores = (self.score or score_pairs)(model, batch)
        merged: dict[str, list[float]] = {}
        for part in self.ranks.gather([(q, scores) for (q, _), scores in zip(share, own_scores)]):
            merged |= dict(part)
        ranked = []
        for query_id, doc_ids in rankings:
            scores = merged[query_id]
            if not np.isfinite(scores).all():
                return None
            has_text = np.array([doc_id in self.texts for doc_id in doc_ids], bool)
            keep = self.missing == "keep"
            ids, values = sort_scored(query_id, doc_ids, has_text, scores, keep)
            ranked.append((query_id, ids, values.tolist()))
        return Run.from_lists(ranked)


def score_pairs(
    model: Any, batch: Sequence[tuple[str, Sequence[str]]], *, max_tokens: int = 8192
) -> list[list[float]]:
    """Returns the model's score of each pair: an encoder's dot products, else its own scores.

    Pairs of a cross-encoder go through it in length-sorted batches of a token budget.
    """
    if hasattr(model, "score"):
        return model.score(batch)  # type: ignore[no-any-return]
    if isinstance(model, Encoder):
        return similarities(model, batch)
    pairs = model.tokenize(
        [query for query, documents in batch for _ in documents],
        [document for _, documents in batch for document in documents],
    )
    scores = np.empty(len(pairs), np.float32)
    lengths = np.fromiter(map(len, pairs), np.int64, len(pairs))
    device = next(model.parameters()).device
    with torch.inference_mode():
        for rows in length_batches(lengths, max_tokens):
            inputs = {k: v.to(device) for k, v in model.pad([pairs[i] for i in rows]).items()}
            scores[rows] = model(inputs).float().cpu().numpy()
    ends = np.cumsum([len(documents) for _, documents in batch])
    return [part.tolist() for part in np.split(scores, ends[:-1])] if len(ends) else []


def validate(
    model: Any,
    task: Task,
    retrieval: Retrieval,
    measures: Sequence[str],
    ranks: Ranks = Ranks(),
) -> Evaluation:
    """Returns the measures of a model's run; all are NaN where a score was not finite.

    Every rank calls it; rank 0 measures, and every rank gets its numbers. Rank 0's result
    has the run as well.
    """
    training = getattr(model, "training", False)
    if hasattr(model, "eval"):
        model.eval()
    try:
        run = retrieval(model, task.queries)
    finally:
        if training:
            model.train()
    result = None
    if ranks.rank == 0:
        if run is None:
            queries = tuple(task.qrels)
            values = np.full((len(measures), len(queries)), math.nan)
            result = Evaluation(tuple(measures), queries, values, dict.fromkeys(measures, math.nan))
        else:
            result = evaluate(run, task.qrels, measures)
    evaluation: Evaluation = ranks.gather(result)[0]
    return evaluation if ranks.rank else replace(evaluation, run=run)
