"""Everything that one can ask of an index of a few words, to compare it with another."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from raydist.artefact import Output
from raydist.bow.build.create import build_index
from raydist.bow.build.generation import LAYOUT
from raydist.bow.index import BowIndex, Vocabulary
from raydist.bow.lookup import has_vectors, term_counts
from raydist.bow.search.retriever import BowRetriever
from raydist.bow.spec import Bm25, BowSearchSpec, IndexSpec, Qld, QueryLikelihood, Spl
from tests.bow.documents import Row, read, splits_of

WORDS = ["cat", "dog", "bird", "fish", "cow"]
QUERIES = [*WORDS, "cat dog", "cow cow bird", "unheard fish"]
SCORINGS = [
    Bm25(),
    Bm25(k1=1.2, b=0.75, lengths="exact"),
    *(Bm25(variant=each) for each in ("robertson", "atire", "bm25+", "bm25l")),
    QueryLikelihood(),
    QueryLikelihood(smoothing="jelinek-mercer"),
    Qld(),
    Spl(),
]
WAYS = [(True, "docid", 50), (True, "docid", 2), (True, "external", 50), (False, "docid", 50)]
"""Pruned or exhaustive, the order of ties, and how many documents."""


def make_index(rows: Sequence[Row], folder: Path, cuts: Iterable[int] = (), **options) -> Path:
    """Builds an index as the command does."""
    config = {name: options[name] for name in ("compress", "block_size") if name in options}
    output = Output.open(str(folder), kind="bow-index", config=config, inputs={})
    output.finish(**build_index(splits_of(rows, cuts), read, folder, IndexSpec(**options)))
    LAYOUT.clean(folder)
    return folder


def answers(folder: Path, queries: Sequence[str] = QUERIES) -> dict[str, object]:
    """Rankings and scores of queries by all models, statistics, ids, vocabulary and texts."""
    index = BowIndex.open(folder, verify=True)
    weighted = bool(index.unit)
    rankings = []
    for scoring in SCORINGS[:1] if weighted else SCORINGS:
        for pruned, ties, k in WAYS if scoring == SCORINGS[0] else WAYS[:1]:
            retriever = BowRetriever(
                index, BowSearchSpec(scoring=scoring, ties=ties), pruned=pruned
            )
            for query in queries:
                docs, scores = retriever.rank_terms(dict.fromkeys(query.split(), 1.0), k)
                if not weighted:
                    docs, scores = retriever.rank(query, k)
                rankings.append((index.pick_ids(docs).to_pylist(), scores.tolist()))
    ids = index.doc_ids.to_pylist()
    vocabulary = Vocabulary(index)
    postings = [
        (names.to_pylist(), indptr.tolist(), docs.tolist(), tfs.tolist())
        for names, indptr, docs, tfs in vocabulary.slices(1 << 20)
    ]
    texts = index.store and index.store.get(ids)
    rows = index.store and [row for table in index.store.tables() for row in table.to_pylist()]
    return {
        "rankings": rankings,
        "statistics": (len(index), index.nonempty, index.tokens, index.average_length),
        "df": [index.document_frequency(word) for word in WORDS],
        "ids": ids,
        "vocabulary": (vocabulary.terms.to_pylist(), vocabulary.df_T.tolist()),
        "postings": postings,
        "positions": index.numbers(index.positions(ids)).tolist(),
        "texts": texts,
        "rows": rows,
        "lengths": index.live_lengths.tolist(),
        "vectors": has_vectors(index) and term_counts(index, index.positions(ids)),
    }
