"""Sparse vectors with statistics like those of learned sparse indexes, of any size.

    python -m benchmarks.sparse_data docs=100000 queries=200      # prints their statistics

A vector is made of concepts: a head term and the terms that an encoder expands it by, with weights
that fall. A document has concepts of one to three topics and a few of any; a query has some of a
document's, which are expanded further. Terms of a document that several of its concepts have keep
the largest weight, as max pooling does. Topics draw their concepts, and concepts their terms, from
few of all, so that terms of one topic occur together.

Figures that these vectors follow, of SPLADE on MS MARCO's 8,841,823 passages:

    terms of the vocabulary in use     28,131  Pyserini's index msmarco-passage-distill-splade-max
    expected terms in common (FLOPS)  1.1..3.8  SPLADE-max and DistilSPLADE v2, in Naver Labs
                                               Europe's table of SPLADE models
    entries of a document                 119  chosen
    entries of a query                     43  chosen
    L1 mass in a document's top 50        .75  chosen
    L1 mass in a query's top 10           .75  chosen
    largest weights                      3..4  chosen

The chosen ones are of the size that papers on such indexes report (Bruch et al., SIGIR 2024,
arXiv:2404.18812, for one); they were not compared with a published table.
The documents' frequencies fall less steeply than Zipf's law at the head, since no stop word is in
most documents, and steeply at the end of the vocabulary: both follow from the mixture here.
Everything follows from the numbers of the documents, so the first 100,000 are the same in any size.

Legend: V terms, C concepts, T topics, N documents of a batch, P entries.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TextIO

import numpy as np
import numpy.typing as npt

from benchmarks.report import arguments

Array = npt.NDArray[Any]

TERMS = 28_131
_MOST_TERMS = 2**16
TOPICS, CONCEPTS = 4_000, 40_000
_SPREAD = 48  # terms of a concept
_OWN = 160  # concepts that a topic draws from
_BATCH = 10_000  # documents that are drawn together
_LEAST = 0.01  # smallest weight of an entry
_SEED = 20_240

ARRAYS = "vectors.npz"
"""The file of documents' and queries' vectors as arrays."""
DEFAULTS = {"docs": 100_000, "queries": 200}


class Form(NamedTuple):
    """How concepts are expanded: by how many terms, and how steeply their weights fall."""

    depth: float
    fall: float


_DOCUMENT, _QUERY = Form(14.0, 1.7), Form(22.0, 4.0)


class Vectors(NamedTuple):
    """Sparse vectors: those of document n are the entries `indptr[n] : indptr[n + 1]`."""

    indptr: Array  # int64 [N + 1]
    terms: Array  # uint16 [P], ascending within a document
    weights: Array  # float32 [P]


@dataclass(frozen=True, slots=True)
class World:
    """Terms of concepts and concepts of topics, drawn once.

    Attributes:
        terms_CS: the head term of each concept and those that expand it.
        association_CS: their weights, the head's 1, falling.
        concepts_TO: the concepts of each topic, the most frequent first.
    """

    terms_CS: Array
    association_CS: Array
    concepts_TO: Array

    @classmethod
    def create(cls) -> World:
        """Draws the world; it is the same every time."""
        draw = np.random.default_rng(_SEED)
        # Heads are spread over the vocabulary; expansions prefer its frequent half.
        head_C = _zipf(draw, CONCEPTS, TERMS, 0.85, 40)
        centre_C = draw.integers(0, TERMS, CONCEPTS)
        near_CS = (centre_C[:, None] + draw.normal(0, 150, (CONCEPTS, _SPREAD))).astype(np.int64)
        common_CS = _zipf(draw, (CONCEPTS, _SPREAD), TERMS, 1.0, 20)
        chosen_CS = np.where(draw.random((CONCEPTS, _SPREAD)) < 0.4, near_CS % TERMS, common_CS)
        name_T = draw.permutation(TERMS)
        terms_CS = name_T[chosen_CS].astype(np.uint16)
        terms_CS[:, 0] = name_T[head_C]
        fall = np.exp(-np.arange(_SPREAD) / 9.0)
        noise = np.exp(draw.normal(0, 0.35, (CONCEPTS, _SPREAD)))
        association_CS = np.minimum(fall * noise, 1.2).astype(np.float32)
        association_CS[:, 0] = 1
        concepts_TO = draw.integers(0, CONCEPTS, (TOPICS, _OWN))
        return cls(terms_CS, association_CS, concepts_TO)


def _zipf(draw: np.random.Generator, shape: Any, values: int, slope: float, shift: float) -> Array:
    """Returns ranks drawn by the Zipf-Mandelbrot law."""
    weights = (np.arange(values) + shift) ** -slope
    ends = np.cumsum(weights / weights.sum())
    return np.minimum(np.searchsorted(ends, draw.random(shape)), values - 1)


def documents(count: int, world: World | None = None) -> Iterator[Vectors]:
    """Yields the vectors of the first `count` documents, in batches."""
    world = world or World.create()
    for start in range(0, count, _BATCH):
        size = min(_BATCH, count - start)
        batch = _batch(world, start)
        yield batch if size == _BATCH else first(batch, size)


def _batch(world: World, first: int) -> Vectors:
    draw = np.random.default_rng((_SEED, first))
    concepts_NK, strength_NK = _concepts(world, draw)
    return _vectors(world, concepts_NK, strength_NK, _DOCUMENT, draw)


_MOST = 26  # concepts of a document


def _concepts(world: World, draw: np.random.Generator) -> tuple[Array, Array]:
    """Returns the concepts of a batch of documents and how strong they are, 0 for none."""
    shape = (_BATCH, _MOST)
    topics_N3 = _zipf(draw, (_BATCH, 3), TOPICS, 0.6, 20)
    which_NK = np.minimum((draw.random(shape) ** 2 * 3).astype(np.int64), 2)
    topic_NK = np.take_along_axis(topics_N3, which_NK, axis=1)
    concepts_NK = world.concepts_TO[topic_NK, _zipf(draw, shape, _OWN, 0.9, 3)]
    anywhere_NK = draw.random(shape) < 0.15
    concepts_NK = np.where(anywhere_NK, draw.integers(0, CONCEPTS, shape), concepts_NK)
    sizes_N = np.clip(draw.gamma(6.0, 1.5, _BATCH), 2, _MOST).astype(np.int64)
    strength_NK = np.exp(draw.normal(0.6, 0.45, shape))
    strength_NK[np.arange(_MOST) >= sizes_N[:, None]] = 0
    return concepts_NK, strength_NK


def _vectors(
    world: World, concepts_NK: Array, strength_NK: Array, form: Form, draw: np.random.Generator
) -> Vectors:
    """Returns the vectors of concepts."""
    count, most = concepts_NK.shape
    depth_NK = draw.gamma(4.0, form.depth / 4, (count, most))
    rank_S = np.arange(_SPREAD)
    value_NKS = strength_NK[:, :, None] * world.association_CS[concepts_NK] ** form.fall
    value_NKS *= np.exp(draw.normal(0, 0.25, value_NKS.shape))
    value_NKS[rank_S >= depth_NK[:, :, None]] = 0
    weight_NKS = np.minimum(np.log1p(1.6 * value_NKS), 3.8).astype(np.float32)
    keep = weight_NKS >= _LEAST
    doc_P = np.broadcast_to(np.arange(count)[:, None, None], keep.shape)[keep]
    key_P = (doc_P.astype(np.int64) << 16) | world.terms_CS[concepts_NK][keep]
    order = np.lexsort((-weight_NKS[keep], key_P))
    key_P, weight_P = key_P[order], weight_NKS[keep][order]
    largest = np.append(True, key_P[1:] != key_P[:-1])
    key_P, weight_P = key_P[largest], weight_P[largest]
    indptr = np.searchsorted(key_P, np.arange(count + 1, dtype=np.int64) << 16)
    return Vectors(indptr, (key_P & 0xFFFF).astype(np.uint16), weight_P)


def first(vectors: Vectors, count: int) -> Vectors:
    """Returns the first `count` vectors."""
    end = int(vectors.indptr[count])
    return Vectors(vectors.indptr[: count + 1], vectors.terms[:end], vectors.weights[:end])


def queries(count: int, docs: int, world: World | None = None) -> Vectors:
    """Returns queries, each of some concepts of one of the first `docs` documents."""
    world = world or World.create()
    draw = np.random.default_rng((_SEED, count, docs, 1))
    about_Q = draw.integers(0, docs, count)
    concepts, strengths = np.zeros((2, count, 5))
    for batch in np.unique(about_Q // _BATCH).tolist():
        mine = about_Q // _BATCH == batch
        drawn = np.random.default_rng((_SEED, batch * _BATCH))
        concepts_NK, strength_NK = _concepts(world, drawn)
        rows = about_Q[mine] % _BATCH
        best = np.argsort(-strength_NK[rows] * draw.random((len(rows), _MOST)), axis=1)[:, :5]
        concepts[mine] = np.take_along_axis(concepts_NK[rows], best, axis=1)
        strengths[mine] = np.take_along_axis(strength_NK[rows], best, axis=1)
    sizes = draw.integers(2, 6, count)
    strengths[np.arange(5) >= sizes[:, None]] = 0
    strengths *= np.array([1.3, 1, 0.7, 0.5, 0.4])
    return _vectors(world, concepts.astype(np.int64), strengths, _QUERY, draw)


def name_of(term: int) -> str:
    return f"t{term:05d}"


def write(folder: Path, batches: Iterator[Vectors], asked: Vectors) -> None:
    """Writes documents' and queries' vectors, unless they are there.

    Lines of JSON for the engines that read them (`docs.jsonl`, `queries.jsonl`), and arrays for
    Seismic (`vectors.npz`), written last.
    """
    folder.mkdir(parents=True, exist_ok=True)
    arrays = folder / ARRAYS
    if arrays.exists():
        return
    held = []
    with open(folder / "docs.jsonl", "w", encoding="utf-8") as out:
        written = 0
        for batch in batches:
            held.append(batch)
            written = _write_lines(out, batch, "d", written)
    with open(folder / "queries.jsonl", "w", encoding="utf-8") as out:
        _write_lines(out, asked, "q", 0)
    lengths = np.concatenate([np.diff(batch.indptr) for batch in held])
    partial = folder / f"part-{ARRAYS}"
    np.savez(
        partial,
        indptr=np.concatenate(([0], np.cumsum(lengths))),
        terms=np.concatenate([batch.terms for batch in held]),
        weights=np.concatenate([batch.weights for batch in held]),
        query_indptr=asked.indptr,
        query_terms=asked.terms,
        query_weights=asked.weights,
    )
    partial.rename(arrays)


def _write_lines(out: TextIO, vectors: Vectors, letter: str, number: int) -> int:
    """Writes vectors from a number on; returns the next number."""
    indptr, terms, weights = vectors
    values = zip(terms.tolist(), weights.tolist())
    entries = [f'"{name_of(term)}": {weight:.4f}' for term, weight in values]
    for a, z in zip(indptr[:-1].tolist(), indptr[1:].tolist()):
        out.write(f'{{"id": "{letter}{number}", "vector": {{{", ".join(entries[a:z])}}}}}\n')
        number += 1
    return number


def statistics(docs: int, count: int) -> dict[str, float]:
    """Returns what is reported of learned sparse indexes, of generated vectors."""
    world = World.create()
    return statistics_of(documents(docs, world), queries(count, docs, world))


def statistics_of(batches: Iterator[Vectors], asked: Vectors) -> dict[str, float]:
    """Returns what is reported of learned sparse indexes."""
    df = np.zeros(_MOST_TERMS, np.int64)
    lengths, tops, largest = [], [], 0.0
    for batch in batches:
        df += np.bincount(batch.terms, minlength=_MOST_TERMS)
        lengths.append(np.diff(batch.indptr))
        tops.append(_mass(batch, 50))
        largest = max(largest, float(batch.weights.max()))
    length_N = np.concatenate(lengths)
    docs, count = len(length_N), len(asked.indptr) - 1
    ordered = np.sort(df)[::-1]
    ranks = np.arange(100, 10_000)
    slope = np.polyfit(np.log(ranks + 1), np.log(ordered[ranks] + 1), 1)[0]
    return {
        "terms": int((df > 0).sum()),
        "document_entries": float(length_N.mean()),
        "document_entries_sd": float(length_N.std()),
        "document_top50_mass": float(np.concatenate(tops).mean()),
        "query_entries": float(np.diff(asked.indptr).mean()),
        "query_top10_mass": float(_mass(asked, 10).mean()),
        "largest_weight": largest,
        "largest_df_share": float(ordered[0] / docs),
        "flops": float(
            (np.bincount(asked.terms, minlength=_MOST_TERMS) / count * (df / docs)).sum()
        ),
        "zipf_slope": float(slope),
        "top1000_terms_share": float(ordered[:1000].sum() / ordered.sum()),
    }


def _mass(vectors: Vectors, best: int) -> Array:
    """Returns the share of each vector's L1 norm in its largest entries."""
    spans = zip(vectors.indptr[:-1].tolist(), vectors.indptr[1:].tolist())
    parts = [np.sort(vectors.weights[a:z])[::-1] for a, z in spans if a < z]
    return np.array([float(each[:best].sum() / each.sum()) for each in parts])


def main(words: list[str]) -> None:
    options = arguments(DEFAULTS, words)
    figures = statistics(int(options["docs"]), int(options["queries"]))
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main(sys.argv[1:])
