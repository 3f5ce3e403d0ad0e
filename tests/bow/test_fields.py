"""Indexes of several fields: Anserini's rankings, sums of clauses, and the life of the index."""

from __future__ import annotations

import gzip
import json
from itertools import groupby
from pathlib import Path

import numpy as np
import pytest

import raydist as rd
from raydist.bow.index import BowIndex
from raydist.bow.search.retriever import BowRetriever
from raydist.bow.spec import Bm25, BowSearchSpec
from raydist.build import open_retriever, text_store
from raydist.cli import main
from raydist.data.readers import read_queries
from raydist.data.store.reader import DocumentStore
from raydist.manifest import read_manifest
from raydist.records import Query
from tests.bow.documents import contents

ROWS = [
    ("1", "Herons", "A heron eats fish in the canal.", "Ada"),
    ("2", "", "Boats on a canal, and herons.", "Grace"),
    ("3", "Canal boats", "", "Ada"),
    ("4", "The canal canal", "Fish, fish and boats.", None),
    ("5", "Herons", "A heron eats fish in the canal.", "Heron"),
]
TEXTS = ["heron canal fish", "canal", "canal canal boats", "nothing", "ada heron"]


def corpus(path: Path, rows: list[tuple[str, str, str, str | None]]) -> str:
    names = ("_id", "title", "text", "author")
    path.write_text("".join(json.dumps(dict(zip(names, row))) + "\n" for row in rows))
    return f"corpus={path}"


@pytest.fixture
def built(tmp_path: Path) -> str:
    words = [corpus(tmp_path / "c.jsonl", ROWS), f"out={tmp_path / 'FDX'}"]
    assert main(["index", *words, "fields=title,text"]) == 0
    return str(tmp_path / "FDX")


def answers(folder: str, **search: object) -> dict[str, list[tuple[str, float]]]:
    retriever = open_retriever(folder, BowSearchSpec(**search))  # type: ignore[arg-type]
    run = retriever.search([Query(text, text) for text in TEXTS], 10)
    return {q: list(zip(docs, map(float, scores))) for q, docs, scores in run}


@pytest.mark.collections
@pytest.mark.parametrize("name", ["cacm", "cranfield", "vaswani", "nfcorpus"])
def test_rankings_are_anserinis(collections: Path, oracle: Path, tmp_path: Path, name: str) -> None:
    words = [f"corpus={collections / name}/corpus.jsonl", f"out={tmp_path}/FDX", "store=false"]
    assert main(["index", *words, "duplicates=warn", "fields=title,text"]) == 0
    with gzip.open(oracle / f"anserini/{name}.fields.run.gz", "rt") as lines:
        rows = [line.split() for line in lines]
    expected = {
        query: [(row[2], float(row[4])) for row in group]
        for query, group in groupby(rows, key=lambda row: row[0])
    }
    search = BowSearchSpec(fields={"title": 2.0, "text": 1.0}, ties="anserini")
    run = open_retriever(f"{tmp_path}/FDX", search).search(
        read_queries(collections / name / "queries.jsonl"), 100
    )
    found = {q: [(d, round(float(s), 6)) for d, s in zip(ds, ss)] for q, ds, ss in run}
    assert found == expected


def test_a_score_is_the_sum_of_those_of_the_fields_times_their_weights(built: str) -> None:
    weights = {"text": 0.3, "title": 7.0}  # sums of a field of weight 1 are not rounded
    parts: dict[str, dict[str, np.float32]] = {text: {} for text in TEXTS}
    for text in TEXTS:
        for name, weight in weights.items():
            field = BowRetriever(BowIndex.open(f"{built}/{name}"), BowSearchSpec(), pruned=False)
            tokens = field.index.analyzer.tokens(text)  # type: ignore[union-attr]
            query = {t: float(np.float32(weight) * np.float32(tokens.count(t))) for t in tokens}
            docs, scores = field.rank_terms(query, 10) if query else ([], [])
            for doc, score in zip(field.index.pick_ids(docs).to_pylist() if query else [], scores):
                parts[text][doc] = np.float32(np.float64(parts[text].get(doc, 0)) + score)
    run = answers(built, fields=weights)
    assert {q: dict(rows) for q, rows in run.items()} == {
        q: {doc: float(score) for doc, score in rows.items()} for q, rows in parts.items() if rows
    }
    assert all(rows == sorted(rows, key=lambda row: -row[1]) for rows in run.values())
    retriever = open_retriever(built, BowSearchSpec(fields=weights))
    for doc_id, score in run["heron canal fish"]:
        explanation = retriever.explain("heron canal fish", doc_id)  # type: ignore[attr-defined]
        assert explanation.score == score
        assert all(part.term.split(":")[0] in weights for part in explanation.parts)


