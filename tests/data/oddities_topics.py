"""Topic files with what real ones have; the values are by the tracks' and XML's own rules."""

from __future__ import annotations

from tests.data.oddities import Cell, Refused

Expected = list[tuple[str, str]] | str

SGML = b"""<top>

<num> Number: 301
<title> International Organized
 Crime

<desc> Description:
Identify groups.

<narr> Narrative:
A doc.

</top>
<top>
<num> Number: 302
<title> Poliomyelitis &amp; Post-Polio
<desc> Description:
Is it
</top>
"""

COVID = b"""<?xml version="1.0" encoding="UTF-8"?>
<topics task="COVID" batch="1">
  <topic number="1">
    <query>coronavirus origin</query>
    <question>what is the origin of COVID-19</question>
    <narrative>seeking range of information</narrative>
  </topic>
</topics>
"""

TRIALS = b"""<topics task="2021 TREC Clinical Trials">
  <topic number="1">
Patient is a 45-year-old man with a history of
anaplastic astrocytoma &gt; 2 cm.
  </topic>
  <topic number="2">A 48 M, <b>alcohol</b>ic.</topic>
</topics>
"""

PRECISION = b"""<topics task="2017 TREC Precision Medicine">
  <topic number="1">
    <disease>Liposarcoma</disease>
    <gene>CDK4 Amplification</gene>
    <demographic>38-year-old male</demographic>
    <other>GERD</other>
  </topic>
</topics>
"""

TOUCHE = b"""<topics>
<topic>
<number>1</number>
<title>Should teachers get tenure?</title>
<description>A user has heard.</description>
<narrative>Highly relevant arguments.</narrative>
</topic>
</topics>
"""

WEB = b"""<webtrack2009>
  <topic number="1" type="faceted">
    <query>obama family tree</query>
    <description>Find information.</description>
    <subtopic number="1" type="nav">Find the TIME article.</subtopic>
    <subtopic number="2" type="inf">Where from?</subtopic>
  </topic>
</webtrack2009>
"""

TIPSTER = b"""<top>
<head> Tipster Topic Description
<num> Number:  001
<dom> Domain: International Economics
<title> Topic:  Antitrust Cases Pending
<desc> Description:
Document discusses a pending antitrust case.
<smry> Summary:
A case.
<con> Concept(s):
1. antitrust suit
</top>
"""


def _one(inside: str, attributes: str = ' number="1"', encoding: str = "utf-8") -> bytes:
    return f"<topics><topic{attributes}>{inside}</topic></topics>".encode(encoding)


def _open(title: str) -> bytes:
    """Returns a topic that is not XML."""
    return f"<top><num>1<title>{title}\n<desc>d</top>".encode()


