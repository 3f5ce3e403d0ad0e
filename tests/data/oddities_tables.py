"""Documents in tables: tab- and comma-separated values, Parquet and Arrow.

What is expected was computed with Python's csv, or is written down from the rules of the formats.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import struct
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tests.data.oddities import Cell, Refused

_TABLE = [
    ["id", "title", "text"],
    ["1", "a title", 'says "yes", twice'],
    ["2", "", "two\r\nlines"],
    ["3", "x", "tab\there; and\nthere"],
    ["4", "\u00e9", '"'],
]
_TABLE_DOCUMENTS = [tuple(row) for row in _TABLE[1:]]


def _csv(rows: list[list[str]], **options: Any) -> bytes:
    out = io.StringIO()
    csv.writer(out, **options).writerows(rows)
    return out.getvalue().encode()


_QUOTED = b'1\t"Aaron (""Ahar\xc3\xb4n"") is a prophet"\tAaron\n2\t"God"\tAaron\n'

TABLES = [
    *(
        Cell(
            f"{name}: files joined with their headers",
            {f"c.{name}": data},
            [("1", "", "a"), ("2", "", "b"), ("3", "", "id")],
        )
        for name, data in (
            ("tsv", "id\ttext\n1\ta\nid\ttext\n2\tb\n\ufeffid\ttext\n3\tid\n".encode()),
            ("csv", 'id,text\n1,a\n"id",text\n2,b\n\ufeffid,text\n3,id\n'.encode()),
        )
    ),
    Cell(
        "tsv: lines of carriage returns",
        {"c.tsv": b"1\ta\r2\tb\r"},
        Refused("carriage returns alone; set format=csv"),
    ),
    Cell(
        "csv: lines of carriage returns",
        {"c.tsv": b"1\ta\r2\tb\r"},
        [("1", "", "a"), ("2", "", "b")],
        {"format": "csv"},
    ),
    Cell(
        "tsv: a line like the first where that is no header",
        {"c.tsv": b"1\ta\n1\ta\n"},
        [("1", "", "a"), ("1", "", "a")],
    ),
    Cell("csv: csv.writer", {"c.csv": _csv(_TABLE)}, _TABLE_DOCUMENTS),
    Cell(
        "csv: everything in quotes",
        {"c.csv": _csv(_TABLE, quoting=csv.QUOTE_ALL)},
        _TABLE_DOCUMENTS,
    ),
    Cell("csv: semicolons", {"c.csv": _csv(_TABLE, delimiter=";")}, _TABLE_DOCUMENTS),
    Cell("csv: lines end with LF", {"c.csv": _csv(_TABLE, lineterminator="\n")}, _TABLE_DOCUMENTS),
    Cell("csv: in gzip", {"c.csv.gz": gzip.compress(_csv(_TABLE))}, _TABLE_DOCUMENTS),
    Cell("csv: a mark first", {"c.csv": codecs.BOM_UTF8 + _csv(_TABLE)}, _TABLE_DOCUMENTS),
    Cell(
        "csv: sep= first", {"c.csv": b"sep=;\r\n" + _csv(_TABLE, delimiter=";")}, _TABLE_DOCUMENTS
    ),
    Cell(
        "csv: columns of CORD-19",
        {"c.csv": b"cord_uid,title,abstract,publish_time\nug7v899j,T,A,2001-07-04\n"},
        Refused(r"fields\.id=cord_uid corpus\.fields\.text=NAME if this line names them"),
    ),
    Cell("csv: other columns", {"c.csv": b"n,Text,ID\n9,x,1\n"}, [("1", "", "x")]),
    Cell("csv: no header", {"c.csv": b'1,x\n2,"y, z"\n'}, [("1", "", "x"), ("2", "", "y, z")]),
    Cell(
        "csv: a long text",
        {"c.csv": _csv([["id", "text"], ["1", 'q"' * 100_000]])},
        [("1", "", 'q"' * 100_000)],
    ),
    Cell(
        "csv: a quote that is not closed",
        {"c.csv": b'id,text\n1,a\n2,"b\n3,c\n'},
        Refused("line 3: .*CSV; unexpected end of data"),
    ),
    Cell(
        "csv: a column too many",
        {"c.csv": b'id,text\n1,"a\nb"\n2,b,c\n'},
        Refused("line 4: '2,b,c': expected 2 columns, not 3"),
    ),
    Cell(
        "csv: bad records are skipped",
        {"c.csv": b'id,text\n1,a\n2,b,c\n,d\n3,"e"f\n4,caf\xe9\n5,g\n'},
        [("1", "", "a"), ("5", "", "g")],
        {"on_bad": "skip"},
    ),
    Cell(
        "csv: Latin-1 is replaced",
        {"c.csv": b"id,text\n4,caf\xe9\n"},
        [("4", "", "caf\ufffd")],
        {"encoding_errors": "replace"},
    ),
    Cell("tsv: csv.writer", {"c.tsv": _csv(_TABLE, delimiter="\t")}, _TABLE_DOCUMENTS),
    Cell(
        "tsv: csv.writer, everything in quotes",
        {"c.tsv": _csv([["id", "text"], ["1", "a"]], delimiter="\t", quoting=csv.QUOTE_ALL)},
        [("1", "", "a")],
    ),
    Cell(
        "tsv: Wikipedia passages (DPR), with a header",
        {"psgs.tsv": b"id\ttext\ttitle\n" + _QUOTED},
        [
            ("1", "Aaron", 'Aaron ("Ahar\u00f4n") is a prophet'),
            ("2", "Aaron", "God"),
        ],
    ),
    Cell(
        "tsv: Wikipedia passages (DPR), without one",
        {"psgs.tsv": _QUOTED},
        Refused(r"which of the 3 columns are id and text: set corpus\.fields\.id=1 corpus"),
    ),
    Cell(
        "tsv: quotes that belong to the text",
        {"collection.tsv": b'0\tThe "Manhattan" Project\n1\t"Begin" and "end"\n2\t"a"\n'},
        [("0", "", 'The "Manhattan" Project'), ("1", "", '"Begin" and "end"'), ("2", "", '"a"')],
    ),
    Cell(
        "tsv: quotes that may belong to the text",
        {"c.tsv": b'0\tone\n1\t"two"\n'},
        Refused("format=csv takes them off, format=tsv keeps them"),
    ),
    Cell(
        "tsv: quotes that are kept",
        {"c.tsv": b'0\tone\n1\t"two"\n'},
        [("0", "", "one"), ("1", "", '"two"')],
        {"format": "tsv"},
    ),
    Cell(
        "tsv: quotes that are taken off",
        {"c.tsv": b'0\tone\n1\t"two"\n'},
        [("0", "", "one"), ("1", "", "two")],
        {"format": "csv"},
    ),
    Cell("tsv: a header in capitals", {"c.tsv": b"Text\tDocID\nx\t1\n"}, [("1", "", "x")]),
    Cell(
        "tsv: a header of which one name is known",
        {"c.tsv": b"id\tpassage_text\n1\tx\n"},
        Refused(r"line 1: .*corpus\.fields\.id=id corpus\.fields\.text=passage_text if this line"),
    ),
    Cell(
        "tsv: a header of which no name is known",
        {"c.tsv": b"number\twords\n1\tx\n2\ty\n"},
        Refused(r"corpus\.fields\.text=words if this line names them, or corpus\.fields\.id=1"),
    ),
    Cell(
        "tsv: a header with own names",
        {"c.tsv": b"number\twords\n1\tx\n2\ty\n"},
        [("1", "", "x"), ("2", "", "y")],
        {"fields": {"id": "number", "text": "words"}},
    ),
    Cell(
        "tsv: what looks like a header is none",
        {"c.tsv": b"number\twords\n1\tx\n"},
        [("number", "", "words"), ("1", "", "x")],
        {"fields": {"id": "1", "text": "2"}},
    ),
    Cell(
        "tsv: MS MARCO documents",
        {"msmarco-docs.tsv": b"D1\thttps://x/y\ttitle\tbody\nD2\thttp://z\t\tb2\n"},
        [("D1", "title", "body"), ("D2", "", "b2")],
    ),
    Cell(
        "tsv: text and id",
        {"c.tsv": b"some words\t1\nother words\t2\n"},
        Refused(r"which of the 2 columns are id and text"),
    ),
    Cell("tsv: one column", {"c.tsv": b"alone\n"}, Refused("columns: an id and a text at least")),
]


def _arrow(table: pa.Table, file: bool = False) -> bytes:
    sink = pa.BufferOutputStream()
    with (pa.ipc.new_file if file else pa.ipc.new_stream)(sink, table.schema) as out:
        out.write_table(table, max_chunksize=2)
    return sink.getvalue().to_pybytes()


def _saved(*splits: str) -> dict[str, bytes]:
    """Returns what the package datasets saves."""
    import datasets

    columns = {"id": [1, 2, 3], "title": ["a", None, "c"], "text": ["x", "y", "z"]}
    data = datasets.Dataset.from_dict(columns).select([2, 0, 1])
    with tempfile.TemporaryDirectory() as folder:
        whole = datasets.DatasetDict({split: data for split in splits}) if splits else data
        whole.save_to_disk(folder)
        paths = [path for path in Path(folder).rglob("*") if path.is_file()]
        return {f"d/{path.relative_to(folder)}": path.read_bytes() for path in paths}


_COLUMNS = pa.table(
    {"id": [1, 2, 3], "title": ["a", None, "c"], "text": [["x"], ["y", "yy"], []], "n": [1, 2, 3]}
)
_COLUMNS_ROWS = [("1", "a", "x"), ("2", "", "y\nyy"), ("3", "c", "")]
_SAVED_ROWS = [("3", "c", "z"), ("1", "a", "x"), ("2", "", "y")]


_WILD = pa.Array.from_buffers(
    pa.string(),
    2,
    [None, pa.py_buffer(struct.pack("<3i", 0, 1 << 30, 2)), pa.py_buffer(b"ab")],
)


def parquet(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    return sink.getvalue().to_pybytes()


ARROW = [
    Cell("parquet: lists of texts", {"c.parquet": parquet(_COLUMNS)}, _COLUMNS_ROWS),
    Cell("arrow: a stream", {"c.arrow": _arrow(_COLUMNS)}, _COLUMNS_ROWS),
    Cell("arrow: a file without suffix", {"c": _arrow(_COLUMNS, file=True)}, _COLUMNS_ROWS),
    Cell("arrow: cut off", {"c.arrow": _arrow(_COLUMNS)[:-90]}, Refused("damaged")),
    Cell(
        "arrow: offsets outside of the data",
        {"c.arrow": _arrow(pa.table({"id": ["1", "2"], "text": _WILD}))},
        Refused("this Arrow file is damaged"),
    ),
    Cell(
        "csv: JSON lines by another name",
        {"c.jsonl": b'{"id": "1", "text": "heron, fish"}\n{"id": "2", "text": "a, b"}\n'},
        Refused("its first line is a JSON object, not a row of a table.*format=jsonl"),
        {"format": "csv"},
    ),
    Cell(
        "tsv: JSON lines by another name",
        {"c.tsv": b'{"id": "1",\t"text": "heron"}\n'},
        Refused("its first line is a JSON object"),
    ),
    Cell(
        "csv: one column",
        {"c.csv": b"a\nb\n"},
        Refused("c.csv"),
    ),
    Cell("arrow: something else", {"c.arrow": b"nothing"}, Refused("not an Arrow file")),
    Cell("datasets: save_to_disk", _saved, _SAVED_ROWS, path="d"),
    Cell(
        "datasets: a split of several", partial(_saved, "train", "test"), _SAVED_ROWS, path="d/test"
    ),
    Cell("datasets: the only split", partial(_saved, "train"), _SAVED_ROWS, path="d"),
    Cell(
        "datasets: several splits",
        partial(_saved, "train", "test"),
        Refused("choose one of .*/d/train, .*/d/test"),
        path="d",
    ),
    Cell(
        "parquet: no document has a title",
        {"c.parquet": parquet(pa.table({"id": ["1"], "title": [None], "text": ["a"]}))},
        [("1", "", "a")],
    ),
    Cell(
        "parquet: two ids",
        {"c.parquet": parquet(pa.table({"id": [1], "docno": ["a"], "text": ["x"]}))},
        Refused("more than one field could be the id: id, docno; choose with corpus"),
    ),
]
