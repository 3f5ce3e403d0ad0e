"""Tools of language models, by the Model Context Protocol: search, fetch, rerank.

A client starts the program and talks with it over standard input and output, or over HTTP on this
machine. Tools answer with structured results; a mistake in an argument is answered with a sentence
that the model can act on.
"""

# Annotations are read when a tool is made, since its bounds are the server's limits.

import os
import signal
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import uvicorn
from mcp.server import MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp.server.mcpserver.tools import Tool
from mcp.types import ToolAnnotations
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from raydist import __version__
from raydist.errors import RaydistError
from raydist.protocols import Reranker
from raydist.records import Document
from raydist.serving.backend import SearchCall, SnippetCall
from raydist.serving.errors import ServiceError
from raydist.serving.keys import Keys
from raydist.serving.search import Searcher
from raydist.serving.spec import ToolLimits

_BODY = 1 << 20  # most bytes of a request
_LONGEST_ID = 100  # characters of an id in a message
_PATIENCE_S = 3  # seconds in which running requests are answered when the server stops
_HOST = "127.0.0.1"
_NAMES = (_HOST, "localhost")
_READ_ONLY = ToolAnnotations(
    read_only_hint=True, destructive_hint=False, idempotent_hint=True, open_world_hint=False
)


class _Answer(BaseModel):
    model_config = ConfigDict(use_attribute_docstrings=True)


class Result(_Answer):
    """A document of a ranking."""

    rank: int
    """From 1, best first."""
    id: str
    """For fetch and rerank."""
    score: float
    """Larger is better; scores of different queries do not compare."""
    title: str = ""
    """Empty where there is none."""
    passage: str = ""
    """The part of the text that matches best; empty where the index has no texts."""


class Ranking(_Answer):
    """Documents, best first."""

    results: list[Result]
    """Best first; empty if nothing matches."""


class DocumentPart(_Answer):
    """A document, or a part of a long one."""

    id: str
    """The document's."""
    title: str
    """Empty where there is none."""
    text: str
    """From the character `start` on."""
    start: int
    """The first character of `text` in the document."""
    end: int
    """The character behind `text`; fetch with start=end reads on."""
    length: int
    """Characters of the whole document; there is more where `end` is less."""


class DocumentParts(_Answer):
    """Documents by their ids."""

    documents: list[DocumentPart]
    """In the order of the ids."""
    missing: list[str]
    """Ids that no document has."""


class _Tool(Tool):
    """A tool whose errors are sentences."""

    async def run(self, arguments: dict[str, Any], *rest: Any, **options: Any) -> Any:
        names = self.parameters["properties"]
        if unknown := sorted(arguments.keys() - names.keys()):
            raise ToolError(
                f"{self.name} has no argument {', '.join(unknown)}; it takes {', '.join(names)}"
            )
        try:
            return await super().run(arguments, *rest, **options)
        except ToolError as error:
            if isinstance(error.__cause__, ValidationError):
                raise ToolError(_sentence(error.__cause__)) from None
            if isinstance(error.__cause__, RaydistError | ToolError):
                raise ToolError(str(error.__cause__)) from None
            raise


def _sentence(error: ValidationError) -> str:
    mistakes = []
    for each in error.errors():
        place = ".".join(map(str, each["loc"]))
        mistakes.append(f"{place}: {each['msg'][:1].lower()}{each['msg'][1:]}")
    return "; ".join(mistakes)


@dataclass(frozen=True, slots=True)
class Collection:
    """What is searched, as a model is told.

    Attributes:
        about: what the documents are, in the user's words; may be empty.
        documents: their number.
        words: whether documents match by their words.
        meaning: whether documents match by their meaning.
    """

    about: str
    documents: int
    words: bool
    meaning: bool


