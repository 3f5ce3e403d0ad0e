"""Scores with a bi-encoder: dot products of queries' and documents' vectors, or their MaxSim."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from itertools import chain, takewhile
from typing import Any, TypeAlias

import numpy as np

from raydist.errors import ConfigError
from raydist.models.biencoder import BiEncoder
from raydist.models.encode import (
    default_max_tokens,
    encode_rows,
    encode_terms,
    term_rows,
    token_rows,
)
from raydist.models.inference import speed_up
from raydist.models.sparse_rows import dot
from raydist.models.texts.tokens import Role, TextTokenizer
from raydist.protocols import Encoder
from raydist.reranking.highlights import Match, Span, matches_of
from raydist.reranking.neural import NeuralReranker, load_settings
from raydist.reranking.rows import EncodedDocuments, Options, Row, TooLong, fit
from raydist.reranking.spec import BiEncoderSpec

Vectors: TypeAlias = "OrderedDict[tuple[Role, bytes], Any]"
"""What texts became, by role and token ids, the last used at the end: a vector [D], vectors of
tokens [t, D], or weights of terms, whose zeros would take a vocabulary's width each."""

_NO_LIMIT = 1 << 30
_RECENT = 8192
"""Vectors of the last texts: candidates of one query are often another's, too."""


def similarities(encoder: Encoder, batch: Sequence[tuple[str, Sequence[str]]]) -> list[list[float]]:
    """Returns one similarity per document with whatever encodes; equal texts are encoded once."""
    batch = list(batch)
    queries = {query: i for i, query in enumerate(dict.fromkeys(q for q, d in batch if d))}
    documents = {d: i for i, d in enumerate(dict.fromkeys(d for _, ds in batch for d in ds))}
    if not documents:
        return [[] for _ in batch]
    if isinstance(encoder, BiEncoder) and encoder.contract.kind == "sparse":
        query_terms = encode_terms(encoder, list(queries), "query")
        document_terms = encode_terms(encoder, list(documents), "document")
        return [
            [dot(query_terms[queries[query]], document_terms[documents[text]]) for text in texts]
            for query, texts in batch
        ]
    query_nD: Any = encoder.encode_queries(list(queries))
    document_mD: Any = encoder.encode_documents(list(documents))
    scores = []
    for query, texts in batch:
        if isinstance(query_nD, list):  # vectors of tokens
            own = query_nD[queries[query]] if len(texts) else np.zeros((0, 1))
            scores.append([max_sim(own, document_mD[documents[text]]) for text in texts])
            continue
        rows = np.fromiter((documents[text] for text in texts), np.int64, len(texts))
        values = document_mD[rows] @ query_nD[queries[query]] if len(texts) else np.zeros(0)
        scores.append(values.astype(np.float64).tolist())
    return scores


def max_sim(query_qD: np.ndarray, document_tD: np.ndarray) -> float:
    """Returns the sum over the query's vectors of the largest dot product with the document's.

    A document without vectors has the least that one with vectors of unit length can have.
    """
    if not len(document_tD):
        return -float(len(query_qD))
    return float((query_qD @ document_tD.T).max(axis=1).sum())


