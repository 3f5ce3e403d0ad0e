"""Documents and queries as they lie on people's disks.

What is expected was computed with Python's csv, json, gzip, lzma and html, with ir_datasets, or is
written down from the rules of the collections' owners: for TREC those of Anserini's TrecCollection
(the elements TEXT, HEADLINE, TITLE, HL, HEAD, TTL, DD, DATE, LP, LEADPARA) and TrecwebCollection
(what follows DOCHDR, without scripts and styles).
"""

from __future__ import annotations

import bz2
import codecs
import csv
import gzip
import io
import json
import lzma
import struct
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tests.data.oddities import Cell, Refused

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

_FT = b"""<DOC>
<DOCNO>FT911-3</DOCNO>
<PROFILE>_AN-BEOA7AAIFT</PROFILE>
<DATE>910514
</DATE>
<HEADLINE>
FT 14 MAY 91 / Contigas
</HEADLINE>
<TEXT>
CONTIGAS, the German gas group.
</TEXT>
<PUB>The Financial Times</PUB>
</DOC>
"""
_WSJ = b"""<DOC>
<DOCNO> WSJ870324-0001 </DOCNO>
<HL> John Blair Is Near Accord </HL>
<DD> 03/24/87</DD>
<SO> WALL STREET JOURNAL (J)</SO>
<LP>
A lead paragraph.
</LP>
<DATELINE> NEW YORK </DATELINE>
<TEXT>
The text.
</TEXT>
</DOC>
"""
_AP = b"""<DOC>
<DOCNO> AP880212-0001 </DOCNO>
<FILEID>AP-NR-02-12-88 2344EST</FILEID>
<FIRST>u i AM-Vietnam 02-12</FIRST>
<HEAD>Reports Former Officials Released</HEAD>
<HEAD>Eds: adds detail</HEAD>
<DATELINE>BANGKOK, Thailand (AP) </DATELINE>
<TEXT>
   More than 150 officers.
</TEXT>
<TEXT>
   A second take.
</TEXT>
</DOC>
"""
_SJMN = b"""<DOC>
<DOCNO> SJMN91-06364022 </DOCNO>
<ACCESS> 06364022 </ACCESS>
<LEADPARA>  The lead.
</LEADPARA>
<TEXT>  The rest.
</TEXT>
</DOC>
"""
_GOV = b"""<DOC>
<DOCNO>GX000-00-0000000</DOCNO>
<DOCHDR>
http://example.gov/page
HTTP/1.1 200 OK
Server: Secret/1.0
</DOCHDR>
<!DOCTYPE html>
<html><head><title>A &amp; B</title>
<script>if (a < b) { document.write("<p>script</p>") }</script>
<style>p { color: red }</style></head>
<body class="x > y"><!-- a <b>comment</b> --><p>caf&eacute; 1 &lt; 2<br>end</p></body></html>
</DOC>
"""


TREC_FILES = (_FT, _SJMN, _WSJ.replace(b"DATELINE", b"PLACE"))
"""Documents without DATELINE, which Anserini does not index."""

