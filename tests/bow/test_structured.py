"""Queries in Lucene's classic syntax: rankings and float32 scores are Lucene's."""

from __future__ import annotations

import gzip
import json
import math
from itertools import groupby
from pathlib import Path

import numpy as np
import pytest

from raydist.bow.build.delete import delete_from_index
from raydist.bow.index import BowIndex
from raydist.bow.search.retriever import BowRetriever
from raydist.bow.spec import Bm25, BowSearchSpec, Qld
from raydist.bow.structured.retriever import StructuredRetriever
from raydist.cli import main
from raydist.errors import ConfigError, DataError
from raydist.records import Query
from tests.bow.answers import make_index

GOLDEN = json.loads(
    (Path(__file__).parents[1] / "golden/lucene/structured.json").read_text(encoding="utf-8")
)
ROWS = [(f"d{i}", "", text) for i, text in enumerate(GOLDEN["documents"])]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return make_index(ROWS, tmp_path_factory.mktemp("structured") / "index", positions=True)


def over(folder: Path, search: BowSearchSpec = BowSearchSpec()) -> StructuredRetriever:  # noqa: B008
    return StructuredRetriever(BowRetriever(BowIndex.open(folder), search))


def rankings(retriever: StructuredRetriever, k: int = 100) -> list[list[tuple[str, float]]]:
    answers = []
    for row in GOLDEN["answers"]:
        docs, scores = retriever.rank(row["query"], k)
        answers.append(list(zip(retriever.index.pick_ids(docs).to_pylist(), scores.tolist())))
    return answers


@pytest.mark.parametrize("cuts", [(), (9, 10, 40)])
def test_rankings_and_scores_of_each_kind_of_query_are_lucenes(tmp_path, cuts) -> None:
    options = {"positions": True, "merge": not cuts, "block_size": 8 if cuts else 128}
    retriever = over(make_index(ROWS, tmp_path / "index", cuts, **options))
    for row, answer in zip(GOLDEN["answers"], rankings(retriever)):
        wanted = [(doc, float(np.float32(score))) for doc, score in row["ranking"]]
        assert (answer[:20], len(answer)) == (wanted, row["matches"]), row["query"]


@pytest.mark.collections
@pytest.mark.parametrize("name", ["cacm", "cranfield", "nfcorpus"])
def test_rankings_and_scores_of_recorded_queries_are_lucenes(
    collections: Path, oracle: Path, tmp_path: Path, name: str
) -> None:
    corpus, out = collections / name / "corpus.jsonl", tmp_path / "index"
    words = [f"corpus={corpus}", f"out={out}", "positions=true", "store=false", "duplicates=warn"]
    assert main(["index", *words]) == 0
    with gzip.open(oracle / f"structured/{name}.structured.run.gz", "rt") as lines:
        rows = [line.split() for line in lines]
    expected = {
        query: [(row[2], np.float32(row[4])) for row in group]
        for query, group in groupby(rows, key=lambda row: row[0])
    }
    text = (oracle / f"structured/{name}.structured.tsv").read_text(encoding="utf-8")
    queries = [Query(*line.split("\t", 1)) for line in text.splitlines()]
    run = over(out, BowSearchSpec(threads=2)).search(queries, 100)
    assert {query: list(zip(docs, scores)) for query, docs, scores in run} == expected


def test_without_deleted_documents_all_is_as_if_the_rest_were_indexed_alone(tmp_path) -> None:
    gone = [f"d{i}" for i in range(0, 60, 7)]
    index = make_index(ROWS, tmp_path / "index", (30,), positions=True)
    delete_from_index(index, gone)
    rest = [row for row in ROWS if row[0] not in gone]
    fresh = make_index(rest, tmp_path / "fresh", positions=True)
    assert rankings(over(index)) == rankings(over(fresh))


