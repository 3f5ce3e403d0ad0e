"""Hard negatives: from a run and judgements to training samples.

The candidates of a query are its documents in a window of ranks, without the positives of any
judged query with its text, documents that score too close to a positive, and repeated texts; some
of them are drawn, or the best taken. A query's sample depends on its own ranking and the judgements
of its text and on the seed alone, not on the other queries.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from itertools import islice

import numpy as np

from raydist.data.samples.fields import Record
from raydist.data.spec import MiningSpec
from raydist.fingerprints import text_key
from raydist.records import Qrels, Run

TextLookup = Callable[[Sequence[str]], Sequence[str | None]]
"""Returns the text of each document, None for one that is not in the corpus."""

Teacher = Callable[[Sequence[tuple[str, Sequence[str]]]], list[list[float]]]
"""Scores the documents of each query: a reranker's `score`."""


@dataclass(slots=True)
class MinedSample:
    """A query with its positives and negatives, negatives in the run's order, all with scores.

    A positive that the run did not return has the score of the run's last document for the query:
    all that is known is that it is not above it.
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
class _Candidates:
    """What a sample may take its negatives from: ranks in the order in which they are tried."""

    sample: MinedSample
    ranks: list[int]
    doc_ids: list[str]
    scores: np.ndarray
    hashes: set[int]
    tried: int = 0
    negatives: list[tuple[int, str]] = field(default_factory=list)


def limit_of(spec: MiningSpec, positive_scores: Sequence[float]) -> float:
    """Returns the score that a negative must not exceed; infinite without margin and share."""
    if spec.margin is None and spec.share is None:
        return float("inf")
    scores = np.asarray(positive_scores, np.float64)
    anchor = float(getattr(scores, spec.reference)())
    limits = []
    if spec.margin is not None:
        limits.append(anchor - spec.margin)
    if spec.share is not None:
        limits.append(anchor - (1.0 - spec.share) * abs(anchor))
    return min(limits)


def wanted_ids(run: Run, queries: Mapping[str, str], qrels: Qrels, spec: MiningSpec) -> set[str]:
    """Returns the documents whose texts `mine` may look up."""
    wanted: set[str] = set()
    same = _same_text(queries, qrels)
    for query_id, doc_ids, _ in run:
        if query_id not in qrels:
            continue
        wanted.update(doc_ids[spec.first - 1 : spec.last or None])
        for each in same.get(query_id, (query_id,)):
            wanted.update(doc for doc, grade in qrels[each].items() if grade >= spec.relevance)
    return wanted


def _same_text(queries: Mapping[str, str], qrels: Qrels) -> dict[str, list[str]]:
    """Returns the judged queries with a query's text, of those that are not the only ones."""
    by_text: dict[int, list[str]] = {}
    for query_id in qrels:
        if query_id in queries:
            by_text.setdefault(text_key(queries[query_id]), []).append(query_id)
    return {each: ids for ids in by_text.values() if len(ids) > 1 for each in ids}


def mine(
    run: Iterable[tuple[str, list[str], np.ndarray]],
    queries: Mapping[str, str],
    qrels: Qrels,
    texts: TextLookup,
    spec: MiningSpec = MiningSpec(),  # noqa: B008  frozen
    *,
    teacher: Teacher | None = None,
    by_teacher: bool = False,
    counts: Counter[str] | None = None,
    batch: int = 256,
) -> Iterator[MinedSample]:
    """Yields a sample for each judged query of the run that has a positive and a negative.

    Args:
        run: query, documents and scores of each ranking.
        queries: query_id -> text.
        qrels: judgements.
        texts: looks texts up.
        spec: which documents become negatives.
        teacher: scores the texts of the samples; without one they have the run's scores.
        by_teacher: whether the run's scores are a teacher's. Positives that it does not have are
            left out then: the lowest score would teach that they are bad answers.
        counts: counts what was left out, by reason, and the samples.
        batch: queries whose texts are looked up together.
    """
    counts = Counter() if counts is None else counts
    rankings, same = iter(run), _same_text(queries, qrels)
    while part := list(islice(rankings, batch)):
        candidates = _candidates(part, queries, qrels, same, texts, spec, by_teacher, counts)
        samples = list(_choose(candidates, texts, spec, counts))
        if teacher is not None and samples:
            pairs = [(s.query, [*s.positives, *s.negatives]) for s in samples]
            for sample, scores in zip(samples, teacher(pairs)):
                sample.positive_scores = scores[: len(sample.positives)]
                sample.negative_scores = scores[len(sample.positives) :]
        counts["samples"] += len(samples)
        counts["negatives"] += sum(len(sample.negatives) for sample in samples)
        yield from samples


def record(
    sample: MinedSample, *, scores: bool = True, teacher: bool = True, prompt: str | None = None
) -> Record:
    """Returns a line of FlagEmbedding's training data, with the ids beside the texts.

    Args:
        sample: the sample.
        scores: write pos_scores and neg_scores.
        teacher: the scores are a teacher's. Otherwise the line has `score_source: run`, and
            training does not distil from them: a positive that the run ranks low, or misses, would
            be taught to be a bad answer.
        prompt: the query's instruction.
    """
    line: Record = {"query_id": sample.query_id, "query": sample.query}
    line |= {"pos": sample.positives, "neg": sample.negatives}
    if scores:
        line |= {"pos_scores": sample.positive_scores, "neg_scores": sample.negative_scores}
        if not teacher:
            line["score_source"] = "run"
    if prompt is not None:
        line["prompt"] = prompt
    return line | {"pos_id": sample.positive_ids, "neg_id": sample.negative_ids}


