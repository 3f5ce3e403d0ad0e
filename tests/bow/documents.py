"""Small corpora held in the split descriptors themselves, and a plain-Python index of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa

from raydist.bow.format.segment import Segment
from raydist.records import DOCUMENTS
from raydist.text.analyzer import Analyzer

Row = tuple[str, str, str]  # id, title, text


def splits_of(rows: Sequence[Row], cuts: Iterable[int] = ()) -> list[dict]:
    """Splits of the rows, cut at the given places."""
    places = [0, *sorted(cuts), len(rows)]
    parts = [rows[a:b] for a, b in pairwise(places)]
    return [{"number": i, "rows": [list(row) for row in part]} for i, part in enumerate(parts)]


def read(split, rejects) -> Iterator[pa.Table]:
    rows = split["rows"]
    for start in range(0, len(rows), 3):
        columns = zip(*rows[start : start + 3])
        yield pa.table([pa.array(c, f.type) for c, f in zip(columns, DOCUMENTS)], DOCUMENTS)


def contents(folder: Path) -> dict[str, bytes]:
    """All files below a folder."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def expected(rows: Sequence[Row], analyzer: Analyzer) -> dict[str, list[tuple[int, int]]]:
    """Postings by term, in order: what an index of the rows has to hold."""
    postings: dict[str, list[tuple[int, int]]] = {}
    for doc, (_, title, text) in enumerate(rows):
        for term, tf in Counter(analyzer.tokens(f"{title}\n{text}" if title else text)).items():
            postings.setdefault(term, []).append((doc, tf))
    return dict(sorted(postings.items(), key=lambda item: item[0].encode()))


def postings_of(segments: Sequence[Path]) -> dict[str, list[tuple[int, int]]]:
    """Postings by term of consecutive segments, documents numbered through."""
    postings: dict[str, list[tuple[int, int]]] = {}
    base = 0
    for folder in segments:
        segment = Segment.open(folder)
        terms = [term.decode() for term in segment.terms.to_pylist()]
        assert terms == sorted(terms, key=str.encode)
        indptr, docs, tfs = segment.postings(0, segment.size)
        for t, term in enumerate(terms):
            span = slice(indptr[t], indptr[t + 1])
            pairs = zip((docs[span].astype(np.int64) + base).tolist(), tfs[span].tolist())
            postings.setdefault(term, []).extend(pairs)
        base += segment.documents
    return dict(sorted(postings.items(), key=lambda item: item[0].encode()))
