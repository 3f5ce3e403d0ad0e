"""The forms that training data comes in, each with its texts or with their ids."""

from __future__ import annotations

from pathlib import Path

import pytest

from raydist.data.samples.sample_set import SampleSet
from raydist.errors import DataError
from raydist.records import Sample
from tests.data.sample_files import jsonl, prepare, read


def test_tevatron_lines_come_with_passages_or_with_ids(
    tmp_path: Path, texts: dict[str, str]
) -> None:
    with_text = {
        "query_id": "1",
        "query": "q",
        "positive_passages": [{"docid": "a", "title": "T", "text": "p"}],
        "negative_passages": [{"docid": "b", "title": "-", "text": "n"}],
    }
    samples = read(jsonl(tmp_path / "a.jsonl", [with_text]), tmp_path / "d")
    assert samples == [Sample("q", ("T\np", "n"), query_id="1", doc_ids=("a", "b"))]
    by_id = {
        "query_id": "1",
        "query_text": "q",
        "positive_document_ids": ["d1"],
        "negative_document_ids": ["d2", "d3"],
    }
    path = jsonl(tmp_path / "b.jsonl", [by_id])
    samples = read(path, tmp_path / "e", corpus=texts["corpus"])
    named = ("d1", "d2", "d3")
    assert samples == [Sample("q", ("T\ntext 1", "text 2", "text 3"), query_id="1", doc_ids=named)]
    with pytest.raises(DataError, match="corpus=PATH"):
        prepare(path, tmp_path / "f")
    path = jsonl(tmp_path / "c.jsonl", [{**by_id, "positive_document_ids": ["zzz"]}])
    with pytest.raises(DataError, match=r"line 1.*has no 'zzz'"):
        prepare(path, tmp_path / "f", corpus=texts["corpus"])


def test_triples_hold_texts_or_ids(tmp_path: Path, texts: dict[str, str]) -> None:
    (tmp_path / "a.tsv").write_text("a query\tgood one\tbad one\n")
    assert read(tmp_path / "a.tsv", tmp_path / "d") == [Sample("a query", ("good one", "bad one"))]
    (tmp_path / "b.tsv").write_text("q2\td1\td2\nq1 d3 d4\n")
    samples = read(tmp_path / "b.tsv", tmp_path / "e", **texts)
    assert [s.query for s in samples] == ["query 2", "query 1"]
    assert samples[0].documents == ("T\ntext 1", "text 2") and samples[1].doc_ids == ("d3", "d4")


def test_pairs_put_the_better_document_first(tmp_path: Path, texts: dict[str, str]) -> None:
    (tmp_path / "a.tsv").write_text("1.5\t2.5\tthe query\tone doc\tother doc\n3\t-1\tq\tx\ty\n")
    assert read(tmp_path / "a.tsv", tmp_path / "d") == [
        Sample("the query", ("other doc", "one doc"), scores=(2.5, 1.5)),
        Sample("q", ("x", "y"), scores=(3.0, -1.0)),
    ]
    (tmp_path / "b.tsv").write_text("1.5 2.5 q1 d4 d5\n")
    (sample,) = read(tmp_path / "b.tsv", tmp_path / "e", **texts)
    assert sample.query == "query 1" and sample.doc_ids == ("d5", "d4")


def test_a_teachers_list_is_sorted_by_its_scores(tmp_path: Path, texts: dict[str, str]) -> None:
    candidates = [{"id": f"d{i}", "score": s} for i, s in ((1, 2), (2, 9), (3, 2), (4, 5.5))]
    path = jsonl(tmp_path / "a.jsonl", [{"query_id": "q3", "candidates": candidates}])
    (sample,) = read(path, tmp_path / "d", **texts)
    assert sample.query == "query 3" and sample.query_id == "q3"
    assert sample.doc_ids == ("d2", "d4", "d1", "d3") and sample.scores == (9, 5.5, 2, 2)
    assert sample.documents[2] == "T\ntext 1"


RUN = """q1 Q0 d1 1 9.5 t
q1 Q0 d2 2 9.0 t
q1 Q0 gone 3 8.0 t
q1 Q0 d3 4 7.0 t
q2 Q0 d4 1 3.0 t
q2 Q0 d5 2 2.0 t
q9 Q0 d5 1 2.0 t
"""
QRELS = "q1 0 d2 2\nq1 0 d3 0\nq1 0 d8 1\nq2 0 d6 1\n"


