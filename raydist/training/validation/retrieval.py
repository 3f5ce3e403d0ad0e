"""Validation: retrieve with the model as it is now, and measure.

Q queries, k results, D dimensions, B documents of a block. The corpus or the fixed run is cut over
the ranks. Every rank works on its share, on the model's device; rank 0 merges the shares, which
travel as tensors, so that any number of ranks gives the ranking that one gives.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from raydist.dense.exact import BestRows, merge_top
from raydist.errors import DataError
from raydist.evaluation.measures import Evaluation, evaluate
from raydist.late.torch_scorer import max_sims
from raydist.models.encode import length_batches
from raydist.protocols import Encoder
from raydist.records import RUN, Document, Qrels, Query, Run
from raydist.reranking.apply import Missing, sort_scored
from raydist.reranking.biencoder import similarities

_SCORES = 1 << 26
"""Scores that are held at once: of a block of documents, or of all ranks for some queries."""
_LONGER = 8
"""How many times as many tokens as a query a document may have, about."""


def _same(value: Any) -> Any:
    return value


def _alone(tensor: Tensor) -> list[Tensor]:
    return [tensor]


def _at_once() -> None:
    pass


@dataclass(frozen=True, slots=True)
class Ranks:
    """The processes that validate together.

    Attributes:
        rank: this process.
        world: number of processes.
        gather: takes tensors of one shape and returns every rank's, in order, on rank 0, and
            nothing elsewhere.
        broadcast: returns rank 0's picklable value on every rank.
        barrier: waits for all ranks.
    """

    rank: int = 0
    world: int = 1
    gather: Callable[[Tensor], list[Tensor]] = _alone
    broadcast: Callable[[Any], Any] = _same
    barrier: Callable[[], None] = _at_once

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
        """Returns rank 0's run; None on other ranks, and where a score was not finite."""
        ...


