from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

import raydist.data.ids
from raydist.data.ids import IdList, filter_queries
from raydist.data.readers import read_documents, read_qrels, read_queries
from raydist.data.spec import CorpusSource, QrelsSource, QueriesSource
from raydist.errors import DataError
from raydist.records import Query


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    file = tmp_path / "corpus.jsonl"
    file.write_text("".join(json.dumps({"id": c, "text": c}) + "\n" for c in "abcdefgh"))
    return file


def ids_of(path: Path, **options: Any) -> list[str]:
    source = CorpusSource(path=path, **options)
    return [i for t in read_documents(source) for i in t["doc_id"].to_pylist()]


def id_file(folder: Path, *ids: str) -> str:
    file = folder / f"{'-'.join(ids)}.txt"
    IdList(ids).write(file)
    return str(file)


def test_a_file_of_ids_is_stripped_and_comments_are_skipped(tmp_path: Path) -> None:
    file = tmp_path / "ids.txt"
    file.write_bytes("\ufeff# comment\r\n b \r\n\r\n\ta\n#c\nx y\n".encode())
    ids = IdList.read(file)
    assert list(ids) == ["b", "a", "x y"] and "a" in ids and "c" not in ids and len(ids) == 3
    ids.write(tmp_path / "again.txt")
    assert IdList.read(tmp_path / "again.txt").column == ids.column


def test_an_id_twice_is_refused_with_both_lines(tmp_path: Path) -> None:
    file = tmp_path / "ids.txt"
    file.write_text("a\nb\n a\n")
    with pytest.raises(DataError, match=r"line 3: 'a': .*also on line 1"):
        IdList.read(file)
    with pytest.raises(DataError, match=r"'a' occurs twice \(positions 1 and 3\)"):
        IdList.of(["a", "b", "a"])
    with pytest.raises(TypeError, match="an id is a string, not int"):
        IdList.of([1])  # type: ignore[list-item]


def test_documents_keep_the_order_of_the_source_or_of_the_list(
    corpus: Path, tmp_path: Path
) -> None:
    keep, drop = id_file(tmp_path, "g", "b", "d"), id_file(tmp_path, "b", "not there")
    assert ids_of(corpus, ids=keep) == ["b", "d", "g"]
    assert ids_of(corpus, ids=keep, order="list") == ["g", "b", "d"]
    assert ids_of(corpus, ids=keep, exclude_ids=drop) == ["d", "g"]
    assert ids_of(corpus, exclude_ids=drop) == list("acdefgh")
    first = read_documents(CorpusSource(path=corpus, ids=keep), max_docs=2)
    assert [i for t in first for i in t["doc_id"].to_pylist()] == ["b", "d"]


def test_missing_ids_are_an_error_a_warning_or_nothing(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ids = id_file(tmp_path, "y", "a", "x")
    with pytest.raises(DataError, match=r"the source lacks 2 of 3 ids: 'y', 'x'"):
        ids_of(corpus, ids=ids)
    assert ids_of(corpus, ids=ids, missing="warn") == ["a"]
    assert "2 of 3 ids" in capsys.readouterr().err
    assert ids_of(corpus, ids=ids, missing="ignore") == ["a"]
    assert capsys.readouterr().err == ""


def test_queries_and_qrels_are_filtered_alike(tmp_path: Path) -> None:
    queries, qrels = tmp_path / "q.tsv", tmp_path / "qrels.txt"
    queries.write_text("1\ta\n2\tb\n3\tc\n")
    qrels.write_text("1 0 x 1\n2 0 x 1\n2 0 y 0\n3 0 z 1\n")
    keep, drop = id_file(tmp_path, "3", "2"), id_file(tmp_path, "2")

    def query_ids(**options: Any) -> list[str]:
        return [q.query_id for q in read_queries(QueriesSource(path=queries, **options))]

    assert query_ids(ids=keep) == ["2", "3"]
    assert query_ids(ids=keep, order="list") == ["3", "2"]
    assert query_ids(exclude_ids=drop) == ["1", "3"]
    assert list(read_qrels(QrelsSource(path=qrels, ids=keep))) == ["2", "3"]
    with pytest.raises(DataError, match="'9'"):
        query_ids(ids=id_file(tmp_path, "9"))


@given(st.lists(st.text(), unique=True), st.lists(st.text(), unique=True), st.booleans())
def test_filtering_is_membership(have: list[str], want: list[str], by_list: bool) -> None:
    chosen = filter_queries(
        [Query(i, "") for i in have],
        IdList.of(want),
        missing="ignore",
        order="list" if by_list else "source",
    )
    first, second = (want, have) if by_list else (have, want)
    assert [q.query_id for q in chosen] == [i for i in first if i in second]


def test_a_long_list_is_written_once_and_mapped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAYDIST_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(raydist.data.ids, "_MAPPED", 100)
    names = [f"doc-{i * 7 % 5000}" for i in range(5000)]
    file = tmp_path / "ids.txt"
    file.write_text("# all\n" + "\n".join(names))
    ids = IdList.read(file)
    assert list(ids) == names and IdList.read(file) is ids
    some = pa.array(["doc-3", "none", names[4999]])
    assert ids.positions(some).tolist() == [names.index("doc-3"), -1, 4999]
    (made,) = [path for path in (tmp_path / "cache/ids").iterdir() if path.is_dir()]
    before = made.stat().st_ctime_ns, (made / "ids.bin").stat().st_mtime_ns
    raydist.data.ids._read.cache_clear()
    assert list(IdList.read(file)) == names
    assert (made / "ids.bin").stat().st_mtime_ns == before[1]
    file.write_text("\n".join([*names, "x", "x"]))
    with pytest.raises(DataError, match=r"line 5002: 'x': .*also on line 5001"):
        IdList.read(file)
    assert [path for path in (tmp_path / "cache/ids").iterdir() if path.is_dir()] == [made]
