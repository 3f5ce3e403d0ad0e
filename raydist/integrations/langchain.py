"""LangChain: a pipeline as a retriever, a reranker as a document compressor.

from raydist.integrations.langchain import RaydistCompressor, RaydistRetriever

retriever = RaydistRetriever(stage=index.bm25(), k=20)
documents = retriever.invoke("what causes rain?")
compressor = RaydistCompressor(reranker="Qwen/Qwen3-Reranker-0.6B", top_n=5)
best = compressor.compress_documents(documents, "what causes rain?")
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from raydist.integrations import needed
from raydist.integrations.ranking import TextSearch, order, reranker_of

with needed("langchain-core"):
    from langchain_core.callbacks import CallbackManagerForRetrieverRun, Callbacks
    from langchain_core.documents import BaseDocumentCompressor, Document
    from langchain_core.retrievers import BaseRetriever


class RaydistRetriever(BaseRetriever):  # type: ignore[misc]
    """The stages of a pipeline as a retriever; `ainvoke` searches in a thread.

    Its documents have the id, the text, and as metadata `rank` (from 1), `score` (larger is
    better), and `title` where there is one.

    >>> import raydist as rd
    >>> index = rd.index({"1": "A heron eats fish.", "2": "A boat."}, "idx")
    >>> documents = RaydistRetriever(stage=index, k=5).invoke("herons")
    >>> documents[0].id, documents[0].page_content, documents[0].metadata["rank"]
    ('1', 'A heron eats fish.', 1)

    Attributes:
        stage: a pipeline, an index, vectors, or an object with `search(queries, k)`.
        k: documents of a query.
        texts: an index or a corpus, where the stage has no texts.

    Raises:
        ValueError: it is no stage, or there are no texts.
    """

    stage: Any
    k: int = 10
    texts: Any = None
    _search: Any = None

    def model_post_init(self, context: Any) -> None:
        """Opens what is searched."""
        super().model_post_init(context)
        self._search = TextSearch(self.stage, self.texts)

    def _get_relevant_documents(
        self, query: str, *, run_manager: CallbackManagerForRetrieverRun | None = None
    ) -> list[Document]:
        documents = []
        for hit in self._search.hits(query, self.k):
            title = {"title": hit.title} if hit.title else {}
            metadata = {"rank": hit.rank, "score": hit.score, **title}
            documents.append(Document(id=hit.id, page_content=hit.text, metadata=metadata))
        return documents


class RaydistCompressor(BaseDocumentCompressor):  # type: ignore[misc]
    """A reranker as a document compressor: orders documents by its scores, and keeps the first.

    A title in a document's metadata comes before its text, as in an index. The score is added to
    the metadata as `relevance_score`, which LangChain's own rerankers use.

    >>> from langchain_core.documents import Document
    >>> documents = [Document("a boat"), Document("a heron eats"), Document("a canal")]
    >>> [best] = RaydistCompressor(reranker="bm25", top_n=1).compress_documents(
    ...     documents, "heron"
    ... )
    >>> best.page_content
    'a heron eats'

    Attributes:
        reranker: an `rd.Reranker`, or what it is made of: `bm25`, a model's folder or hub name.
        top_n: documents to keep; all if None.

    Raises:
        ValueError: there is no such reranker.
    """

    reranker: Any
    top_n: int | None = None

    def model_post_init(self, context: Any) -> None:
        """Loads the reranker."""
        super().model_post_init(context)
        self.reranker = reranker_of(self.reranker)

    def compress_documents(
        self, documents: Sequence[Document], query: str, callbacks: Callbacks | None = None
    ) -> list[Document]:
        """Returns the documents in the order of their scores for the query.

        Args:
            documents: in any order; equal scores keep theirs.
            query: its text.
            callbacks: not used.
        """
        texts = [(str(d.metadata.get("title") or ""), d.page_content) for d in documents]
        return [
            documents[place].model_copy(
                update={"metadata": {**documents[place].metadata, "relevance_score": score}}
            )
            for place, score in order(self.reranker, query, texts, self.top_n)
        ]
