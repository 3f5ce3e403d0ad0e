"""Hard negatives: from a run and judgements to training samples.

For each query the run's documents within a window of ranks are candidates; judged positives,
documents that score too close to a positive, and texts that are already there are left out; of the
rest some are drawn or the best taken. What a query gets depends on its own ranking, judgements and
the seed alone, not on the other queries.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Literal

import numpy as np

from raydist.records import Qrels, Run

Texts = Callable[[Sequence[str]], Sequence[str | None]]
"""Returns the text of each document, None for one that the corpus does not have."""

Teacher = Callable[[Sequence[tuple[str, Sequence[str]]]], list[list[float]]]
"""Scores the documents of each query: a reranker's `score`."""


@dataclass(frozen=True, slots=True)
class Rules:
    """Which documents become negatives.

    Attributes:
        negatives: how many for a query, fewer if there are no more.
        first, last: ranks of the window, from 1, both included; last = 0 is the run's end.
        relevance: least grade of a positive; other judged documents may become negatives.
        margin: a negative must score at least this much below the positive; None = no such rule.
        share: a negative must score at most this share of the positive's score (0.95, say): below
            it by (1 − share) · |score|, which is the same for positive scores.
        reference: which positive's score margin and share refer to, if there are several.
        pick: draw at `random` from the window, or take those at its `top`.
        positives: how many of a query's positives are kept, best grade and rank first; 0 = all.
        seed: of the draw.
    """

    negatives: int = 15
    first: int = 1
    last: int = 200
    relevance: int = 1
    margin: float | None = None
    share: float | None = None
    reference: Literal["max", "min", "mean"] = "max"
    pick: Literal["random", "top"] = "random"
    positives: int = 0
    seed: int = 0


@dataclass(slots=True)
class Mined:
    """One query's sample; documents with their scores, negatives in the run's order.

    A positive that the run did not return has the score of the run's last document for that query:
    no more is known than that it is not above it.
    """

    query_id: str
    query: str
    positive_ids: list[str]
    positives: list[str]
    positive_scores: list[float]
    negative_ids: list[str] = field(default_factory=list)
    negatives: list[str] = field(default_factory=list)
    negative_scores: list[float] = field(default_factory=list)


@dataclass(slots=True)
class _Open:
    """A query that still looks for negatives: candidates in the order in which they are tried."""

    mined: Mined
    ranks: list[int]
    doc_ids: list[str]
    scores: np.ndarray
    seen: set[bytes]
    next: int = 0
    taken: list[tuple[int, str]] = field(default_factory=list)


def limit_of(rules: Rules, positive_scores: Sequence[float]) -> float:
    """Returns the score that a negative must not exceed; infinite without margin and share."""
    if rules.margin is None and rules.share is None:
        return float("inf")
    found = np.asarray(positive_scores, np.float64)
    anchor = {"max": float(found.max()), "min": float(found.min()), "mean": float(found.mean())}[
        rules.reference
    ]
    limits = []
    if rules.margin is not None:
        limits.append(anchor - rules.margin)
    if rules.share is not None:
        limits.append(anchor - (1.0 - rules.share) * abs(anchor))
    return min(limits)


def wanted_ids(run: Run, qrels: Qrels, rules: Rules) -> set[str]:
    """Returns the documents whose texts `mine` may ask for."""
    wanted: set[str] = set()
    for query_id, doc_ids, _ in run:
        judged = qrels.get(query_id)
        if judged is None:
            continue
        wanted.update(doc_ids[rules.first - 1 : rules.last or None])
        wanted.update(doc for doc, grade in judged.items() if grade >= rules.relevance)
    return wanted


def mine(
    run: Iterable[tuple[str, list[str], np.ndarray]],
    queries: Mapping[str, str],
    qrels: Qrels,
    texts: Texts,
    rules: Rules = Rules(),
    *,
    teacher: Teacher | None = None,
    counts: Counter[str] | None = None,
    batch: int = 256,
) -> Iterator[Mined]:
    """Yields a sample for each judged query of the run that has a positive and a negative.

    Args:
        run: where candidates come from: query, documents and scores of each ranking.
        queries: query_id -> text.
        qrels: judgements.
        texts: looks texts up.
        rules: which documents become negatives.
        teacher: scores every text of the result; the run's scores otherwise.
        counts: counts what was left out, by reason, and what was made.
        batch: queries whose texts are looked up together.
    """
    counts = Counter() if counts is None else counts
    source = iter(run)
    while part := list(islice(source, batch)):
        mined = list(_fill(_open(part, queries, qrels, texts, rules, counts), texts, rules, counts))
        if teacher is not None and mined:
            asked = [(one.query, [*one.positives, *one.negatives]) for one in mined]
            for one, scores in zip(mined, teacher(asked)):
                one.positive_scores = scores[: len(one.positives)]
                one.negative_scores = scores[len(one.positives) :]
        counts["samples"] += len(mined)
        counts["negatives"] += sum(len(one.negatives) for one in mined)
        yield from mined