class Tools:
    """Search, fetch and rerank, as functions with descriptions for a model.

    Args:
        searcher: of the indexes.
        reranker: None leaves its tool out.
        collection: what is searched.
        limits: of arguments and answers.
    """

    def __init__(
        self,
        searcher: Searcher,
        reranker: Reranker | None,
        collection: Collection,
        limits: ToolLimits,
    ) -> None:
        self._searcher = searcher
        self._reranker = reranker
        self._collection = collection
        self._limits = limits
        # Models and tokenizers belong to one thread at a time.
        self._searching, self._reranking = threading.Lock(), threading.Lock()

    def server(self) -> MCPServer[Any]:
        """Returns the server of these tools."""
        tools = [self._search()]
        if self._searcher.stores:
            tools.append(self._fetch())
            if self._reranker is not None:
                tools.append(self._rerank())
        return MCPServer(
            "raydist",
            title=self._collection.about or "raydist",
            instructions=f"{self._subject()} {_ORDER if len(tools) > 1 else ''}".strip(),
            version=__version__,
            tools=list(tools),
            subscriptions=False,
            log_level="WARNING",
        )

    def warm_up(self) -> None:
        """Searches once, so that machine code and pages of files are loaded."""
        with self._searching:
            self._searcher.search(SearchCall("warm up", 1))

    def _subject(self) -> str:
        about = self._collection.about.rstrip(". ")
        return f"{f'{about}: ' if about else ''}{self._collection.documents:,} documents."

    def _search(self) -> Tool:
        limits = self._limits
        query = Annotated[
            str,
            Field(description=self._advice(), min_length=1, max_length=limits.max_query_chars),
        ]
        number = Annotated[int, Field(description="Most results.", ge=1, le=limits.max_results)]
        usual = min(10, limits.max_results)

        def search(query: query, k: number = usual) -> Ranking:
            with self._searching:
                hits = self._searcher.search(SearchCall(query, k)).hits
            documents = {hit.doc_id: (hit.document, hit.store) for hit in hits if hit.document}
            scores = [(hit.doc_id, [*hit.scores.values()][-1]) for hit in hits]
            return self._ranking(query, scores, documents)

        answer = (
            "Returns ids, scores, titles and the passage of each document that matches best. Read "
            "documents with fetch before you rely on them."
            if self._searcher.stores
            else "Returns the ids of documents and their scores."
        )
        return _tool(search, "Search", f"Searches documents. {self._subject()} {answer}")

    def _advice(self) -> str:
        if self._collection.words and self._collection.meaning:
            return "A question or a few words; documents match by their words and their meaning."
        if self._collection.meaning:
            return "A question or a description; documents match by their meaning."
        return (
            "A few words that a good document has; documents match by their words, whatever their "
            "order. Use names and specific terms, and try synonyms where nothing fits."
        )

    def _fetch(self) -> Tool:
        limits = self._limits
        names = Annotated[
            list[str],
            Field(
                description="Ids, as search returns them.",
                min_length=1,
                max_length=limits.max_documents,
            ),
        ]
        first = Annotated[
            int,
            Field(description="The character to begin at, to read on in a long document.", ge=0),
        ]

        def fetch(ids: names, start: first = 0) -> DocumentParts:
            wanted = [*dict.fromkeys(ids)]
            documents = self._documents(wanted)
            parts: list[DocumentPart] = []
            left = limits.max_fetch_chars
            for at, (name, (document, _)) in enumerate(documents.items()):
                end = start + left // (len(documents) - at)
                text = document.text[start:end]
                left -= len(text)
                parts.append(
                    DocumentPart(
                        id=name,
                        title=document.title,
                        text=text,
                        start=start,
                        end=start + len(text),
                        length=len(document.text),
                    )
                )
            return DocumentParts(documents=parts, missing=[n for n in wanted if n not in documents])

        return _tool(
            fetch,
            "Fetch",
            "Reads documents by their ids: title and text. All texts of an answer have "
            f"{limits.max_fetch_chars:,} characters at most; of longer ones `end` says where to "
            "read on.",
        )

    def _rerank(self) -> Tool:
        limits = self._limits
        reranker = self._reranker
        assert reranker is not None
        text = Annotated[
            str,
            Field(
                description="The question to be answered, in full.",
                min_length=1,
                max_length=limits.max_query_chars,
            ),
        ]
        names = Annotated[
            list[str],
            Field(
                description="Ids of candidates, from one search or several.",
                min_length=1,
                max_length=limits.max_documents,
            ),
        ]

        def rerank(query: text, ids: names) -> Ranking:
            documents = self._documents([*dict.fromkeys(ids)])
            texts = [document.contents for document, _ in documents.values()]
            with self._reranking:
                scores = [float(each) for each in reranker.score([(query, texts)])[0]]
            order = sorted(zip(documents, scores), key=lambda pair: -pair[1])
            return self._ranking(query, order, documents)

        return _tool(
            rerank,
            "Rerank",
            "Orders documents by how well they answer a question. Reads each of them, so it is "
            "slower than search and more precise: use it to choose among the candidates of several "
            "searches. Ids that no document has are left out.",
        )

    def _documents(self, ids: Sequence[str]) -> dict[str, tuple[Document, int]]:
        """Returns documents with the numbers of their stores, in the order of the ids."""
        documents = self._searcher.documents(ids)
        if not documents:
            first = ids[0] if len(ids[0]) <= _LONGEST_ID else f"{ids[0][:_LONGEST_ID]}…"
            raise ToolError(f"ids: no document has the id {first}; use ids that search returned")
        return {name: documents[name] for name in ids if name in documents}

    def _ranking(
        self,
        query: str,
        scores: Sequence[tuple[str, float]],
        documents: Mapping[str, tuple[Document, int]],
    ) -> Ranking:
        results = []
        for rank, (doc_id, score) in enumerate(scores, 1):
            result = Result(rank=rank, id=doc_id, score=score)
            if doc_id in documents:
                document, store = documents[doc_id]
                result.title = document.title
                result.passage = self._passage(query, document.text, store)
            results.append(result)
        return Ranking(results=results)

    def _passage(self, query: str, text: str, store: int) -> str:
        call = SnippetCall(query, [(text, store)], 1, self._limits.passage_chars)
        return "".join(text[each.start : each.end] for each in self._searcher.snippets(call)[0])


