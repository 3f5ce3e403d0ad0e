from __future__ import annotations

import json
from pathlib import Path

import pytest

from raydist.data import docstrings
from raydist.data.readers import read_documents, read_qrels, read_queries
from raydist.errors import DataError

SOURCE = '''"""A module about many things. It has a longer story
that goes on for more than the fifteen words which are needed here to count as a document."""

class Public:
    """One short line."""

    def method(self):
        """Do what a method of this kind does

        The rest of it is long enough to be taken as a document of its own,
        since it has more than fifteen words.
        """

    def _hidden(self):
        """Nobody should see this sentence here. The rest of it is long enough to be taken as a
        document of its own, since it has more than fifteen words."""

def arguments():
    """Arguments:

    all of these words are not a summary at all but they are more than fifteen words in number."""
'''


def test_documents_lack_the_first_sentence_which_is_the_query(tmp_path: Path) -> None:
    file = tmp_path / "m.py"
    file.write_text(SOURCE)
    module, method = docstrings.extract(("pkg.mod", str(file)))
    assert module.name == "pkg.mod" and module.summary == "A module about many things."
    assert module.text.startswith("pkg mod\nIt has a longer story")
    assert method.name == "pkg.mod.Public.method"
    assert method.summary == "Do what a method of this kind does"
    assert method.text.startswith("pkg mod Public method\nThe rest of it")
    file.write_text("this is no Python (")
    assert docstrings.extract(("m", str(file))) == []


def test_modules_with_an_underscore_count_but_no_tests() -> None:
    names = {name for name, _ in docstrings.modules(["numpy"])}
    assert {"_pydecimal", "json", "numpy._core.numeric"} <= names
    assert not any({"test", "tests"} & set(name.split(".")) for name in names)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return docstrings.write(tmp_path_factory.mktemp("docs"))


def test_the_collection_is_whole_and_split_without_overlap(folder: Path) -> None:
    ids = [i for t in read_documents(folder) for i in t["doc_id"].to_pylist()]
    queries, qrels = read_queries(folder), read_qrels(folder)
    assert 1000 < len(ids) == len(set(ids)) == len(queries) == len(qrels)
    assert {d for judged in qrels.values() for d in judged} == set(ids)
    parts = [
        (read_queries(folder / part), read_qrels(folder / part / "qrels.txt"))
        for part in ("train", "test")
    ]
    train, test = ({q.query_id for q in queries} for queries, _ in parts)
    assert train | test == set(qrels) and not train & test
    assert 0.15 < len(test) / len(ids) < 0.25
    assert all(set(judged) == {q.query_id for q in queries} for queries, judged in parts)


def test_training_lines_have_the_pair_and_other_documents(folder: Path) -> None:
    texts = {t["text"] for table in read_documents(folder) for t in table.to_pylist()}
    lines = [json.loads(line) for line in open(folder / "train.jsonl", encoding="utf-8")]  # noqa: SIM115
    assert len(lines) == len(read_queries(folder / "train"))
    for line in lines[::50]:
        assert len(line["pos"]) == 1 and len(set(line["neg"])) == 7
        assert set(line["pos"]) <= texts and set(line["neg"]) <= texts - set(line["pos"])


def test_the_same_python_gives_the_same_bytes_in_any_order(folder: Path, tmp_path: Path) -> None:
    def backwards(function, items):  # type: ignore[no-untyped-def]
        return [function(item) for item in reversed(items)]

    again = docstrings.write(tmp_path / "again", docstrings.collect(run=backwards))
    names = sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())
    assert len(names) == 8
    for name in names:
        assert (folder / name).read_bytes() == (again / name).read_bytes()


def test_every_verb_reads_it_under_its_own_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAYDIST_CACHE", str(tmp_path))
    count = sum(t.num_rows for t in read_documents("docstrings:"))
    assert count == len(read_queries("docstrings:")) == len(read_qrels("docstrings:"))
    assert len(list(tmp_path.iterdir())) == 1
    assert sum(t.num_rows for t in read_documents("docstrings:packaging")) > count


@pytest.mark.parametrize(
    ("package", "reason"),
    [
        ("nosuchpackage", "no Python package 'nosuchpackage' is installed"),
        ("no such", "no Python package 'no such' is installed"),
        ("nosuch.package", "no Python package 'nosuch.package' is installed"),
        ("bisect", "'bisect' is a single module, expected a package"),
    ],
)
def test_a_package_that_has_no_sources_is_named(package: str, reason: str) -> None:
    with pytest.raises(DataError, match=f"docstrings:{package}: {reason}"):
        next(read_documents(f"docstrings:{package}"))