class BiEncoderScorer:
    """A bi-encoder behind the scorer engine: a row is a document, its prefix the query.

    Args:
        model: the bi-encoder.
        batch_tokens: the most tokens of a forward pass; 0 = what suits the device.
        name: the model's name in messages.
    """

    sigmoid = False
    packed = False

    def __init__(self, model: BiEncoder, *, batch_tokens: int = 0, name: str = "") -> None:
        self.model = model
        self.batch_tokens = batch_tokens or default_max_tokens(model)
        self.name = name or model.source
        contract = model.contract
        self.max_length = contract.query_max_length + contract.document_max_length
        self._query, self._document = (
            TextTokenizer(model.tokenizer, max_length=_NO_LIMIT, instruction=instruction)
            for instruction in (contract.query_instruction, contract.document_instruction)
        )
        self._before, self._after = self._document.around()
        from_left = model.tokenizer.truncation_side == "left"
        self._turn = slice(None, None, -1 if from_left else 1)
        # Truncation on the left cuts the instruction first, as everywhere.
        self._instruction = [] if from_left else self._inner(self._document([""])[0])
        self._recent: Vectors = OrderedDict()
        # Scores a pair, where that is not the dot product of two vectors.
        self._pair: Callable[[Any, Any], float] | None = None
        if model.tokens is not None:
            self._pair = max_sim
        elif contract.kind == "sparse":
            self._pair = dot
        self._computing = threading.Lock()

    def encode(self, query: str, documents: Sequence[str], options: Options) -> EncodedDocuments:
        """Returns the rows of the documents, the query their prefix.

        Raises:
            TooLong: a text does not fit and `options.truncation` is "error".
        """
        if options.instruction:
            raise ConfigError(
                f"instruction={options.instruction!r}: {self.name} takes no instruction"
            )
        whole = self._query([query])[0]
        prefix = tuple(self.model.tokenize([query], "query")[0])
        cut = len(prefix) < len(whole)
        if cut and options.truncation == "error":
            raise TooLong("query", len(whole), len(prefix))
        rows: list[list[Row]] = []
        truncated: list[bool] = []
        read = options.tokens_read(self.model.contract.document_max_length)
        # What the capped tokens follow, the special tokens and the instruction, is read, too.
        read = read and read + len(self._before) + len(self._after) + len(self._instruction)
        for index, ids in enumerate(self._document(documents, first=read)):
            pieces, lost = self._pieces(ids, index, options)
            rows.append([Row(piece, prefix=prefix) for piece in pieces])
            truncated.append(lost or cut)
        tokens = sum(len(row) + len(prefix) for row in chain.from_iterable(rows))
        return EncodedDocuments(rows, truncated, tokens)

    def forward(self, rows: Sequence[Row]) -> np.ndarray:
        """Returns the rows' similarities, float32 [n]; vectors of the last texts are reused."""
        with self._computing:
            scores = self.similarities(rows, self._recent)
            while len(self._recent) > _RECENT:
                self._recent.popitem(last=False)
        return scores

    @property
    def matching(self) -> bool:
        """Whether the model can tell which tokens met (`matches`)."""
        return self.model.tokens is not None and self.model.tokens.apart

    def matches(self, query: str, documents: Sequence[str], options: Options) -> list[list[Match]]:
        """Returns for each document which of its tokens the query's tokens met.

        Of a document in pieces it is the best one's. Vectors of the last texts are reused.
        """
        tokens = self.model.tokens
        assert tokens is not None
        encoded = self.encode(query, documents, options)
        own = self.model.role_tokenizer("query").spans(query)
        found = []
        with self._computing:
            for text, rows in zip(documents, encoded.rows):
                (query_qD,) = self._vectors("query", [rows[0].prefix], self._recent)
                vectors = self._vectors("document", [row.tokens for row in rows], self._recent)
                best = int(np.argmax([max_sim(query_qD, each) for each in vectors]))
                kept = tokens.kept(rows[best].tokens, "document")
                spans = self._spans(text, rows, best)
                found.append(
                    matches_of(query_qD, vectors[best], own, [spans[place] for place in kept])
                )
        return found

    def _spans(self, text: str, rows: Sequence[Row], number: int) -> list[Span]:
        """Returns where the tokens of one of a document's rows lie in it."""
        whole = self._document.spans(text)
        ids = self._document([text])[0]
        first, last = len(self._before), len(ids) - len(self._after)
        instruction = len(self._instructed(ids[first:last]))
        around = first + instruction + len(self._after)
        sizes = [max(0, len(row.tokens) - around) for row in rows]
        skipped, size = sum(sizes[:number]), sizes[number]
        start = last - skipped - size if self._turn.step == -1 else first + instruction + skipped
        spans: list[Span] = [None] * (first + instruction)
        spans += whole[start : start + size]
        return spans + [None] * (len(rows[number].tokens) - len(spans))

    def similarities(self, rows: Sequence[Row], cache: Vectors) -> np.ndarray:
        """Returns the rows' similarities, float32 [n]; equal texts are encoded once.

        Args:
            rows: any number, batched by length.
            cache: vectors that need not be computed; new ones are added at its end.
        """
        queries = self._vectors("query", [row.prefix for row in rows], cache)
        documents = self._vectors("document", [row.tokens for row in rows], cache)
        pair = self._pair
        if pair is not None:
            return np.array([pair(q, d) for q, d in zip(queries, documents)], np.float32)
        scores: np.ndarray = np.einsum("nD,nD->n", np.stack(queries), np.stack(documents))
        return scores

    def _inner(self, ids: list[int]) -> list[int]:
        return ids[len(self._before) : len(ids) - len(self._after)]

    def _instructed(self, inner: list[int]) -> list[int]:
        """Returns the instruction's tokens, as far as a text begins with them."""
        same = takewhile(lambda pair: pair[0] == pair[1], zip(self._instruction, inner))
        return [token for token, _ in same]

    def _pieces(self, ids: list[int], index: int, options: Options) -> tuple[list[list[int]], bool]:
        """Returns the pieces of a document to encode: all of it, its beginning, or chunks.

        Each piece has the special tokens and the instruction that the whole has.
        """
        inner = self._inner(ids)
        instruction = self._instructed(inner)
        room = self.model.contract.document_max_length - (len(ids) - len(inner)) - len(instruction)
        if room < 1:  # an instruction that leaves no room for a text
            instruction, room = [], room + len(instruction)
        pieces, lost = fit(inner[len(instruction) :][self._turn], room, index, options)
        before = [*self._before, *instruction]
        whole = [[*before, *piece[self._turn], *self._after] for piece in pieces]
        return [piece or ids for piece in whole], lost

    def _vectors(self, role: Role, texts: Sequence[Sequence[int]], cache: Vectors) -> list[Any]:
        """Returns what each text as token ids becomes."""
        keys = [(role, np.asarray(ids, np.int32).tobytes()) for ids in texts]
        missing = {key: list(ids) for key, ids in zip(keys, texts) if key not in cache}
        if missing:
            ids = list(missing.values())
            if self.model.tokens is not None:
                rows = token_rows(self.model, ids, role, self.batch_tokens)
                cache.update(zip(missing, rows.split()))
            elif self._pair is dot:
                terms = term_rows(self.model, ids, role, self.batch_tokens)
                cache.update((key, terms[number]) for number, key in enumerate(missing))
            else:
                cache.update(zip(missing, encode_rows(self.model, ids, role, self.batch_tokens)))
        for key in keys:
            cache.move_to_end(key)
        return [cache[key] for key in keys]


