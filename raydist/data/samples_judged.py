"""Samples from rankings and judgements: positives are judged, negatives are retrieved."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from raydist.data.samples_fields import number_of, record_of
from raydist.data.sources import compression_of, read_blocks
from raydist.data.store import DocumentStore
from raydist.errors import DataError
from raydist.records import Qrels, Run

__all__ = ["judge_lists", "samples_of"]


def samples_of(
    queries: Mapping[str, str],
    *,
    qrels: Qrels | None,
    run: Run | None,
    known: DocumentStore,
    positives: str = "judged",
    relevance: int = 1,
    need_negatives: bool = False,
) -> tuple[list[dict[str, Any]], tuple[str, ...]]:
    """Returns samples as ids, and notes on what was left out.

    Args:
        queries: texts by id.
        qrels: judgements that make positives; without them the run is a teacher's list.
        run: ranking whose documents that are not relevant become negatives.
        known: the documents that have a text; others are dropped and counted.
        positives: `judged` or `retrieved` (also relevant in the run; keeps the run's scores).
        relevance: least grade of a positive.
        need_negatives: leave out queries without one.
    """
    ranking = {query: (docs, scores.tolist()) for query, docs, scores in run} if run else {}
    judged_all = qrels is not None and (positives == "judged" or run is None)
    wanted = list(qrels) if qrels is not None and judged_all else list(ranking)
    lines: list[dict[str, Any]] = []
    no_text = no_query = no_positive = no_negative = 0
    for query_id in wanted:
        if query_id not in queries:
            no_query += 1
            continue
        grades = dict((qrels or {}).get(query_id, {}))
        docs, scores = ranking.get(query_id, ([], []))
        relevant = [doc for doc, grade in grades.items() if grade >= relevance]
        ids = [*docs, *(doc for doc in relevant if positives == "judged")]
        have = {doc for doc, at in zip(ids, known.positions(ids).tolist()) if at >= 0}
        no_text += len(set(ids) - have)
        score_of = {doc: score for doc, score in zip(docs, scores) if doc in have}
        about = {"query_id": query_id, "query": queries[query_id]}
        if qrels is None:
            if score_of:
                found = [{"id": doc, "score": score} for doc, score in score_of.items()]
                lines.append({**about, "candidates": found})
            continue
        is_relevant = set(relevant)
        if positives == "judged":
            pos = [doc for doc in relevant if doc in have]
        else:
            pos = [doc for doc in score_of if doc in is_relevant]
        if not pos:
            no_positive += 1
            continue
        neg = [doc for doc in score_of if doc not in is_relevant]
        if need_negatives and not neg:
            no_negative += 1
            continue
        line = {**about, "pos": pos, "neg": neg}
        if positives == "retrieved":
            line["pos_scores"] = [score_of[doc] for doc in pos]
            line["neg_scores"] = [score_of[doc] for doc in neg]
        lines.append({**line, "labels": [grades.get(doc, 0) for doc in (*pos, *neg)]})
    notes = []
    if no_text:
        notes.append(f"{no_text} documents without a text in the corpus dropped")
    if no_query:
        notes.append(f"{no_query} queries without a text skipped")
    if no_positive:
        of = "retrieved positive" if positives == "retrieved" else "positive"
        notes.append(f"{no_positive} queries without a {of} skipped")
    if no_negative:
        notes.append(f"{no_negative} queries without a negative skipped")
    return lines, tuple(notes)


def judge_lists(
    files: Iterable[str], judged: Qrels, relevance: int
) -> tuple[list[dict[str, Any]], tuple[str, ...]]:
    """Returns a teacher's lists as samples: positives are the candidates judged relevant.

    Args:
        files: jsonl with `query_id` and `candidates`.
        judged: judgements.
        relevance: least grade of a positive.

    Raises:
        DataError: a line is no list of candidates.
    """
    skipped = 0
    lines: list[dict[str, Any]] = []
    for file in files:
        number = 0
        for _, block in read_blocks(file, compression=compression_of(file)):
            for text in block.splitlines():
                number += 1
                if not text.strip(b"\xef\xbb\xbf \t\r"):
                    continue
                try:
                    line = _judged(record_of(text.removeprefix(b"\xef\xbb\xbf")), judged, relevance)
                except ValueError as error:
                    shown = text[:200].decode("utf-8", "backslashreplace")
                    raise DataError.at(file, number, shown, str(error)) from None
                skipped += line is None
                lines += [line] if line is not None else []
    notes = (f"{skipped} queries without a retrieved positive skipped",) if skipped else ()
    return lines, notes


def _judged(record: Mapping[str, Any], judged: Qrels, relevance: int) -> dict[str, Any] | None:
    """Returns a list's sample, None without a positive or a negative; ValueError if it is none."""
    candidates = record.get("candidates")
    if not isinstance(candidates, list) or not all(
        isinstance(each, dict) and {"id", "score"} <= each.keys() for each in candidates
    ):
        raise ValueError(
            "a list of candidates ({query_id, candidates: [{id, score}]}) or a run, which "
            "sampler.kind=negatives needs"
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
