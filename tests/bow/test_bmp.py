"""Export for Block-Max Pruning: upstream's own bytes, and a reader of the format's definition."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raydist.bow.exchange import bmp
from raydist.bow.exchange.bmp import export_bmp, quantise
from raydist.bow.exchange.fst import build_fst
from raydist.bow.index import BowIndex
from raydist.bow.search.retriever import BowRetriever
from raydist.errors import ConfigError, DataError
from tests.bow.small_index import index_of, lucene_scores

# SHA-256 of what ciff2bmp of bmp 0.2.8 wrote for `recorded()`, by (block size, compress_range).
UPSTREAM = {
    (32, True): "251246a0361d49fd2e94571cb5da67f02dd59475c7ca69bf5a4830589ca27f8a",
    (32, False): "d4e211677da7d237330b687982ef80a5e0fb549724527a9cba8e2050c1939b9f",
    (8, True): "01c9710338258c90c8722658c69190d8a85db584b70fac9d72d3bf7ce19051fd",
}


def recorded(folder: Path) -> BowIndex:
    """Documents of a fixed rule, some long, whose largest frequency is 255."""
    words = [f"{chr(97 + i % 26)}{'xyz'[i % 3] * (i % 4)}{i}" for i in range(300)]
    words += [chr(i) for i in range(33, 127)]
    rows = [
        [words[(i * i + 7 * i * j + j) % len(words)] for j in range(i % 23)] for i in range(500)
    ]
    rows[77] = ["word"] * 255
    index = index_of(rows, folder)
    index.unit = 1.0  # frequencies are the impacts
    return index


@pytest.mark.parametrize(("block_size", "compress_range"), list(UPSTREAM))
def test_the_bytes_are_upstreams(tmp_path: Path, block_size: int, compress_range: bool) -> None:
    out = tmp_path / "out.bmp"
    export_bmp(recorded(tmp_path / "in"), out, block_size=block_size, compress_range=compress_range)
    assert hashlib.sha256(out.read_bytes()).hexdigest() == UPSTREAM[block_size, compress_range]


class Reader:
    """Reads bincode."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def take(self, form: str) -> Any:
        size = struct.calcsize("<" + form)
        self.at += size
        values = struct.unpack("<" + form, self.data[self.at - size : self.at])
        return values[0] if len(values) == 1 else values

    def bytes(self) -> bytes:
        size = self.take("Q")
        self.at += size
        return self.data[self.at - size : self.at]


def lookup(fst: bytes, key: bytes) -> int | None:
    """Follows a key through the map, by the format's definition."""
    address, total = struct.unpack("<Q", fst[-12:-4])[0], 0
    for byte in key:
        _, arcs = node(fst, address)
        if byte not in arcs:
            return None
        output, address = arcs[byte]
        total += output
    final, _ = node(fst, address)
    return total if final else None


def node(fst: bytes, address: int) -> tuple[bool, dict[int, tuple[int, int]]]:
    """Returns whether a key may end at a node, and its arcs: byte -> (output, address)."""
    if address == 0:
        return True, {}
    common = b"te/oasripcnw.hlm-du012g=:bf3y5&_4v9678k%?xCDASFIBEjPTzRNM+LOqH"
    state, at = fst[address], address
    if state >> 6 in (2, 3):
        byte = common[(state & 63) - 1] if state & 63 else fst[at - 1]
        at -= 0 if state & 63 else 1
        if state >> 6 == 3:
            return False, {byte: (0, at - 1)}
        far, wide = fst[at - 1] >> 4, fst[at - 1] & 15
        begin = at - 1 - far - wide
        output = int.from_bytes(fst[begin : begin + wide], "little")
        delta = int.from_bytes(fst[begin + wide : begin + wide + far], "little")
        return False, {byte: (output, begin - delta if delta else 0)}
    final, count = bool(state & 64), state & 63
    if not count:
        at -= 1
        count = 256 if fst[at] == 1 else fst[at]
    at -= 1
    far, wide = fst[at] >> 4, fst[at] & 15
    at -= 256 if count > 32 else 0
    letters = fst[at - count : at][::-1]
    at -= count
    deltas = [
        int.from_bytes(fst[at - far * (i + 1) : at - far * i], "little") for i in range(count)
    ]
    at -= far * count
    outputs = [
        int.from_bytes(fst[at - wide * (i + 1) : at - wide * i], "little") for i in range(count)
    ]
    begin = at - wide * count - (wide if final else 0)
    targets = [begin - delta if delta else 0 for delta in deltas]
    return final, dict(zip(letters, zip(outputs, targets)))


@settings(max_examples=60, deadline=None)
@given(
    st.sets(st.binary(min_size=1, max_size=5), min_size=1, max_size=400)
    | st.sets(st.text("abé", min_size=1, max_size=9).map(str.encode), min_size=1, max_size=400)
)
def test_the_map_finds_every_term_and_no_other(strings: set[bytes]) -> None:
    ordered = sorted(strings)
    fst = build_fst(ordered)
    assert [lookup(fst, string) for string in ordered] == list(range(len(ordered)))
    for other in [b"", ordered[0] + b"\x00", ordered[-1][:-1], b"zzzzzzz"]:
        assert (lookup(fst, other) is not None) == (other in strings)


