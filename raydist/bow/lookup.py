"""What an index knows of single terms and documents, for people who look.

Everything counts live documents alone. A term may be given as a word, of which the index's own
analyzer makes the term, or as it is in the index.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc

from raydist.bow.build.splits import contents
from raydist.bow.format.forward import has_forward, read_vectors
from raydist.bow.formulas import lucene_idf
from raydist.bow.index import BowIndex, Vocabulary, encode_term
from raydist.bow.search.exhaustive import term_postings
from raydist.data.store.reader import DocumentStore
from raydist.errors import ArtifactError, ConfigError

Array = npt.NDArray[Any]

_IDS = 1 << 14  # decoded at once


@dataclass(frozen=True, slots=True)
class TermStatistics:
    """How often a term occurs.

    Attributes:
        term: as it is in the index.
        document_frequency: how many documents have it.
        collection_frequency: how often it occurs in all of them.
        idf: of BM25, as Lucene computes it; 0 where no document has the term.
    """

    term: str
    document_frequency: int
    collection_frequency: int
    idf: float


def term_of(index: BowIndex, word: str, analyzed: bool = True) -> str:
    """Returns the term of a word, the word itself where it is not to be analyzed.

    Raises:
        ConfigError: the analyzer makes none of it, or several.
    """
    if not analyzed or index.analyzer is None:
        return word
    terms = index.analyzer.tokens(word)
    if len(terms) != 1:
        what = f"the terms {', '.join(terms)}" if terms else "no term"
        raise ConfigError(
            f"term = {word!r}: the index's analyzer makes {what} of it; give one word, or "
            "analyzed=false for a term as it is in the index"
        )
    return terms[0]


def posting_blocks(index: BowIndex, term: str) -> Iterator[tuple[Array, Array]]:
    """Yields a term's documents (positions, int64) and frequencies, a segment at a time."""
    rows = index.lookup([encode_term(term)])[0]
    for segment, row, base in zip(index.segments, rows, index.bases):
        if row[0, 0]:
            docs, tfs = term_postings(segment, row[0])
            if segment.deletions is not None:
                live = segment.deletions.live.has(docs)
                docs, tfs = docs[live], tfs[live]
            yield docs.astype(np.int64) + base, tfs


def postings(index: BowIndex, term: str) -> Iterator[tuple[str, int]]:
    """Yields the id of each document that has a term, and how often, in the index's order."""
    for docs, tfs in posting_blocks(index, term):
        for start in range(0, len(docs), _IDS):
            ids = index.pick_ids(docs[start : start + _IDS]).to_pylist()
            yield from zip(ids, tfs[start : start + _IDS].tolist())


def statistics_of(index: BowIndex, term: str) -> TermStatistics:
    """Returns how often a term occurs."""
    df = index.document_frequency(term)
    cf = sum(int(tfs.sum(dtype=np.int64)) for _, tfs in posting_blocks(index, term))
    idf = float(lucene_idf(index.nonempty, df)) if df else 0.0
    return TermStatistics(term, df, cf, idf)


def document_vector(index: BowIndex, doc_id: str) -> dict[str, int]:
    """Returns a document's terms in byte order, with their frequencies.

    Raises:
        ConfigError: the index has neither a forward index nor the texts.
        DataError: it has no such document.
    """
    (position,) = index.positions([doc_id]).tolist()
    if not has_vectors(index):
        raise ConfigError(
            f"{index.folder or 'the index'} keeps no documents' terms: build it with forward=true, "
            "or with store=true"
        )
    return term_counts(index, np.array([position], np.int64))[0]


def has_vectors(index: BowIndex) -> bool:
    """Returns whether the terms of documents can be read."""
    return _has_forward(index) or (index.store is not None and index.analyzer is not None)


def _has_forward(index: BowIndex) -> bool:
    return all(map(has_forward, index.segments))


def term_counts(index: BowIndex, positions_D: Array) -> list[dict[str, int]]:
    """Returns the terms of documents in byte order with their frequencies.

    They come from the forward index, or else from the texts, analyzed again.

    Raises:
        ArtifactError: the texts are not those that were indexed.
    """
    if not _has_forward(index):
        assert index.store is not None
        return counts_of_texts(index, index.store, positions_D, index.numbers(positions_D))
    counts: list[dict[str, int]] = [{} for _ in positions_D]
    owner_D = np.searchsorted(index.bases, positions_D, side="right") - 1
    for number in np.unique(owner_D).tolist():
        mine = np.flatnonzero(owner_D == number)
        segment = index.segments[number]
        indptr, places, tfs = read_vectors(segment, positions_D[mine] - index.bases[number])
        names = [
            name.decode("utf-8", "surrogatepass") for name in segment.pick_terms(places).to_pylist()
        ]
        frequencies = tfs.tolist()
        for i, a, z in zip(mine.tolist(), indptr[:-1].tolist(), indptr[1:].tolist()):
            counts[i] = dict(zip(names[a:z], frequencies[a:z]))
    return counts


def counts_of_texts(
    index: BowIndex, store: DocumentStore, positions_D: Array, numbers_D: Array
) -> list[dict[str, int]]:
    """Returns what `term_counts` does, of the texts.

    Args:
        index: has the documents.
        store: has the texts.
        positions_D: of the documents in the index.
        numbers_D: of the texts among the live ones of the store.

    Raises:
        ArtifactError: the texts are not those that were indexed.
    """
    assert index.analyzer is not None
    table = store.rows(store.at_numbers(numbers_D))
    texts = contents(table, index.field)
    counts = []
    for text, length in zip(texts.to_pylist(), index.lengths(positions_D).tolist()):
        tokens = index.analyzer.tokens(text)
        if len(tokens) != length:
            raise ArtifactError(
                f"{index.folder}: the stored texts are not those that were indexed; documents' "
                "terms need an index that raydist built from its texts, or forward=true"
            )
        counts.append(dict(sorted(Counter(tokens).items())))
    return counts


def by_id(index: BowIndex) -> Array:
    """Returns the positions of the live documents with tokens in the order of their ids, int64."""
    order = pc.sort_indices(index.doc_ids).to_numpy().astype(np.int64)
    return index.at_numbers(order[index.live_lengths[order] > 0])


def most_frequent(index: BowIndex, count: int | None) -> list[tuple[str, int]]:
    """Returns the terms that most documents have, with their number; all terms if None."""
    vocabulary = Vocabulary(index)
    order = np.argsort(-vocabulary.df_T, kind="stable")[:count]
    names: Sequence[bytes] = vocabulary.terms.take(order).to_pylist()
    return [
        (name.decode("utf-8", "surrogatepass"), int(df))
        for name, df in zip(names, vocabulary.df_T[order])
    ]
