"""TREC documents as they lie on people's disks.

What is expected is written down from the rules of Anserini's TrecCollection (the elements TEXT,
HEADLINE, TITLE, HL, HEAD, TTL, DD, DATE, LP, LEADPARA) and TrecwebCollection (what follows DOCHDR,
without scripts and styles).
"""

from __future__ import annotations

from tests.data.oddities import Cell, Refused

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
        "trec: a text inside a text",
        {"c.trec": b"<DOC><DOCNO>1</DOCNO><TEXT>a <TEXT>b</TEXT> c</TEXT></DOC>"},
        [("1", "", "a  b  c")],
    ),
    Cell(
        "trec: a text that is never closed, then others",
        {"c.trec": b"<DOC><DOCNO>1</DOCNO><TEXT>a <TEXT>b</TEXT> x <TEXT>c</TEXT></DOC>"},
        [("1", "", "a  b\nc")],
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
