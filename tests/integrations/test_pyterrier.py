"""PyTerrier's experiments over stages, and its transformers in pipelines, without a JVM."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pandas as pd
import pyterrier as pt
import pytest

import raydist as rd
from raydist.integrations.pyterrier import reranker, retriever, transformer

TOPICS = pd.DataFrame({"qid": ["q2", "q1"], "query": ["fish for herons", "boats"]})
ENGLISH = {"kind": "bm25", "analyzer": "english"}
LONGEST = pt.apply.doc_score(lambda row: len(row["text"]))


@pytest.mark.collections
def test_an_experiment_measures_what_a_comparison_does(
    cacm: rd.Collection, cacm_index: rd.Index
) -> None:
    topics = pd.DataFrame(cacm.queries.items(), columns=["qid", "query"])
    grades = [(q, d, grade) for q, judged in cacm.qrels.items() for d, grade in judged.items()]
    qrels = pd.DataFrame(grades, columns=["qid", "docno", "label"])
    pipe = cacm_index.bm25() % 30 >> rd.rerank(ENGLISH)
    systems = {"bm25": cacm_index.bm25(), "ql": cacm_index.ql(), "pipe": pipe}
    names = {"ndcg_cut_10": "nDCG@10", "map": "AP", "recip_rank": "RR"}
    table = pt.Experiment(
        {name: transformer(stage) for name, stage in systems.items()},
        *(topics, qrels, list(names)),
        validate="error",
    ).set_index("name")
    ours = rd.compare(
        systems, cacm.queries, cacm.qrels, list(names.values()), tracking="none", baseline="bm25"
    )
    for name in systems:
        for theirs, own in names.items():
            assert table.loc[name, theirs] == pytest.approx(ours[name, own], abs=1e-9)
    assert table.loc["bm25", "ndcg_cut_10"] == pytest.approx(0.4605, abs=5e-5)
    assert not pt.java.started() and "jnius" not in sys.modules


def test_a_pipeline_gives_results_in_the_order_of_the_queries(index: rd.Index) -> None:
    topics = TOPICS.assign(query_0=["original", "other"], length=[3, 1])
    results = transformer(index, texts=True)(topics)
    run = index.search(dict(TOPICS.values.tolist()))
    assert list(zip(results["qid"], results["docno"])) == [
        (query, doc) for query, docs, _ in run for doc in docs
    ]
    assert results["score"].tolist() == [s for _, _, scores in run for s in scores.tolist()]
    assert results["rank"].tolist() == [0, 1, 2, 0]
    assert set(results) == {
        *("qid", "query", "query_0", "docno", "score", "rank", "title", "text"),
    }
    assert results["query_0"].tolist() == ["original"] * 3 + ["other"]
    assert results.iloc[3][["title", "text"]].tolist() == [
        "Canals",
        "Boats carry coal past herons, and sometimes fish.",
    ]
    numbers = transformer(index)(pd.DataFrame({"qid": [7], "query": ["boats"]}))
    assert numbers["qid"].tolist() == ["7"]


def test_stages_that_reorder_results_read_the_texts_of_the_frame(index: rd.Index) -> None:
    whole = transformer(index.bm25() % 3 >> rd.rerank(ENGLISH))
    parts = transformer(index, texts=True) % 3 >> transformer(rd.rerank(ENGLISH))
    columns = ["qid", "docno", "score", "rank"]
    pd.testing.assert_frame_equal(parts(TOPICS)[columns], whole(TOPICS)[columns])
    assert parts(TOPICS)["title"].notna().all()
    known = transformer(rd.rerank(ENGLISH, texts=index))
    bare = TOPICS.head(1).assign(docno="d3")  # neither scores nor texts
    assert known(bare)["docno"].tolist() == ["d3"]
    cut = transformer(rd.rerank(ENGLISH, depth=1))
    assert len(cut(transformer(index, texts=True)(TOPICS))) == 2


def test_pyterriers_operators_and_inspection_know_the_transformers(index: rd.Index) -> None:
    bm25, ql = transformer(index), transformer(index.ql())
    rerank = transformer(rd.rerank(ENGLISH))
    assert pt.inspect.transformer_inputs(bm25) == [["qid", "query"]]
    assert pt.inspect.transformer_inputs(rerank) == [["qid", "docno", "query", "text"]]
    columns = ["qid", "query", "docno", "score", "rank"]
    assert pt.inspect.transformer_outputs(bm25, ["qid", "query"]) == columns
    texts = transformer(index, texts=True)
    outputs = pt.inspect.transformer_outputs(texts >> rerank, ["qid", "query"])
    assert set(outputs) == {*columns, "title", "text"}
    total = (bm25 + ql)(TOPICS).set_index(["qid", "docno"])["score"]
    one, other = (each(TOPICS).set_index(["qid", "docno"])["score"] for each in (bm25, ql))
    assert np.allclose(total, (one + other)[total.index])
    assert len((bm25 | ql)(TOPICS)) == 4 and len((bm25 % 1)(TOPICS)) == 2
    assert bm25.search("boats")["docno"].tolist() == ["d2"]
    with pytest.raises(pt.validate.InputValidationError):
        bm25(TOPICS.assign(docno="d1"))
    assert repr(bm25).endswith("idx'), k=1000)")


def test_a_transformer_is_the_first_stage_of_a_pipeline(index: rd.Index) -> None:
    own, foreign = index.bm25(), retriever(transformer(index))
    queries = dict(TOPICS.values.tolist())
    assert foreign.search(queries, k=2).table.equals(own.search(queries, k=2).table)
    both = rd.fuse(foreign, index.ql()) % 2
    assert both.search(queries).table.equals((rd.fuse(own, index.ql()) % 2).search(queries).table)
    pipe = foreign % 3 >> rd.rerank(ENGLISH, texts=index)
    assert pipe.search(queries).table.equals((own % 3 >> rd.rerank(ENGLISH)).search(queries).table)
    assert repr(foreign) == f"retriever({transformer(index)!r})"
    with pytest.raises(rd.ConfigError, match="needs the documents' texts"):
        foreign >> rd.rerank(ENGLISH)
    with pytest.raises(rd.ConfigError, match="so they are not cached"):
        foreign.cached("folder").search(queries)


def test_a_transformer_is_a_later_stage_of_a_pipeline(index: rd.Index) -> None:
    pipe = index.bm25() >> reranker(LONGEST, depth=3)
    texts = {hit.id: len(hit.text) for hit in index.search("fish")}
    expected = sorted(texts, key=texts.__getitem__, reverse=True)
    assert [hit.id for hit in pipe.search("fish")] == expected
    assert [hit.id for hit in (pipe % 1).search("fish")] == expected[:1]
    seen: list[Any] = []

    def look(frame: pd.DataFrame) -> pd.DataFrame:
        seen.append(frame)
        return frame

    twice = index.bm25() >> reranker(pt.apply.generic(look), texts=False) >> rd.rerank(ENGLISH)
    assert len(twice.search({"q": "fish"})) == 3
    assert list(seen[0]) == ["qid", "docno", "score", "rank", "query"]


def test_results_out_of_order_and_without_columns_are_handled() -> None:
    rows = [("q", "a", 1.0, 2), ("q", "b", 3.0, 1), ("q", "c", 3.0, 0)]
    frame = pd.DataFrame(rows, columns=["qid", "docno", "score", "rank"])
    run = retriever(pt.Transformer.from_df(frame)).search({"q": "any"})
    assert [hit.id for hit in run["q"]] == ["c", "b", "a"]
    halves = retriever(pt.Transformer.from_df(frame.drop(columns="score")))
    with pytest.raises(rd.DataError, match="gives no column 'score'; it has"):
        halves.search({"q": "any"})


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([("q1", "boats"), ("q1", "fish")], "qid: q1 is the id of two rows"),
        ([(1, "boats"), ("1", "fish")], "qid: 1 is the id of two rows"),
        ([("q1", "boats"), ("q2", None)], "query: is missing for qid q2"),
    ],
)
def test_queries_that_a_run_cannot_tell_apart_are_refused(
    index: rd.Index, rows: list[tuple[Any, Any]], message: str
) -> None:
    with pytest.raises(rd.DataError, match=message):
        transformer(index)(pd.DataFrame(rows, columns=["qid", "query"]))


def test_what_is_no_transformer_or_stage_is_named(index: rd.Index) -> None:
    with pytest.raises(rd.ConfigError, match="Index: expected a transformer of PyTerrier"):
        retriever(index)
    with pytest.raises(rd.ConfigError, match="int: expected a transformer of PyTerrier"):
        reranker(3)
    with pytest.raises(rd.ConfigError, match="3: expected an index, vectors, a pipeline"):
        transformer(3)
    with pytest.raises(rd.ConfigError, match=r"texts = True: .* has no texts"):
        transformer(retriever(LONGEST), texts=True)
