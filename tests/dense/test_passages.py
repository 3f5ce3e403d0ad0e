"""Vectors of passages and with columns, as commands make, change and search them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import raydist as rd
from raydist.cli import main
from raydist.dense.vectors import VectorShards
from raydist.manifest import read_manifest
from raydist.records import Run
from tests.dense.by_definition import documents_by_definition

WORDS = ["retrieval", "index", "query", "document", "vector", "corpus", "answer", "passage"]
WORDS += ["model", "score"]


def row(number: int, doc_id: str = "", salt: int = 0) -> str:
    words = [
        WORDS[(number * 7 + j * (3 + number % 5) + salt) % 10] for j in range(number * 13 % 90)
    ]
    fields = {"id": doc_id or f"d{number}", "title": WORDS[number % 10] if number % 3 else ""}
    fields |= {"text": " ".join(words), "lang": "en" if number % 4 else None, "year": number}
    return json.dumps(fields) + "\n"


Rankings = dict[str, list[tuple[str, float]]]
QUERIES = {"q1": "model of a query", "q2": "vector score", "q3": "answer"}
IDS = {3: "a", 4: "a#1", 5: "a#1#0"}


@pytest.fixture(scope="module")
def place(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with passages that were embedded at once, in `fresh`, and in steps, in `grown`."""
    folder = tmp_path_factory.mktemp("passages")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        lines = [row(i, IDS.get(i, "")) for i in range(40)]
        later = [row(2, salt=5), row(8, salt=3)]
        live = [line for i, line in enumerate(lines) if i not in (2, 3, 5, 8, 31)] + later
        for name, some in {
            "live": live,
            "first": lines[:25],
            "more": lines[25:],
            "later": later,
        }.items():
            (folder / f"{name}.jsonl").write_text("".join(some))
        (folder / "gone.txt").write_text("a\na#1#0\nd31\n")
        (folder / "q.tsv").write_text("".join(f"{q}\t{text}\n" for q, text in QUERIES.items()))
        keys = [f"model={tiny_bert}", "model.pooling=mean", "corpus.columns=lang,year"]
        cut = ["chunk.tokens=24", "chunk.overlap=8", "split_bytes=2000", "ann=hnsw"]
        ok("embed", "corpus=live.jsonl", "out=fresh", *keys, *cut)
        ok("embed", "corpus=first.jsonl", "out=grown", *keys, *cut)
        ok("embed", "corpus=more.jsonl", "out=grown", keys[2], "--append")
        ok("embed", "delete=gone.txt", "out=grown")
        ok("embed", "corpus=later.jsonl", "out=grown", keys[2], "duplicates=last", "--append")
        ok("embed", "corpus=live.jsonl", "out=int8", *keys, *cut[:3], "precision=int8",
           "rescore_precision=float16")  # fmt: skip
        yield folder


@pytest.fixture(autouse=True)
def _in_its_folder(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)


def ok(*words: str) -> None:
    assert main(list(words)) == 0


def search(index: str, *words: str) -> Rankings:
    ok("search", f"index={index}", "queries=q.tsv", "k=1000", *words, "out=run.parquet")
    from raydist.data.readers import read_run

    return rankings(read_run("run.parquet"))


def rankings(run: Run) -> Rankings:
    return {query: list(zip(docs, scores.tolist())) for query, docs, scores in run}


def documents() -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path("live.jsonl").read_text().splitlines()]


def test_what_became_of_passages_is_what_is_embedded_at_once(place: Path) -> None:
    expected = search("fresh")
    fresh, grown = VectorShards.open("fresh"), VectorShards.open("grown")
    assert fresh.doc_ids.equals(grown.doc_ids) and len(fresh) > 80
    assert fresh.columns is not None and fresh.columns.equals(grown.columns)
    assert fresh.columns.column_names == ["lang", "year", "start", "end"]
    assert search("grown") == expected
    ok("verify", "grown")
    ok("merge", "grown", "segments=2")
    grown = VectorShards.open("grown")
    assert grown.columns is not None and grown.columns.equals(fresh.columns)
    assert search("grown") == expected and read_manifest("grown")["columns"]["year"] == "int64"
    ok("verify", "grown")
    names = {name.rpartition("#")[0] for name in fresh.doc_ids.to_pylist()}
    assert "a#1" in names and not names & {"a", "a#1#0", "d31"}


def test_columns_say_where_a_passage_is_in_its_document(place: Path) -> None:
    shards = VectorShards.open("fresh")
    assert shards.columns is not None
    texts = {each["id"]: each["text"] for each in documents()}
    ends = dict.fromkeys(texts, 0)
    for name, where in zip(shards.doc_ids.to_pylist(), shards.columns.to_pylist()):
        doc_id = name.rpartition("#")[0]
        assert where["start"] <= ends[doc_id] + 1 and where["end"] >= ends[doc_id]
        ends[doc_id] = where["end"]
    assert ends == {name: len(text) for name, text in texts.items()}


