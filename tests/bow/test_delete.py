"""Taking documents out of an index: the rest equals an index built without them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raydist.bow.build import delete
from raydist.bow.build.delete import delete_from_index
from raydist.bow.index import BowIndex
from raydist.build import text_store
from raydist.cli import main
from raydist.data.store.reader import DocumentStore
from raydist.errors import DataError
from raydist.manifest import read_manifest
from tests.bow.answers import WORDS, answers, make_index
from tests.bow.documents import contents

TEXTS = st.lists(st.lists(st.sampled_from(WORDS), max_size=6).map(" ".join), min_size=1)


@settings(max_examples=25)
@given(TEXTS, st.data(), st.booleans(), st.booleans(), st.booleans())
def test_the_rest_equals_an_index_built_without_the_deleted_documents(
    tmp_path_factory, texts, data, merge, compress, store
):
    rows = [(f"d{i}", "", text) for i, text in enumerate(texts)]
    cuts = data.draw(st.lists(st.integers(0, len(rows)), max_size=3))
    deleted = data.draw(st.sets(st.sampled_from(range(len(rows))), max_size=len(rows) - 1))
    options = {"merge": merge, "compress": compress, "store": store, "block_size": 8}
    place = tmp_path_factory.mktemp("delete")
    index = make_index(rows, place / "index", cuts, **options)
    facts = delete_from_index(index, [f"d{i}" for i in deleted])
    rest = [row for i, row in enumerate(rows) if i not in deleted]
    fresh = make_index(rest, place / "fresh", **options)
    assert answers(index) == answers(fresh)
    new = read_manifest(fresh)
    names = ["documents", "empty", "tokens", "postings"]
    assert {name: facts[name] for name in names} == {name: new[name] for name in names}
    assert facts["deleted"] == len(deleted)
    entries = {Path(name).parts[0] for name in contents(index)}
    stores = {"store", facts["store"]} if store else set()
    deletions = {"deletions"} if deleted else set()
    assert entries == {"manifest.json", "segments"} | stores | deletions


def test_long_lists_are_read_in_pieces(tmp_path, monkeypatch):
    monkeypatch.setattr(delete, "_TERMS", 7)
    monkeypatch.setattr(delete, "_POSTINGS", 20)
    rows = [(f"d{i}", "", " ".join(f"w{i * j % 31}" for j in range(12))) for i in range(60)]
    index = make_index(rows, tmp_path / "index")
    delete_from_index(index, [f"d{i}" for i in range(0, 60, 3)])
    fresh = make_index([row for i, row in enumerate(rows) if i % 3], tmp_path / "fresh")
    assert answers(index) == answers(fresh)


def test_an_unknown_id_or_all_of_them_are_refused_and_the_index_stays(tmp_path):
    index = make_index([("a", "", "cat"), ("b", "", "dog")], tmp_path / "index")
    before = contents(index)
    with pytest.raises(DataError, match="'x'"):
        delete_from_index(index, ["a", "x"])
    with pytest.raises(DataError, match="no document would be left"):
        delete_from_index(index, ["a", "b"])
    assert contents(index) == before


def test_a_document_is_replaced_by_deleting_and_appending_it(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    old = [{"id": "a", "text": "cat"}, {"id": "b", "text": "dog"}, {"id": "c", "text": "bird"}]
    new = [{"id": "b", "text": "dog cat"}]
    for name, rows in (("old", old), ("new", new), ("both", [old[0], old[2], *new])):
        Path(f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    Path("ids.txt").write_text("b\n")
    for words in (
        ["corpus=old.jsonl"],
        ["delete=ids.txt", "--dry-run"],
        ["delete=ids.txt"],
        ["corpus=new.jsonl", "--append"],
        ["delete=ids.txt"],
        ["corpus=new.jsonl", "--append"],
    ):
        assert main(["index", "out=IDX", *words]) == 0
    assert "2 documents left" in capsys.readouterr().err
    assert main(["index", "out=FRESH", "corpus=both.jsonl"]) == 0
    assert answers(Path("IDX")) == answers(Path("FRESH"))
    Path("ids.txt").write_text("a\n")
    assert main(["index", "out=IDX", "delete=ids.txt"]) == 0
    with DocumentStore.open(text_store("IDX")) as store:  # what rerank, mine and serve look up
        assert [each and each.text for each in store.get(["a", "b"])] == [None, "dog cat"]
    capsys.readouterr()
    assert main(["index", "out=IDX", "delete=ids.txt", "corpus=new.jsonl"]) == 2
    assert "give one of corpus=" in capsys.readouterr().err
    assert main(["index", "out=IDX"]) == 2
    assert BowIndex.open("IDX").nonempty == 2
    assert text_store("IDX").name == read_manifest("IDX")["store"] != "store"
