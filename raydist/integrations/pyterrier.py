"""PyTerrier, both ways, without its JVM: stages as transformers, transformers as stages.

import pyterrier as pt
from raydist.integrations.pyterrier import reranker, retriever, transformer

bm25, pipe = transformer(index.bm25()), transformer(index.bm25() % 100 >> rd.rerank(MODEL))
pt.Experiment({"bm25": bm25, "pipe": pipe}, topics, qrels, ["ndcg_cut_10"])

hybrid = rd.fuse(index.bm25(), retriever(pt_retriever)) >> reranker(pt_reranker) % 10
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from raydist.api.stages import Pipeline, Steps, pipeline_of
from raydist.errors import ConfigError, DataError
from raydist.integrations import expect, needed

with needed("pyterrier"):
    import pandas as pd
    import pyterrier as pt

if TYPE_CHECKING:
    from raydist.protocols import TextStore
    from raydist.records import Document, Query, Run

_RESULTS = ("qid", "docno", "score")


def transformer(stage: Any, k: int = 1000, *, texts: bool = False) -> pt.Transformer:
    """Returns a stage as a transformer of PyTerrier.

    A pipeline turns queries (`qid`, `query`) into results: the queries' columns, `docno`, `score`,
    `rank` from 0, and with `texts` the documents' `title` and `text`. Stages that reorder results
    turn such into results; where they have no texts of their own, they read the column `text` (and
    `title`, if there is one).

    >>> import pandas as pd, raydist as rd
    >>> index = rd.index({"1": "A heron eats fish.", "2": "Herons and herons."}, "idx")
    >>> topics = pd.DataFrame({"qid": ["q1"], "query": ["herons"]})
    >>> results = transformer(index.bm25())(topics)
    >>> results[["qid", "docno", "rank"]].values.tolist()
    [['q1', '2', 0], ['q1', '1', 1]]
    >>> rerank = transformer(rd.rerank({"kind": "bm25", "analyzer": "english"}))
    >>> both = transformer(index.bm25(), texts=True) >> rerank
    >>> list(both(topics)["docno"])
    ['2', '1']

    Args:
        stage: a pipeline, an index, vectors, an object with `search(queries, k)`, or stages that
            reorder results (`rd.rerank`).
        k: results of a query; a pipeline's.
        texts: add the documents' titles and texts; a pipeline's.

    Raises:
        ConfigError: it is no stage, or has no texts to add.
    """
    if isinstance(stage, Steps):
        return _Reorder(stage)
    return _Search(pipeline_of(stage), k, texts)


class _Search(pt.Transformer):  # type: ignore[misc]
    """A pipeline, from queries to results."""

    def __init__(self, pipeline: Pipeline, k: int, texts: bool) -> None:
        if texts and pipeline.texts is None:
            raise ConfigError(f"texts = True: {pipeline!r} has no texts")
        self.pipeline = pipeline
        self.k = k
        self.texts = texts

    def transform(self, inp: pd.DataFrame) -> pd.DataFrame:
        """Returns the results of queries, in the queries' order.

        Raises:
            DataError: a query has no text, or an id is that of two.
        """
        from raydist.records import Query, Run

        pt.validate.query_frame(inp, extra_columns=["query"], context=self)
        if len(missing := inp["qid"][inp["query"].isna()]):
            raise DataError(f"query: is missing for qid {missing.iloc[0]}; give a text")
        if len(repeated := inp["qid"][inp["qid"].astype("str").duplicated()]):
            raise DataError(f"qid: {repeated.iloc[0]} is the id of two rows; give each its own")
        queries = list(map(Query, inp["qid"].astype("str"), inp["query"].astype("str")))
        run = self.pipeline.run(queries, self.k) if queries else Run.from_lists([])
        results = _results(run)
        if self.texts:
            assert self.pipeline.texts is not None
            results = _with_texts(results, self.pipeline.texts)
        columns = inp[pt.model.query_columns(inp)].astype({"qid": "str"})
        # A merge to the left keeps the order of the queries, and that of their results.
        return columns.merge(results, on="qid", how="inner", sort=False)

    def __repr__(self) -> str:
        return f"transformer({self.pipeline!r}, k={self.k})"


class _Reorder(pt.Transformer):  # type: ignore[misc]
    """Stages that turn results into results."""

    def __init__(self, steps: Steps) -> None:
        self.steps = steps

    def transform(self, inp: pd.DataFrame) -> pd.DataFrame:
        """Returns the results in a new order; columns that are not of the ranking stay."""
        from raydist.records import Query

        needs_texts = any(step.needs_texts for step in self.steps.steps)
        extra = ["query", "text"] if needs_texts else ["query"]
        pt.validate.result_frame(inp, extra_columns=extra, context=self)
        inp = inp.astype({"qid": "str", "docno": "str"})
        rest = inp.drop(columns=["score", "rank"], errors="ignore")
        if inp.empty:
            return rest.assign(score=pd.Series(dtype="float64"), rank=pd.Series(dtype="int64"))
        first = inp.drop_duplicates("qid")
        queries = list(map(Query, first["qid"], first["query"].astype("str")))
        store = _Texts(inp) if needs_texts else None
        run = _run(inp)
        for step in self.steps.steps:
            run = step.apply(run, queries, store)
        return _results(run).merge(rest, on=["qid", "docno"], how="left")[[*rest, "score", "rank"]]

    def __repr__(self) -> str:
        return f"transformer({self.steps!r})"


class _Texts:
    """The documents of a frame of results."""

    def __init__(self, frame: pd.DataFrame) -> None:
        from raydist.records import Document

        titles = frame["title"] if "title" in frame else [""] * len(frame)
        self._documents = {
            name: Document(name, str(text), title if isinstance(title, str) else "")
            for name, text, title in zip(frame["docno"], frame["text"], titles)
        }

    def get(self, doc_ids: Sequence[str]) -> list[Document | None]:
        """Returns a document for each id, None where there is none."""
        return [self._documents.get(each) for each in doc_ids]


def retriever(source: pt.Transformer) -> Pipeline:
    """Returns a transformer that turns queries into results as the first stage of a pipeline.

    >>> import pandas as pd, pyterrier as pt, raydist as rd
    >>> frame = pd.DataFrame({"qid": ["q1"], "docno": ["d7"], "score": [2.0]})
    >>> pipe = retriever(pt.Transformer.from_df(frame)) % 10
    >>> pipe.search({"q1": "herons"}, k=5)["q1"][0].id
    'd7'

    Args:
        source: is called with `qid` and `query`, and gives `qid`, `docno` and `score`. It has no
            texts, so a stage behind it that needs them takes `texts=`.

    Raises:
        ConfigError: it is no transformer.
    """
    return Pipeline(_Retriever(_checked(source)))


def reranker(source: pt.Transformer, *, depth: int = 0, texts: bool = True) -> Steps:
    """Returns a transformer that turns results into results as a later stage of a pipeline.

    >>> import pyterrier as pt, raydist as rd
    >>> index = rd.index({"1": "A heron.", "2": "A heron and a boat on a canal."}, "idx")
    >>> longest = pt.apply.doc_score(lambda row: len(row["text"]))
    >>> [hit.id for hit in (index.bm25() >> reranker(longest, depth=10)).search("heron")]
    ['2', '1']

    Args:
        source: is called with `qid`, `query`, `docno`, `score`, `rank`, `title` and `text`, and
            gives `qid`, `docno` and `score`.
        depth: candidates of each query, as for `rd.rerank`; 0 takes all.
        texts: whether it reads the documents' titles and texts.

    Raises:
        ConfigError: it is no transformer.
    """
    return Steps((_Reranker(_checked(source), depth, texts),))


def _checked(value: Any) -> pt.Transformer:
    expect(value, pt.Transformer, "a transformer of PyTerrier")
    return value


class _Foreign:
    """A transformer as a stage: raydist cannot look into it."""

    def __init__(self, source: pt.Transformer) -> None:
        self._source = source

    def identity(self) -> Any:
        """Raises ConfigError: nothing is known of it."""
        raise ConfigError(f"{self!r}: cannot tell its results from others', so they are not cached")

    def served(self) -> dict[str, Any]:
        """Raises ConfigError: a service has stages of raydist alone."""
        raise ConfigError(f"{self!r}: a service has no transformers of PyTerrier")


class _Retriever(_Foreign):
    """Searches by a transformer."""

    texts = None
    analyzer = None

    def search(self, queries: Sequence[Query], k: int) -> Run:
        """Returns the best `k` documents of each query."""
        ids, texts = [q.query_id for q in queries], [q.text for q in queries]
        return _run(self._source(pd.DataFrame({"qid": ids, "query": texts})), self._source).top(k)

    def __repr__(self) -> str:
        return f"retriever({self._source!r})"


class _Reranker(_Foreign):
    """Reorders candidates by a transformer."""

    def __init__(self, source: pt.Transformer, depth: int, texts: bool) -> None:
        super().__init__(source)
        self._depth = depth
        self.needs_texts = texts

    def depth_of(self, k: int) -> int:
        """Returns how many documents of each query it takes to give `k`."""
        return self._depth or k

    def apply(self, run: Run, queries: Sequence[Query], texts: TextStore | None) -> Run:
        """Returns the new run."""
        run = run.top(self._depth) if self._depth else run
        if not len(run):
            return run
        frame = _results(run)
        by_id = {query.query_id: query.text for query in queries}
        frame["query"] = [by_id[each] for each in frame["qid"]]
        if self.needs_texts:
            assert texts is not None  # checked when the pipeline was made
            frame = _with_texts(frame, texts)
        return _run(self._source(frame), self._source)

    def __repr__(self) -> str:
        return f"reranker({self._source!r})"


def _results(run: Run) -> pd.DataFrame:
    """Returns a run as a frame of results."""
    frame = run.table.rename_columns(_RESULTS).to_pandas()
    frame = frame.astype({"qid": "str", "docno": "str", "score": "float64"})
    frame["rank"] = frame.groupby("qid", sort=False).cumcount() + pt.model.FIRST_RANK
    return frame


def _with_texts(results: pd.DataFrame, store: TextStore) -> pd.DataFrame:
    """Returns results with their titles and texts; DataError if a document has none."""
    documents = store.get(list(results["docno"]))
    for name, document in zip(results["docno"], documents):
        if document is None:
            raise DataError(f"document {name!r}: has no text")
    titles, texts = [d.title for d in documents if d], [d.text for d in documents if d]
    return results.assign(title=titles, text=texts)


def _run(frame: pd.DataFrame, source: pt.Transformer | None = None) -> Run:
    """Returns the run of a frame of results: by score, equal scores by rank, then as they come."""
    import pyarrow as pa

    from raydist.records import RUN, Run

    absent = [name for name in _RESULTS if name not in frame]
    if source is not None and absent:
        raise DataError(f"{source!r}: gives no column {absent[0]!r}; it has {', '.join(frame)}")
    if "rank" in frame:
        frame = frame.sort_values("rank", kind="stable")
    # Without scores (a union of results), the order is all there is.
    scores = frame["score"] if "score" in frame else -frame.groupby("qid", sort=False).cumcount()
    ids = [[str(each) for each in frame[name]] for name in ("qid", "docno")]
    return Run.sorted(pa.table([*ids, scores.to_numpy("float32")], schema=RUN))
