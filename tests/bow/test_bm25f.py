"""BM25 of fields as one: Lucene's recorded scores, the published formulas in double, the life."""

from __future__ import annotations

import gzip
import json
import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

import raydist as rd
from raydist.bow.spec import Bm25, Bm25F, BowSearchSpec
from raydist.build import open_retriever
from raydist.cli import main
from raydist.data.readers import read_queries
from raydist.records import Query
from raydist.text.analyzer import Analyzer
from tests.bow import generated

FIELDS = ("title", "text", "author")
Texts = dict[str, dict[str, list[str]]]


@pytest.fixture(scope="module")
def collection(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Query]]:
    corpus, queries = generated.write_fields(tmp_path_factory.mktemp("fields"))
    return corpus, read_queries(queries)


@pytest.fixture(scope="module")
def folder(collection: tuple[Path, list[Query]]) -> str:
    corpus, _ = collection
    out = str(corpus.parent / "FDX")
    words = [f"corpus={corpus}", "corpus.columns=author", "split_bytes=64KiB"]
    assert main(["index", *words, f"fields={','.join(FIELDS)}", f"out={out}"]) == 0
    return out


@pytest.fixture(scope="module")
def texts(collection: tuple[Path, list[Query]]) -> Texts:
    rows = map(json.loads, collection[0].read_text("utf-8").splitlines())
    return {row["id"]: {name: Analyzer().tokens(row[name]) for name in FIELDS} for row in rows}


def test_sums_and_bm25f_are_lucenes(folder: str, collection: tuple[Path, list[Query]]) -> None:
    with gzip.open(generated.GOLDEN / "fields.tsv.gz", "rt", encoding="utf-8") as lines:
        rows = [line.rstrip("\n").split("\t") for line in lines]
    recorded: dict[tuple[str, str], dict[str, list[tuple[str, np.float32]]]] = {}
    for setting, kind, query, doc, score, _ in rows:
        answers = recorded.setdefault((setting, kind), {})
        answers.setdefault(query, []).append((doc, np.float32(score)))
    assert len(recorded) == 6
    for (setting, kind), expected in recorded.items():
        k1, b, *numbers = map(float, setting.split(","))
        weights = {name: each for name, each in zip(FIELDS, numbers) if each}
        scoring = Bm25F(k1=k1, b=b) if kind == "combined" else Bm25(k1=k1, b=b)
        retriever = open_retriever(folder, BowSearchSpec(scoring=scoring, fields=weights))
        run = retriever.search(collection[1], 20)
        assert {q: list(zip(docs, scores)) for q, docs, scores in run} == expected, (setting, kind)


def scores_of(
    texts: Texts, query: list[str], weights: dict[str, float], b: dict[str, float], k1: float
) -> dict[str, float]:
    """Zaragoza et al. (2004), as it is written: a document and a term at a time."""
    n = sum(any(fields[name] for name in weights) for fields in texts.values())
    lengths = {name: [len(each[name]) for each in texts.values() if each[name]] for name in weights}
    mean = {name: sum(each) / len(each) for name, each in lengths.items()}
    scores: dict[str, float] = {}
    for term, boost in Counter(query).items():
        having = {
            doc: sum(
                weight
                * fields[name].count(term)
                / (1 - b[name] + b[name] * len(fields[name]) / mean[name])
                for name, weight in weights.items()
            )
            for doc, fields in texts.items()
            if any(term in fields[name] for name in weights)
        }
        for doc, tf in having.items():
            idf = math.log(1 + (n - len(having) + 0.5) / (len(having) + 0.5))
            scores[doc] = scores.get(doc, 0.0) + boost * idf * tf / (k1 + tf)
    return scores


def test_a_b_of_each_field_gives_the_published_scores(
    folder: str, texts: Texts, collection: tuple[Path, list[Query]]
) -> None:
    weights, b = {"title": 0.5, "text": 1.0, "author": 3.0}, {"title": 0.0, "text": 0.8}
    scoring = Bm25F(k1=1.6, field_b=b)
    retriever = open_retriever(folder, BowSearchSpec(scoring=scoring, fields=weights))
    run = retriever.search(collection[1][:12], 1000)
    assert len(run) > 900
    for query, docs, scores in run:
        tokens = Analyzer().tokens(next(q.text for q in collection[1] if q.query_id == query))
        expected = scores_of(texts, tokens, weights, {**b, "author": 0.4}, 1.6)
        assert set(docs) == set(expected)
        np.testing.assert_allclose(scores, [expected[doc] for doc in docs], rtol=2e-7)


