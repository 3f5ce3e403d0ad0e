from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raydist.data.readers import read_documents, read_qrels, read_run
from raydist.data.samples import convert
from raydist.data.samples.convert import convert_samples, sample_record
from raydist.data.samples.lines import FORMATS
from raydist.data.samples.sample_set import StoredTexts
from raydist.data.store.build import needed_texts
from raydist.data.store.reader import DocumentStore
from raydist.errors import DataError
from raydist.records import Run, Sample

TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20).filter(str.strip)
SCORE = st.floats(-1e6, 1e6, allow_nan=False)


@st.composite
def samples(draw: st.DrawFn) -> Sample:
    documents = draw(st.lists(TEXT, min_size=1, max_size=5))
    positives = draw(st.integers(1, len(documents)))
    scores = st.lists(SCORE, min_size=len(documents), max_size=len(documents)).map(tuple)
    answer = draw(st.none() | TEXT)
    others = draw(st.lists(TEXT, max_size=2)) if answer else []
    count = 1 + len(others)
    return Sample(
        query=draw(TEXT),
        documents=tuple(documents),
        positives=positives,
        scores=draw(st.none() | scores),
        answer=answer,
        negative_answers=tuple(others),
        answer_scores=draw(st.none() | st.lists(SCORE, min_size=count, max_size=count).map(tuple))
        if answer
        else None,
        query_id=draw(st.just("") | TEXT),
        prompt=draw(st.none() | TEXT),
        kind=draw(st.sampled_from(["", "only_1neg"])),
    )


@settings(max_examples=200, deadline=None)
@given(samples())
def test_a_sample_comes_back_from_flagembedding_whole_and_from_tevatron_in_its_texts(
    sample: Sample,
) -> None:
    nothing = StoredTexts(None, None)
    line = json.dumps(sample_record(sample, "flagembedding")).encode()
    assert FORMATS["flagembedding"](line, nothing) == sample
    line = json.dumps(sample_record(sample, "tevatron")).encode()
    back = FORMATS["tevatron"](line, nothing)
    assert (back.query, back.documents, back.positives, back.query_id) == (
        sample.query,
        sample.documents,
        sample.positives,
        sample.query_id,
    )


def test_a_run_survives_trec_and_parquet_bit_for_bit(tmp_path: Path) -> None:
    scores = np.sort(np.random.default_rng(1).standard_normal(1000).astype(np.float32))[::-1]
    run = Run.from_lists([("q", [f"d{i}" for i in range(1000)], scores)], "my-tag")
    run.write(tmp_path / "a.txt")
    steps = ["a.txt", "b.parquet", "c.txt.gz", "d.pq", "e.txt"]
    for source, out in zip(steps, steps[1:]):  # noqa: RUF007
        read_run(tmp_path / source).write(tmp_path / out)
    back = read_run(tmp_path / "e.txt")
    assert back.table.equals(run.table) and back.tag == "my-tag"
    assert (tmp_path / "a.txt").read_bytes() == (tmp_path / "e.txt").read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(steps)


