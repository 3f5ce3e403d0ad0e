"""MTEB: encoders, rerankers and searches of raydist as its models, its tasks as collections.

import mteb
from raydist.integrations.mteb import RaydistEncoder, RaydistSearch, collection

task = mteb.get_task("SciFact")
mteb.evaluate(RaydistEncoder(rd.Encoder("sentence-transformers/all-MiniLM-L6-v2")), task)
mteb.evaluate(RaydistSearch(k1=1.2, b=0.75), task)
scifact = collection(task)                      # the same task in raydist
rd.compare({"bm25": rd.index(scifact.corpus, "idx")}, scifact.queries, scifact.qrels)
"""

from __future__ import annotations

import itertools
import operator
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raydist.api.collection import Collection
from raydist.api.models import Encoder
from raydist.errors import ConfigError, DataError
from raydist.integrations import expect, needed
from raydist.integrations.ranking import reranker_of

with needed("mteb"):
    import mteb
    from mteb.abstasks import AbsTaskRetrieval
    from mteb.models.model_meta import ModelMeta, ScoringFunction
    from mteb.similarity_functions import dot_score, pairwise_dot_score
    from mteb.types import PromptType

if TYPE_CHECKING:
    import numpy as np

    from raydist.api.folders import Index


class RaydistEncoder:
    """An encoder as a model of MTEB, for any of its tasks on texts.

    Queries get the encoder's instruction for queries, all other texts are documents. Documents with
    titles are those of an index: title, newline, text. Similarity is the inner product, as in a
    search of raydist. MTEB keeps results by `name` and a revision, which is made of the model's
    content and settings.

    >>> import raydist as rd
    >>> model = RaydistEncoder(rd.Encoder(MODEL), name="raydist/tiny")
    >>> model.mteb_model_meta.name, model.mteb_model_meta.embed_dim
    ('raydist/tiny', 32)

    Attributes:
        encoder: the `rd.Encoder`.
        mteb_model_meta: what MTEB notes about the model.
    """

    def __init__(self, encoder: Encoder, name: str | None = None) -> None:
        """Wraps an encoder.

        Args:
            encoder: the loaded encoder.
            name: by which MTEB keeps results; `raydist/` and the model's last name if None.

        Raises:
            ConfigError: it is no encoder.
        """
        expect(encoder, Encoder, "an rd.Encoder")
        self.encoder = encoder
        self.mteb_model_meta = _meta(
            name or f"raydist/{Path(encoder.name).name}",
            encoder.identity(),
            embed_dim=encoder.dimension,
            similarity_fn_name=ScoringFunction.DOT_PRODUCT,
            framework=["PyTorch"],
        )

    def encode(
        self, inputs: Iterable[Any], *, prompt_type: PromptType | None = None, **task: Any
    ) -> np.ndarray:
        """Returns float32 vectors [n, d] of the texts of batches.

        Args:
            inputs: batches `{"text": […]}`; of documents `{"title": […], "body": […]}`.
            prompt_type: whether they are queries.
            task: what else MTEB says; not used.
        """
        if prompt_type == PromptType.query:
            queries = [text for batch in inputs for text in batch["text"]]
            return self.encoder.encode_queries(queries)
        return self.encoder.encode_documents([text for b in inputs for text in _contents(b)])

    def similarity(self, embeddings1: Any, embeddings2: Any) -> Any:
        """Returns the inner products [n, m] of vectors [n, d] and [m, d]."""
        return dot_score(embeddings1, embeddings2)

    def similarity_pairwise(self, embeddings1: Any, embeddings2: Any) -> Any:
        """Returns the inner products [n] of vectors [n, d] and [n, d], row by row."""
        return pairwise_dot_score(embeddings1, embeddings2)


