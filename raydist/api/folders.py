"""What verbs wrote, opened: indexes and vectors, and whatever else a path holds."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, Unpack, overload

from raydist.api.folder_search import search_of
from raydist.api.outputs import Folder, Output, Training
from raydist.api.stages import Pipeline
from raydist.errors import ConfigError, DataError, NotFoundError

if TYPE_CHECKING:
    from raydist.api.hits import Hits
    from raydist.api.inputs import Queries
    from raydist.api.run import Run
    from raydist.bow.index import BowIndex
    from raydist.bow.lookup import TermStatistics
    from raydist.protocols import TextStore
    from raydist.records import Document

Place = str | os.PathLike[str]


class How(TypedDict, total=False):
    """What a search of an index takes beside its model."""

    syntax: str
    filter: str | None
    sort: str | None
    fields: Mapping[str, float] | None


class _Documents(Folder):
    """A folder of documents that are searched."""

    def __len__(self) -> int:
        """Returns the number of documents."""
        return int(self.manifest["documents"])

    def __bool__(self) -> bool:
        return True


class Index(_Documents):
    """A bag-of-words index.

    >>> import raydist as rd
    >>> index = rd.index([{"id": "1", "text": "A heron eats fish."}], "idx")
    >>> index
    Index('idx': 1 document, 3 terms)
    >>> index.search("herons")
    rank   score  id  text
       1  0.1514  1   A *heron* eats fish.
    >>> index["1"].text
    'A heron eats fish.'

    Attributes:
        path: the folder, or its URI.
        manifest: what it was made from, and its counts.
    """

    @cached_property
    def pipeline(self) -> Pipeline:
        """The search by BM25 as Lucene computes it, k1=0.9 and b=0.4: `bm25()`."""
        return self.bm25()

    @property
    def texts(self) -> TextStore | None:
        """The documents by id; None if the index was built with `store=False`."""
        return self.pipeline.texts

    def __getitem__(self, doc_id: str) -> Document:
        """Returns a document with its title and text.

        Raises:
            ConfigError: the index has no texts.
            NotFoundError: it has no such document; it is a KeyError, too.
        """
        if self.texts is None:
            raise ConfigError(f"{self.path}: has no texts; build the index with store=True")
        document = self.texts.get([doc_id])[0]
        if document is None:
            raise NotFoundError(f"{doc_id!r}: no document of this id in {self.path}")
        return document

    @overload
    def search(  # type: ignore[overload-overlap]
        self, queries: str, k: int | None = None, **how: Unpack[How]
    ) -> Hits: ...
    @overload
    def search(self, queries: Queries, k: int | None = None, **how: Unpack[How]) -> Run: ...
    def search(self, queries: Queries, k: int | None = None, **how: Unpack[How]) -> Hits | Run:
        """Returns the best documents by BM25, as `index.bm25(...).search` does.

        Args:
            queries: a text, or queries by id.
            k: how many documents; 10 of a text and 1,000 of queries if None.
            how: `filter` says which documents, such as `"year >= 2020 and source == 'x'"`; `sort`
                names a column that orders them, with a minus for the largest first; `fields` has
                the weights of fields, of an index that was built with some (`{"title": 2, "text":
                1}`), without which all have 1; `syntax` is `lucene` for queries in Lucene's.
        """
        steps = self.bm25(**how) if how else self.pipeline
        return steps.search(queries, k)

    def bm25(
        self,
        k1: float = 0.9,
        b: float = 0.4,
        *,
        variant: str = "lucene",
        ties: str = "docid",
        threads: int = 1,
        syntax: str = "terms",
        **keys: Any,
    ) -> Pipeline:
        """Returns the search by BM25.

        Args:
            k1: saturation of the term frequency, from 0.
            b: weight of the document's length, 0 to 1.
            variant: lucene, robertson, atire, bm25+ or bm25l.
            ties: order of equal scores: docid, external or anserini.
            threads: threads that search queries in parallel.
            syntax: how queries are read: `terms`, as words; `lucene`, by Lucene's classic syntax,
                whose phrases need an index with `positions=True`.
            keys: `filter`, `sort`, `fields`, and the other keys of `search scoring.…`: `delta`,
                `lengths`, `query_side`, `sdm`.

        Raises:
            ConfigError: a value is out of bounds.
        """
        scoring = {"kind": "bm25", "k1": k1, "b": b, "variant": variant, **keys}
        more = {"ties": ties, "threads": threads, "syntax": syntax}
        return search_of(self.path, "bm25", True, scoring=scoring, **more)

    def ql(
        self,
        smoothing: str = "dirichlet",
        *,
        mu: float = 1000.0,
        weight: float = 0.1,
        ties: str = "docid",
        threads: int = 1,
        **keys: Any,
    ) -> Pipeline:
        """Returns the search by query likelihood.

        Args:
            smoothing: dirichlet or jelinek-mercer.
            mu: Dirichlet prior, in tokens.
            weight: share of the collection (jelinek-mercer), 0 to 1.
            ties: order of equal scores: docid, external or anserini.
            threads: threads that search queries in parallel.
            keys: `filter`, `sort`, and the other keys of `search scoring.…`: `lengths`.

        Raises:
            ConfigError: a value is out of bounds.
        """
        scoring = {"kind": "ql", "smoothing": smoothing, "mu": mu, "weight": weight, **keys}
        return search_of(self.path, "ql", True, scoring=scoring, ties=ties, threads=threads)

    def scored(self, kind: str, *, ties: str = "docid", threads: int = 1, **keys: Any) -> Pipeline:
        """Returns the search by any formula.

        Args:
            kind: qld, qljm, inl2, spl, f2exp, f2log, ql, bm25, or bm25f of an index with fields.
            ties: order of equal scores: docid, external or anserini.
            threads: threads that search queries in parallel.
            keys: `filter`, `sort`, `fields`, and the other keys of `search scoring.…`.

        Raises:
            ConfigError: an unknown name, or a value out of bounds.
        """
        scoring = {"kind": kind, **keys}
        return search_of(self.path, kind, True, scoring=scoring, ties=ties, threads=threads)

    @cached_property
    def _opened(self) -> BowIndex:
        from raydist.bow.index import BowIndex
        from raydist.storage import local

        return BowIndex.open(local(self.path))

    @property
    def total_tokens(self) -> int:
        """The number of tokens of all documents."""
        return self._opened.tokens

    def document_frequency(self, term: str, *, analyzed: bool = True) -> int:
        """Returns how many documents have a term.

        Args:
            term: a word, of which the index's analyzer makes the term.
            analyzed: False takes the term as it is in the index.

        Raises:
            ConfigError: the analyzer makes no term of it, or several.
        """
        from raydist.bow import lookup

        return self._opened.document_frequency(lookup.term_of(self._opened, term, analyzed))

    def collection_frequency(self, term: str, *, analyzed: bool = True) -> int:
        """Returns how often a term occurs in all documents; arguments as `document_frequency`."""
        return self.term_statistics(term, analyzed=analyzed).collection_frequency

    def term_statistics(self, term: str, *, analyzed: bool = True) -> TermStatistics:
        """Returns a term with its frequencies and idf; arguments as `document_frequency`."""
        from raydist.bow import lookup

        return lookup.statistics_of(self._opened, lookup.term_of(self._opened, term, analyzed))

    def postings(self, term: str, *, analyzed: bool = True) -> Iterator[tuple[str, int]]:
        """Yields the id of each document that has a term, and how often it does.

        They come in the order in which documents were indexed.

        >>> import raydist as rd
        >>> index = rd.index({"1": "herons eat", "2": "a heron, two herons"}, "idx")
        >>> list(index.postings("heron"))
        [('1', 1), ('2', 2)]
        >>> index.document_vector("2")
        {'heron': 2, 'two': 1}

        Args:
            term: a word, of which the index's analyzer makes the term.
            analyzed: False takes the term as it is in the index.

        Raises:
            ConfigError: the analyzer makes no term of it, or several.
        """
        from raydist.bow import lookup

        return lookup.postings(self._opened, lookup.term_of(self._opened, term, analyzed))

    def document_vector(self, doc_id: str) -> dict[str, int]:
        """Returns the terms of a document in byte order, with their frequencies.

        Raises:
            ConfigError: the index has neither texts nor a forward index.
            NotFoundError: it has no such document; it is a KeyError, too.
        """
        from raydist.bow import lookup

        try:
            return lookup.document_vector(self._opened, doc_id)
        except DataError:
            raise NotFoundError(f"{doc_id!r}: no document of this id in {self.path}") from None

    def _facts(self) -> list[tuple[str, str]]:
        return [("kind", str(self.manifest["kind"])), ("holds", ", ".join(self._counts()))]

    def _counts(self) -> list[str]:
        from raydist import log

        terms = self.manifest.get("terms")
        counts = [log.count(len(self), "document")]
        return counts if terms is None else [*counts, log.count(terms, "term")]


class Vectors(_Documents):
    """The vectors of a corpus, or an index of its tokens' vectors, which MaxSim searches.

    >>> import raydist as rd
    >>> corpus = {"1": "A heron eats fish.", "2": "A boat on a canal."}
    >>> vectors = rd.embed(corpus, "vec", model=MODEL)
    >>> len(vectors.search("waterways", k=2))
    2

    Attributes:
        path: the folder, or its URI.
        manifest: what it was made from, and its counts.
        dimension: of a vector.
    """

    @property
    def dimension(self) -> int:
        """The number of components of a vector."""
        return int(self.manifest["dimension"])

    @cached_property
    def pipeline(self) -> Pipeline:
        """The exact search by inner product: `dense()`."""
        return self.dense()

    @overload
    def search(self, queries: str, k: int | None = None) -> Hits: ...  # type: ignore[overload-overlap]
    @overload
    def search(self, queries: Queries, k: int | None = None) -> Run: ...
    def search(self, queries: Queries, k: int | None = None) -> Hits | Run:
        """Returns the best documents by inner product, as `vectors.dense().search` does."""
        return self.pipeline.search(queries, k)

    def dense(
        self,
        *,
        approximate: bool = False,
        model: Any = None,
        rescore_depth: int = 4,
        filter: str | None = None,
        by: Any = None,
    ) -> Pipeline:
        """Returns the search by inner product with the vectors of queries.

        Args:
            approximate: search the FAISS index beside the vectors.
            model: where the model of the vectors is now, or how to load it; the recorded one if
                None.
            rescore_depth: candidates per result that are scored by the finer form, where vectors
                have one.
            filter: a condition on the documents' columns, such as `year >= 2020`.
            by: `document` ranks the documents of passages by the best one of each, and
                `{"passages": 3}` by the mean of the best three.

        Raises:
            ConfigError: a value is not allowed.
        """
        keys: dict[str, Any] = {"approximate": approximate, "rescore_depth": rescore_depth}
        keys |= {"filter": filter, "by": by}
        keys |= {} if model is None else {"model": model}
        return search_of(self.path, "dense", False, **keys)

    def _facts(self) -> list[tuple[str, str]]:
        return [
            ("kind", str(self.manifest["kind"])),
            ("holds", ", ".join(self._counts())),
            ("model", str(self.manifest["model"]["path"])),
        ]

    def _counts(self) -> list[str]:
        from raydist import log

        return [log.count(len(self), "document"), log.count(self.dimension, "dimension")]


def open(path: Place) -> Index | Vectors | Training | Output:
    """Returns what a verb wrote: an `Index`, `Vectors`, a `Training`, or another `Output`.

    >>> import raydist as rd
    >>> built = rd.index([{"id": "1", "text": "heron fish"}], "idx")
    >>> rd.open("idx").search("heron")[0].id
    '1'

    Args:
        path: a folder or file, or its URI.

    Raises:
        ArtifactError: nothing is there, or it is not complete.
    """
    from raydist import storage
    from raydist.manifest import read_manifest

    name = os.fspath(path)
    local = storage.local(name)
    beside = Path(f"{local}.raydist")
    manifest = read_manifest(beside if local.is_file() and beside.is_dir() else local)
    kinds: dict[str, type[Index | Vectors | Training]] = {
        "bow-index": Index,
        "bow-fields": Index,
        "vectors": Vectors,
        "multivector-index": Vectors,
        "training-run": Training,
        "tuning": Training,
    }
    return kinds.get(manifest["kind"], Output)(name, manifest)
