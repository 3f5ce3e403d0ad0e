"""Stages do what the verbs do, and say early what they lack."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import raydist as rd
from raydist.bow.index import BowIndex
from raydist.bow.search.retriever import BowRetriever
from raydist.records import Query

CORPUS = {f"d{i}": f"word{i % 7} {'common ' * (i % 3)}text {i}" for i in range(40)}
QUERIES = {"q1": "word3 common", "q2": "text word5", "q3": "nothing"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tiny_bert: Path) -> Path:
    folder = tmp_path_factory.mktemp("stages")
    rd.index(CORPUS, folder / "idx")
    rd.embed(CORPUS, folder / "vec", model=tiny_bert)
    return folder


@pytest.fixture(autouse=True)
def _inside(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)


def test_a_pipeline_gives_what_the_verbs_give_one_after_the_other() -> None:
    index = rd.open("idx")
    assert isinstance(index, rd.Index)
    first = rd.search("idx", QUERIES, k=20, scoring={"kind": "ql", "mu": 500.0})
    last = rd.rerank("bm25", run=first, queries=QUERIES, index="idx", depth=7, out="new.txt")
    pipe = index.ql(mu=500.0) >> rd.rerank("bm25", depth=7)
    assert pipe.search(QUERIES, k=20).to_arrow().equals(last.to_arrow())
    other = rd.search("idx", QUERIES, k=20, scoring={"kind": "qld", "mu": 500.0})
    assert index.scored("qld", mu=500.0).search(QUERIES, k=20).to_arrow().equals(other.to_arrow())


def test_fused_stages_are_the_fused_search_of_the_verb() -> None:
    index, vectors = rd.open("idx"), rd.open("vec")
    for options in (
        {"method": "rrf", "constant": 10},
        {"method": "interpolate", "weights": [2, 1]},
    ):
        fusion = {"kind": options["method"], **{k: v for k, v in options.items() if k != "method"}}
        verb = rd.search([index, vectors], QUERIES, k=10, fusion=fusion, depth=15)
        stage = rd.fuse(index, vectors, depth=15, **options)  # type: ignore[arg-type]
        assert stage.search(QUERIES, k=10).to_arrow().equals(verb.to_arrow())


@pytest.mark.parametrize(
    ("stage", "feedback"),
    [
        (rd.rm3(5, weight=0.7), {"kind": "rm3", "docs": 5, "weight": 0.7}),
        (rd.rocchio(negative=True), {"kind": "rocchio", "negative": True}),
        (rd.bm25prf(terms=5), {"kind": "bm25prf", "terms": 5}),
        (rd.axiom(seed=7, pool=2), {"kind": "axiom", "seed": 7, "pool": 2}),
    ],
)
def test_feedback_behind_a_search_is_the_feedback_of_the_verb(
    stage: object, feedback: dict[str, object]
) -> None:
    index = rd.open("idx")
    assert isinstance(index, rd.Index)
    verb = rd.search("idx", QUERIES, k=10, feedback=feedback, scoring={"b": 0.5})
    pipe = index.bm25(b=0.5) >> stage  # type: ignore[operator]
    assert pipe.search(QUERIES, k=10).to_arrow().equals(verb.to_arrow())
    plain = index.bm25(b=0.5).search(QUERIES, k=10).to_arrow()
    letters = feedback["kind"] == "axiom"  # which takes words of letters, and rare ones, alone
    assert verb.to_arrow().equals(plain) == letters
    reranked = pipe >> rd.rerank("bm25", depth=5)
    assert repr(reranked) == f"bm25('idx') >> {stage!r} >> rerank('bm25', depth=5)"
    assert len(reranked.search("common", k=3)) == 3
    with pytest.raises(rd.ConfigError, match="a service expands no queries"):
        pipe.served()
    with pytest.raises(rd.ConfigError, match="a service reads queries as words"):
        index.bm25(syntax="lucene").served()


def test_a_cut_asks_the_stages_before_it_for_no_more() -> None:
    index = rd.open("idx")
    assert isinstance(index, rd.Index)
    asked = []

    class Counted:
        def search(self, queries: list[Query], k: int) -> object:
            asked.append(k)
            return index.bm25().run(queries, k)

    pipe = Counted() >> rd.rerank("bm25", texts=index) % 5
    assert {len(hits) for hits in map(pipe.search(QUERIES, k=50).__getitem__, ["q1", "q2"])} == {5}
    (Counted() >> rd.rerank("bm25", depth=30, texts=index)).search(QUERIES, k=2)
    rd.fuse(Counted(), index, depth=9).search("text", k=2)
    assert asked == [5, 30, 9]


def test_a_retriever_of_the_library_can_begin_a_pipeline() -> None:
    retriever = BowRetriever(BowIndex.open("idx"))
    pipe = retriever >> rd.rerank("bm25", depth=5)
    same = rd.open("idx") >> rd.rerank("bm25", depth=5)  # type: ignore[operator]
    assert pipe.search(QUERIES, k=5).to_arrow().equals(same.search(QUERIES, k=5).to_arrow())


def test_a_stage_without_texts_says_so_when_the_pipeline_is_made() -> None:
    vectors = rd.open("vec")
    assert isinstance(vectors, rd.Vectors)
    with pytest.raises(rd.ConfigError, match=r"rerank\('bm25'\): needs the documents' texts"):
        vectors.dense() >> rd.rerank("bm25")
    for texts in (CORPUS, rd.open("idx")):
        pipe = vectors.dense() >> rd.rerank("bm25", texts=texts)
        assert len(pipe.search("text", k=3)) == 3
    assert vectors.search("text")[0].text == ""


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda index: index.bm25(b=2), r"scoring\.b = 2: "),
        (lambda index: index.bm25(variant="x"), r"scoring\.variant = 'x'"),
        (lambda index: rd.rerank("bm25", depth=-1), "depth = -1"),
        (lambda index: rd.rerank("bm25", dept=1), "dept: unknown key; did you mean depth"),
        (lambda index: rd.rerank(), "reranker: required"),
        (lambda index: rd.fuse(index, index, weights=[1]), "1 numbers for 2 indexes"),
        (lambda index: rd.fuse(index, method="best"), "fusion.kind = 'best'"),
        (lambda index: index.bm25() % 0, "% 0: expected"),
        (lambda index: index.search("text", k=0), "k = 0: expected"),
        (lambda index: rd.fuse(3), "3: expected an index"),
        (lambda index: rd.fuse(index.search(["text"])), "^Run: expected an index"),
        (lambda index: index.bm25() >> "bm25", ">> 'bm25': expected a stage"),
        (lambda index: index.bm25() >> index, ">> Index: expected a stage"),
        (
            lambda index: index.bm25() % 9 >> rd.rm3(),
            r"rm3\(\): expected the search of an index before it",
        ),
        (lambda index: rd.open("vec") >> rd.rm3(), "expected the search of an index"),
        (lambda index: index >> rd.rm3() >> rd.axiom(), "expected the search of an index"),
        (lambda index: index.ql() >> rd.bm25prf(), "expected scoring.kind=bm25"),
        (lambda index: rd.rm3(weight=2), "feedback.weight = 2"),
        (lambda index: rd.rocchio(gama=1), "feedback.gama: unknown key; did you mean"),
        (
            lambda index: rd.search("vec", QUERIES, feedback="rm3"),
            "expands queries of bag-of-words",
        ),
        (lambda index: rd.Reranker("bm25").rank("a", ["a", None]), "texts: number 1 is None"),
        (lambda index: rd.analyze([1]), "text = 1: expected a text"),
        (lambda index: rd.analyze(None), "text = None: expected a text"),
    ],
)
def test_a_mistake_is_said_when_a_stage_is_made(make: object, message: str) -> None:
    with pytest.raises(rd.ConfigError, match=message):
        make(rd.open("idx"))  # type: ignore[operator]


def test_a_number_of_documents_may_be_numpys() -> None:
    index = rd.open("idx")
    assert isinstance(index, rd.Index)
    assert len((index.bm25() % np.int64(2)).search("common", k=np.int64(1))) == 1


def test_a_missing_model_is_said_when_the_stage_is_made() -> None:
    with pytest.raises(rd.DataError, match=r"model \./nowhere"):
        rd.rerank({"kind": "cross_encoder", "model": "./nowhere"})


def test_a_cached_pipeline_searches_the_same_queries_once(tmp_path: Path) -> None:
    index = rd.open("idx")
    assert isinstance(index, rd.Index)
    pipe = (index.bm25() >> rd.rerank("bm25", depth=5)).cached(tmp_path / "runs")
    first = pipe.search(QUERIES, k=4)
    assert len(list((tmp_path / "runs").iterdir())) == 1
    assert pipe.search(QUERIES, k=4).to_arrow().equals(first.to_arrow())
    assert len(list((tmp_path / "runs").iterdir())) == 1
    others = (
        (index.bm25() >> rd.rerank("bm25", depth=6)).cached(tmp_path / "runs"),
        (index.bm25(k1=1.2) >> rd.rerank("bm25", depth=5)).cached(tmp_path / "runs"),
    )
    for other in others:
        other.search(QUERIES, k=4)
    pipe.search(QUERIES, k=3)
    pipe.search({**QUERIES, "q4": "word1"}, k=4)
    assert len(list((tmp_path / "runs").iterdir())) == 5
    with pytest.raises(rd.ConfigError, match="cannot tell its results"):
        rd.fuse(BowRetriever(BowIndex.open("idx"))).cached(tmp_path)


def test_an_appended_index_is_another_one_for_the_cache(tmp_path: Path) -> None:
    for corpus in ({"a": "one text"}, {"b": "a text of two"}):
        rd.index(corpus, tmp_path / "idx", append=(tmp_path / "idx").exists())
        index = rd.open(tmp_path / "idx")
        assert isinstance(index, rd.Index)
        run = index.bm25().cached(tmp_path / "runs").search({"q": "text"})
        assert len(run) == len(index)


def test_hits_are_escaped_and_marked_in_html() -> None:
    hits = rd.Hits("<b> heron", [rd.Hit(1, 1.5, "<i>", "", "a <script> and herons")])
    html = hits._repr_html_()
    assert "<script>" not in html and "<i>" not in html
    assert "a &lt;script&gt; and <mark>herons</mark>" in html and "&lt;b&gt; heron" in html
    assert repr(rd.Hits("q", [])) == "no results" and hits[:1][0] is hits[0]


def test_what_a_service_cannot_answer_is_said_before_it_starts() -> None:
    index, vectors = rd.open("idx"), rd.open("vec")
    assert isinstance(index, rd.Index) and isinstance(vectors, rd.Vectors)
    hybrid = rd.fuse(index.bm25(k1=1.2), vectors) >> rd.rerank("bm25")
    keys = hybrid.served()
    assert keys["index"] == ["idx", "vec"] and keys["scoring"]["k1"] == 1.2
    assert keys["fusion"]["kind"] == "rrf" and keys["reranker"]["kind"] == "bm25"
    for pipe in (
        index.bm25() % 5,
        hybrid >> rd.rerank("bm25"),
        rd.fuse(index.bm25(k1=1.2), index.bm25()),
        rd.fuse(index, vectors, depth=10),
        rd.fuse(BowRetriever(BowIndex.open("idx"))),
        index.bm25(ties="external"),
    ):
        with pytest.raises(rd.ConfigError, match="service"):
            rd.serve(pipe, port=8931)
    with pytest.raises(rd.ConfigError, match="prot: unknown key; did you mean port"):
        rd.serve(index, prot=8931)