def contents(path: Path, terms: Sequence[str]) -> dict[str, Any]:
    reader = Reader(path.read_bytes())
    documents, maxima, kths = reader.take("Q"), [], []
    for _ in range(reader.take("Q")):
        if reader.take("I"):
            maxima.append(dict(enumerate(reader.bytes())))
        else:
            pairs = {}
            for group in range(reader.take("Q")):
                for _ in range(reader.take("Q")):
                    block, top = reader.take("QB")
                    pairs[group * 256 + block] = top
            maxima.append(pairs)
        kths.append(list(reader.bytes()))
    fst = reader.bytes()
    numbers = [lookup(fst, term.encode()) for term in terms]
    ids = [reader.bytes().decode() for _ in range(reader.take("Q"))]
    postings: dict[tuple[int, int], int] = {}
    blocks = reader.take("Q")
    raw = []
    for block in range(blocks):
        for _ in range(reader.take("Q")):
            term = reader.take("H")
            for _ in range(reader.take("Q")):
                raw.append((block, term, *reader.take("BB")))
    size = reader.take("Q")
    assert reader.at == len(reader.data)
    postings = {(term, block * size + doc): impact for block, term, doc, impact in raw}
    assert len(postings) == len(raw)
    return {
        "documents": documents,
        "maxima": maxima,
        "kths": kths,
        "numbers": numbers,
        "ids": ids,
        "postings": postings,
    }


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.lists(st.sampled_from("abcdef"), max_size=30), min_size=1, max_size=600),
    st.sampled_from([1, 8, 32, 256]),
    st.booleans(),
)
def test_impacts_are_bm25_in_8_bits_and_maxima_hold(
    tmp_path_factory: pytest.TempPathFactory,
    rows: list[list[str]],
    block_size: int,
    compress_range: bool,
) -> None:
    words = sorted({word for row in rows for word in row})
    if not words:
        return
    folder = tmp_path_factory.mktemp("bmp")
    index = index_of(rows, folder / "in", cuts=[len(rows) // 2] if len(rows) > 1 else [])
    facts = export_bmp(index, folder / "x", block_size=block_size, compress_range=compress_range)
    export = contents(folder / "x", words)
    assert export["numbers"] == list(range(len(words)))
    assert export["ids"] == index.doc_ids.to_pylist()
    exact = {
        (number, doc): score
        for number, word in enumerate(words)
        for doc, score in lucene_scores(rows, {word: 1}).items()
    }
    levels = quantise(np.array(list(exact.values()))).tolist()
    assert export["postings"] == dict(zip(exact, levels))
    assert facts["postings"] == len(exact)
    for number in range(len(words)):
        own = {doc: level for (n, doc), level in export["postings"].items() if n == number}
        tops: dict[int, int] = {}
        for doc, level in own.items():
            tops[doc // block_size] = max(tops.get(doc // block_size, 0), level)
        assert {k: v for k, v in export["maxima"][number].items() if v} == tops
        ordered = [*sorted(own.values(), reverse=True), *[0] * 1000]
        assert export["kths"][number] == [ordered[9], ordered[99], ordered[999]]


def test_too_many_terms_are_refused_pruned_or_chosen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = index_of([["a", "b", "c"], ["a", "b"], ["c"], ["d"]], tmp_path / "in")
    monkeypatch.setattr(bmp, "MOST_TERMS", 3)
    with pytest.raises(DataError, match="4 terms"):
        export_bmp(index, tmp_path / "x")
    facts = export_bmp(index, tmp_path / "x", too_many="prune")
    assert (facts["terms"], facts["terms_left_out"], facts["postings_left_out"]) == (3, 1, 1)
    assert contents(tmp_path / "x", "abcd")["numbers"] == [0, 1, 2, None]
    facts = export_bmp(index, tmp_path / "x", terms=["d", "b", "unknown"])
    assert contents(tmp_path / "x", "abcd")["numbers"] == [None, 0, None, 1]
    with pytest.raises(DataError, match="nothing to export"):
        export_bmp(index, tmp_path / "x", terms=["unknown"])
    with pytest.raises(ConfigError, match="block_size = 257"):
        export_bmp(index, tmp_path / "x", block_size=257)
    with pytest.raises(ConfigError, match="too_many"):
        export_bmp(index, tmp_path / "x", too_many="ignore")


def test_bmp_itself_finds_what_an_exhaustive_search_finds(tmp_path: Path) -> None:
    program = pytest.importorskip("bmp")
    rng = np.random.default_rng(1)
    words = [f"w{i}" for i in range(50)]
    rows = [list(rng.choice(words, rng.integers(1, 20))) for _ in range(3000)]
    index = index_of(rows, tmp_path / "in")
    export_bmp(index, tmp_path / "x")
    searcher = program.Searcher(str(tmp_path / "x"))
    for word in words:  # it loses candidates at its threshold, but what it finds is good
        ids, _ = searcher.search({word: 1}, k=10, alpha=1.0, beta=1.0)
        docs, scores = BowRetriever(index).rank_terms({word: 1}, 3000)
        close = docs[scores > 0.97 * scores[9]]
        assert ids and set(ids) <= set(index.pick_ids(close).to_pylist())