def test_one_b_gives_the_published_scores_up_to_the_norm_of_lengths(
    folder: str, texts: Texts, collection: tuple[Path, list[Query]]
) -> None:
    """Robertson et al. (2004); documents below 40 tokens, whose lengths a norm keeps."""
    weights = {"title": 2, "text": 1}
    search = BowSearchSpec(scoring=Bm25F(k1=1.2, b=0.7), fields=dict(weights))
    run = open_retriever(folder, search).search(collection[1][:12], 1000)
    rows = {
        doc: [token for name, weight in weights.items() for token in fields[name] * weight]
        for doc, fields in texts.items()
    }
    n = max(sum(bool(fields[name]) for fields in texts.values()) for name in weights)
    mean = sum(map(len, rows.values())) / n
    compared = 0
    for query, docs, scores in run:
        tokens = Analyzer().tokens(next(q.text for q in collection[1] if q.query_id == query))
        for doc, score in zip(docs, scores):
            if len(rows[doc]) >= 40:
                continue
            expected = 0.0
            for term, boost in Counter(tokens).items():
                tf = rows[doc].count(term)
                df = max(sum(term in f[name] for f in texts.values()) for name in weights)
                if tf:
                    idf = math.log(1 + (n - df + 0.5) / (df + 0.5))
                    length = 0.3 + 0.7 * len(rows[doc]) / mean
                    expected += boost * idf * tf / (tf + 1.2 * length)
            assert math.isclose(score, expected, rel_tol=1e-6)
            compared += 1
    assert compared > 250


def test_explanations_add_up_and_filters_change_no_score(
    folder: str, collection: tuple[Path, list[Query]]
) -> None:
    for b in (None, {"title": 0.3}):
        weights = {"title": 2.0, "text": 1.0}
        search = BowSearchSpec(scoring=Bm25F(field_b=b), fields=weights)
        retriever = open_retriever(folder, search)
        query = collection[1][3]
        _, docs, scores = next(iter(retriever.search([query], 5)))
        for doc, score in zip(docs, scores):
            found = retriever.explain(query.text, doc)  # type: ignore[attr-defined]
            assert found.score == score and found.parts
            assert np.float32(sum(part.score for part in found.parts)) == score
        _, some, same = next(iter(retriever.only(docs[1:3]).search([query], 5)))
        assert (list(some), list(same)) == (list(docs[1:3]), list(scores[1:3]))


def test_deletions_and_appends_leave_the_scores_of_a_new_build(
    collection: tuple[Path, list[Query]], folder: str, tmp_path: Path
) -> None:
    lines = collection[0].read_text("utf-8").splitlines(keepends=True)
    for name, rows in (("a", lines[:500]), ("b", lines[500:]), ("new", lines[100:])):
        (tmp_path / f"{name}.jsonl").write_text("".join(rows), "utf-8")
    (tmp_path / "ids").write_text("".join(f"d{i}\n" for i in range(100)))
    changed, new = f"out={tmp_path / 'changed'}", f"out={tmp_path / 'built'}"
    assert main(["index", f"corpus={tmp_path}/a.jsonl", "fields=title,text", changed]) == 0
    more = ["index", f"corpus={tmp_path}/b.jsonl", "fields=title,text", changed, "--append"]
    assert main(more) == main(["index", f"delete={tmp_path}/ids", changed]) == 0
    assert main(["index", f"corpus={tmp_path}/new.jsonl", "fields=title,text", new]) == 0
    for b in (None, {"title": 0.2}):
        search = BowSearchSpec(scoring=Bm25F(field_b=b), fields={"title": 2.0})
        first, second = (
            open_retriever(str(tmp_path / name), search).search(collection[1], 50)
            for name in ("changed", "built")
        )
        assert first.table.equals(second.table)


def test_the_command_line_and_python_take_a_b_of_each_field(
    folder: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["search", f"index={folder}", "query=library mode", "k=3", "scoring.kind=bm25f"]
    assert main([*words, "fields.title=2", "fields.text=1", "explain=true"]) == 0
    one = capsys.readouterr().out
    assert main([*words, "fields.title=2", "fields.text=1", "scoring.field_b.title=0.9"]) == 0
    assert capsys.readouterr().out.split()[1] != one.split()[1]
    index, scoring = rd.open(folder), {"kind": "bm25f", "field_b": {"title": 0.9}}
    hits = index.scored(fields={"title": 2, "text": 1}, **scoring).search("library mode", 3)
    search = BowSearchSpec(scoring=Bm25F(field_b={"title": 0.9}), fields={"title": 2, "text": 1})
    expected = open_retriever(folder, search).search([Query("1", "library mode")], 3)
    assert [hit.score for hit in hits] == expected.table["score"].to_pylist()


def test_mistakes_name_the_key_and_what_is_allowed(
    folder: str, collection: tuple[Path, list[Query]], capsys: pytest.CaptureFixture[str]
) -> None:
    def refusal(index: str, *words: str) -> str:
        assert main(["search", f"index={index}", "query=x", "scoring.kind=bm25f", *words]) == 2
        return capsys.readouterr().err

    assert "scoring.field_b.body: no such field; it has title, text, author" in refusal(
        folder, "scoring.field_b.body=0.3"
    )
    assert "less than or equal to 1" in refusal(folder, "scoring.field_b.title=1.5")
    assert "scoring.b" in refusal(folder, "scoring.b=x")
    assert "built with fields=title,text" in refusal(f"{folder}/title")
