"""Documents as they lie on people's disks: compressed, as JSON, in folders.

What is expected was computed with Python's json, gzip and lzma, with ir_datasets, or is written
down from the rules of the collections' owners.
"""

from __future__ import annotations

import bz2
import codecs
import gzip
import io
import json
import lzma
import tarfile
from typing import Any

import pyarrow as pa

from tests.data.oddities import Cell, Refused
from tests.data.oddities_tables import ARROW, TABLES, parquet
from tests.data.oddities_trec import TREC

ROWS = [("1", "", "one"), ("2", "", "two \u00e9"), ("3", "", "three")]
LINES = "".join(f'{{"id": "{i}", "text": "{text}"}}\n' for i, _, text in ROWS).encode()
HALF = LINES.index(b"\n") + 1


def _zstd(data: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as out:
        out.write(data)
    return sink.getvalue().to_pybytes()


_SKIPPABLE = b"\x50\x2a\x4d\x18\x04\0\0\0abcd"


def _recoded(encoding: str, mark: bytes) -> bytes:
    return mark + LINES.decode().encode(encoding)


def _tar() -> bytes:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w:gz") as archive:
        about = tarfile.TarInfo("collection.tsv")
        about.size = len(LINES)
        archive.addfile(about, io.BytesIO(LINES))
    return sink.getvalue()


COMPRESSION = [
    Cell("gzip: one member", {"c.jsonl.gz": gzip.compress(LINES)}, ROWS),
    Cell("gzip: no suffix says so", {"c.jsonl": gzip.compress(LINES)}, ROWS),
    Cell(
        "gzip: members, the second begins inside a line",
        {"c.jsonl.gz": gzip.compress(LINES[:9]) + gzip.compress(LINES[9:])},
        ROWS,
    ),
    Cell("gzip: zeros after the end", {"c.jsonl.gz": gzip.compress(LINES) + b"\0" * 512}, ROWS),
    Cell(
        "gzip: zeros between members",
        {"c.jsonl.gz": gzip.compress(LINES[:HALF]) + b"\0" * 99 + gzip.compress(LINES[HALF:])},
        ROWS,
    ),
    Cell("gzip: cut off", {"c.jsonl.gz": gzip.compress(LINES)[:-4]}, Refused("truncated")),
    Cell(
        "gzip: a wrong checksum",
        {"c.jsonl.gz": gzip.compress(LINES)[:-8] + b"\1" * 8},
        Refused("gzip data damaged"),
    ),
    Cell("gzip: nothing in it", {"c.jsonl.gz": gzip.compress(b"")}, []),
    Cell("bz2", {"c.jsonl.bz2": bz2.compress(LINES)}, ROWS),
    Cell(
        "bz2: streams (pbzip2)",
        {"c.jsonl.bz2": bz2.compress(LINES[:HALF]) + bz2.compress(LINES[HALF:])},
        ROWS,
    ),
    Cell("bz2: a text that begins with BZh", {"c.tsv": b"BZh1\tone\n"}, [("BZh1", "", "one")]),
    Cell("xz", {"c.jsonl.xz": lzma.compress(LINES)}, ROWS),
    Cell(
        "xz: streams (pixz, xz -T)",
        {"c.jsonl.xz": lzma.compress(LINES[:HALF]) + lzma.compress(LINES[HALF:])},
        ROWS,
    ),
    Cell("xz: cut off", {"c.jsonl.xz": lzma.compress(LINES)[:-9]}, Refused("xz data.*truncated")),
    Cell("zstd", {"c.jsonl.zst": _zstd(LINES)}, ROWS),
    Cell(
        "zstd: skippable frames (pzstd)",
        {"c.jsonl.zst": _SKIPPABLE + _zstd(LINES[:HALF]) + _SKIPPABLE + _zstd(LINES[HALF:])},
        ROWS,
    ),
    Cell("zstd: cut off", {"c.jsonl.zst": _zstd(LINES)[:-3]}, Refused("zstd data.*truncated")),
    Cell("zip", {"c.jsonl.zip": b"PK\x03\x04" + b"\0" * 40}, Refused("this is a zip archive")),
    Cell("tar: packed by gzip", lambda: {"c.tar.gz": _tar()}, Refused("a tar archive inside")),
    Cell("compress", {"ap880212.Z": b"\x1f\x9d\x90" + b"\0" * 9}, Refused(r"compress \(\.Z\)")),
    Cell("UTF-8 with a mark", {"c.jsonl": codecs.BOM_UTF8 + LINES}, ROWS),
    Cell("UTF-8 with a mark in gzip", {"c.jsonl": gzip.compress(codecs.BOM_UTF8 + LINES)}, ROWS),
    Cell("UTF-16LE", {"c.jsonl": _recoded("utf-16-le", codecs.BOM_UTF16_LE)}, ROWS),
    Cell("UTF-16BE", {"c.jsonl": _recoded("utf-16-be", codecs.BOM_UTF16_BE)}, ROWS),
    Cell("UTF-16LE without a mark", {"c.jsonl": _recoded("utf-16-le", b"")}, ROWS),
    Cell("UTF-16BE without a mark", {"c.jsonl": _recoded("utf-16-be", b"")}, ROWS),
    Cell(
        "UTF-16 without a mark in gzip: a table",
        {"c.tsv": gzip.compress("1\tone \u4e00\r\n".encode("utf-16-le"))},
        [("1", "", "one \u4e00")],
    ),
    Cell("UTF-32LE", {"c.jsonl": _recoded("utf-32-le", codecs.BOM_UTF32_LE)}, ROWS),
    Cell("UTF-32BE", {"c.jsonl": _recoded("utf-32-be", codecs.BOM_UTF32_BE)}, ROWS),
    Cell(
        "UTF-16 in gzip",
        {"c.jsonl.gz": gzip.compress(_recoded("utf-16-le", codecs.BOM_UTF16_LE))},
        ROWS,
    ),
    Cell(
        "UTF-16 cut inside a character",
        {"c.jsonl": _recoded("utf-16-le", codecs.BOM_UTF16_LE)[:-1]},
        Refused("utf-16"),
    ),
    Cell(
        "UTF-16: a tab-separated file of Excel",
        {"c.txt": "id\ttext\r\n1\tone \U0001f40d\r\n".encode("utf-16")},
        [("1", "", "one \U0001f40d")],
    ),
]

_OBJECTS: list[dict[str, Any]] = [
    {"id": "1", "title": "a title", "text": 'quoted "words", a\ttab'},
    {"id": 2, "text": "two\nlines and {braces} [too]", "more": {"id": "not this", "list": [{}]}},
    {"id": "3", "title": None, "text": "\u00e9 \U0001f40d"},
]
_OBJECT_ROWS = [(str(each["id"]), each.get("title") or "", each["text"]) for each in _OBJECTS]
_PRETTY = "\n".join(json.dumps(each, indent=2) for each in _OBJECTS).encode()
_V2 = (
    b'{"pid": "msmarco_passage_00_%d", "passage": "p%d", "spans": "(0,2)", '
    b'"docid": "msmarco_doc_00_0"}\n'
)

JSON = [
    Cell("json: an array on one line", {"c.json": json.dumps(_OBJECTS).encode()}, _OBJECT_ROWS),
    Cell(
        "json: a printed array",
        {"c.json": json.dumps(_OBJECTS, indent=4, ensure_ascii=False).encode()},
        _OBJECT_ROWS,
    ),
    Cell("json: no suffix", {"c": b"\n " + json.dumps(_OBJECTS).encode()}, _OBJECT_ROWS),
    Cell("json: printed objects", {"c.json": _PRETTY}, _OBJECT_ROWS),
    Cell(
        "json: one printed document a file",
        lambda: {f"c/{i}.json": json.dumps(o, indent=1).encode() for i, o in enumerate(_OBJECTS)},
        _OBJECT_ROWS,
        path="c",
    ),
    Cell(
        "json: lines under the name .json",
        {"c.json": b"\n".join(json.dumps(each).encode() for each in _OBJECTS)},
        _OBJECT_ROWS,
    ),
    Cell("json: an array in gzip", {"c.json.gz": gzip.compress(_PRETTY)}, _OBJECT_ROWS),
    Cell("json: an empty array", {"c.json": b"[ ]\n"}, []),
    Cell(
        "json: a printed object longer than what is looked at first",
        {"c.json": json.dumps({"id": "1", "text": "x" * 90_000}, indent=1).encode()},
        [("1", "", "x" * 90_000)],
    ),
    Cell(
        "json: an array of more than one block",
        lambda: {
            "c.json": json.dumps([{"id": i, "text": "y" * 2000} for i in range(3000)]).encode()
        },
        lambda: [(str(i), "", "y" * 2000) for i in range(3000)],
    ),
    Cell(
        "json: a bad object is named by its line",
        {"c.json": b'[\n{"id": "1", "text": "a"},\n{"id": "2"},\n{"id": "3", "text": "c"}]'},
        Refused("line 3: .*the field 'text'"),
    ),
    Cell(
        "json: a bad object is skipped",
        {"c.json": b'[\n{"id": "1", "text": "a"},\n7, {"id": "2"},\n{"id": "3", "text": "c"}]'},
        [("1", "", "a"), ("3", "", "c")],
        {"on_bad": "skip"},
    ),
    Cell(
        "json: an array without end",
        {"c.json": b'[{"id": "1", "text": "a"}\n'},
        Refused("line 2: .*] before the file ends"),
    ),
    Cell(
        "json: a comma is missing",
        {"c.json": b'[{"id": "1", "text": "a"}\n{"id": "2", "text": "b"}]'},
        Refused("line 2: .*a comma or ]"),
    ),
    Cell(
        "json: an object is cut",
        {"c.json": b'[{"id": "1", "text": "a"},\n{"id": "2", "te'},
        Refused("line 2: .*a JSON object or array"),
    ),
    Cell(
        "json: Latin-1",
        {"c.json": b'[{"id": "1", "text": "caf\xe9"}]'},
        Refused("0xe9.*encoding_errors=replace"),
    ),
    Cell(
        "json: documents below another name",
        {"c.json": b'{"version": 1,\n "data": [{"id": "1", "text": "a"}]}'},
        Refused(r"no field for the id.*version, data.*fields\.id"),
    ),
    Cell(
        "jsonl: lists of texts",
        {"c.jsonl": b'{"id": 1, "title": ["a", "b"], "text": ["one", "two"]}\n' * 2},
        [("1", "a b", "one\ntwo")] * 2,
    ),
    Cell(
        "jsonl: lists and texts mixed",
        {"c.jsonl": b'{"id": 1, "text": ["one", "two"]}\n{"id": 2, "text": "x"}\n' * 50},
        [("1", "", "one\ntwo"), ("2", "", "x")] * 50,
    ),
    Cell(
        "jsonl: an object as text",
        {"c.jsonl": b'{"id": 1, "text": {}}\n'},
        Refused("a string as 'text', not an object"),
    ),
    Cell(
        "jsonl: MS MARCO v2 passages",
        {"msmarco_passage_00.jsonl": b"".join(_V2 % (i, i) for i in range(3))},
        [(f"msmarco_passage_00_{i}", "", f"p{i}") for i in range(3)],
    ),
    Cell(
        "jsonl: MS MARCO v2 documents",
        {
            "msmarco_doc_00.jsonl": b'{"url": "http://x", "title": "t", "headings": "h", '
            b'"body": "b", "docid": "msmarco_doc_00_0"}'
        },
        [("msmarco_doc_00_0", "t", "b")],
    ),
    Cell(
        "jsonl: MS MARCO v2.1 segments",
        {
            "segments.json": b'{"docid": "msmarco_v2.1_doc_00_0#0_0", "url": "u", "title": "t", '
            b'"headings": "h", "segment": "s", "start_char": 0, "end_char": 1}\n'
        },
        [("msmarco_v2.1_doc_00_0#0_0", "t", "s")],
    ),
    Cell(
        "jsonl: BEIR",
        {"corpus.jsonl": b'{"_id": "1", "title": "t", "text": "x", "metadata": {"id": "no"}}'},
        [("1", "t", "x")],
    ),
    Cell(
        "jsonl: Pyserini, with the id of the document",
        {"c.jsonl": b'{"id": "d1#0", "docid": "d1", "contents": "x"}'},
        [("d1#0", "", "x")],
    ),
    Cell(
        "jsonl: two ids that differ",
        {"c.jsonl": b'{"id": 0, "docno": "FT-1", "text": "x"}\n'},
        Refused(r"id \('0'\), docno \('FT-1'\); choose with corpus\.fields\.id=id or corpus"),
    ),
    Cell(
        "jsonl: two ids of which one is chosen",
        {"c.jsonl": b'{"id": 0, "docno": "FT-1", "text": "x"}\n'},
        [("FT-1", "", "x")],
        {"fields": {"id": "docno"}},
    ),
    Cell(
        "jsonl: two ids that are the same",
        {
            "c.jsonl": b'{"id": "7", "docid": "7", "text": "x"}\n'
            b'{"id": "8", "docid": "8", "text": ""}'
        },
        [("7", "", "x"), ("8", "", "")],
    ),
    Cell(
        "jsonl: lines end with CR LF, some are blank",
        {"c.jsonl": b'\r\n{"id": "1", "text": "a"}\r\n\r\n{"id": "2", "text": "b"}\r\n'},
        [("1", "", "a"), ("2", "", "b")],
    ),
]

_SHARDS = {
    f"d/data/{split}-0000{i}-of-00002.parquet": parquet(pa.table({"id": [i], "text": [split]}))
    for split in ("train", "test")
    for i in range(2)
}

FOLDERS = [
    Cell(
        "folder: splits of the Hugging Face Hub",
        _SHARDS,
        Refused("choose one of .*/d/data/test\\*, .*/d/data/train\\*"),
        path="d",
    ),
    Cell(
        "folder: one split of them",
        _SHARDS,
        [("0", "", "test"), ("1", "", "test")],
        path="d/data/test-*",
    ),
    *(
        Cell(
            f"something else: {name}",
            {"c": data},
            Refused("set format= to one of .*, or write it as jsonl: an object with id and text"),
        )
        for name, data in (
            ("SMART", b".I 1\n.T\n18 Editions\n.W\nThe present\n"),
            ("XML", b"<?xml version='1.0'?><PubmedArticleSet><PMID>1</PMID></PubmedArticleSet>"),
            ("WARC", b"WARC/1.0\r\nWARC-Type: warcinfo\r\n"),
            ("a page", b"<html><body>x</body></html>"),
        )
    ),
    Cell("something else", {"c": b"\0\1\2\3"}, Refused("neither text .* nor Parquet nor Arrow")),
]

DOCUMENTS = [*FOLDERS, *COMPRESSION, *TREC, *JSON, *TABLES, *ARROW]
