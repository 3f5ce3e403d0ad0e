"""Documents and queries as they lie on people's disks.

What is expected was computed with Python's csv, json, gzip, lzma and html, or is written down from
the rules of the collection's owners.
"""

from __future__ import annotations

import bz2
import gzip

from tests.data.oddities import Cell, Refused

ROWS = [("1", "", "one"), ("2", "", "two"), ("3", "", "three")]
LINES = b"".join(b'{"id": "%s", "text": "%s"}\n' % (i.encode(), t.encode()) for i, _, t in ROWS)

COMPRESSION = [
    Cell("gzip: one member", {"c.jsonl.gz": gzip.compress(LINES)}, ROWS),
    Cell("gzip: no suffix says so", {"c.jsonl": gzip.compress(LINES)}, ROWS),
    Cell("bz2", {"c.jsonl.bz2": bz2.compress(LINES)}, ROWS),
    Cell("gzip: cut off", {"c.jsonl.gz": gzip.compress(LINES)[:-4]}, Refused("truncated")),
]

DOCUMENTS = [*COMPRESSION]

QUERIES = [
    Cell("queries: jsonl of BEIR", {"q.jsonl": b'{"_id": "1", "text": "a"}'}, [("1", "a")]),
]
