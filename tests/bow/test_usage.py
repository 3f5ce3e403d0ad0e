"""The room in a few lines: build an index, search it, explain a score, append, delete, export."""

from __future__ import annotations

from pathlib import Path

from raydist.bow.exchange.ciff import export_ciff
from raydist.bow.index import BowIndex
from raydist.bow.search.retriever import BowRetriever
from raydist.cli import main
from raydist.records import Query


def test_an_index_is_built_searched_and_changed(tmp_path: Path) -> None:
    birds = tmp_path / "birds.tsv"
    birds.write_text("b1\tHerons fish in canals.\nb2\tOwls hunt at night.\nb3\tA heron at night\n")
    assert main(["index", f"corpus={birds}", f"out={tmp_path / 'index'}"]) == 0

    retriever = BowRetriever(BowIndex.open(tmp_path / "index"))
    run = retriever.search([Query("q", "fishing heron")], k=10)
    assert run.table["doc_id"].to_pylist() == ["b1", "b3"]
    docs, scores = retriever.rank("fishing heron", k=1)
    why = retriever.explain("fishing heron", "b1")
    assert docs.tolist() == [0] and scores[0] == why.score
    assert {part.term: part.df for part in why.parts} == {"fish": 1, "heron": 2}

    more = tmp_path / "more.tsv"
    more.write_text("b4\tA canal full of fish\n")
    assert main(["index", f"corpus={more}", f"out={tmp_path / 'index'}", "--append"]) == 0
    (tmp_path / "gone.txt").write_text("b1\n")
    deletion = f"delete={tmp_path / 'gone.txt'}"
    assert main(["index", deletion, f"out={tmp_path / 'index'}"]) == 0
    index = BowIndex.open(tmp_path / "index")
    assert index.doc_ids.to_pylist() == ["b2", "b3", "b4"]
    assert index.document_frequency("fish") == 1

    counts = export_ciff(index, tmp_path / "index.ciff")
    assert counts["documents"] == 3
