"""Samples from rankings and judgements: positives are judged, negatives are retrieved."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import pairwise
from typing import Any

from raydist.data.files import read_lines
from raydist.data.samples.fields import Record, number_of, record_of
from raydist.data.store.reader import DocumentStore
from raydist.errors import DataError
from raydist.records import Qrels, Run
from raydist.run_writer import group_starts


class LeftOut(Counter[str]):
    """How often something was left out, by a phrase that says what."""

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences for the user."""
        return tuple(f"{count} {what}" for what, count in self.items() if count)


def samples_of(
    queries: Mapping[str, str],
    *,
    qrels: Qrels | None,
    run: Run | None,
    known: DocumentStore,
    left_out: LeftOut,
    positives: str = "judged",
    relevance: int = 1,
    need_negatives: bool = False,
) -> Iterator[Record]:
    """Yields samples as ids, one query at a time.

    Args:
        queries: texts by id.
        qrels: the judgements of positives; without them the run is a teacher's list.
        run: the ranking whose other documents become negatives.
        known: the documents that have a text; others are dropped and counted.
        left_out: counts what is left out.
        positives: `judged`, or only the `retrieved` ones, then with the run's scores.
        relevance: lowest grade of a positive.
        need_negatives: leave out queries without a negative.
    """
    places = _places(run)
    judged_all = qrels is not None and (positives == "judged" or run is None)
    no_positive = f"queries without a {'retrieved ' * (positives == 'retrieved')}positive skipped"
    for query_id in qrels if qrels is not None and judged_all else places:
        if query_id not in queries:
            left_out["queries without a text skipped"] += 1
            continue
        grades = (qrels or {}).get(query_id, {})
        docs, scores = _ranking(run, places.get(query_id))
        relevant = [doc for doc, grade in grades.items() if grade >= relevance]
        ids = [*docs, *(doc for doc in relevant if positives == "judged")]
        have = {doc for doc, at in zip(ids, known.positions(ids).tolist()) if at >= 0}
        left_out["documents without a text in the corpus dropped"] += len(set(ids) - have)
        score_of = {doc: score for doc, score in zip(docs, scores) if doc in have}
        about = {"query_id": query_id, "query": queries[query_id]}
        if qrels is None:
            if score_of:
                candidates = [{"id": doc, "score": score} for doc, score in score_of.items()]
                yield {**about, "candidates": candidates}
            continue
        is_relevant = set(relevant)
        if positives == "judged":
            pos = [doc for doc in relevant if doc in have]
        else:
            pos = [doc for doc in score_of if doc in is_relevant]
        if not pos:
            left_out[no_positive] += 1
            continue
        neg = [doc for doc in score_of if doc not in is_relevant]
        if need_negatives and not neg:
            left_out["queries without a negative skipped"] += 1
            continue
        line: Record = {**about, "pos": pos, "neg": neg}
        if positives == "retrieved":
            line["pos_scores"] = [score_of[doc] for doc in pos]
            line["neg_scores"] = [score_of[doc] for doc in neg]
        yield {**line, "labels": [grades.get(doc, 0) for doc in (*pos, *neg)]}


def _places(run: Run | None) -> dict[str, tuple[int, int]]:
    """Returns the rows of each query, [start, stop), in the run's order."""
    if run is None or not len(run):
        return {}
    starts = group_starts(run.table["query_id"]).tolist()
    return dict(zip(run.query_ids, pairwise([*starts, len(run)])))


def _ranking(run: Run | None, place: tuple[int, int] | None) -> tuple[list[str], list[float]]:
    if run is None or place is None:
        return [], []
    rows = run.table.slice(place[0], place[1] - place[0])
    return rows["doc_id"].to_pylist(), rows["score"].to_pylist()


def judge_lists(
    files: Iterable[str], judged: Qrels, relevance: int, left_out: LeftOut
) -> Iterator[Record]:
    """Yields a teacher's lists as samples: positives are the candidates judged relevant.

    Args:
        files: jsonl with `query_id` and `candidates`.
        judged: the judgements.
        relevance: lowest grade of a positive.
        left_out: counts queries without a positive.

    Raises:
        DataError: a line is not a list of candidates.
    """
    for file in files:
        for number, _, line in read_lines(file):
            try:
                sample = _judged(record_of(line), judged, relevance)
            except ValueError as error:
                excerpt = line[:200].decode("utf-8", "backslashreplace")
                raise DataError.at(file, number, excerpt, str(error)) from None
            if sample is None:
                left_out["queries without a retrieved positive skipped"] += 1
            else:
                yield sample


def _judged(record: Mapping[str, Any], judged: Qrels, relevance: int) -> Record | None:
    """Returns a list as a sample, None without a positive or a negative."""
    candidates = record.get("candidates")
    if not isinstance(candidates, list) or not all(
        isinstance(each, dict) and {"id", "score"} <= each.keys() for each in candidates
    ):
        raise ValueError(
            "a list of candidates ({query_id, candidates: [{id, score}]}), or a run: "
            "qrels= needs one of them"
        )
    grades = judged.get(str(record.get("query_id")), {})
    scored = [(str(each["id"]), number_of(each["score"], "score")) for each in candidates]
    scored.sort(key=lambda pair: -pair[1])
    pos = [pair for pair in scored if grades.get(pair[0], 0) >= relevance]
    neg = [pair for pair in scored if grades.get(pair[0], 0) < relevance]
    if not pos or not neg:
        return None
    return {
        **{name: record[name] for name in ("query_id", "query") if name in record},
        "pos": [doc for doc, _ in pos],
        "neg": [doc for doc, _ in neg],
        "pos_scores": [score for _, score in pos],
        "neg_scores": [score for _, score in neg],
        "labels": [grades.get(doc, 0) for doc, _ in (*pos, *neg)],
    }
