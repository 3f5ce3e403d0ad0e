"""Search by structured queries, scored to the bit as Lucene's boolean, phrase and span queries.

A query is rewritten and then matched segment by segment: each node of the tree becomes its matching
documents with their scores. Lucene rounds to float32 at each boolean query: once over its required
clauses and once over its optional ones, and then adds these in float32.

Legend: P documents of a node.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from raydist.bow.format.segment import Segment
from raydist.bow.formulas import NORM_LENGTHS, lucene_idf, lucene_inverse, lucene_term
from raydist.bow.index import encode_term
from raydist.bow.search.exhaustive import Explanation, TermScore, term_slots
from raydist.bow.search.retriever import BowRetriever
from raydist.bow.spec import Bm25, Sdm
from raydist.bow.structured.dependence import dependence_tree
from raydist.bow.structured.matching import (
    exact_frequencies,
    locate,
    near_frequencies,
    sloppy_frequencies,
    unite,
)
from raydist.bow.structured.query import (
    BooleanNode,
    BoostNode,
    Leaf,
    NearNode,
    Node,
    Occur,
    TermNode,
    rewritten,
    terms_of,
    text_of,
)
from raydist.bow.structured.syntax import QueryError, parse
from raydist.errors import ConfigError, DataError
from raydist.kernels.arrays import readonly
from raydist.records import Query, Run
from raydist.text.analyzer import Analyzer

Array = npt.NDArray[Any]
Matches = tuple[Array, Array]
"""Documents, ascending (uint32 [P]), and their scores (float32 [P])."""

_NOTHING: Matches = (
    readonly(np.empty(0, np.uint32)),
    readonly(np.empty(0, np.float32)),
)


def tree_of(text: str, analyzer: Analyzer, sdm: Sdm | None) -> Node | None:
    """Returns the tree of a query, rewritten: of words with `sdm`, else in Lucene's syntax.

    None matches nothing. Raises QueryError where the text is not in the syntax.
    """
    if sdm is None:
        tree = parse(text, analyzer.positioned_tokens)
    else:
        tree = dependence_tree(analyzer.tokens(text), sdm)
    return None if tree is None else rewritten(tree)


def trees_of(
    queries: Sequence[Query], parse: Callable[[str], Node | None]
) -> list[tuple[str, Node | None]]:
    """Returns the id and the tree of each query.

    Raises DataError for a query that is not in the syntax, with its id and the place.
    """
    trees = []
    for query in queries:
        try:
            trees.append((query.query_id, parse(query.text)))
        except QueryError as error:
            raise DataError(f"query {query.query_id!r}, {error}") from None
    return trees


class StructuredRetriever:
    """Searches an index by queries of terms, phrases, neighbours and clauses.

    They are texts in Lucene's syntax or, where the formula has `sdm`, words.

    Attributes:
        index: the index.
    """

    def __init__(self, search: BowRetriever) -> None:
        """Takes the index, the documents and the formula of a search.

        Raises ConfigError where the index or the formula has no phrases or boolean queries.
        """
        formula = search.scoring.formula
        self._sdm = formula.sdm if isinstance(formula, Bm25) else None
        key = "syntax = 'lucene'" if self._sdm is None else "scoring.sdm"
        if search.index.analyzer is None:
            raise ConfigError(f"{key}: an index of weighted terms has no queries of text")
        if not isinstance(formula, Bm25) or not search.scoring.is_lucenes or formula.query_side:
            raise ConfigError(
                f"{key}: scores are those of Lucene's BM25, scoring.kind = {formula.kind!r} is "
                "not, as it is set; leave all else of scoring but k1 and b out"
            )
        if self._sdm and not all(segment.has_positions for segment in search.index.segments):
            raise ConfigError(
                f"{key}: {search.index.folder} has no positions, which neighbouring words need; "
                "build it with positions=true"
            )
        self.index = search.index
        self._search = search
        mean = self.index.average_length
        self._inverse = readonly(lucene_inverse(NORM_LENGTHS, formula.k1, formula.b, mean))

    @property
    def doc_ids(self) -> pa.LargeStringArray:
        """The ids of all live documents."""
        return self.index.doc_ids

    def only(self, doc_ids: Iterable[str] | pa.Array) -> StructuredRetriever:
        """Returns this search restricted to some documents; unknown ids are ignored."""
        return self._over(lambda search: search.only(doc_ids))

    def without(self, doc_ids: Iterable[str] | pa.Array) -> StructuredRetriever:
        """Returns this search restricted to all other documents; unknown ids are ignored."""
        return self._over(lambda search: search.without(doc_ids))

    def where(self, filter: str) -> StructuredRetriever:
        """Returns this search restricted to the documents that pass a filter."""
        return self._over(lambda search: search.where(filter))

    def _over(self, restricted: Callable[[BowRetriever], BowRetriever]) -> StructuredRetriever:
        other = copy.copy(self)
        other._search = restricted(self._search)
        return other

    def search(self, queries: Sequence[Query], k: int) -> Run:
        """Returns the best `k` documents of each query; queries that match nothing have no rows.

        Raises DataError for a query that is not in the syntax, with its id and the place.
        """
        trees = trees_of(queries, self.parse)
        return self._search.run_of(trees, k, self.rank_tree)

    def parse(self, text: str) -> Node | None:
        """Returns the tree of a query, rewritten; None matches nothing.

        Raises QueryError where the text is not in the syntax.
        """
        assert self.index.analyzer is not None
        return tree_of(text, self.index.analyzer, self._sdm)

    def rank(self, text: str, k: int) -> tuple[Array, Array]:
        """Returns the positions (int64) and scores (float32) of the best documents for a text."""
        return self.rank_tree(self.parse(text), k)

    def rank_tree(self, tree: Node | None, k: int) -> tuple[Array, Array]:
        """Does the same for a tree."""
        if k < 1:
            raise ConfigError(f"k = {k}: expected at least 1")
        docs, scores = [np.empty(0, np.int64)], [np.empty(0, np.float32)]
        for number, matcher in enumerate(() if tree is None else self._matchers(tree)):
            assert tree is not None
            found, values = matcher(tree, 1.0)
            found = self.index.segments[number].documents_at(found)
            allowed = self._search.allowed(number)
            if allowed is not None:
                among = allowed.has(found)
                found, values = found[among], values[among]
            docs.append(found.astype(np.int64) + self.index.bases[number])
            scores.append(values)
        return self._search.first(np.concatenate(docs), np.concatenate(scores), k)

    def explain(self, text: str, doc_id: str) -> Explanation:
        """Returns what each term, phrase and pair adds to a document's score for a text.

        Raises DataError where the index has no such document.
        """
        index, tree = self.index, self.parse(text)
        position = int(index.positions([doc_id])[0])
        number = int(np.searchsorted(index.bases, position, side="right")) - 1
        segment, doc = index.segments[number], position - index.bases[number]
        score, parts = 0.0, []
        if tree is not None:
            matcher = next(islice(self._matchers(tree), number, None))
            slot = doc if segment.order_N is None else int(segment.slots_N[doc])
            slots, scores = matcher(tree, 1.0)
            score = float(scores[slots == slot].sum())
            parts = matcher.parts(tree, 1.0, slot)
        exact = int(segment.lengths_N[doc])
        length = int(NORM_LENGTHS[segment.norms_N[doc]])
        return Explanation(doc_id, score, exact, length, tuple(parts))

    def _matchers(self, tree: Node) -> Iterator[_Matcher]:
        """Yields what matches the tree in each segment."""
        names = terms_of([tree])
        rows, _, df = self.index.lookup([encode_term(name) for name in names])
        for segment, each in zip(self.index.segments, rows):
            terms = dict(zip(names, zip(each, df)))
            yield _Matcher(segment, self.index.nonempty, terms, self._inverse)


class _Matcher:
    """Matches the nodes of a tree in one segment; its documents are their slots (order.py)."""

    def __init__(
        self,
        segment: Segment,
        documents: int,
        terms: dict[str, tuple[Array, int]],
        inverse: Array,
    ) -> None:
        """Takes a segment, and of each term its row in the dictionary and its df in the index."""
        self._segment = segment
        self._documents = documents
        self._terms = terms
        self._inverse = inverse
        self._decoded: dict[str, tuple[Array, Array]] = {}
        self._placements: dict[tuple[str, ...], tuple[Array, Array, Array, Array]] = {}

    def __call__(self, node: Node, boost: float) -> Matches:
        """Returns the documents that match, with scores that are multiplied by `boost`."""
        if isinstance(node, BoostNode):
            return self(node.query, float(np.float32(node.boost) * np.float32(boost)))
        if isinstance(node, BooleanNode):
            return self._boolean(node, boost)
        docs, freqs, idf = self._leaf(node)
        return docs, self._scores(boost, idf, docs, freqs)

    def parts(self, node: Node, boost: float, doc: int) -> list[TermScore]:
        """Returns what terms, phrases and pairs add to a document's score."""
        if isinstance(node, BoostNode):
            return self.parts(node.query, float(np.float32(node.boost) * np.float32(boost)), doc)
        docs, scores = self(node, boost)
        at = int(_places(np.array([doc], np.uint32), docs)[0])
        if at < 0:
            return []
        if isinstance(node, BooleanNode):
            queries = node.of(Occur.MUST) + node.of(Occur.SHOULD)
            return [part for query in queries for part in self.parts(query, boost, doc)]
        _, freqs, idf = self._leaf(node)
        tf, score = freqs[at].item(), float(scores[at])
        tf = int(tf) if tf == int(tf) else tf
        df = self._terms[node.term][1] if isinstance(node, TermNode) else None
        weight = float(np.float32(boost) * idf)
        return [TermScore(text_of(node), boost, df, tf, float(idf), weight, score)]

    def _leaf(self, node: Leaf) -> tuple[Array, Array, np.float32]:
        """Returns the documents that match, how often each one does, and the idf."""
        if not all(self._has(name) for name in terms_of([node])):
            return *_NOTHING, np.float32(0)
        if isinstance(node, TermNode):
            return *self._postings(node.term), self._idf(node.term)
        docs, starts, positions, which = self._placed(node.terms)
        freqs = np.empty(len(docs), np.float32)
        if isinstance(node, NearNode):
            near_frequencies(starts, positions, which, node.slop, node.ordered, freqs)
        else:
            offsets = readonly(np.array(node.offsets, np.int64))
            if node.slop:
                sloppy_frequencies(starts, positions, which, offsets, node.slop, freqs)
            else:
                exact_frequencies(starts, positions, which, offsets, freqs)
        some = freqs > 0
        counted = set(node.terms) if isinstance(node, NearNode) else node.terms
        idf = np.float32(sum(float(self._idf(name)) for name in counted))
        return readonly(docs[some]), freqs[some], idf

    def _idf(self, term: str) -> np.float32:
        return lucene_idf(self._documents, self._terms[term][1])

    def _has(self, term: str) -> bool:
        """Returns whether a live document of the index, and one of the segment, has a term."""
        row, df = self._terms[term]
        return bool(row[0]) and df > 0

    def _postings(self, term: str) -> tuple[Array, Array]:
        if term not in self._decoded:
            docs, tfs = term_slots(self._segment, self._terms[term][0])
            self._decoded[term] = readonly(docs, np.uint32), readonly(tfs, np.uint32)
        return self._decoded[term]

    def _scores(self, boost: float, idf: np.float32, docs: Array, freqs: Array) -> Array:
        weight = np.float32(boost) * idf
        inverse_P = self._inverse[self._segment.slot_norms_N[docs]]
        return readonly(lucene_term(weight, freqs, inverse_P))

    def _boolean(self, node: BooleanNode, boost: float) -> Matches:
        required = [self(query, boost) for query in node.of(Occur.MUST)]
        optional = [self(query, boost) for query in node.of(Occur.SHOULD)]
        docs, scores = _all_of(required) if required else _any_of(optional)
        for query in node.of(Occur.MUST_NOT):
            kept = _places(docs, self(query, boost)[0]) < 0
            docs, scores = readonly(docs[kept]), readonly(scores[kept])
        if not required or not optional:
            return docs, scores
        others, more = _any_of(optional)
        places = _places(docs, others)
        both = places >= 0
        scores = scores.copy()
        scores[both] += more[places[both]]
        return docs, readonly(scores)

    def _placed(self, terms: tuple[str, ...]) -> tuple[Array, Array, Array, Array]:
        """Returns the documents that have all terms, and where: what kernels of positions take.

        These are where the positions of each distinct term in each document begin, the positions,
        and which of the distinct ones each term is.
        """
        if terms in self._placements:
            return self._placements[terms]
        names = list(dict.fromkeys(terms))
        segment = self._segment
        if not segment.has_positions:
            raise ConfigError(
                "syntax = 'lucene': this index has no positions, which phrases need; build it with "
                "positions=true"
            )
        lists = [self._postings(name) for name in names]
        docs = _common([each for each, _ in lists])
        starts, parts, size = [], [], 0
        for name, (own, tfs) in zip(names, lists):
            begins, positions = segment.positions.pick(
                int(self._terms[name][0][1]), tfs, _places(docs, own)
            )
            starts.append(begins + size)
            parts.append(positions)
            size += len(positions)
        self._placements[terms] = (
            docs,
            readonly(np.stack(starts)),
            readonly(np.concatenate(parts)),
            readonly(np.array([names.index(name) for name in terms])),
        )
        return self._placements[terms]