class RaydistReranker:
    """A reranker as a cross-encoder of MTEB, for its reranking tasks and for earlier results.

    >>> model = RaydistReranker("bm25")
    >>> queries = [{"text": ["heron", "heron", "heron"]}]
    >>> int(model.predict(queries, [{"text": ["a boat", "a heron", "a canal"]}]).argmax())
    1

    Attributes:
        reranker: the `rd.Reranker`.
        mteb_model_meta: what MTEB notes about the model.
    """

    def __init__(self, reranker: Any, name: str | None = None) -> None:
        """Wraps a reranker.

        Args:
            reranker: an `rd.Reranker`, or what it is made of: `bm25`, a model's folder or hub name.
            name: by which MTEB keeps results; `raydist/` and the model's last name if None.

        Raises:
            RaydistError: as `rd.Reranker` does.
        """
        self.reranker = reranker_of(reranker)
        self.mteb_model_meta = _meta(
            name or f"raydist/{Path(self.reranker.name).name}",
            self.reranker.identity(),
            model_type=["cross-encoder"],
            framework=["PyTorch"],
        )

    def predict(self, inputs1: Iterable[Any], inputs2: Iterable[Any], **task: Any) -> np.ndarray:
        """Returns float64 scores [n] of pairs; the documents of a query in a row are one list.

        Args:
            inputs1: batches of queries `{"text": […]}`.
            inputs2: batches of documents `{"text": […]}`, or with `title` and `body`.
            task: what else MTEB says; not used.
        """
        import numpy as np

        queries = (text for batch in inputs1 for text in batch["text"])
        documents = (text for batch in inputs2 for text in _contents(batch))
        pairs = itertools.groupby(zip(queries, documents), key=operator.itemgetter(0))
        scores = [self.reranker.score(query, [text for _, text in of]) for query, of in pairs]
        return np.concatenate(scores) if scores else np.empty(0)


class RaydistSearch:
    """Stages over an index as a search model of MTEB: BM25, unless others are given.

    >>> RaydistSearch(k1=1.2, b=0.75).mteb_model_meta.name
    'raydist/bm25'
    >>> import raydist as rd
    >>> ql = RaydistSearch(lambda index: index.ql(), name="raydist/ql", revision="1")

    Attributes:
        mteb_model_meta: what MTEB notes about the model.
    """

    def __init__(
        self,
        stages: Callable[[Index], Any] | None = None,
        *,
        k1: float = 0.9,
        b: float = 0.4,
        name: str = "raydist/bm25",
        revision: str | None = None,
        **keys: Any,
    ) -> None:
        """Describes the search.

        Args:
            stages: makes a pipeline of an index; BM25 if None.
            k1: BM25's saturation of the term frequency, without `stages`.
            b: BM25's weight of the document's length, without `stages`.
            name: by which MTEB keeps results, with the revision.
            revision: another one for other stages; made of the settings where there are none.
            keys: of `raydist index`, such as `analyzer={"language": "german"}`.

        Raises:
            ConfigError: there are stages and no revision, or stages are no function.
        """
        expect(stages, Callable | None, "stages=, a function that makes a pipeline of an index")
        if stages is not None and revision is None:
            raise ConfigError(
                "revision: required with stages: MTEB keeps results by name and revision, so that "
                "other stages need another one"
            )
        self._stages = stages or (lambda index: index.bm25(k1=k1, b=b))
        self._keys = keys
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._index: Index | None = None
        self.mteb_model_meta = _meta(
            name, {"k1": k1, "b": b, **keys}, model_type=["sparse"], revision=revision
        )

    def index(self, corpus: Any, **task: Any) -> None:
        """Builds the index of a task, in the folder for temporary files.

        Args:
            corpus: a Dataset with `id`, `text` and perhaps `title`.
            task: what else MTEB says; not used.
        """
        import raydist as rd

        self._folder = tempfile.TemporaryDirectory(prefix="raydist-mteb-")
        self._index = rd.index(_columns(corpus), Path(self._folder.name) / "index", **self._keys)

    def search(
        self,
        queries: Any,
        *,
        top_k: int,
        top_ranked: Mapping[str, Sequence[str]] | None = None,
        **task: Any,
    ) -> dict[str, dict[str, float]]:
        """Returns `{query: {document: score}}`.

        Args:
            queries: a Dataset with `id`, `text` and perhaps `instruction`.
            top_k: documents of a query.
            top_ranked: documents of each query to search among; all if None.
            task: what else MTEB says; not used.

        Raises:
            ConfigError: there is no index yet.
            DataError: the queries are conversations.
        """
        from raydist.api.stages import pipeline_of
        from raydist.records import Query

        if self._index is None:
            raise ConfigError("search: build the index first: index(corpus)")
        texts = [Query(name, text) for name, text in _queries(queries).items()]
        depth = top_k if top_ranked is None else len(self._index)
        run = pipeline_of(self._stages(self._index)).run(texts, depth)
        results: dict[str, dict[str, float]] = {query.query_id: {} for query in texts}
        for query, docs, scores in run:
            pairs = zip(docs, scores.tolist())
            if top_ranked is not None:
                among = set(top_ranked.get(query, ()))
                pairs = ((doc, score) for doc, score in pairs if doc in among)  # type: ignore[assignment]
            results[query] = dict(itertools.islice(pairs, top_k))
        return results