TREC = [
    Cell(
        "trec: date, headline and text (FT)",
        {"ft911_1": _FT},
        [("FT911-3", "FT 14 MAY 91 / Contigas", "910514\nCONTIGAS, the German gas group.")],
    ),
    Cell(
        "trec: lead paragraph and dates (WSJ)",
        {"wsj7_001": _WSJ},
        [
            (
                "WSJ870324-0001",
                "John Blair Is Near Accord",
                "03/24/87\nA lead paragraph.\nNEW YORK\nThe text.",
            )
        ],
    ),
    Cell(
        "trec: several heads and texts (AP)",
        {"ap880212": _AP},
        [
            (
                "AP880212-0001",
                "Reports Former Officials Released",
                "Eds: adds detail\nBANGKOK, Thailand (AP)\nMore than 150 officers.\nA second take.",
            )
        ],
    ),
    Cell(
        "trec: LEADPARA (SJMN)",
        {"sjm_001": _SJMN},
        [("SJMN91-06364022", "", "The lead.\nThe rest.")],
    ),
    Cell(
        "trec: a web page (GOV2)",
        {"00": _GOV},
        [("GX000-00-0000000", "A & B", "caf\u00e9 1 < 2 end")],
    ),
    Cell(
        "trec: a page without DOCHDR",
        {"c.trec": b"<DOC><DOCNO>1</DOCNO><URL>http://x</URL><html><title>T</title><p>b</p></DOC>"},
        [("1", "T", "b")],
    ),
    Cell(
        "trec: a URL beside the text",
        {"c.trec": b"<DOC><DOCNO>1</DOCNO><URL>http://x</URL>body</DOC>"},
        [("1", "", "body")],
    ),
    *(
        Cell(
            f"trec: {opened.decode()}",
            {"c.trec": opened + b"<docno>1</docno>one" + closed + b"\n"},
            [("1", "", "one")],
        )
        for opened, closed in (
            (b"<DOC id=7>", b"</DOC>"),
            (b"<DOC id=\"FT-7\" type='story'>", b"</DOC>"),
            (b"<Doc>", b"</Doc>"),
            (b"<DOC >", b"</DOC >"),
            (b"<DOC\n>", b"</DOC\n>"),
            (b"<doc>", b"</DOC>"),
        )
    ),
    Cell(
        "trec: spellings mixed",
        {
            "c": b"<DOC><DOCNO>1</DOCNO>a</DOC><doc><docno>2</docno>b</doc>"
            b"<Doc><DocNo>3</DocNo>c</Doc>"
        },
        [("1", "", "a"), ("2", "", "b"), ("3", "", "c")],
    ),
    Cell(
        "trec: lines end with CR LF",
        {"c": _FT.replace(b"\n", b"\r\n")},
        [("FT911-3", "FT 14 MAY 91 / Contigas", "910514\nCONTIGAS, the German gas group.")],
    ),
    Cell(
        "trec: entities and CDATA",
        {
            "c": b"<DOC><DOCNO>1</DOCNO><TEXT>R&amp;D &#233; &lt;b&gt; &unknown; "
            b"<![CDATA[x < y & z]]></TEXT></DOC>"
        },
        [("1", "", "R&D \u00e9 <b> &unknown; x < y & z")],
    ),
    Cell(
        "trec: comments inside and around, a root element",
        {
            "c.trec": b"<?xml version='1.0'?>\n<!-- a list -->\n<DOCS>\n<DOC><DOCNO>1</DOCNO>"
            b"<TEXT>a<!-- <TEXT>not</TEXT> -->b</TEXT></DOC>\n</DOCS>\n"
        },
        [("1", "", "a b")],
    ),
    Cell(
        "trec: a document without end",
        {"c.trec": b"<DOC><DOCNO>1</DOCNO>a\n<DOC><DOCNO>2</DOCNO>b</DOC>"},
        Refused("line 1: .*</DOC> before the next <DOC>"),
    ),
    Cell(
        "trec: an end without document",
        {"c.trec": b"<DOC><DOCNO>1</DOCNO>a</DOC>\n</DOC>"},
        Refused("line 2: '</DOC>': expected a <DOC>"),
    ),
    Cell(
        "trec: the last document is cut",
        {"c.trec": b"<DOC><DOCNO>1</DOCNO>a</DOC>\n<DOC><DOCNO>2</DOCNO>b"},
        Refused("line 2: .*</DOC> before the file ends"),
    ),
    Cell(
        "trec: text between documents",
        {"c.trec": b"<DOC><DOCNO>1</DOCNO>a</DOC>\n\nstray text\n<DOC><DOCNO>2</DOCNO>b</DOC>"},
        Refused("line 3: 'stray text.*<DOC> before this text"),
    ),
    Cell(
        "trec: text after the last document",
        {"c.trec": b"<DOC><DOCNO>1</DOCNO>a</DOC>\nrest"},
        Refused("line 2: 'rest'"),
    ),
    Cell(
        "trec: text between documents is skipped if asked",
        {"c.trec": b"<DOC><DOCNO>1</DOCNO>a</DOC>\nstray\n<DOC><DOCNO>2</DOCNO>b</DOC>"},
        [("1", "", "a"), ("2", "", "b")],
        {"on_bad": "skip"},
    ),
    Cell(
        "trec: another element is the record",
        {"c.trec": b"<REC><ID>1</ID>text</REC>\n"},
        Refused("line 1: .*a <DOC> element; this file has none"),
    ),
    Cell(
        "trec: no number",
        {"c.trec": b"\n<DOC><TEXT>a</TEXT></DOC>"},
        Refused("line 2: .*<DOCNO>id</DOCNO> inside <DOC>"),
    ),
    Cell(
        "trec: Latin-1",
        {"c.trec": b"<DOC><DOCNO>1</DOCNO>caf\xe9</DOC>"},
        Refused("0xe9.*encoding_errors=replace"),
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


def _parquet(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    return sink.getvalue().to_pybytes()


ARROW = [
    Cell("parquet: lists of texts", {"c.parquet": _parquet(_COLUMNS)}, _COLUMNS_ROWS),
    Cell("arrow: a stream", {"c.arrow": _arrow(_COLUMNS)}, _COLUMNS_ROWS),
    Cell("arrow: a file without suffix", {"c": _arrow(_COLUMNS, file=True)}, _COLUMNS_ROWS),
    Cell("arrow: cut off", {"c.arrow": _arrow(_COLUMNS)[:-90]}, Refused("damaged")),
    Cell(
        "arrow: offsets outside of the data",
        {"c.arrow": _arrow(pa.table({"id": ["1", "2"], "text": _WILD}))},
        Refused("damaged after row 0"),
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
        {"c.parquet": _parquet(pa.table({"id": ["1"], "title": [None], "text": ["a"]}))},
        [("1", "", "a")],
    ),
    Cell(
        "parquet: two ids",
        {"c.parquet": _parquet(pa.table({"id": [1], "docno": ["a"], "text": ["x"]}))},
        Refused("more than one field could be the id: id, docno; choose with corpus"),
    ),
]

_SHARDS = {
    f"d/data/{split}-0000{i}-of-00002.parquet": _parquet(pa.table({"id": [i], "text": [split]}))
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
    Cell("something else", {"c": b"\0\1\2\3"}, Refused("neither text .* nor Parquet nor Arrow")),
]

DOCUMENTS = [*FOLDERS, *COMPRESSION, *TREC, *JSON, *TABLES, *ARROW]

QUERIES = [
    Cell("queries: jsonl of BEIR", {"q.jsonl": b'{"_id": "1", "text": "a"}'}, [("1", "a")]),
    Cell("queries: a JSON array", {"q.json": b'[{"id": 1, "query": "a"}]'}, [("1", "a")]),
    Cell("queries: tsv", {"q.tsv": b"1\ta b\n2\tc\n"}, [("1", "a b"), ("2", "c")]),
    Cell(
        "queries: three columns",
        {"q.tsv": b"1\ta b\ten\n2\tc\ten\n"},
        Refused(r"which of the 3 columns.*queries\.fields\.id=1 queries\.fields\.text=2"),
    ),
    Cell(
        "queries: three columns with a choice",
        {"q.tsv": b"1\ta b\ten\n2\tc\ten\n"},
        [("1", "a b"), ("2", "c")],
        {"fields": {"id": "1", "text": "2"}},
    ),
    Cell(
        "queries: csv with a header",
        {"q.csv": b'qid,query\n1,"a, b"\n'},
        [("1", "a, b")],
    ),
    Cell(
        "queries: UTF-16",
        {"q.tsv": "1\t\u00fcber\n".encode("utf-16")},
        [("1", "\u00fcber")],
    ),
    Cell(
        "queries: two ids",
        {"q.jsonl": b'{"id": 1, "qid": "a", "text": "x"}'},
        Refused(r"choose with queries\.fields\.id=id or queries\.fields\.id=qid"),
    ),
]
