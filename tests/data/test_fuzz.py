"""Hostile input on every reader: a clear error that names the file, or a readable result."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from raydist.data.contents import file_fingerprint
from raydist.data.ids import IdList
from raydist.data.readers import read_documents, read_qrels, read_queries, read_run
from raydist.data.spec import CorpusSource
from raydist.data.splits import plan_splits
from raydist.errors import DataError
from raydist.records import DOCUMENTS

ROWS = [{"_id": f"d{i}", "title": "t" * (i % 3), "text": f"words é {i} " * 4} for i in range(30)]
JSONL = "\n".join(json.dumps(row, ensure_ascii=i % 2 == 0) for i, row in enumerate(ROWS)).encode()
TSV = "\n".join(f"{r['_id']}\t{r['title']}\t{r['text']}" for r in ROWS).encode()
TREC = "\n".join(
    f"<DOC>\n<DOCNO>{r['_id']}</DOCNO>\n<TITLE>{r['title']}</TITLE>\n<TEXT>{r['text']}</TEXT>\n</DOC>"
    for r in ROWS
).encode()
PAGES = "\n".join(
    f"<DOC>\n<DOCNO>{r['_id']}</DOCNO>\n<DOCHDR>\nhttp://x\n</DOCHDR>\n<html><title>{r['title']}"
    f"</title><script>1 < 2</script><p class='a'>{r['text']}<br></html>\n</DOC>"
    for r in ROWS
).encode()
CSV = ("_id,title,text\r\n" + "".join(f'{r["_id"]},"",""" {r["text"]}"\r\n' for r in ROWS)).encode()
TOPICS = "\n".join(
    f"<top>\n<num> Number: {i}\n<title> words {i}\n</top>" for i in range(9)
).encode()
QRELS = "\n".join(f"{i} 0 d{j} {j % 3}" for i in range(5) for j in range(5)).encode()
RUN = "\n".join(f"{i} Q0 d{j} {j} {9 - j}.5 t" for i in range(5) for j in range(5)).encode()
IDS = b"# ids\na\nb\n\nc\r\n"


def parquet(columns: dict[str, list[object]]) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(columns), sink, row_group_size=11)
    return sink.getvalue().to_pybytes()


def arrow(columns: dict[str, list[object]]) -> bytes:
    sink, table = pa.BufferOutputStream(), pa.table(columns)
    with pa.ipc.new_stream(sink, table.schema) as out:
        out.write_table(table, max_chunksize=11)
    return sink.getvalue().to_pybytes()


ARROW = arrow({name: [r[name] for r in ROWS] for name in ("_id", "title", "text")})
DOCUMENT_TABLE = parquet({name: [r[name] for r in ROWS] for name in ("_id", "title", "text")})
RUN_TABLE = parquet(
    {"query_id": ["1"] * 20, "doc_id": [f"d{i}" for i in range(20)], "score": [1.0] * 20}
)

Reader = Callable[[Path], object]


def documents(path: Path, **options: Any) -> list[dict[str, str]]:
    tables = list(read_documents(CorpusSource(path=path, **options)))
    for table in tables:
        assert table.schema.equals(DOCUMENTS)
        table.validate(full=True)
        assert not any(column.null_count for column in table.columns)
    plan_splits(path, split_bytes=100)
    return [row for table in tables for row in table.to_pylist()]