@pytest.mark.parametrize("index", ["fresh", "int8"])
def test_documents_are_ranked_by_their_best_passages(place: Path, index: str) -> None:
    passages = search(index)
    for best in (1, 3):
        expected = {q: documents_by_definition(own, 5, best) for q, own in passages.items()}
        by = ["by=document", f"by.passages={best}", "k=5"]
        if index == "int8":
            by.append("rescore_depth=1000")
        actual = search(index, *by)
        if index == "fresh":
            assert actual == expected
        else:
            assert {q: [d for d, _ in own] for q, own in actual.items()} == {
                q: [d for d, _ in own] for q, own in expected.items()
            }
    assert {len(own) for own in search(index, "by=document").values()} == {37}
    keys = {"by": {"passages": 3}, "filter": "year < 20", "rescore_depth": 1000}
    run = rd.open(index).dense(**keys).search(QUERIES, k=4)
    expected = search(index, "filter=year < 20", "by.passages=3", "k=4", "rescore_depth=1000")
    rows = run.to_arrow().to_pylist()
    assert {
        q: [(r["doc_id"], r["score"]) for r in rows if r["query_id"] == q] for q in QUERIES
    } == (expected)


def assert_alike(actual: Rankings, expected: Rankings) -> None:
    """The same documents, with scores that differ in the last bits at most."""
    assert actual.keys() == expected.keys()
    for query, own in actual.items():
        assert dict(own) == pytest.approx(dict(expected[query]), rel=1e-5)


def test_a_filter_is_a_search_of_the_documents_that_pass(place: Path) -> None:
    full = search("fresh")
    rows = {each["id"]: each for each in documents()}

    def passing(test):
        return {
            query: [pair for pair in own if test(rows[pair[0].rpartition("#")[0]])]
            for query, own in full.items()
        }

    english = passing(lambda each: each["lang"] == "en")
    assert_alike(search("fresh", "filter=lang == 'en'"), english)
    few = passing(lambda each: each["lang"] == "en" and each["year"] < 7)
    condition = "filter=lang == 'en' and year < 7"
    assert search("fresh", condition) == search("grown", condition)
    assert_alike(search("fresh", condition), few)
    Path("ids.txt").write_text("d6\na#1\nd33#1\n")
    chosen = passing(lambda each: each["id"] in ("d6", "a#1", "d33"))
    chosen = {
        q: [p for p in own if "d33" not in p[0] or p[0] == "d33#1"] for q, own in chosen.items()
    }
    assert_alike(search("fresh", "ids=ids.txt"), chosen)
    both = search("fresh", "ids=ids.txt", condition, "by=document")
    assert {doc for own in both.values() for doc, _ in own} == {"d6"}
    first = search("fresh", "filter=start == 0")
    assert {name.rpartition("#")[2] for own in first.values() for name, _ in own} == {"0"}
    forms = search("int8", "filter=lang == 'en'", "rescore_depth=4")
    assert {q: {d for d, _ in own} for q, own in forms.items()} == {
        q: {d for d, _ in own} for q, own in english.items()
    }
    assert_alike(search("fresh", "filter=lang == 'en'", "approximate=true"), english)


def test_passages_are_fused_with_indexes_of_documents(place: Path) -> None:
    ok("index", "corpus=live.jsonl", "out=idx", "corpus.columns=lang,year")
    fused = search("fresh,idx", "fusion=rrf", "by=document", "depth=50", "filter=year > 3")
    runs = [
        search("fresh", "by=document", "filter=year > 3", "k=50"),
        search("idx", "filter=year > 3", "k=50"),
    ]
    for query, own in fused.items():
        ranks = [{doc: i for i, (doc, _) in enumerate(run.get(query, ()), 1)} for run in runs]
        for doc, score in own:
            exact = sum(1 / (60 + each[doc]) for each in ranks if doc in each)
            assert score == pytest.approx(exact, rel=1e-6)
        assert {doc for doc, _ in own} == {*ranks[0], *ranks[1]}
    assert "a#1" in {doc for own in fused.values() for doc, _ in own}


def test_a_text_index_of_passages_ranks_documents(place: Path) -> None:
    lines = [
        json.dumps({"id": f"{doc}#{i}", "text": " ".join(WORDS[i : i + 3 + number % 5])}) + "\n"
        for number, doc in enumerate(("x", "y#2", "z"))
        for i in range(4)
    ]
    Path("segmented.jsonl").write_text("".join(lines))
    ok("index", "corpus=segmented.jsonl", "out=segmented")
    expected = {q: documents_by_definition(own, 2, 1) for q, own in search("segmented").items()}
    assert search("segmented", "by=document", "k=2") == expected


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["chunk.tokens=63"], "chunk.tokens=63: the model reads 64 tokens of a text, of which 2"),
        (["chunk.tokens=32", "chunk.overlap=17"], "overlap = 17: expected at most half of tokens"),
        (["chunk=8"], "tokens = 8: expected 16 or more"),
        (["chunk=32", "corpus.columns=year,end:int64"], "'end' is where a passage begins or ends"),
    ],
)
def test_what_cannot_be_cut_is_said_first(
    place: Path, tiny_bert: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    assert main(["embed", "corpus=live.jsonl", f"model={tiny_bert}", "out=no", *words]) == 2
    assert message in capsys.readouterr().err and not Path("no").exists()


def test_documents_with_other_columns_are_not_appended(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["embed", "corpus=more.jsonl", "out=fresh", "--append"]) == 2
    assert "append with corpus.columns=lang,year" in capsys.readouterr().err
    assert main(["search", "index=fresh", "query=x", "filter=colour == 1", "out=r.txt"]) == 2
    assert "no column 'colour'; the index has lang, year, start, end" in capsys.readouterr().err
