"""Search over index folders: retrievers, fusion, texts, and the hits to rerank."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache

from raydist.dense.by_document import Sizes, rank_documents, sizes_of
from raydist.dense.spec import ByDocument
from raydist.errors import ConfigError
from raydist.protocols import Filtered, Selective, TextStore
from raydist.records import Document, Query, Run
from raydist.serving.admission import estimate_tokens
from raydist.serving.answers import SearchResult, Snippet
from raydist.serving.backend import Hit, SearchAnswer, SearchCall, SnippetCall
from raydist.serving.errors import ServiceError
from raydist.serving.schema import DocumentRequest, SearchRequest, SnippetRequest
from raydist.serving.spec import RequestLimits
from raydist.text.analyzer import Analyzer
from raydist.text.passages import Passage, passages

_FILTERS = 16  # remembered
_SIZES = 2
"""Ways to rank documents whose numbers of passages are remembered."""


class Searcher:
    """Searches one index or several.

    Args:
        retrievers: by their name in results.
        stores: documents' texts; those that the first does not have come from the next.
        analyzers: of the stores' indexes, for snippets; Lucene's English one for stores without.
        fuse: turns several runs into one; needed for several retrievers.
        passages: the names of the retrievers that find passages, as far as it is known.
    """

    def __init__(
        self,
        retrievers: Mapping[str, Selective],
        stores: Sequence[TextStore] = (),
        fuse: Callable[[Sequence[Run], int], Run] | None = None,
        analyzers: Sequence[Analyzer] = (),
        passages: Collection[str] = (),
    ) -> None:
        assert retrievers and (fuse is not None or len(retrievers) == 1)
        self.retrievers = dict(retrievers)
        self.stores = stores
        self.fuse = fuse
        self.analyzers = [*analyzers, *[Analyzer()] * (len(stores) - len(analyzers))]
        self._passages = passages
        self._filtered = lru_cache(_FILTERS)(self._filter)
        self._sizes = lru_cache(_SIZES)(self._sizes_of)

    def _filter(self, name: str, filter: str) -> Selective:
        retriever = self.retrievers[name]
        try:
            if not isinstance(retriever, Filtered):
                raise ConfigError(f"filter: {name} has no columns")
            return retriever.where(filter)
        except ConfigError as error:
            raise ServiceError(422, str(error), "invalid_filter", param="filter") from None

    def _sizes_of(self, name: str, by: ByDocument) -> Callable[[], Sizes] | None:
        return sizes_of(self.retrievers[name], by)

    def _run(self, name: str, call: SearchCall) -> Run:
        """Returns the ranking of a retriever."""
        retriever = self.retrievers[name]
        if call.filter is not None:
            retriever = self._filtered(name, call.filter)
        part = retriever if call.ids is None else retriever.only(call.ids)
        queries, by = [Query("q", call.query)], call.by
        if by is None or (self._passages and name not in self._passages):
            return part.search(queries, call.depth)
        sizes = self._sizes(name, by) if part is self.retrievers[name] else sizes_of(part, by)
        return rank_documents(part.search, queries, call.depth, by=by, sizes=sizes)

    def search(self, call: SearchCall) -> SearchAnswer:
        """Returns at most `depth` hits, best first, and the milliseconds of each stage.

        With ids or a filter, only these documents are searched; hits are not filtered afterwards.

        Raises ServiceError 422 for what is no filter of the indexes.
        """
        timings: dict[str, float] = {}
        runs: dict[str, Run] = {}
        for name in self.retrievers:
            start = time.perf_counter()
            runs[name] = self._run(name, call)
            timings[name] = _ms_since(start)
        if self.fuse is not None and len(runs) > 1:
            start = time.perf_counter()
            runs["fusion"] = self.fuse([*runs.values()], call.depth)
            timings["fusion"] = _ms_since(start)
        scores: dict[str, dict[str, float]] = {}
        ranking: list[str] = []
        for name, run in runs.items():
            ranking = [doc_id for _, doc_ids, _ in run for doc_id in doc_ids]
            for _, doc_ids, values in run:
                for doc_id, value in zip(doc_ids, values.tolist()):
                    scores.setdefault(doc_id, {})[name] = value
        start = time.perf_counter()
        documents = self.documents(ranking)
        timings["texts"] = _ms_since(start)
        hits = [
            Hit(doc_id, scores[doc_id], *documents.get(doc_id, (None, 0))) for doc_id in ranking
        ]
        return SearchAnswer(hits, timings)

    def snippets(self, call: SnippetCall) -> list[list[Passage]]:
        """Returns the passages of each text that match best."""
        return [
            passages(text, call.query, self.analyzers[store], call.number, call.length)
            for text, store in call.texts
        ]

    def documents(self, doc_ids: Sequence[str]) -> dict[str, tuple[Document, int]]:
        """Returns the documents that a store has, by id, and its number."""
        documents: dict[str, tuple[Document, int]] = {}
        for number, store in enumerate(self.stores):
            missing = [doc_id for doc_id in doc_ids if doc_id not in documents]
            fetched = zip(missing, store.get(missing))
            documents |= {doc_id: (each, number) for doc_id, each in fetched if each is not None}
        return documents


@dataclass(slots=True)
class Candidates:
    """The hits that a reranker reads.

    Attributes:
        ranks: of those hits, from 0.
        texts: their texts.
        warnings: which hits are not read, and why.
    """

    ranks: list[int] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def candidates(hits: Sequence[Hit], query: str, limits: RequestLimits) -> Candidates:
    """Returns the first hits that have texts, as many as a request may hold."""
    chosen = Candidates()
    tokens = without = beyond = 0
    for rank, hit in enumerate(hits):
        if hit.document is None:
            without += 1
            continue
        text = hit.document.contents[: limits.max_text_chars]
        total = tokens + estimate_tokens(query, [text])
        if len(chosen.ranks) == limits.max_documents or total > limits.max_tokens:
            beyond += 1
            continue
        chosen.ranks.append(rank)
        chosen.texts.append(text)
        tokens = total
    for count, reason in (
        (without, "no served index has their texts"),
        (beyond, "limits.max_documents or limits.max_tokens is reached"),
    ):
        if count:
            chosen.warnings.append(f"{count} of {len(hits)} hits were not reranked: {reason}")
    return chosen


def reranked(hits: Sequence[Hit], ranks: Sequence[int], scores: Sequence[float]) -> list[Hit]:
    """Returns the hits with these ranks by their scores, then the others in their order."""
    by_rank = dict(zip(ranks, scores))
    ordered = [
        replace(hits[rank], scores={**hits[rank].scores, "rerank": by_rank[rank]})
        for rank in sorted(ranks, key=lambda rank: -by_rank[rank])
    ]
    return ordered + [hit for rank, hit in enumerate(hits) if rank not in by_rank]


def by_document(request: SearchRequest) -> ByDocument | None:
    """Returns how a request wants documents ranked by their passages."""
    if isinstance(request.by, DocumentRequest):
        return ByDocument(passages=request.by.passages, delimiter=request.by.delimiter)
    return None if request.by is None else ByDocument()


def snippet_call(request: SearchRequest, hits: Sequence[Hit]) -> SnippetCall:
    """Returns the call for the snippets that a request wants: of the hits that have texts."""
    form = SnippetRequest() if request.snippets is True else request.snippets
    if not form:
        return SnippetCall(request.query, [], 0, 0)
    texts = [(hit.document.text, hit.store) for hit in hits if hit.document]
    return SnippetCall(request.query, texts, form.number, form.length)


def results(
    hits: Sequence[Hit], snippets: Mapping[str, Sequence[Passage]], *, texts: bool
) -> list[SearchResult]:
    """Returns the results of hits, with or without their texts."""
    answers = []
    for rank, hit in enumerate(hits, 1):
        document = hit.document if texts else None
        result = SearchResult(
            rank=rank,
            id=hit.doc_id,
            score=list(hit.scores.values())[-1],
            scores=dict(hit.scores),
            title=document.title if document else None,
            text=document.text if document else None,
        )
        if hit.document is not None and hit.doc_id in snippets:
            result.snippets = [
                Snippet(
                    text=hit.document.text[each.start : each.end],
                    start=each.start,
                    marks=[(a - each.start, b - each.start) for a, b in each.matches],
                    score=each.score,
                )
                for each in snippets[hit.doc_id]
            ]
        answers.append(result)
    return answers


def _ms_since(start: float) -> float:
    return round((time.perf_counter() - start) * 1000, 3)