def test_a_run_is_a_teacher(tmp_path: Path, texts: dict[str, str]) -> None:
    (tmp_path / "a.run").write_text(RUN)
    facts = prepare(tmp_path / "a.run", tmp_path / "d", **texts)
    samples = SampleSet(tmp_path / "d")
    assert samples[0].doc_ids == ("d1", "d2", "d3") and samples[0].scores == (9.5, 9.0, 7.0)
    assert len(samples) == 2 and samples[1].query == "query 2"
    assert facts.notes == (
        "1 documents without a text in the corpus dropped",
        "1 queries without a text skipped",
    )


def test_a_run_and_judgements_make_samples(tmp_path: Path, texts: dict[str, str]) -> None:
    (tmp_path / "a.run").write_text(RUN)
    (tmp_path / "qrels.txt").write_text(QRELS)
    qrels = str(tmp_path / "qrels.txt")
    samples = read(tmp_path / "a.run", tmp_path / "d", qrels=qrels, **texts)
    assert [(s.query_id, s.doc_ids, s.positives, s.labels) for s in samples] == [
        ("q1", ("d2", "d8", "d1", "d3"), 2, (2, 1, 0, 0)),
        ("q2", ("d6", "d4", "d5"), 1, (1, 0, 0)),
    ]
    folder = tmp_path / "e"
    samples = read(tmp_path / "a.run", folder, qrels=qrels, positives="retrieved", **texts)
    assert [(s.query_id, s.doc_ids, s.positives, s.scores) for s in samples] == [
        ("q1", ("d2", "d1", "d3"), 1, (9.0, 9.5, 7.0))
    ]
    assert "1 queries without a retrieved positive skipped" in SampleSet(folder).facts.notes


def test_queries_without_negatives_are_left_out_where_they_are_needed(
    tmp_path: Path, texts: dict[str, str]
) -> None:
    (tmp_path / "a.run").write_text(RUN)
    (tmp_path / "qrels.txt").write_text(QRELS + "q3 0 d7 1\n")
    sources = {"qrels": str(tmp_path / "qrels.txt"), **texts}
    every = read(tmp_path / "a.run", tmp_path / "d", **sources)
    assert [s.query_id for s in every] == ["q1", "q2", "q3"]
    needed = read(tmp_path / "a.run", tmp_path / "e", need_negatives=True, **sources)
    assert [s.query_id for s in needed] == ["q1", "q2"]
    assert "1 queries without a negative skipped" in SampleSet(tmp_path / "e").facts.notes


def test_judgements_alone_and_a_beir_folder_give_positives(
    tmp_path: Path, texts: dict[str, str]
) -> None:
    (tmp_path / "qrels").mkdir()
    (tmp_path / "qrels" / "train.tsv").write_text(
        "query-id\tcorpus-id\tscore\nq1\td2\t1\nq1\td3\t0\nq2\td1\t1\n"
    )
    folder = read(tmp_path, tmp_path / "out" / "d")
    alone = read(tmp_path / "qrels" / "train.tsv", tmp_path / "out" / "e", **texts)
    assert folder == alone
    assert [(s.query, s.documents) for s in folder] == [
        ("query 1", ("text 2",)),
        ("query 2", ("T\ntext 1",)),
    ]
    (tmp_path / "b.run").write_text(RUN)
    mixed = read(tmp_path, tmp_path / "out" / "f", run=str(tmp_path / "b.run"))
    assert mixed[0].doc_ids == ("d2", "d1", "d3") and mixed[0].positives == 1


def test_lists_with_judgements_are_split_into_positives_and_negatives(
    tmp_path: Path, texts: dict[str, str]
) -> None:
    (tmp_path / "qrels.txt").write_text(QRELS)
    candidates = [{"id": f"d{i}", "score": s} for i, s in ((1, 1), (2, 9), (3, 2))]
    path = jsonl(tmp_path / "a.jsonl", [{"query_id": "q1", "query": "x", "candidates": candidates}])
    (sample,) = read(
        path, tmp_path / "d", qrels=str(tmp_path / "qrels.txt"), positives="retrieved", **texts
    )
    assert sample.doc_ids == ("d2", "d3", "d1") and sample.positives == 1
    assert sample.scores == (9, 2, 1) and sample.labels == (2, 0, 0)
