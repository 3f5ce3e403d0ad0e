"""Documents of one id: whatever is chosen, the index can be searched, and is that of what stays."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raydist.bow.build.append import append_to_index
from raydist.bow.spec import IndexSpec
from raydist.cli import main
from raydist.errors import DataError
from raydist.manifest import read_manifest
from tests.bow.answers import WORDS, answers, make_index
from tests.bow.documents import read, splits_of

TEXTS = st.lists(st.sampled_from(WORDS), max_size=5).map(" ".join)
ROWS = st.lists(st.tuples(st.sampled_from("abcdefg"), st.just(""), TEXTS), min_size=1, max_size=12)


def staying(rows, duplicates):
    """The rows that stay, in order."""
    last = {row[0]: place for place, row in enumerate(rows)}
    first = {row[0]: place for place, row in reversed(list(enumerate(rows)))}
    places = (last if duplicates == "last" else first).values()
    return [rows[place] for place in sorted(places)]


def append(rows, folder, key, **options):
    spec = IndexSpec(**options)
    return append_to_index(splits_of(rows), read, folder, spec, inputs={"c": key})


@settings(max_examples=15)
@given(ROWS, st.sampled_from(["first", "last", "warn"]), st.booleans(), st.booleans(), st.data())
def test_a_build_keeps_one_document_of_each_id(
    tmp_path_factory, rows, duplicates, merge, store, data
):
    cuts = data.draw(st.lists(st.integers(0, len(rows)), max_size=2))
    place = tmp_path_factory.mktemp("build")
    options = {"merge": merge, "store": store}
    index = make_index(rows, place / "index", cuts, duplicates=duplicates, **options)
    stay = staying(rows, duplicates)
    assert answers(index) == answers(make_index(stay, place / "fresh", **options))
    manifest = read_manifest(index)
    assert manifest["documents"] == len(stay)
    assert manifest.get("deleted", 0) == len(rows) - len(stay)


@settings(max_examples=15)
@given(ROWS, ROWS, st.sampled_from(["first", "last", "warn"]), st.booleans())
def test_an_append_keeps_the_old_document_of_an_id_or_puts_the_new_in_its_place(
    tmp_path_factory, old, new, duplicates, store
):
    place = tmp_path_factory.mktemp("append")
    options = {"store": store, "duplicates": duplicates}
    index = make_index(old, place / "index", **options)
    append(new, index, "new", **options)
    stay = staying([*staying(old, duplicates), *new], duplicates)
    assert answers(index) == answers(make_index(stay, place / "fresh", store=store))


def test_an_error_names_both_documents_and_the_remedy_and_leaves_the_index(tmp_path):
    rows = [("a", "", "x"), ("b", "", "y"), ("c", "", "z"), ("b", "", "w")]
    message = r"1 document with .* document 4 has the id 'b' of document 2 .*duplicates=first"
    for store in (True, False):
        with pytest.raises(DataError, match=message):
            make_index(rows, tmp_path / str(store), [2], store=store)
    index = make_index(rows[:3], tmp_path / "index")
    before = answers(index)
    with pytest.raises(DataError, match=r"2 documents with .*document 4 has the id 'b'"):
        append([rows[3], ("d", "", "x"), rows[0]], index, "new")
    with pytest.raises(DataError, match=r"document 2 has the id 'd' of document 1"):
        append([("d", "", "x"), ("d", "", "y")], index, "other")
    assert answers(index) == before


def test_a_warning_says_how_many_and_names_an_example(tmp_path, capsys):
    rows = [("a", "", "cat"), ("b", "", "dog"), ("a", "", "cow"), ("a", "", "fish")]
    make_index(rows, tmp_path / "index", duplicates="warn")
    said = capsys.readouterr().err
    assert "2 documents with the id of an earlier one" in said
    assert "document 3 has the id 'a' of document 1; the earlier ones stay" in said


def test_the_same_append_is_repeated_only_where_that_changes_something(tmp_path):
    index = make_index([("a", "", "cat")], tmp_path / "index")
    mine, others = [("a", "", "dog")], [("a", "", "fish"), ("b", "", "cow")]
    assert append(mine, index, "mine", duplicates="last") is not None
    assert append(mine, index, "mine", duplicates="last") is None
    append(others, index, "others", duplicates="last")
    assert append(mine, index, "mine", duplicates="first")["documents"] == 2
    assert append(mine, index, "mine", duplicates="first") is None
    append(mine, index, "mine", duplicates="last")
    assert answers(index) == answers(make_index([others[1], *mine], tmp_path / "fresh"))


def test_an_index_is_updated_in_place_from_the_command_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    files = {
        "old": [("a", "cat"), ("b", "dog"), ("c", "bird cat")],
        "new": [("b", "dog cat"), ("d", "cow")],
        "rest": [("a", "cat"), ("b", "dog cat"), ("d", "cow")],
    }
    for name, rows in files.items():
        lines = [json.dumps({"id": doc_id, "text": text}) + "\n" for doc_id, text in rows]
        Path(f"{name}.jsonl").write_text("".join(lines))
    Path("ids.txt").write_text("c\n")
    assert main(["index", "corpus=old.jsonl", "out=IDX"]) == 0
    assert main(["index", "corpus=new.jsonl", "out=IDX", "--append"]) == 2
    assert "duplicates=last keeps one" in capsys.readouterr().err
    for _ in range(2):
        assert main(["index", "corpus=new.jsonl", "out=IDX", "--append", "duplicates=last"]) == 0
    assert "already appended" in capsys.readouterr().err
    assert main(["index", "delete=ids.txt", "out=IDX"]) == 0
    assert main(["index", "corpus=rest.jsonl", "out=FRESH"]) == 0
    assert answers(Path("IDX")) == answers(Path("FRESH"))
    assert main(["index", "corpus=rest.jsonl", "out=FRESH", "duplicates=warn"]) == 0
    assert "already built" in capsys.readouterr().err
    assert main(["index", "corpus=rest.jsonl", "out=FRESH", "duplicates=last"]) == 2