# name -> (content, fields.text, the queries or the error)
_CASES: dict[str, tuple[bytes, str | None, Expected]] = {
    "classic": (
        SGML,
        None,
        [("301", "International Organized Crime"), ("302", "Poliomyelitis & Post-Polio")],
    ),
    "classic, description": (SGML, "desc", [("301", "Identify groups."), ("302", "Is it")]),
    "classic, long name": (SGML, "description", [("301", "Identify groups."), ("302", "Is it")]),
    "classic, two fields": (
        SGML,
        "title+desc",
        [
            ("301", "International Organized Crime Identify groups."),
            ("302", "Poliomyelitis & Post-Polio Is it"),
        ],
    ),
    "classic, a field that one topic lacks": (SGML, "narr", r"line 14: .*<narr> inside <top>"),
    "classic, a field that none has": (SGML, "con", r"no topic has 'con'; .*title, desc, narr"),
    "classic, Tipster": (TIPSTER, None, [("001", "Antitrust Cases Pending")]),
    "classic, concepts": (TIPSTER, "con", [("001", "1. antitrust suit")]),
    "classic, domain": (TIPSTER, "dom", [("001", "International Economics")]),
    "classic, crlf": (
        SGML.replace(b"\n", b"\r\n"),
        "desc",
        [("301", "Identify groups."), ("302", "Is it")],
    ),
    "classic, byte order mark": (b"\xef\xbb\xbf" + _open("a b"), None, [("1", "a b")]),
    "capitals": (
        b"<TOP><NUM>1</NUM><TITLE>\nMEASUREMENT\n</TITLE></TOP>",
        None,
        [("1", "MEASUREMENT")],
    ),
    "closed and not": (
        b"<top><num>1<title>a</top><top><num>2<title>b</title></top>",
        None,
        [("1", "a"), ("2", "b")],
    ),
    "a topic that does not end": (
        b"<top><num>1<title>a\n<top><num>2<title>b",
        None,
        [("1", "a"), ("2", "b")],
    ),
    "COVID": (COVID, None, [("1", "coronavirus origin")]),
    "COVID, query and question": (
        COVID,
        "query+question",
        [("1", "coronavirus origin what is the origin of COVID-19")],
    ),
    "COVID, title": (COVID, "title", [("1", "coronavirus origin")]),
    "Clinical Trials": (
        TRIALS,
        None,
        [
            ("1", "Patient is a 45-year-old man with a history of anaplastic astrocytoma > 2 cm."),
            ("2", "A 48 M, alcoholic."),
        ],
    ),
    "Precision Medicine": (PRECISION, None, [("1", "Liposarcoma CDK4 Amplification")]),
    "Precision Medicine, all": (
        PRECISION,
        "disease+gene+demographic",
        [("1", "Liposarcoma CDK4 Amplification 38-year-old male")],
    ),
    "Touche": (TOUCHE, None, [("1", "Should teachers get tenure?")]),
    "Web": (WEB, None, [("1", "obama family tree")]),
    "NTCIR": (
        b"<queries><query><qid>0001</qid><content>halloween</content></query></queries>",
        None,
        [("0001", "halloween")],
    ),
    "CDATA": (
        _one("<title><![CDATA[a < b & c <i>d</i>]]> e</title>"),
        None,
        [("1", "a < b & c <i>d</i> e")],
    ),
    "CDATA, open": (_open("<![CDATA[a < b &amp; <i>]]> e"), None, [("1", "a < b &amp; <i> e")]),
    "markup": (_one("<title>a <b>b</b><i>c</i> d<p>e</p>f</title>"), None, [("1", "a bc d e f")]),
    "markup, open": (_open("a <b>b</b><i>c</i> d<p>e</p>f"), None, [("1", "a bc d e f")]),
    "less-than sign": (_open("a < b and x<3 <-- c"), None, [("1", "a < b and x<3 <-- c")]),
    "less-than sign, closed": (_one("<title>a < b</title>"), None, [("1", "a < b")]),
    "ampersand": (_one("<title>AT&T &amp; R&D</title>"), None, [("1", "AT&T & R&D")]),
    "comment": (_one("<title>a <!-- <title>b</title> --> c</title>"), None, [("1", "a c")]),
    "comment, open": (_open("a <!-- <title>b</title> --> c"), None, [("1", "a c")]),
    "a topic in a comment": (
        _one("<title>a</title>") + b"<!-- <top><num>2<title>b</top> -->",
        None,
        [("1", "a")],
    ),
    "entities": (
        _one("<title>&lt;b&gt; &amp;lt; &#233;&#x1F600;</title>"),
        None,
        [("1", "<b> &lt; é😀")],
    ),
    "entities, open": (_open("&lt;b&gt; &amp;lt; &eacute;&#233;"), None, [("1", "<b> &lt; éé")]),
    "single quotes": (_one("<title>a</title>", " number='1'"), None, [("1", "a")]),
    "no quotes": (_one("<title>a</title>", " number=1"), None, [("1", "a")]),
    "an angle in an attribute": (
        _one("<title>a</title>", ' note="x > y" number="1"'),
        None,
        [("1", "a")],
    ),
    "an id as attribute": (_one("<title>a</title>", ' id="1"'), None, [("1", "a")]),
    "a namespace": (
        b'<t:topics xmlns:t="u"><t:topic number="1"><t:title>a</t:title></t:topic></t:topics>',
        None,
        [("1", "a")],
    ),
    "Latin 1": (
        b'<?xml version="1.0" encoding="ISO-8859-1"?>'
        + _one("<title>é</title>", encoding="latin-1"),
        None,
        [("1", "é")],
    ),
    "Latin 1, undeclared": (
        _open("é").decode().encode("latin-1"),
        None,
        r"byte offset 18 \(0xe9\) is not UTF-8",
    ),
    "XML, cut off": (COVID[:-20], None, r"line 7: .*expected XML, as the first line says; fix it"),
    "an entity of its own": (
        b'<!DOCTYPE t [<!ENTITY a "b">]>' + _one("<title>&a;</title>"),
        None,
        "declares entities, which are not read",
    ),
    "an external entity": (
        b'<!DOCTYPE t [<!ENTITY a SYSTEM "file:///etc/hostname">]>' + _one("<title>&a;</title>"),
        None,
        "declares entities, which are not read",
    ),
    "a DTD elsewhere": (
        b'<!DOCTYPE topics SYSTEM "http://localhost:9/x.dtd">' + _one("<title>caf&eacute;</title>"),
        None,
        [("1", "café")],
    ),
    "no number": (_one("<title>a</title>", ""), None, "line 1: 'a': expected <num> inside <top>"),
    "XML in UTF-16": (
        '<?xml version="1.0" encoding="UTF-16"?>\n'.encode("utf-16")
        + _one("<title>caf\u00e9</title>").decode().encode("utf-16-le"),
        None,
        [("1", "caf\u00e9")],
    ),
    "elements of other names": (
        _one("<docid>a</docid><url>b</url>"),
        None,
        "topics have docid, url; expected .*queries.fields.text=docid",
    ),
    "one element of another name": (_one("<keywords>a</keywords>"), None, [("1", "a")]),
    "CLEF": (
        _one("<identifier>10.2452/401-AH</identifier><title>a</title>", ""),
        None,
        [("10.2452/401-AH", "a")],
    ),
    "no text": (_one("<title> </title>"), None, "line 1: '1': expected <title> inside <top>"),
    "a number outside": (
        b"<num>1<title>a</top>\n<top><num>2<title>b</top>",
        None,
        "line 1: '<num>': expected <top> before it",
    ),
    "no topic": (b"<topics></topics>", None, "no <top> or <topic> element"),
}

TOPICS = [
    Cell(
        f"topics: {name}",
        {"topics.txt": content},
        Refused(expected) if isinstance(expected, str) else expected,
        {"fields": {"text": text}} if text else {},
    )
    for name, (content, text, expected) in _CASES.items()
]