def test_a_flipped_bit_in_a_parquet_run_is_noticed(tmp_path: Path) -> None:
    run = Run.from_lists([("q", [f"d{i}" for i in range(300)], np.arange(300, 0, -1))])
    run.write(tmp_path / "r.parquet")
    good = (tmp_path / "r.parquet").read_bytes()
    noticed = 0
    for at in range(4, len(good) // 2, 37):
        bad = bytearray(good)
        bad[at] ^= 16
        (tmp_path / "r.parquet").write_bytes(bad)
        try:
            assert read_run(tmp_path / "r.parquet").table.equals(run.table)
        except DataError:
            noticed += 1
    assert noticed > 10


@pytest.fixture
def small(tmp_path: Path) -> dict[str, Path]:
    files = {name: tmp_path / name for name in ("corpus.jsonl", "run.txt", "qrels.txt")}
    rows = [{"_id": f"d{i}", "title": "t" if i == 1 else "", "text": f"text {i}"} for i in range(6)]
    files["corpus.jsonl"].write_text("\n".join(map(json.dumps, rows)))
    files["run.txt"].write_text(
        "".join(f"q1 Q0 d{i} {i + 1} {9 - i} t\n" for i in range(4)) + "q2 Q0 d5 1 1.5 t\n"
    )
    files["qrels.txt"].write_text("q1 0 d1 2\nq1 0 d4 1\nq1 0 d0 0\n")
    return files


QUERIES = {"q1": "first", "q2": "second"}


def store_of(corpus: Path, ids: list[str], folder: Path) -> DocumentStore:
    return DocumentStore.open(needed_texts(ids, read_documents(corpus), folder))


def test_a_run_with_its_texts_makes_lists_of_candidates(
    small: dict[str, Path], tmp_path: Path
) -> None:
    run = read_run(small["run.txt"])
    ids = run.table["doc_id"].to_pylist()
    store = store_of(small["corpus.jsonl"], ids, tmp_path / "s")
    assert len(store) == 5
    first, second = convert.rerank_lines(run, QUERIES, store, depth=2)
    assert first == {
        "query_id": "q1",
        "query": "first",
        "candidates": [
            {"id": "d0", "text": "text 0", "score": 9.0},
            {"id": "d1", "text": "t\ntext 1", "score": 8.0},
        ],
    }
    assert [c["id"] for c in second["candidates"]] == ["d5"]
    sample = FORMATS["lists"](json.dumps(first).encode(), StoredTexts(None, None))
    assert sample.doc_ids == ("d0", "d1") and sample.scores == (9.0, 8.0)


def test_a_candidate_or_a_query_without_text_is_named_or_dropped(
    small: dict[str, Path], tmp_path: Path
) -> None:
    run = read_run(small["run.txt"])
    store = store_of(small["corpus.jsonl"], ["d0", "d2"], tmp_path / "s")
    with pytest.raises(DataError, match="document 'd1', ranked for query 'q1'"):
        list(convert.rerank_lines(run, QUERIES, store))
    (only,) = convert.rerank_lines(run, QUERIES, store, missing="drop")
    assert [c["id"] for c in only["candidates"]] == ["d0", "d2"]
    with pytest.raises(DataError, match="query 'q2' of the run is not among the queries"):
        list(convert.rerank_lines(run, {"q1": "x"}, store, missing="drop"))


def test_a_run_with_judgements_makes_training_samples(
    small: dict[str, Path], tmp_path: Path
) -> None:
    run, qrels = read_run(small["run.txt"]), read_qrels(small["qrels.txt"])
    store = DocumentStore.create(read_documents(small["corpus.jsonl"]), tmp_path / "s")
    (line,) = convert.run_samples(run, QUERIES, qrels, store)
    assert line == {
        "query": "first",
        "pos": ["t\ntext 1", "text 4"],
        "neg": ["text 0", "text 2", "text 3"],
        "query_id": "q1",
        "pos_id": ["d1", "d4"],
        "neg_id": ["d0", "d2", "d3"],
    }
    (line,) = convert.run_samples(run, QUERIES, qrels, store, positives="retrieved", negatives=2)
    assert line["pos"] == ["t\ntext 1"] and line["neg"] == ["text 0", "text 2"]
    assert line["pos_scores"] == [8.0] and line["neg_scores"] == [9.0, 7.0]
    (line,) = convert.run_samples(run, QUERIES, qrels, store, form="tevatron", relevance=2)
    assert line["positive_passages"] == [{"docid": "d1", "title": "", "text": "t\ntext 1"}]
    assert [p["docid"] for p in line["negative_passages"]] == ["d0", "d2", "d3"]


def test_samples_of_ids_get_their_texts(small: dict[str, Path], tmp_path: Path) -> None:
    triples = tmp_path / "triples.tsv"
    triples.write_text("q1\td1\td0\n\nq1\td4\td2\n")
    store = DocumentStore.create(read_documents(small["corpus.jsonl"]), tmp_path / "s")
    queries_file = tmp_path / "q.tsv"
    queries_file.write_text("q1\tfirst\n")
    queries = DocumentStore.create(read_documents(queries_file), tmp_path / "q")
    samples = list(convert_samples(triples, "flagembedding", documents=store, queries=queries))
    assert [(s["query"], s["pos"], s["neg"]) for s in samples] == [
        ("first", ["t\ntext 1"], ["text 0"]),
        ("first", ["text 4"], ["text 2"]),
    ]
    triples.write_text("q1\td1\td0\nq1\td1\n")
    with pytest.raises(DataError, match=r"triples\.tsv, line 2"):
        list(convert_samples(triples, "tevatron", documents=store, queries=queries))


def test_lines_are_written_whole_or_not_at_all(tmp_path: Path) -> None:
    assert convert.write_lines([{"a": "é\ud800"}], tmp_path / "x.jsonl.gz") == 1
    written = gzip.decompress((tmp_path / "x.jsonl.gz").read_bytes())
    assert written == '{"a": "é\\ud800"}\n'.encode() and json.loads(written) == {"a": "é\ud800"}

    def broken():  # type: ignore[no-untyped-def]
        yield {"a": 1}
        raise DataError("no")

    with pytest.raises(DataError):
        convert.write_lines(broken(), tmp_path / "y.jsonl")
    assert [p.name for p in tmp_path.iterdir()] == ["x.jsonl.gz"]


def test_a_file_is_told_to_be_a_run_or_samples(tmp_path: Path) -> None:
    file = tmp_path / "f"
    for content, kind in (
        ("1 Q0 d 1 2.5 t\n", "run"),
        ('\n{"query": "q", "pos": ["a"], "neg": []}', "samples"),
        ("a query\ta positive text of words\ta negative\n", "samples"),
    ):
        file.write_text(content)
        assert convert.kind_of(file) == kind
    file.write_text("neither one\n")
    with pytest.raises(DataError, match="a run line of 6 columns, or a sample"):
        convert.kind_of(file)


@pytest.mark.collections
def test_teacher_scores_of_real_samples_survive(collections: Path, tmp_path: Path) -> None:
    source = collections / "bge-distill-samples" / "nq.jsonl"
    out = tmp_path / "nq.jsonl"
    assert convert.write_lines(convert_samples(source, "flagembedding"), out) == 10
    for before, after in zip(source.open(), out.open()):
        old, new = json.loads(before), json.loads(after)
        assert {k: old[k] for k in new} == new and {"pos_scores", "neg_scores"} <= new.keys()