def record(
    mined: Mined, *, scores: bool = True, teacher: bool = True, prompt: str | None = None
) -> dict[str, Any]:
    """Returns a line of FlagEmbedding's training data, with the ids beside the texts.

    Args:
        mined: the sample.
        scores: write pos_scores and neg_scores.
        teacher: the scores are a teacher's. Otherwise the line has `score_source: run`, and
            raydist's training does not distil from them: a positive that the run ranks low, or does
            not have, would be taught to be a bad answer.
        prompt: the query's instruction.
    """
    line: dict[str, Any] = {"query_id": mined.query_id, "query": mined.query}
    line |= {"pos": mined.positives, "neg": mined.negatives}
    if scores:
        line |= {"pos_scores": mined.positive_scores, "neg_scores": mined.negative_scores}
        if not teacher:
            line["score_source"] = "run"
    if prompt is not None:
        line["prompt"] = prompt
    return line | {"pos_id": mined.positive_ids, "neg_id": mined.negative_ids}


def _open(
    part: Iterable[tuple[str, list[str], np.ndarray]],
    queries: Mapping[str, str],
    qrels: Qrels,
    texts: Texts,
    rules: Rules,
    counts: Counter[str],
) -> list[_Open]:
    """Returns the queries that have a positive and candidates, positives' texts looked up."""
    judged_part = []
    for query_id, doc_ids, scores in part:
        relevant = {
            doc: grade for doc, grade in qrels.get(query_id, {}).items() if grade >= rules.relevance
        }
        if not relevant or query_id not in queries:
            counts["queries without positive" if not relevant else "queries without text"] += 1
            continue
        judged_part.append((query_id, doc_ids, scores, relevant))
    known = _lookup(texts, (doc for _, _, _, relevant in judged_part for doc in relevant))
    opened = []
    for query_id, doc_ids, scores, relevant in judged_part:
        place = {doc: rank for rank, doc in enumerate(doc_ids)}
        order = sorted(relevant, key=lambda d: (-relevant[d], place.get(d, len(place)), d))
        found = {doc: known[doc] for doc in order if known[doc] is not None}
        counts["positives without text"] += len(order) - len(found)
        if not found:
            counts["queries without positive"] += 1
            continue
        counts["positives that the run has not"] += sum(doc not in place for doc in found)
        all_scores = {d: float(scores[place[d]] if d in place else scores[-1]) for d in found}
        kept = list(found)[: rules.positives or None]
        mined = Mined(
            query_id,
            queries[query_id],
            kept,
            [text for doc in kept if (text := found[doc]) is not None],
            [all_scores[doc] for doc in kept],
        )
        limit = limit_of(rules, list(all_scores.values()))
        ranks = []
        for rank in range(rules.first - 1, min(rules.last or len(doc_ids), len(doc_ids))):
            if doc_ids[rank] in relevant:
                counts["candidates that are positive"] += 1
            elif scores[rank] > limit:
                counts["candidates too close to a positive"] += 1
            else:
                ranks.append(rank)
        if rules.pick == "random":
            ranks = _shuffled(ranks, query_id, rules.seed)
        seen = {_hash(mined.query), *(_hash(text) for text in found.values() if text is not None)}
        opened.append(_Open(mined, ranks, doc_ids, scores, seen))
    return opened


def _fill(opened: list[_Open], texts: Texts, rules: Rules, counts: Counter[str]) -> Iterator[Mined]:
    """Takes negatives until every query has enough or no candidate is left.

    Candidates are tried one after the other; their texts are looked up for all queries at once,
    only as many as are still needed.
    """
    hungry = opened
    while hungry:
        asked = []
        for one in hungry:
            need = rules.negatives - len(one.taken)
            tries = one.ranks[one.next : one.next + need]
            one.next += len(tries)
            asked.append([(rank, one.doc_ids[rank]) for rank in tries])
        known = _lookup(texts, (doc for pairs in asked for _, doc in pairs))
        for one, pairs in zip(hungry, asked):
            for rank, doc in pairs:
                text = known[doc]
                if text is None:
                    counts["candidates without text"] += 1
                elif (key := _hash(text)) in one.seen:
                    counts["candidates whose text is there already"] += 1
                else:
                    one.seen.add(key)
                    one.taken.append((rank, text))
        hungry = [
            one for one in hungry if len(one.taken) < rules.negatives and one.next < len(one.ranks)
        ]
    for one in opened:
        if not one.taken:
            counts["queries without negative"] += 1
            continue
        one.taken.sort()
        one.mined.negative_ids = [one.doc_ids[rank] for rank, _ in one.taken]
        one.mined.negatives = [text for _, text in one.taken]
        one.mined.negative_scores = [float(one.scores[rank]) for rank, _ in one.taken]
        counts["samples with fewer negatives"] += len(one.taken) < rules.negatives
        yield one.mined


def _lookup(texts: Texts, doc_ids: Iterable[str]) -> dict[str, str | None]:
    wanted = list(dict.fromkeys(doc_ids))
    return dict(zip(wanted, texts(wanted)))


def _shuffled(ranks: list[int], query_id: str, seed: int) -> list[int]:
    digest = hashlib.blake2b(query_id.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    rng = np.random.default_rng([seed, int.from_bytes(digest, "little")])
    return [ranks[i] for i in rng.permutation(len(ranks))]


def _hash(text: str) -> bytes:
    """Returns a text's hash; texts that differ in white space alone are the same."""
    words = " ".join(text.split())
    return hashlib.blake2b(words.encode("utf-8", "surrogatepass"), digest_size=16).digest()