def _candidates(
    part: Iterable[tuple[str, list[str], np.ndarray]],
    queries: Mapping[str, str],
    qrels: Qrels,
    same: Mapping[str, Sequence[str]],
    texts: TextLookup,
    spec: MiningSpec,
    by_teacher: bool,
    counts: Counter[str],
) -> list[_Candidates]:
    """Returns the candidates of each query that has a positive with a text."""
    judged = []
    for query_id, doc_ids, scores in part:
        grades = qrels.get(query_id, {})
        relevant = {doc: grade for doc, grade in grades.items() if grade >= spec.relevance}
        if not relevant or query_id not in queries:
            counts["queries without positive" if not relevant else "queries without text"] += 1
            continue
        also = {
            doc
            for each in same.get(query_id, ())
            for doc, grade in qrels[each].items()
            if grade >= spec.relevance
        }
        judged.append((query_id, doc_ids, scores, relevant, {*relevant, *also}))
    text_of = _lookup(texts, (doc for *_, known in judged for doc in sorted(known)))
    candidates = []
    for query_id, doc_ids, scores, relevant, known_ids in judged:
        rank_of = {doc: rank for rank, doc in enumerate(doc_ids)}
        order = sorted(relevant, key=lambda d: (-relevant[d], rank_of.get(d, len(rank_of)), d))
        positives = {doc: text for doc in order if (text := text_of[doc]) is not None}
        counts["positives without text"] += len(order) - len(positives)
        counts["positives that the run has not"] += sum(doc not in rank_of for doc in positives)
        if by_teacher:
            positives = {doc: text for doc, text in positives.items() if doc in rank_of}
        if not positives:
            counts["queries without positive"] += 1
            continue
        score_of = {d: float(scores[rank_of[d]] if d in rank_of else scores[-1]) for d in positives}
        chosen = list(positives)[: spec.positives or None]
        sample = MinedSample(
            query_id,
            queries[query_id],
            chosen,
            [positives[doc] for doc in chosen],
            [score_of[doc] for doc in chosen],
        )
        limit = limit_of(spec, list(score_of.values()))
        ranks = _ranks(doc_ids, scores, known_ids, limit, spec, counts)
        if spec.pick == "random":
            ranks = _shuffled(ranks, query_id, spec.seed)
        known = (text for doc in known_ids if (text := text_of[doc]) is not None)
        hashes = {text_key(sample.query), *map(text_key, known)}
        candidates.append(_Candidates(sample, ranks, doc_ids, scores, hashes))
    return candidates


def _ranks(
    doc_ids: list[str],
    scores: np.ndarray,
    relevant: Set[str],
    limit: float,
    spec: MiningSpec,
    counts: Counter[str],
) -> list[int]:
    """Returns the ranks in the window that may become negatives, from 0."""
    ranks = []
    for rank in range(spec.first - 1, min(spec.last or len(doc_ids), len(doc_ids))):
        if doc_ids[rank] in relevant:
            counts["candidates that are positive"] += 1
        elif scores[rank] > limit:
            counts["candidates too close to a positive"] += 1
        else:
            ranks.append(rank)
    return ranks


def _choose(
    candidates: list[_Candidates], texts: TextLookup, spec: MiningSpec, counts: Counter[str]
) -> Iterator[MinedSample]:
    """Yields the samples with negatives taken from their candidates, in order.

    Only as many texts are looked up as are still needed, for all queries at once.
    """
    unfinished = candidates
    while unfinished:
        tries = []
        for each in unfinished:
            ranks = each.ranks[each.tried :][: spec.negatives - len(each.negatives)]
            each.tried += len(ranks)
            tries.append([(rank, each.doc_ids[rank]) for rank in ranks])
        text_of = _lookup(texts, (doc for pairs in tries for _, doc in pairs))
        for each, pairs in zip(unfinished, tries):
            for rank, doc in pairs:
                text = text_of[doc]
                if text is None:
                    counts["candidates without text"] += 1
                elif (key := text_key(text)) in each.hashes:
                    counts["candidates whose text is there already"] += 1
                else:
                    each.hashes.add(key)
                    each.negatives.append((rank, text))
        unfinished = [
            each
            for each in unfinished
            if len(each.negatives) < spec.negatives and each.tried < len(each.ranks)
        ]
    for each in candidates:
        if not each.negatives:
            counts["queries without negative"] += 1
            continue
        each.negatives.sort()
        sample = each.sample
        sample.negative_ids = [each.doc_ids[rank] for rank, _ in each.negatives]
        sample.negatives = [text for _, text in each.negatives]
        sample.negative_scores = [float(each.scores[rank]) for rank, _ in each.negatives]
        counts["samples with fewer negatives"] += len(each.negatives) < spec.negatives
        yield sample


def _lookup(texts: TextLookup, doc_ids: Iterable[str]) -> dict[str, str | None]:
    wanted = list(dict.fromkeys(doc_ids))
    return dict(zip(wanted, texts(wanted)))


def _shuffled(ranks: list[int], query_id: str, seed: int) -> list[int]:
    digest = hashlib.blake2b(query_id.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    rng = np.random.default_rng([seed, int.from_bytes(digest, "little")])
    return [ranks[i] for i in rng.permutation(len(ranks))]
