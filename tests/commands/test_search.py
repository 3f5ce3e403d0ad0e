"""`raydist search`, as a user calls it: among some documents, at the prompt, of one query."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest

from raydist import protocols
from raydist.bow.formulas import lucene_idf
from raydist.bow.index import BowIndex
from raydist.bow.search.retriever import BowRetriever
from raydist.bow.spec import BowSearchSpec
from raydist.build import check_used
from raydist.cli import main
from raydist.data.readers import read_run
from raydist.dense.spec import DenseSearchSpec
from raydist.errors import ConfigError
from raydist.models.spec import EncoderPlace
from raydist.records import Query

ROWS = [
    {"id": "a", "title": "Cats", "text": "A cat's life.\nCats and dogs."},
    {"id": "b", "title": "", "text": "The dog sleeps."},
    {"id": "c", "title": "", "text": "Birds sing."},
]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lines = "".join(json.dumps(row) + "\n" for row in ROWS)
    (tmp_path / "corpus.jsonl").write_text(lines)
    (tmp_path / "queries.tsv").write_text("q\tcats dogs birds\n")
    assert main(["index", "corpus=corpus.jsonl", "out=IDX"]) == 0
    return tmp_path


def results(capsys, *words):
    capsys.readouterr()
    assert main(["search", "index=IDX", "queries=queries.tsv", *words]) == 0
    return [line.split()[2] for line in capsys.readouterr().out.splitlines()]


def test_a_search_among_listed_documents_or_without_them(folder, capsys):
    (folder / "ids.txt").write_text("# kept\nc\nb\nnowhere\n")
    everything = results(capsys)
    assert sorted(everything) == ["a", "b", "c"]
    assert results(capsys, "ids=ids.txt") == [each for each in everything if each != "a"]
    assert results(capsys, "exclude_ids=ids.txt") == ["a"]
    assert main(["search", "index=IDX", "queries=queries.tsv", "ids=none.txt"]) == 2
    assert "none.txt" in capsys.readouterr().err


def test_the_prompt_shows_marked_snippets_and_explains(folder, capsys, monkeypatch):
    capsys.readouterr()
    monkeypatch.setattr("sys.stdin", io.StringIO("cat dogs\n?a\n?x\nzebra\n\nbirds\n"))
    assert main(["search", "index=IDX"]) == 0
    printed = capsys.readouterr()
    lines = [" ".join(line.split()) for line in printed.out.splitlines()]
    assert lines[0].startswith("1 ") and lines[0].endswith(" a *Cats*")
    assert lines[1] == "A *cat's* life. *Cats* and *dogs*."
    assert lines[2].startswith("2 ") and lines[3] == "The *dog* sleeps."
    score = lines[0].split()[1]
    assert lines[4].endswith(" a") and lines[4].startswith(score[:5])
    assert lines[5].startswith("term tf df idf")
    assert lines[6].startswith("cat 3 1 ") and lines[7].startswith("dog 1 2 ")
    assert lines[8].startswith(f"5 tokens; sum = {score[:5]}")
    assert lines[9:] == ["no results"]  # and an empty line ends
    assert "'x'" in printed.err
    assert main(["search", "index=IDX", "out=run.txt"]) == 2
    assert "queries=" in capsys.readouterr().err


def test_the_prompt_explains_the_terms_of_an_expanded_query(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    texts = {"a": "heron fish", "b": "heron fish canal", "c": "fish"}
    texts |= {f"d{i}": f"word{i}" for i in range(30)}
    rows = [json.dumps({"id": name, "text": text}) + "\n" for name, text in texts.items()]
    Path("corpus.jsonl").write_text("".join(rows))
    assert main(["index", "corpus=corpus.jsonl", "out=IDX"]) == 0
    capsys.readouterr()
    monkeypatch.setattr("sys.stdin", io.StringIO("heron\n?c\n"))
    assert main(["search", "index=IDX", "feedback=rm3", "feedback.docs=2"]) == 0
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert [line.split()[-1] for line in lines[:6:2]] == ["a", "b", "c"]
    assert lines[6].endswith(" c") and lines[8].startswith("fish 1 3 ")
    assert lines[9].startswith("1 token; sum = ") and len(lines) == 10


@pytest.mark.ray
def test_workers_share_the_queries_and_write_the_same_run(folder, monkeypatch, ray_cluster):
    from raydist.commands import search

    lines = [f"q{i}\t{text}\n" for i, text in enumerate(["cat", "dog", "zebra", "birds cat"] * 3)]
    (folder / "many.tsv").write_text("".join(lines))
    words = ["search", "index=IDX", "queries=many.tsv", "k=2"]
    assert main([*words, "out=here.txt"]) == 0
    monkeypatch.setattr(search, "_SPLIT", 5)
    assert main([*words, "out=there.txt", "workers=2"]) == 0
    assert (folder / "there.txt").read_text() == (folder / "here.txt").read_text()
    assert not list(folder.glob(".there*"))


def test_a_query_is_no_document_for_itself_on_request(folder, capsys):
    (folder / "queries.tsv").write_text("a\tcats dogs birds\nx\tcats dogs birds\n")
    everything = results(capsys, "k=2")
    assert everything[0] == "a" and len(everything) == 4
    own, other = results(capsys, "k=2", "queries.exclude_own=true")[:2], everything[2:]
    assert own == [each for each in results(capsys, "k=3")[:3] if each != "a"]
    assert results(capsys, "k=2", "queries.exclude_own=true")[2:] == other
    assert results(capsys, "k=1", "queries.exclude_own=true", "out=run.parquet") == []


def test_ids_that_trec_lines_cannot_carry_are_said_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    rows = [{"id": "a", "text": "cat"}, {"id": "b c", "text": "cat dog"}]
    Path("c.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    Path("v.jsonl").write_text('{"id": "b c", "vector": {"cat": 1}}\n')
    Path("q.tsv").write_text("q1\tcat\n")
    Path("gone.txt").write_text("b c\n")
    for words in (["index", "corpus=c.jsonl", "out=IDX"], ["convert", "in=v.jsonl", "out=W"]):
        assert main(words) == 0
        assert "the document id 'b c' is empty or holds a blank" in capsys.readouterr().err
    search = ["search", "index=IDX", "queries=q.tsv"]
    assert main([*search, "out=run.txt"]) == 2
    assert "index = IDX: the document id 'b c': TREC run lines" in capsys.readouterr().err
    assert main([*search, "out=run.parquet"]) == 0
    assert main([*search, "out=run.txt", "exclude_ids=gone.txt"]) == 0
    Path("blank.jsonl").write_text('{"id": "q 1", "text": "cat"}\n')
    assert main(["search", "index=IDX", "queries=blank.jsonl", "out=run.txt"]) == 2
    assert "queries: the id 'q 1'" in capsys.readouterr().err
    Path("d.jsonl").write_text('{"id": "d", "text": "bird"}\n')
    assert main(["index", "corpus=d.jsonl", "out=IDX", "--append"]) == 0
    assert main([*search, "out=run.txt"]) == 2
    assert main(["index", "delete=gone.txt", "out=IDX"]) == 0
    assert main([*search, "out=run.txt"]) == 0


# --- One query ------------------------------------------------------------------------------------


def test_one_query_is_answered_with_snippets_and_why(folder, capsys):
    words = ["search", "index=IDX", "query=cats dogs birds", "k=2"]
    assert main([*words, "explain=true"]) == 0
    shown = capsys.readouterr().out
    retriever = BowRetriever(BowIndex.open("IDX"))
    run = retriever.search([Query("q", "cats dogs birds")], 2)
    for row in run.table.to_pylist():
        explanation = retriever.explain("cats dogs birds", row["doc_id"])
        assert explanation.score == row["score"]  # to the last bit
        assert explanation.score == np.float32(sum(part.score for part in explanation.parts))
        assert f"sum = {np.float32(row['score'])!s}\n" in shown
        for part in explanation.parts:
            assert part.idf == lucene_idf(retriever.index.nonempty, part.df)
    assert "term  tf  df" in shown and "*" in shown and "\033" not in shown
    assert main([*words, "out=one.jsonl"]) == 0
    assert read_run("one.jsonl").table["doc_id"].equals(run.table["doc_id"])
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["query=x", "queries=queries.tsv"], "give one of them"),
        (["queries=queries.tsv", "explain=true"], "give query="),
        (["query=x", "explain=true", "out=run.txt"], "leave out= away"),
        (["query="], "query"),
        (["out=run.txt"], "give queries= or query="),
        (["query=x", "effort=0.5"], "effort: is for indexes of weighted terms"),
        (["query=x", "model=nowhere"], "model: encodes the queries of vectors"),
    ],
)
def test_what_does_not_go_with_one_query_is_said(folder, capsys, words, message):
    assert main(["search", "index=IDX", *words]) == 2
    assert message in capsys.readouterr().err


def test_settings_are_taken_where_one_of_several_indexes_has_them():
    vectors, words = {"kind": "vectors"}, {"kind": "bow-index"}
    weighted = {"kind": "bow-index", "unit": 0.01}
    hasty, quiet = BowSearchSpec(effort=0.5), BowSearchSpec()
    moved = DenseSearchSpec(model=EncoderPlace(path="M"))
    check_used([vectors, weighted], hasty, moved)
    check_used([{**weighted, "model": {"path": "M"}}], hasty, moved)
    check_used([words], quiet, DenseSearchSpec())
    with pytest.raises(ConfigError, match="effort"):
        check_used([vectors, words], hasty, moved)
    with pytest.raises(ConfigError, match="model"):
        check_used([weighted, words], hasty, moved)


def test_the_suffix_of_a_run_decides_its_form_in_every_verb(folder, capsys):
    search = ["search", "index=IDX", "queries=queries.tsv"]
    for name in ("run.txt", "run.parquet", "run.csv", "run.tsv", "run.jsonl"):
        assert main([*search, f"out={name}"]) == 0
        assert main(["convert", f"in={name}", f"out=again.{name}"]) == 0
        assert Path(name).read_bytes() == Path(f"again.{name}").read_bytes() or "jsonl" in name
        assert read_run(name).table.equals(read_run("run.txt").table)
    rerank = ["rerank", "run=run.csv", "index=IDX", "queries=queries.tsv", "reranker=bm25"]
    assert main([*rerank, "out=new.jsonl"]) == 0
    line = json.loads(Path("new.jsonl").read_text().splitlines()[0])
    assert line["rank"] == 1 and line["text"]
    Path("qrels.txt").write_text(f"q 0 {line['doc_id']} 1\n")
    assert main(["evaluate", "run=run.jsonl,run.csv", "qrels=qrels.txt", "measures=AP"]) == 0


def test_shards_say_what_they_do_not_do_before_anything_starts(folder, capsys):
    words = ["search", "index=IDX", "shards=3"]

    def refused(*more):
        capsys.readouterr()
        assert main([*words, *more]) == 2
        return capsys.readouterr().err

    queries = "queries=queries.tsv"
    assert "IDX has 1 segment" in (message := refused(queries, "--dry-run"))
    assert "raydist merge IDX segments=3 cuts it" in message
    assert "JSON lines hold the documents' texts" in refused(queries, "out=run.jsonl")
    assert "documents are not shown; give queries=" in refused("query=cats")
    assert "give one of them" in refused(queries, "workers=2")
    capsys.readouterr()
    assert main(["search", "index=IDX", queries, "shards=1", "out=run.txt", "--dry-run"]) == 0
    assert "would search 1 query in IDX" in capsys.readouterr().err


def test_what_isinstance_asks_of_a_retriever_is_no_property():
    """It would be read: `doc_ids` decodes the ids of all documents."""
    retrievers = (protocols.Retriever, protocols.Filtered, protocols.Scanning)
    assert not [v for each in retrievers for v in vars(each).values() if type(v) is property]