def test_all_fields_count_once_unless_some_are_named(built: str) -> None:
    everything = answers(built, fields={"title": 1.0, "text": 1.0})
    assert answers(built) == everything and {doc for doc, _ in everything["canal"]} == set("12345")
    title = answers(built, fields={"title": 1.0})
    assert title == answers(f"{built}/title")
    assert {doc for doc, _ in title["canal"]} == {"3", "4"}
    assert answers(built, fields={"title": 2.0})["canal"][0][1] == 2 * title["canal"][0][1]


def test_deletions_and_appends_leave_what_a_new_build_has(tmp_path: Path, built: str) -> None:
    (tmp_path / "ids").write_text("1\n3\n")
    more = [("6", "Fish", "Canal.", None), ("7", "", "", None), ("2", "Boats", "Herons.", "x")]
    append = [corpus(tmp_path / "more.jsonl", more), "fields=title,text", "duplicates=last"]
    assert main(["index", f"delete={tmp_path / 'ids'}", f"out={built}"]) == 0
    assert main(["index", *append, f"out={built}", "--append"]) == 0
    left = [row for row in ROWS if row[0] in "45"] + more
    words = [corpus(tmp_path / "left.jsonl", left), "fields=title,text"]
    assert main(["index", *words, f"out={tmp_path / 'new'}"]) == 0
    expected = answers(str(tmp_path / "new"))
    assert answers(built) == expected
    assert main(["verify", built]) == 0
    assert main(["merge", built]) == 0
    assert answers(built) == expected
    assert main(["verify", built]) == 0
    for field in ("title", "text"):
        files, new = (
            contents(Path(each) / field / "segments") for each in (built, tmp_path / "new")
        )
        assert {Path(n).name: data for n, data in files.items()} == {
            Path(n).name: data for n, data in new.items()
        }
    texts = DocumentStore.open(text_store(built))
    assert [each.text for each in texts.get(["2", "6"]) if each] == ["Herons.", "Canal."]
    assert read_manifest(built)["documents"] == 5


def test_the_index_of_a_field_is_that_of_its_texts_alone(tmp_path: Path, built: str) -> None:
    alone = [(i, "", title, a) for i, title, _, a in ROWS]
    words = [corpus(tmp_path / "alone.jsonl", alone), "store=false"]
    assert main(["index", *words, f"out={tmp_path / 'alone'}"]) == 0
    assert contents(Path(built) / "title" / "segments") == contents(tmp_path / "alone/segments")


def test_fields_of_different_generations_are_refused_until_the_command_runs_again(
    tmp_path: Path, built: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "ids").write_text("4\n")
    assert main(["index", f"delete={tmp_path / 'ids'}", f"out={built}/title"]) == 0  # as if killed
    search = ["search", f"index={built}", "query=canal"]
    assert main(search) == 2 and main(["verify", built]) == 2
    assert "field title is of another generation" in capsys.readouterr().err
    assert main(["index", f"delete={tmp_path / 'ids'}", f"out={built}"]) == 0
    assert main(search) == 0 and main(["verify", built]) == 0