CASES: list[tuple[str, bytes, Reader]] = [
    ("c.jsonl", JSONL, documents),
    ("c.tsv", TSV, documents),
    ("c.trec", TREC, documents),
    ("c.parquet", DOCUMENT_TABLE, documents),
    ("c.jsonl.gz", gzip.compress(JSONL), documents),
    ("c.tsv.zst", pa.compress(TSV, "zstd", asbytes=True), documents),
    ("c.trec.bz2", bz2.compress(TREC), documents),
    ("corpus", JSONL, documents),
    ("c.csv", CSV, documents),
    ("c.json", json.dumps(ROWS, indent=1).encode(), documents),
    ("c.arrow", ARROW, documents),
    ("c.jsonl.xz", lzma.compress(JSONL), documents),
    ("page.trec", PAGES, documents),
    ("wide.jsonl", JSONL.decode().encode("utf-16"), documents),
    ("q.trec", TOPICS, read_queries),
    ("q.jsonl", JSONL, read_queries),
    ("q.tsv", b"1\tone \xc3\xa9 word\n2\ttwo words\n3\tthree\n", read_queries),
    ("q.jsonl.zst", pa.compress(JSONL, "zstd", asbytes=True), read_queries),
    ("q.parquet", DOCUMENT_TABLE, read_queries),
    ("qrels.txt", QRELS, read_qrels),
    ("qrels.tsv", b"query-id\tcorpus-id\tscore\n1\td1\t2\n2\td2\t0\n", read_qrels),
    ("qrels.txt.gz", gzip.compress(QRELS), read_qrels),
    ("run.txt", RUN, read_run),
    ("run.txt.gz", gzip.compress(RUN), read_run),
    ("run.parquet", RUN_TABLE, read_run),
    ("ids.txt", IDS, IdList.read),
    ("ids.txt.zst", pa.compress(IDS, "zstd", asbytes=True), IdList.read),
]
NAMES = [name for name, _, _ in CASES]
TEXT = st.text(max_size=100).map(lambda text: text.encode("utf-8", "replace"))


def hostile(good: bytes) -> st.SearchStrategy[bytes]:
    """Flipped bits, cut and repeated ranges, and inserted bytes that mean something."""

    @st.composite
    def damaged(draw: st.DrawFn) -> bytes:
        data = bytearray(good)
        for _ in range(draw(st.integers(1, 4))):
            at = draw(st.integers(0, max(0, len(data) - 1)))
            kind = draw(st.sampled_from(["flip", "cut", "drop", "insert", "repeat"]))
            if kind == "flip" and data:
                data[at] ^= 1 << draw(st.integers(0, 7))
            elif kind == "cut":
                del data[at:]
            elif kind == "drop":
                del data[at : at + draw(st.integers(1, 40))]
            elif kind == "repeat":
                data[at:at] = data[at : at + draw(st.integers(1, 40))]
            else:
                pieces = [
                    b"\0",
                    b"\n",
                    b"\r",
                    b"\t",
                    b'"',
                    b"{",
                    b"null\n",
                    b"\xff",
                    b"\xef\xbb\xbf",
                ]
                pieces += [b"<DOC>", b"</DOC>", b"\\ud800", b"[" * 5000, b" ", b"1e999", b"-"]
                data[at:at] = draw(st.sampled_from(pieces))
        return bytes(data)

    return damaged()


@pytest.mark.parametrize(("name", "good", "read"), CASES, ids=NAMES)
def test_damaged_or_random_input_is_an_error_that_names_the_file_or_is_read(
    name: str, good: bytes, read: Reader, tmp_path: Path
) -> None:
    file = tmp_path / name

    @settings(
        max_examples=120,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
    )
    @given(hostile(good) | st.binary(max_size=200) | TEXT)
    def check(data: bytes) -> None:
        file.write_bytes(data)
        file_fingerprint(file)
        try:
            read(file)
        except DataError as error:
            assert name in str(error)
        if read is documents:
            try:
                everything = documents(file, on_bad="skip", encoding_errors="replace")
            except DataError as error:
                assert name in str(error)
            else:
                assert len(everything) <= 200

    check()


@pytest.mark.parametrize("compress", [gzip.compress, bz2.compress], ids=["gz", "bz2"])
def test_one_wrong_bit_or_a_lost_end_never_gives_other_documents(
    compress: Callable[[bytes], bytes], tmp_path: Path
) -> None:
    lines = b"".join(b'{"_id": "d%d", "text": "some words"}\n' % i for i in range(4))
    good = compress(lines)
    file = tmp_path / "corpus.jsonl"
    file.write_bytes(good)
    expected = [row["doc_id"] for row in documents(file)]
    assert expected == ["d0", "d1", "d2", "d3"]
    flipped = (
        good[:at] + bytes([good[at] ^ 1 << at % 8]) + good[at + 1 :] for at in range(len(good))
    )
    for data in [*flipped, *(good[:at] for at in range(len(good)))]:
        file.write_bytes(data)
        try:
            ids = [row["doc_id"] for row in documents(file)]
        except DataError as error:
            assert "corpus.jsonl" in str(error)
        else:
            assert ids in (expected, []) and (ids or not data)
