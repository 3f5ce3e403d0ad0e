"""CIFF: protobuf reads our files, and we read protobuf's."""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.internal.decoder import _DecodeVarint
from hypothesis import given, settings
from hypothesis import strategies as st

from raydist.bow.exchange.ciff import export_ciff, import_ciff
from raydist.bow.format.segment import Segment
from raydist.bow.index import BowIndex
from raydist.bow.search.retriever import BowRetriever
from raydist.errors import ArtifactError, DataError
from tests.bow.small_index import index_of

WORDS = ["a", "aa", "b", "é", "cat", "zebra"]
INT32, INT64, DOUBLE, STRING, MESSAGE = 5, 3, 1, 9, 11


def messages() -> dict[str, Any]:
    """The messages as protobuf's own runtime knows them."""
    file = descriptor_pb2.FileDescriptorProto(name="ciff.proto", package="t", syntax="proto3")

    def add(name: str, fields: list[tuple[str, int]]) -> None:
        message = file.message_type.add(name=name)
        for number, (field, kind) in enumerate(fields, 1):
            message.field.add(
                name=field,
                number=number,
                type=kind,
                label=3 if kind == MESSAGE else 1,
                type_name=".t.Posting" if kind == MESSAGE else None,
            )

    counts = ["version", "lists", "records", "all_lists", "all_docs"]
    add(
        "Header",
        [*((name, INT32) for name in counts), ("tokens", INT64), ("mean", DOUBLE), ("d", STRING)],
    )
    add("Posting", [("docid", INT32), ("tf", INT32)])
    add("List", [("term", STRING), ("df", INT64), ("cf", INT64), ("postings", MESSAGE)])
    add("Record", [("docid", INT32), ("name", STRING), ("length", INT32)])
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    names = ("Header", "Posting", "List", "Record")
    kinds = {name: pool.FindMessageTypeByName(f"t.{name}") for name in names}
    return {name: message_factory.GetMessageClass(kind) for name, kind in kinds.items()}


KINDS = messages()


def read(path: Path) -> tuple[Any, list[Any], list[Any]]:
    data, at = path.read_bytes(), 0

    def take(kind: str) -> Any:
        nonlocal at
        size, at = _DecodeVarint(data, at)
        at += size
        return KINDS[kind].FromString(data[at - size : at])

    header = take("Header")
    lists = [take("List") for _ in range(header.lists)]
    records = [take("Record") for _ in range(header.records)]
    assert at == len(data)
    return header, lists, records


documents = st.lists(
    st.lists(st.sampled_from(WORDS), max_size=200).map(sorted), min_size=1, max_size=300
)