def test_a_build_that_was_interrupted_between_fields_is_continued(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from raydist.bow.build import create

    words = ["index", corpus(tmp_path / "c.jsonl", ROWS), "fields=title,text"]
    assert main([*words, f"out={tmp_path / 'whole'}"]) == 0
    real, calls = create.build_parts, []

    def killed(splits, read, folder, spec, name):  # type: ignore[no-untyped-def]
        calls.append(folder.name)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(splits, read, folder, spec, name)

    monkeypatch.setattr(create, "build_parts", killed)
    assert main([*words, f"out={tmp_path / 'FDX'}"]) == 130
    assert main([*words, f"out={tmp_path / 'FDX'}"]) == 0
    assert calls == ["title", "text", "text"]
    for field in ("title/segments", "text/segments", "title/store"):
        assert contents(tmp_path / "FDX" / field) == contents(tmp_path / "whole" / field)


def test_a_column_of_strings_is_a_field_and_the_first_one_filters(tmp_path: Path) -> None:
    words = [corpus(tmp_path / "c.jsonl", ROWS), f"out={tmp_path / 'FDX'}", "corpus.columns=author"]
    assert main(["index", *words, "fields=author,text"]) == 0
    folder = str(tmp_path / "FDX")
    assert {doc for doc, _ in answers(folder, fields={"author": 1.0})["ada heron"]} == {*"135"}
    some = answers(folder, filter="author == 'Ada'")
    assert {doc for doc, _ in some["ada heron"]} == {"1", "3"}
    index = rd.open(folder)
    run = index.search({"q": "ada heron"}, fields={"author": 2, "text": 1}, sort="author")
    assert [hit.id for hit in run["q"]] == ["1", "3", "2", "5"]
    with pytest.raises(rd.ConfigError, match="author, text"):
        index.search("heron", fields={"title": 1})


def test_what_fields_cannot_do_is_said_with_a_remedy(
    tmp_path: Path, built: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "q.jsonl").write_text('{"_id": "q", "text": "heron"}\n')
    plain = ["index", f"corpus={tmp_path / 'c.jsonl'}", f"out={tmp_path / 'IDX'}"]
    assert main(plain) == 0
    capsys.readouterr()

    def refusal(*words: str) -> str:
        assert main([*words]) == 2
        return capsys.readouterr().err

    search = ["search", f"index={built}", "query=heron"]
    assert "it has title, text" in refusal(*search, "fields.body=1")
    assert "greater than 0" in refusal(*search, "fields.title=0")
    assert "without fields=" in refusal(*search, "feedback.kind=rm3")
    assert "without fields=" in refusal(*search, "syntax=lucene")
    assert "leave the rest of scoring out" in refusal(*search, "scoring.kind=qld")
    assert "leave the rest of scoring out" in refusal(*search, "scoring.sdm=true")
    on_plain = refusal("search", f"index={tmp_path / 'IDX'}", "query=heron", "fields.title=2")
    assert "build an index with fields=title,text" in on_plain
    assert "expected some of title, text" in refusal(*plain, "fields=title,body")
    assert "a name occurs twice" in refusal(*plain, "fields=text,text")
    assert "append with the same" in refusal(*plain[:2], f"out={built}", "--append")
    assert f"{Path(built) / 'title'}" in refusal("inspect", built, "term=heron")
    assert "this command writes a bow-fields" in refusal(*plain, "fields=title,text")
    assert main(["search", f"index={built}", "query=heron", "explain=true"]) == 0
    assert "title:heron" in capsys.readouterr().out
    assert main(["status", built]) == 0 and "bow-fields, complete" in capsys.readouterr().out


def test_fields_live_on_object_stores(
    s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, built: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ids").write_text("4\n")
    words = [corpus(tmp_path / "a.jsonl", ROWS[:3]), "fields=title,text", f"out={s3}/FDX"]
    assert main(["index", *words]) == 0
    words[0] = corpus(tmp_path / "b.jsonl", ROWS[3:])
    assert main(["index", *words, "--append"]) == 0
    assert answers(f"{s3}/FDX") == answers(built)
    for out in (built, f"{s3}/FDX"):
        assert main(["index", "delete=ids", f"out={out}"]) == 0
        assert main(["merge", out]) == main(["verify", out]) == 0
    assert answers(f"{s3}/FDX") == answers(built)


def test_python_builds_fields_and_weighs_them(tmp_path: Path) -> None:
    rows = [{"id": i, "title": title, "text": text} for i, title, text, _ in ROWS]
    index = rd.index(rows, tmp_path / "FDX", fields=["title", "text"])
    weights = {"title": 2.0, "text": 1.0}
    hits = index.search("heron canal fish", fields=weights)
    expected = answers(str(tmp_path / "FDX"), fields=weights)["heron canal fish"]
    assert [(hit.id, hit.score) for hit in hits] == expected
    assert len(index) == 5 and index["4"].text == "Fish, fish and boats."


def test_parameters_and_variants_of_bm25_go_through_to_the_fields(built: str) -> None:
    formula = Bm25(variant="bm25+", k1=1.5, b=0.8)
    title = answers(built, fields={"title": 1.0}, scoring=formula)
    assert title == answers(f"{built}/title", scoring=formula)