_ORDER = "Use search to find documents, then fetch to read them."


def _tool(function: Callable[..., Any], title: str, description: str) -> Tool:
    tool = _Tool.from_function(
        function, title=title, description=description, annotations=_READ_ONLY
    )
    tool.parameters["additionalProperties"] = False
    return tool


def run_stdio(server: MCPServer[Any]) -> None:
    """Answers on standard output until standard input ends, SIGTERM or Ctrl-C.

    While it runs, whatever else is written to standard output goes to standard error.
    """
    for number in (signal.SIGTERM, signal.SIGINT):
        # A thread waits for the next line and cannot be interrupted; nothing is left to be saved.
        signal.signal(number, lambda *_: os._exit(0))
    server.run("stdio")
    sys.stdout.flush()


def run_http(server: MCPServer[Any], port: int, keys: Keys) -> None:
    """Answers at `http://127.0.0.1:PORT/mcp` until SIGTERM or Ctrl-C.

    Web pages cannot reach it: the names in Host and Origin have to be this machine's.
    """
    app = server.streamable_http_app(
        stateless_http=True, json_response=True, max_request_body_size=_BODY, host=_HOST
    )
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)  # uvicorn sends itself what it was stopped by
    config = uvicorn.Config(
        _Guard(app, keys),
        host=_HOST,
        port=port,
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=_PATIENCE_S,
    )
    uvicorn.Server(config).run()


class _Guard:
    """Lets requests in that have a key, if there are keys."""

    def __init__(self, app: ASGIApp, keys: Keys) -> None:
        self._app = app
        self._keys = keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
            peer = (scope.get("client") or ("", 0))[0]
            try:
                self._keys.admit(headers.get(b"authorization"), peer, headers.get(b"host"))
            except ServiceError as error:
                answer = JSONResponse(error.body(), error.status, headers=error.headers)
                return await answer(scope, receive, send)
        return await self._app(scope, receive, send)