@settings(max_examples=25, deadline=None)
@given(documents, st.data())
def test_an_exported_index_is_what_protobuf_reads_and_comes_back_the_same(
    tmp_path_factory: pytest.TempPathFactory, rows: list[list[str]], data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("ciff")
    cuts = sorted(data.draw(st.sets(st.integers(1, len(rows)), max_size=2)) - {len(rows)})
    index = index_of(rows, folder / "in", cuts=cuts)
    name = data.draw(st.sampled_from(["x.ciff", "x.ciff.gz"]))
    facts = export_ciff(index, folder / name)
    if not name.endswith("gz"):
        header, lists, records = read(folder / name)
        assert header.tokens == sum(map(len, rows))
        assert header.mean == pytest.approx(index.average_length)
        assert [(r.docid, r.name, r.length) for r in records] == [
            (i, f"d{i}", len(row)) for i, row in enumerate(rows)
        ]
        words = sorted({word for row in rows for word in row}, key=str.encode)
        assert [each.term for each in lists] == words
        for each in lists:
            docs = np.cumsum([posting.docid for posting in each.postings]).tolist()
            tfs = [posting.tf for posting in each.postings]
            expected = [(i, row.count(each.term)) for i, row in enumerate(rows) if each.term in row]
            assert list(zip(docs, tfs)) == expected
            assert (each.df, each.cf) == (len(docs), sum(tfs))
    back = import_ciff(folder / name, folder / "out")
    assert (back["documents"], back["terms"]) == (facts["documents"], facts["terms"])
    assert back["empty"] == sum(not row for row in rows)
    again = BowIndex([Segment.open(folder / "out" / back["segments"][0])], None)
    query = {"a": 1, "cat": 2, "é": 1}
    for a, b in zip(*(BowRetriever(i).rank_terms(query, 50) for i in (index, again))):
        assert np.array_equal(a, b)
    assert again.doc_ids.to_pylist() == index.doc_ids.to_pylist()


def foreign(
    path: Path,
    lists: list[Any],
    count: int = 3,
    names: Sequence[str] = (),
    lengths: Sequence[int] = (),
    numbers: Sequence[int] = (),
    claimed: int | None = None,
    **header: Any,
) -> Path:
    """Writes a file with protobuf's runtime."""
    stated = len(lists) if claimed is None else claimed
    first = KINDS["Header"](version=1, lists=stated, records=count, **header)
    columns = (
        numbers or range(count),
        names or [f"x{i}" for i in range(count)],
        lengths or [4] * count,
    )
    records = [KINDS["Record"](docid=i, name=n, length=z) for i, n, z in zip(*columns)]
    with open(path, "wb") as out:
        for message in [first, *lists, *records]:
            body = message.SerializeToString()
            size, prefix = len(body), bytearray()
            while size >= 128:
                prefix.append(size & 127 | 128)
                size >>= 7
            out.write(bytes([*prefix, size]) + body)
    return path


def postings(term: str, *pairs: tuple[int, int]) -> Any:
    entries = [KINDS["Posting"](docid=gap, tf=tf) for gap, tf in pairs]
    return KINDS["List"](term=term, df=len(pairs), cf=sum(tf for _, tf in pairs), postings=entries)


def test_another_programs_file_with_terms_in_any_order_is_read(tmp_path: Path) -> None:
    path = foreign(tmp_path / "a.ciff", [postings("z", (2, 70_000)), postings("b", (0, 1), (1, 2))])
    facts = import_ciff(path, tmp_path / "out", compress=False)
    segment = Segment.open(tmp_path / "out" / facts["segments"][0])
    assert segment.terms.to_pylist() == [b"b", b"z"]
    indptr, docs, tfs = segment.postings(0, 2)
    assert (indptr.tolist(), docs.tolist(), tfs.tolist()) == ([0, 2, 3], [0, 1, 2], [1, 2, 70_000])
    assert segment.lengths_N.tolist() == [4, 4, 4]


def test_files_that_are_not_ciff_are_refused(tmp_path: Path) -> None:
    good = foreign(tmp_path / "a.ciff", [postings("b", (0, 1), (1, 2))]).read_bytes()
    bad = {
        "cut": (good[:-3], "ends before"),
        "long": (good + b"\x01\x00", "ends before"),
        "text": (b"hello world, this is not protobuf", "header"),
        "empty": (b"", "empty"),
    }
    for name, (data, message) in bad.items():
        path = tmp_path / f"{name}.ciff"
        path.write_bytes(data)
        with pytest.raises(DataError, match=message):
            import_ciff(path, tmp_path / "out" / name)
    newer = tmp_path / "newer.ciff"
    newer.write_bytes(b"\x02\x08\x02")
    with pytest.raises(ArtifactError, match="version 2"):
        import_ciff(newer, tmp_path / "out" / "newer")
    with pytest.raises(DataError, match="no such file"):
        import_ciff(tmp_path / "nowhere.ciff", tmp_path / "out" / "nowhere")


def listed(term: str, pairs: list[tuple[int, int]], **fields: Any) -> Any:
    message = postings(term, *pairs)
    for name, value in fields.items():
        setattr(message, name, value)
    return message


CONTRADICTIONS: dict[str, tuple[Any, dict[str, Any], str]] = {
    "a gap of 0": ([listed("b", [(1, 1), (0, 1)])], {}, r"list 1, 'b': .*not ascend at posting 2"),
    "a document too many": ([listed("b", [(9, 1)])], {}, "document 9 of posting 1, there are 3"),
    "a negative gap": ([listed("b", [(2, 1), (-1, 1)])], {}, "do not ascend at posting 2"),
    "no frequency": ([listed("b", [(0, 0)], cf=0)], {}, "frequency 0 of posting 1"),
    "a negative frequency": ([listed("b", [(0, -3)], cf=0)], {}, "frequency -3 of posting 1"),
    "a term twice": ([listed("b", [(0, 1)]), listed("b", [(1, 1)])], {}, "list 2: .*'b'.* list 1"),
    "no term": ([listed("", [(0, 1)])], {}, "list 1, '': no term"),
    "another df": ([listed("b", [(0, 1)], df=2)], {}, "df 2, but 1 postings"),
    "another cf": ([listed("b", [(0, 1)], cf=5)], {}, "cf 5, but the frequencies add up to 1"),
    "a length of 0": ([listed("b", [(1, 1)])], {"lengths": [4, 0, 4]}, r"'x1' .*its length is 0"),
    "a negative length": ([], {"lengths": [4, -1, 4]}, "record 2: length -1"),
    "an id twice": ([], {"names": ["a", "b", "a"]}, "record 3: the document id 'a' .* record 1"),
    "an empty id": ([], {"names": ["a", "", "c"]}, "record 2: the document id is empty"),
    "numbers that skip": ([], {"numbers": [0, 2, 3]}, "record 2: document number 2, expected 1"),
    "no documents": ([], {"count": 0}, "has no documents"),
    "more documents than in all": ([], {"all_docs": 2}, "3 documents of 2 in all"),
    "other tokens": ([], {"all_docs": 3, "tokens": 99}, "99 tokens, .* add up to 12"),
    "another average": ([], {"mean": 9.5}, r"average length 9\.5, but that of the records is 4"),
    "no average": ([], {"mean": float("nan")}, "average length nan"),
    "a negative average": ([], {"mean": -1.0}, r"average length -1\.0"),
    "sizes beyond the file": ([], {"claimed": 1 << 30}, "too short for 1,073,741,824 lists"),
}


@pytest.mark.parametrize("case", CONTRADICTIONS)
def test_a_file_that_contradicts_itself_is_refused_with_record_and_value(
    case: str, tmp_path: Path
) -> None:
    lists, fields, message = CONTRADICTIONS[case]
    path = foreign(tmp_path / "a.ciff", lists, **fields)
    with pytest.raises(DataError, match=rf"a\.ciff: .*{message}"):
        import_ciff(path, tmp_path / "out")


def test_what_a_file_does_not_state_is_not_checked(tmp_path: Path) -> None:
    lists = [listed("b", [(0, 1), (1, 2)], df=0, cf=0)]
    some = {"all_docs": 900, "all_lists": 70, "tokens": 12_345, "mean": 13.7}
    path = foreign(tmp_path / "a.ciff", lists, lengths=[1, 2, 0], **some)
    facts = import_ciff(path, tmp_path / "out")
    assert (facts["documents"], facts["empty"], facts["tokens"]) == (3, 1, 3)


@settings(max_examples=200, deadline=None)
@given(
    packed=st.booleans(),
    damage=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=3),
    share=st.floats(0.5, 1),
)
def test_damage_is_an_error_that_names_the_file(
    tmp_path_factory: pytest.TempPathFactory,
    packed: bool,
    damage: list[tuple[float, int]],
    share: float,
) -> None:
    folder = tmp_path_factory.mktemp("damaged")
    lists = [postings("ab", (0, 1), (1, 300)), postings("b", (1, 2))]
    good = foreign(folder / "a.ciff", lists).read_bytes()
    body = bytearray(gzip.compress(good) if packed else good)
    for where, value in damage:
        body[int(where * len(body))] = value
    path = folder / ("b.ciff.gz" if packed else "b.ciff")
    path.write_bytes(body[: int(share * len(body))])
    try:
        facts = import_ciff(path, folder / "out")
    except (DataError, ArtifactError) as error:
        assert str(error).startswith(f"{path}: ")
        return
    index = BowIndex([Segment.open(folder / "out" / facts["segments"][0])], None)
    scores = BowRetriever(index).rank_terms({"ab": 1, "b": 1}, 5)[1]
    assert np.isfinite(scores).all()