class BiEncoderReranker(NeuralReranker[BiEncoderScorer]):
    """Reranks with a bi-encoder."""

    def __init__(self, spec: BiEncoderSpec) -> None:
        model = BiEncoder.load(spec.model, **load_settings(spec))
        speed_up(model)
        scorer = BiEncoderScorer(model, batch_tokens=spec.batch_tokens, name=spec.model)
        # Reused vectors, and the query's tokens in every row, cost nothing.
        super().__init__(spec, scorer, model, batch_tokens=4 * scorer.batch_tokens)

    def score(self, batch: Sequence[tuple[str, Sequence[str]]]) -> list[list[float]]:
        """Returns one similarity per document, larger is better; lists may be ragged or empty.

        The model's batches go by `batch` alone, so that the same work, done again after a crash,
        gives the same bits.
        """
        encoded = [self.scorer.encode(query, texts, self.options).rows for query, texts in batch]
        rows = [row for texts in encoded for pieces in texts for row in pieces]
        if not rows:
            return [[] for _ in encoded]
        pieces = [len(pieces) for texts in encoded for pieces in texts]
        best = np.maximum.reduceat(
            self.scorer.similarities(rows, OrderedDict()), np.cumsum([0, *pieces[:-1]])
        )
        parts = np.split(best, np.cumsum([len(texts) for texts in encoded])[:-1])
        return [part.tolist() for part in parts]