def _places(wanted: Array, docs: Array) -> Array:
    """Returns where documents are in a list of them, int64; -1 where they are not."""
    places = np.empty(len(wanted), np.int64)
    locate(wanted, docs, places)
    return places


def _common(lists: Sequence[Array]) -> Array:
    """Returns the documents that all lists have."""
    ordered = sorted(lists, key=len)
    docs = ordered[0]
    for other in ordered[1:]:
        docs = readonly(docs[_places(docs, other) >= 0])
    return docs


def _all_of(clauses: Sequence[Matches]) -> Matches:
    """Returns the documents that match all clauses, with the sums of their scores."""
    docs = _common([each for each, _ in clauses])
    sums = np.zeros(len(docs), np.float64)
    for own, scores in clauses:
        sums += scores[_places(docs, own)]
    return docs, readonly(sums.astype(np.float32))


def _any_of(clauses: Sequence[Matches]) -> Matches:
    """Returns the documents that match some of the clauses, with the sums of their scores."""
    if not clauses:
        return _NOTHING
    docs, first = clauses[0]
    sums = readonly(first, np.float64)
    for others, scores in clauses[1:]:
        room = len(docs) + len(others)
        joint, total = np.empty(room, np.uint32), np.empty(room, np.float64)
        size = unite(docs, sums, others, scores, joint, total)
        docs, sums = readonly(joint[:size]), readonly(total[:size])
    return docs, readonly(sums.astype(np.float32))