def collection(task: Any, split: str = "test", subset: str = "default") -> Collection:
    """Returns a retrieval task of MTEB as a collection: its corpus, judged queries, judgements.

    Its scores are those of MTEB for `nDCG@10`, `AP`, `R@100` and the like, for tasks in which a
    query is no document for itself (ArguAna) with `exclude_own` in a search.

    >>> collection(TASK)
    Collection('Herons (test)': 2 queries, 3 judgements)

    Args:
        task: a task, or its name in MTEB.
        split: whose judgements.
        subset: of a task in several languages.

    Raises:
        ConfigError: it is no retrieval task, or has no such split or subset.
        DataError: its queries are conversations.
    """
    task = mteb.get_task(task) if isinstance(task, str) else task
    expect(task, AbsTaskRetrieval, "a retrieval task of MTEB")
    task.load_data()
    task.convert_v1_dataset_format_to_v2(num_proc=None)
    data = task.dataset
    for name, key in ((subset, "subset"), (split, "split")):
        if name not in data:
            raise ConfigError(f"{key} = {name!r}: expected one of {', '.join(data)}")
        data = data[name]
    qrels = {q: dict(judged) for q, judged in data["relevant_docs"].items() if judged}
    queries = {q: text for q, text in _queries(data["queries"]).items() if q in qrels}
    name = f"{task.metadata.name} ({split})"
    return Collection(name, _columns(data["corpus"]), queries, qrels)


def _queries(dataset: Any) -> dict[str, str]:
    """Returns `{id: text}`; an instruction follows the text, as MTEB gives it to models."""
    texts = {}
    for row in dataset:
        if not isinstance(row["text"], str):
            raise DataError(f"query {row['id']!r}: is a conversation; expected a text")
        instruction = row.get("instruction")
        texts[str(row["id"])] = f"{row['text']} {instruction}" if instruction else row["text"]
    return texts


def _columns(corpus: Any) -> Any:
    """Returns a Dataset of documents with the columns that raydist reads, and no others."""
    return corpus.select_columns([n for n in ("id", "title", "text") if n in corpus.column_names])


def _contents(batch: Mapping[str, Any]) -> list[str]:
    """Returns the texts of a batch of documents, each after its title."""
    if "body" not in batch:
        return list(batch["text"])
    titles = batch.get("title") or [""] * len(batch["body"])
    return [f"{title}\n{text}" if title else text for title, text in zip(titles, batch["body"])]


def _meta(name: str, identity: Any, revision: str | None = None, **known: Any) -> Any:
    """Returns what MTEB notes about a model; what raydist does not know is left open."""
    from raydist.fingerprints import value_fingerprint

    settings = {"name": name, "revision": revision or value_fingerprint(identity), **known}
    return ModelMeta.create_empty(overwrites=settings)
