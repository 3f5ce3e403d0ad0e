"""Opening an index folder: statistics from its manifest, and refused folders."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from raydist.artefact import Output
from raydist.bow.index import BowIndex
from raydist.bow.search.retriever import BowRetriever
from raydist.cli import main
from raydist.errors import ArtifactError, DataError
from raydist.records import Query
from raydist.text.analyzer import Analyzer
from tests.bow.small_index import index_of

ROWS = [["cat", "dog"], [], ["dog"] * 3, ["bird", "cat"]]


def folder_of(place: Path, **changed: object) -> Path:
    output = Output.open(str(place), kind="bow-index", config={}, inputs={})
    index_of(ROWS, place / "segments", cuts=[2])
    facts = {
        "segments": ["segments/00000", "segments/00001"],
        "analyzer": Analyzer().to_dict(),
        "store": None,
        **changed,
    }
    output.finish(**facts)
    return place


@pytest.mark.parametrize("in_memory", [False, True])
def test_an_index_has_the_statistics_of_all_segments(tmp_path: Path, in_memory: bool) -> None:
    index = BowIndex.open(folder_of(tmp_path / "i"), in_memory=in_memory, verify=True)
    assert (len(index), index.nonempty, index.tokens) == (4, 3, 7)
    assert index.average_length == float(np.float32(7 / 3))
    assert [index.document_frequency(term) for term in ("dog", "cat", "bird", "x")] == [2, 2, 1, 0]
    assert index.doc_ids.to_pylist() == ["d0", "d1", "d2", "d3"]
    assert index.pick_ids(np.array([3, 0, 2, 3])).to_pylist() == ["d3", "d0", "d2", "d3"]
    assert index.positions(["d3", "d0"]).tolist() == [3, 0]
    assert index.positions(["d3", "?"], missing="ignore").tolist() == [3]
    with pytest.raises(DataError, match="first: '\\?'"):
        index.positions(["d3", "?"])
    assert index.store is None
    run = BowRetriever(index).search([Query("q", "Dogs!")], 9)
    assert run.table["doc_id"].to_pylist() == ["d2", "d0"]


def test_an_index_of_another_analyzer_or_a_damaged_one_is_refused(tmp_path: Path) -> None:
    other = {**Analyzer().to_dict(), "fingerprint": "0" * 16}
    with pytest.raises(ArtifactError, match="gives other terms"):
        BowIndex.open(folder_of(tmp_path / "other", analyzer=other))
    with pytest.raises(ArtifactError, match="nowhere"):
        BowIndex.open(tmp_path / "nowhere")
    path = folder_of(tmp_path / "damaged") / "segments" / "00001" / "postings"
    path.write_bytes(bytes([path.read_bytes()[0] ^ 1]) + path.read_bytes()[1:])
    BowIndex.open(tmp_path / "damaged")
    with pytest.raises(ArtifactError, match="postings is corrupted"):
        BowIndex.open(tmp_path / "damaged", verify=True)


def test_an_index_without_a_store_finds_ids_too_and_checks_what_it_returns(tmp_path: Path) -> None:
    corpus = tmp_path / "corpus.jsonl"
    rows = [json.dumps({"id": f"doc-{i}", "text": "a word"}) for i in range(500)]
    corpus.write_text("\n".join(rows))
    assert main(["index", f"corpus={corpus}", f"out={tmp_path}/idx", "store=false"]) == 0
    (tmp_path / "some.txt").write_text("doc-7\ndoc-8\n")
    assert main(["index", f"delete={tmp_path}/some.txt", f"out={tmp_path}/idx"]) == 0
    index = BowIndex.open(tmp_path / "idx")
    ids = pa.array(["doc-9", "doc-7", "none", "doc-499", "doc-0"])
    assert index.find(ids).tolist() == [9, -1, -1, 499, 0]
    assert index.pick_ids(np.array([499, 9])).to_pylist() == ["doc-499", "doc-9"]
    retriever = BowRetriever(index)
    among = retriever.only(pa.array(["doc-3", "doc-7", "x"])).search([Query("q", "word")], 10)
    assert among.table["doc_id"].to_pylist() == ["doc-3"]
    others = retriever.without(ids).search([Query("q", "word")], 1000)
    assert len(others) == 495 and "doc-9" not in others.table["doc_id"].to_pylist()