def test_a_restricted_search_ranks_its_documents_as_before(folder: Path) -> None:
    every, some = over(folder), [f"d{i}" for i in range(20)]
    for restricted in (every.only(some), every.without([f"d{i}" for i in range(20, 60)])):
        for whole, part in zip(rankings(every), rankings(restricted)):
            assert part == [each for each in whole if each[0] in some]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("fish her*", r"character 6: a wildcard \(her\*\) is not supported; write \\ before it"),
        ("*", "character 1: a wildcard"),
        ("he?on", "character 1: a wildcard"),
        ("heron~", "character 6: fuzzy words are not supported"),
        ("heron~0.5", "character 6: fuzzy words"),
        ("[a TO b]", r"character 1: a range \(\[a TO b\]\) is not supported"),
        ("a {a TO b", "character 3: a range"),
        ("/her.n/", "character 1: a regular expression"),
        (
            "fish title:heron",
            "character 6: the field 'title' is not known; leave it out, or escape",
        ),
        ("*:*", r"character 1: the field '\*' is not known"),
        ("(heron", r"character 1: the group does not end; write \) behind it"),
        ("heron)", r"character 6: '\)' is not expected"),
        ('"heron', "character 1: '\"' is not expected"),
        ("heron^", "character 7: a boost is expected"),
        ("heron^x", "character 7: a boost is expected"),
        ("heron^" + "9" * 50, "character 7: the boost 9*9 is too large"),
        ("", "character 1: the query ends; a word, a phrase or a group is expected"),
        ("heron AND", "character 10: the query ends"),
        ("AND heron", "character 1: 'AND' is not expected"),
        ("heron +", "character 8: the query ends"),
        (r"heron\u12", "character 1: four hexadecimal digits"),
        ("heron\\", r"character 6: '\\\\' is not expected"),
        ("(" * 101 + "heron" + ")" * 101, "character 101: more than 100 groups in one another"),
    ],
)
def test_what_is_not_in_the_syntax_is_refused_with_its_place_and_a_remedy(
    folder: Path, text: str, message: str
) -> None:
    with pytest.raises(DataError, match=f"^query 'q7', {message}"):
        over(folder).search([Query("q7", text)], 10)


def test_phrases_need_positions_and_words_do_not(tmp_path) -> None:
    retriever = over(make_index(ROWS[:20], tmp_path / "index"))
    assert len(retriever.rank("+heron -fish", 10)[0])
    assert len(retriever.rank('"the herons"', 10)[0])  # one term
    with pytest.raises(ConfigError, match=r"no positions.*build it with positions=true"):
        retriever.rank('"heron fish"', 10)


@pytest.mark.parametrize("scoring", [Qld(), Bm25(lengths="exact"), Bm25(query_side=True)])
def test_other_formulas_are_refused(folder: Path, scoring) -> None:
    with pytest.raises(ConfigError, match="syntax = 'lucene': scores are those of Lucene's BM25"):
        over(folder, BowSearchSpec(scoring=scoring))


def test_parts_of_scores_are_those_of_the_clauses_that_match(folder: Path) -> None:
    retriever = over(folder)
    for row, answer in zip(GOLDEN["answers"], rankings(retriever, 3)):
        for doc, score in answer:
            why = retriever.explain(row["query"], doc)
            assert why.score == score
            assert sum(part.score for part in why.parts) == pytest.approx(score, rel=1e-6)


def test_a_phrase_is_explained_by_its_frequency_and_the_idf_of_its_words(tmp_path: Path) -> None:
    text = "the heron of fish, boat, boat, boat, boat, heron fish"
    rows = [("a", "", text), ("b", "", "fish gate"), ("c", "", "x")]
    retriever = over(make_index(rows, tmp_path / "index", positions=True))
    why = retriever.explain('"heron fish"~1^2 +(lock (+gate canal)) fish -canal', "a")
    assert (why.score, why.parts) == (0.0, ())  # it lacks what is required
    why = retriever.explain('"heron fish"~1^2 "heron of the fish" (+gate fish) fish^0.5', "a")
    heron, fish = math.log(1 + 2.5 / 1.5), math.log(1 + 1.5 / 2.5)
    found = [(part.term, part.tf, part.df) for part in why.parts]
    assert found == [('"heron fish"~1', 1 / 2 + 1, None), ("fish", 2, 2)]
    assert [part.weight for part in why.parts] == pytest.approx([2 * (heron + fish), fish / 2])
    mean, length = 11 / 3, 8
    for part in why.parts:
        saturation = part.tf / (part.tf + 0.9 * (0.6 + 0.4 * length / mean))
        assert part.score == pytest.approx(part.weight * saturation, rel=1e-6)
    assert (why.length, why.model_length) == (length, length)


def test_the_command_reads_the_syntax_by_a_key(folder: Path, tmp_path: Path, capsys) -> None:
    queries = tmp_path / "queries.tsv"
    rows = GOLDEN["answers"]
    queries.write_text("".join(f"q{i}\t{row['query']}\n" for i, row in enumerate(rows)))
    words = [f"index={folder}", f"queries={queries}", "syntax=lucene", "k=20"]
    assert main(["search", *words, f"out={tmp_path / 'run.txt'}"]) == 0
    lines = [line.split() for line in (tmp_path / "run.txt").read_text().splitlines()]
    written = [(line[0], line[2]) for line in lines]
    assert written == [(f"q{i}", doc) for i, row in enumerate(rows) for doc, _ in row["ranking"]]
    assert main(["search", *words, "feedback.kind=rm3"]) == 2
    queries.write_text("q1\theron\nq2\tfish her*\n")
    assert main(["search", *words]) == 2
    assert "query 'q2', character 6: a wildcard (her*) is not supported" in capsys.readouterr().err
