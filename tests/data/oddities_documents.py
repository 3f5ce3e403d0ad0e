"""Documents and queries as they lie on people's disks.

What is expected was computed with Python's csv, json, gzip, lzma and html, with ir_datasets, or is
written down from the rules of the collections' owners: for TREC those of Anserini's TrecCollection
(the elements TEXT, HEADLINE, TITLE, HL, HEAD, TTL, DD, DATE, LP, LEADPARA) and TrecwebCollection
(what follows DOCHDR, without scripts and styles).
"""

from __future__ import annotations

import bz2
import codecs
import gzip
import lzma

import pyarrow as pa

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

DOCUMENTS = [*COMPRESSION, *TREC]

QUERIES = [
    Cell("queries: jsonl of BEIR", {"q.jsonl": b'{"_id": "1", "text": "a"}'}, [("1", "a")]),
]
