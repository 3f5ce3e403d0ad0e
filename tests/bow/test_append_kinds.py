"""Indexes of other kinds grow and shrink too, or say in one line why they do not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from raydist.bow.build.delete import delete_from_index
from raydist.cli import main
from tests.bow.answers import answers

TEXTS = {"a": "cat dog", "b": "dog dog fish", "c": "cow", "d": "bird cat cat", "e": ""}
VECTORS = {
    "a": {"cat": 0.5, "dog": 1.25},
    "b": {"dog": 2.0, "fish": 0.01},
    "c": {"cow": 0.7},
    "d": {"bird": 0.33, "cat": 3.0},
    "e": {},
}


def texts(*names: str) -> str:
    return _file(names, "texts", [{"id": name, "text": TEXTS[name]} for name in names])


def vectors(*names: str) -> str:
    return _file(names, "vectors", [{"id": name, "vector": VECTORS[name]} for name in names])


def _file(names, kind, rows) -> str:
    path = Path(f"{kind}-{'-'.join(names)}.jsonl")
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_vectors_are_deleted_appended_and_replaced():
    assert main(["convert", f"in={vectors('a', 'b', 'c')}", "out=IDX"]) == 0
    Path("ids.txt").write_text("a\nc\n")
    assert main(["index", "out=IDX", "delete=ids.txt"]) == 0
    more = vectors("d", "e", "c")
    assert main(["index", "out=IDX", f"corpus={more}", "--append"]) == 0
    assert main(["convert", f"in={vectors('b', 'd', 'e', 'c')}", "out=FRESH"]) == 0
    assert answers(Path("IDX")) == answers(Path("FRESH"))
    VECTORS["b"] = {"cat": 9.0}
    last = ["--append", "duplicates=last"]
    assert main(["index", "out=IDX", f"corpus={vectors('b')}", *last]) == 0
    assert main(["convert", f"in={vectors('d', 'e', 'c', 'b')}", "out=FRESH2"]) == 0
    assert answers(Path("IDX")) == answers(Path("FRESH2"))


def test_an_index_from_ciff_is_deleted_from_and_appended_to():
    assert main(["index", f"corpus={texts('a', 'b', 'c', 'e')}", "out=SOURCE"]) == 0
    assert main(["convert", "in=SOURCE", "out=index.ciff"]) == 0
    assert main(["convert", "in=index.ciff", "out=IDX"]) == 0
    delete_from_index(Path("IDX"), ["a", "e"])
    assert main(["index", "out=IDX", f"corpus={texts('d', 'a')}", "--append", "store=false"]) == 0
    assert main(["index", f"corpus={texts('b', 'c', 'd', 'a')}", "out=FRESH", "store=false"]) == 0
    assert answers(Path("IDX")) == answers(Path("FRESH"))


def test_exports_hold_the_live_documents_alone():
    assert main(["index", f"corpus={texts('a', 'b', 'c')}", "out=IDX"]) == 0
    assert main(["index", f"corpus={texts('d', 'e')}", "out=IDX", "--append"]) == 0
    delete_from_index(Path("IDX"), ["b", "d"])
    assert main(["index", f"corpus={texts('a', 'c', 'e')}", "out=FRESH"]) == 0
    for name in ("IDX", "FRESH"):
        for form in ("ciff", "bmp"):
            assert main(["convert", f"in={name}", f"out={name}.{form}"]) == 0
    for form in ("ciff", "bmp"):
        assert Path(f"IDX.{form}").read_bytes() == Path(f"FRESH.{form}").read_bytes()


@pytest.mark.parametrize(
    ("built", "added", "message"),
    [
        ("vectors", "texts", "is an index of weighted terms, which only vectors can be added to"),
        ("texts", "vectors", "is an index of texts, and these are vectors of weighted terms"),
        ("ciff", "texts", "store: false -> true"),
    ],
)
def test_what_cannot_be_appended_is_refused_and_the_index_stays(built, added, message, capsys):
    if built == "vectors":
        main(["convert", f"in={vectors('a', 'b')}", "out=IDX"])
    else:
        main(["index", f"corpus={texts('a', 'b')}", "out=IDX"])
    if built == "ciff":
        main(["convert", "in=IDX", "out=index.ciff"])
        main(["convert", "in=index.ciff", "out=IDX2"])
    index = Path("IDX2" if built == "ciff" else "IDX")
    before = answers(index)
    more = texts("c") if added == "texts" else vectors("c")
    assert main(["index", f"out={index}", f"corpus={more}", "--append"]) == 2
    said = capsys.readouterr().err
    assert message in said and "Traceback" not in said
    assert answers(index) == before


def test_an_index_without_an_analyzer_cannot_analyse(capsys):
    main(["convert", f"in={vectors('a')}", "out=IDX"])
    assert main(["analyze", "text=cats", "index=IDX"]) == 2
    assert "index = IDX: has no analyzer: it holds weighted terms" in capsys.readouterr().err


def test_what_is_appended_is_checked_as_what_is_built(capsys):
    main(["index", f"corpus={texts('a')}", "out=IDX"])
    Path("bad.jsonl").write_text(
        '{"id": "b", "text": "dog"}\nnothing\n{"id": "c", "text": "cow"}\n'
    )
    Path("keep.txt").write_text("b\nz\n")
    words = ["index", "out=IDX", "corpus=bad.jsonl", "corpus.on_bad=skip", "--append"]
    before = answers(Path("IDX"))
    assert main([*words, "corpus.ids=keep.txt"]) == 2
    assert "z" in capsys.readouterr().err and answers(Path("IDX")) == before
    assert main([*words, "corpus.ids=keep.txt", "corpus.missing=warn"]) == 0
    assert "warning" in capsys.readouterr().err
    delete_from_index(Path("IDX"), ["b"])
    assert main([*words, "corpus.rejects=rejects.jsonl"]) == 0
    said = capsys.readouterr().err
    assert "1 bad line skipped, the first: " in said and "bad.jsonl, line 2" in said
    assert json.loads(Path("rejects.jsonl").read_text())["line"] == 2
    assert answers(Path("IDX"))["ids"] == ["a", "b", "c"]