@dataclass(frozen=True, slots=True)
class DenseRetrieval:
    """Exact search over a corpus (or a part of one) that the model encodes anew each time.

    Attributes:
        doc_ids: of the whole corpus; equal scores are in its order.
        documents: this rank's share of the corpus.
        k: results per query.
        ranks: who shares the documents.
        block: documents whose vectors are held at once.
    """

    doc_ids: pa.Array
    documents: Sequence[Document]
    k: int = 1000
    ranks: Ranks = Ranks()
    block: int = 8192

    def __call__(self, model: Any, queries: Sequence[Query]) -> Run | None:
        """Returns each query's best documents; equal scores in corpus order."""
        share = self.ranks.share(len(self.doc_ids))
        assert len(share) == len(self.documents), (share, len(self.documents))
        k = min(self.k, len(self.doc_ids))
        own = _vectors(model, model.encode_queries([query.text for query in queries]))
        parts = torch.split(own, max(1, _SCORES // self.block))
        best = [BestRows(len(part), k, part.device) for part in parts]
        finite = True
        # Weights of terms are as many as a vocabulary has, and documents longer than queries.
        width = own.shape[1:].numel() * (1 if own.dim() == 2 else _LONGER)
        block = max(1, min(self.block, _SCORES // max(1, width)))
        for start in range(0, len(share), block):
            texts = [document.contents for document in self.documents[start : start + block]]
            scores = _scores(model, model.encode_documents(texts))
            for part, rows in zip(parts, best):
                scores_QB = scores(part)
                finite = finite and bool(scores_QB.amax(dim=1).isfinite().all())
                if finite:
                    rows.add(scores_QB, share.start + start)
        scores_Qk, rows_Qk = self._whole(best, k, finite)
        if self.ranks.rank or not bool(scores_Qk.isfinite().all()):
            return None
        query_ids = pa.array([query.query_id for query in queries])
        queries_of_rows = pa.array(np.repeat(np.arange(len(queries)), k))
        documents_of_rows = pa.array(rows_Qk.cpu().numpy().ravel())
        columns = [query_ids.take(queries_of_rows), self.doc_ids.take(documents_of_rows)]
        scores = pa.array(scores_Qk.cpu().numpy().ravel())
        return Run(pa.table([*columns, scores], names=RUN.names))

    def _whole(self, best: Sequence[BestRows], k: int, finite: bool) -> tuple[Tensor, Tensor]:
        """Returns the best of all ranks on rank 0, and this rank's elsewhere."""
        scores_Qk = torch.cat([_filled(rows.scores_Qk, k, -math.inf) for rows in best])
        rows_Qk = torch.cat([_filled(rows.rows_Qk, k, 0) for rows in best])
        if not finite:
            scores_Qk.fill_(math.inf)  # which no merging loses
        if self.ranks.world == 1:
            return scores_Qk, rows_Qk
        size = max(1, _SCORES // max(1, k * self.ranks.world))
        merged = []
        for scores, rows in zip(torch.split(scores_Qk, size), torch.split(rows_Qk, size)):
            shares = [*zip(self.ranks.gather(scores), self.ranks.gather(rows))]  # rows ascend
            for i, share in enumerate(shares):
                scores, rows = merge_top(scores, rows, *share, k) if i else share
            merged.append((scores, rows))
        scores_Qk, rows_Qk = (torch.cat(each) for each in zip(*merged))
        return scores_Qk, rows_Qk


def _vectors(model: Any, vectors: Any) -> Tensor:
    """Returns vectors [n, D] on the model's device, or those of tokens [n, q, D], padded."""
    if isinstance(vectors, list):
        rows = [torch.from_numpy(each) for each in vectors]
        return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True).to(model.device)
    tensor = torch.from_numpy(np.asarray(vectors, np.float32))
    return tensor.to(getattr(model, "device", tensor.device))


def _scores(model: Any, vectors: Any) -> Callable[[Tensor], Tensor]:
    """Returns what gives queries' scores [Q, B] of documents: products, or MaxSim of tokens."""
    if not isinstance(vectors, list):
        block_DB = _vectors(model, vectors).T
        return lambda queries_QD: queries_QD @ block_DB
    lengths_B = torch.tensor([len(each) for each in vectors])
    owners_t = torch.repeat_interleave(lengths_B).to(model.device)
    vectors_tD = torch.from_numpy(np.concatenate(vectors)).to(model.device)
    empty_B = (lengths_B == 0).to(model.device)

    def scores(queries_QqD: Tensor) -> Tensor:
        width = queries_QqD.shape[1]
        size = max(1, _SCORES // max(1, len(vectors_tD) * width))
        parts = [
            max_sims(x, vectors_tD, owners_t, len(empty_B)) for x in torch.split(queries_QqD, size)
        ]
        # The least that vectors of unit length can have, as where candidates are reordered.
        return torch.cat(parts).masked_fill(empty_B, -float(width))

    return scores


def _filled(values_Qn: Tensor, k: int, value: float) -> Tensor:
    """Returns k columns: the values, and then another one."""
    return torch.nn.functional.pad(values_Qn, (0, k - values_Qn.shape[1]), value=value)


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
        missing: for candidates without text, as in `raydist.reranking.apply.rerank`.
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
        batch = [
            (query_texts[q], [self.texts[d] for d in docs if d in self.texts])
            for q, docs in rankings
        ]
        scores = self._scores(model, batch)
        if scores is None or not all(np.isfinite(each).all() for each in scores):
            return None
        keep = self.missing == "keep"
        ranked = []
        for (query_id, doc_ids), values in zip(rankings, scores):
            has_text = np.array([doc_id in self.texts for doc_id in doc_ids], bool)
            ids, sorted_values = sort_scored(query_id, doc_ids, has_text, values.tolist(), keep)
            ranked.append((query_id, ids, sorted_values.tolist()))
        return Run.from_lists(ranked)

    def _scores(
        self, model: Any, batch: Sequence[tuple[str, Sequence[str]]]
    ) -> list[np.ndarray] | None:
        """Returns the scores of all queries on rank 0, None elsewhere; each rank scores some."""
        world = self.ranks.world
        shares = [range(rank, len(batch), world) for rank in range(world)]
        sizes = [sum(len(batch[i][1]) for i in share) for share in shares]
        own = (self.score or score_pairs)(model, [batch[i] for i in shares[self.ranks.rank]])
        sent = torch.zeros(max(sizes), dtype=torch.float64)
        sent[: sizes[self.ranks.rank]] = torch.tensor(
            [score for scores in own for score in scores], dtype=torch.float64
        )
        scores: list[np.ndarray] = [np.zeros(0)] * len(batch)
        gathered = self.ranks.gather(sent)
        for share, part in zip(shares, gathered):
            ends = np.cumsum([len(batch[i][1]) for i in share])
            for i, values in zip(share, np.split(part.cpu().numpy(), ends)):
                scores[i] = values
        return scores if gathered else None


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
    evaluation: Evaluation = ranks.broadcast(result)
    return evaluation if ranks.rank else replace(evaluation, run=run)
