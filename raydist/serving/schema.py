"""Requests of the HTTP service: the shapes of several vendors' and programs' clients at once.

A null means absent. What a contract documents is honoured, or refused by its name (`fixed`): it
never changes an answer silently. Other unknown fields are ignored, because clients send fields of
other services. Numbers are bounded; limits that depend on the server's settings are checked in
`admission.py`. Requests for embeddings are in `embed_schema.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    model_validator,
)

from raydist.data.filters import MOST_FILTER
from raydist.reranking.spec import Truncation
from raydist.serving.errors import ServiceError
from raydist.serving.spec import MAX_ENTRIES

_RERANK_EXAMPLE: dict[str, Any] = {
    "query": "what causes rain?",
    "documents": ["Rain falls when clouds saturate.", "A recipe for bread."],
    "top_n": 1,
    "return_documents": True,
}
_SCORE_EXAMPLE: dict[str, Any] = {
    "queries": "what causes rain?",
    "documents": ["Rain falls when clouds saturate.", "A recipe for bread."],
}
_SEARCH_EXAMPLE: dict[str, Any] = {"query": "what causes rain?", "k": 3}


def _clean(text: str) -> str:
    if "\x00" in text:
        raise ValueError("holds a NUL character")
    if not text.isascii():
        try:
            text.encode("utf-8")
        except UnicodeEncodeError:
            raise ValueError("holds half of a surrogate pair, which is no character") from None
    return text


Text = Annotated[str, AfterValidator(_clean)]
"""Text without NUL and lone surrogates."""
_ENTRIES = Field(max_length=MAX_ENTRIES, fail_fast=True)
"""The first entry that is wrong or too many ends the reading of a list."""
TextList = Annotated[list[Text], _ENTRIES]


def refusal(field: str, reason: str) -> ServiceError:
    """Returns the error of a field that is understood and not served."""
    return ServiceError(422, f"{field} {reason}", "unsupported", param=field)


class Request(BaseModel):
    """Null means absent: the field has its default.

    Attributes:
        fixed: fields of a contract that have one meaning here, by their name, with the values that
            say so. Others are refused.
    """

    model_config = ConfigDict(
        extra="ignore", use_attribute_docstrings=True, allow_inf_nan=False, protected_namespaces=()
    )
    fixed: ClassVar[Mapping[str, tuple[Any, ...]]] = {}

    @model_validator(mode="before")
    @classmethod
    def _null_is_absent(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        for name, values in cls.fixed.items():
            if data.get(name) is not None and data[name] not in values:
                remedy = " or ".join(["leave it out", *(f"send {each!r}" for each in values[:1])])
                raise refusal(name, f"is not supported here: {remedy}")
        return {key: value for key, value in data.items() if value is not None}


class TextDocument(Request):
    """A document as an object: `text`, an optional `id`, and fields for `rank_fields`."""

    model_config = ConfigDict(extra="allow")

    id: Text | int | None = None
    """Echoed in the results."""
    text: Text | None = None
    """What is scored, unless `rank_fields` names other fields."""


class RerankRequest(Request):
    """A query and the documents to rank."""

    model_config = ConfigDict(json_schema_extra={"example": _RERANK_EXAMPLE})
    fixed = {
        "priority": (0,),  # Cohere, vLLM
        "max_chunks_per_doc": (),  # Cohere v1
        "truncation_direction": ("right", "Right"),  # TEI
        "truncate_prompt_tokens": (-1,),  # vLLM
        "return_embeddings": (False,),  # Jina
    }

    query: Text
    """The query's text."""
    documents: Annotated[list[Text | TextDocument], _ENTRIES] = []
    """Texts, or objects with `text` (Cohere v1, Jina)."""
    texts: TextList | None = None
    """The same under TEI's name; the answer then has TEI's form, a list of {index, score, text}."""
    input: Annotated[list[Text | TextDocument], _ENTRIES] | None = None
    """The same under mixedbread's name."""
    model: Text | None = None
    """A served model's name; the server's reranker if absent."""
    top_n: Annotated[int, Field(ge=1)] | None = None
    """How many results; all if absent."""
    top_k: Annotated[int, Field(ge=1)] | None = None
    """The same under Voyage's and mixedbread's name."""
    return_documents: bool = False
    """Whether results carry the documents' texts."""
    return_text: bool = False
    """The same under TEI's name."""
    return_input: bool = False
    """The same under mixedbread's name."""
    return_highlights: bool = False
    """Whether results say which tokens of query and document met; for multi-vector models."""
    rank_fields: TextList | None = None
    """Fields of document objects that are scored, joined by newlines (Cohere v1)."""
    max_tokens_per_doc: Annotated[int, Field(ge=1)] | None = None
    """Documents are cut to this many tokens."""
    truncation: Truncation | bool | None = None
    """A document that does not fit is cut, scored in pieces, or refused (false, as Voyage says).

    The server's own setting if absent."""
    truncate: bool | None = None
    """TEI's name: false is `truncation: error`."""
    instruction: Text | None = None
    """The reranker's task, if it follows instructions."""
    raw_scores: bool = False
    """Return the model's logits as scores."""
    use_activation: bool = True
    """vLLM's name: false is `raw_scores: true`."""

    @model_validator(mode="after")
    def _one_list(self) -> RerankRequest:
        lists = [n for n in ("documents", "texts", "input") if n in self.model_fields_set]
        if len(lists) > 1:
            raise ValueError(f"give one of {', '.join(lists)}")
        if not lists:
            raise ValueError("documents is required")
        return self

    @model_validator(mode="after")
    def _ranked_fields_are_text(self) -> RerankRequest:
        """Checks the fields that are read; others, whatever they hold, are ignored."""
        for position, item in enumerate(self.items if self.rank_fields else ()):
            extra = {} if isinstance(item, str) else item.model_extra or {}
            for name in self.rank_fields or ():
                if isinstance(value := extra.get(name), str):
                    try:
                        _clean(value)
                    except ValueError as error:
                        raise ValueError(f"documents[{position}].{name} {error}") from None
        return self

    @property
    def items_field(self) -> str:
        """The name under which the documents were sent."""
        return "texts" if self.texts is not None else "documents" if self.input is None else "input"

    @property
    def items(self) -> Sequence[str | TextDocument]:
        """The documents, under whichever name they were sent."""
        if self.texts is not None:
            return self.texts
        return self.documents if self.input is None else self.input

    @property
    def with_texts(self) -> bool:
        """Whether results carry the documents' texts."""
        return self.return_documents or self.return_text or self.return_input

    @property
    def logits(self) -> bool:
        """Whether scores are the model's logits."""
        return self.raw_scores or not self.use_activation

    @property
    def limit(self) -> int | None:
        """How many results are asked for."""
        return self.top_n if self.top_n is not None else self.top_k

    @property
    def mode(self) -> Truncation | None:
        """What happens to documents that do not fit; None is the server's own setting."""
        if self.truncation is False or self.truncate is False:
            return "error"
        if self.truncation is True or (self.truncation is None and self.truncate):
            return "truncate"
        return self.truncation

    @property
    def has_ids(self) -> bool:
        """Whether documents may have ids: some are objects."""
        return not all(type(item) is str for item in self.items)

    def contents(self) -> list[str]:
        """Returns the texts to score; raises ValueError naming a document without text."""
        if not self.has_ids:
            return list(self.items)  # type: ignore[arg-type]
        return [
            _content(f"{self.items_field}[{position}]", item, self.rank_fields)
            for position, item in enumerate(self.items)
        ]

    def ids(self) -> list[str | int | None]:
        """Returns the documents' own ids, None where there is none."""
        return [None if isinstance(item, str) else item.id for item in self.items]


def _content(field: str, item: str | TextDocument, fields: Sequence[str] | None) -> str:
    if isinstance(item, str):
        return item
    if fields:
        values = {"text": item.text, "id": item.id, **(item.model_extra or {})}
        texts = [str(values[name]) for name in fields if values.get(name) is not None]
        if texts:
            return "\n".join(texts)
        raise ValueError(f"{field} has none of the rank_fields {', '.join(fields)}")
    if item.text is None:
        raise ValueError(f"{field} has no text")
    return item.text


_SCORE_NAMES = (("text_1", "text_2"), ("data_1", "data_2"), ("queries", "items"))
"""vLLM's names of `queries` and `documents`."""


class ScoreRequest(Request):
    """Pairs to score, in order: one query for all texts, or one per text."""

    model_config = ConfigDict(json_schema_extra={"example": _SCORE_EXAMPLE})
    fixed = {"priority": (0,), "truncate_prompt_tokens": (-1,)}  # vLLM

    queries: TextList | Text
    """One query, or as many as there are documents; `text_1` (vLLM) is the same."""
    documents: TextList | Text
    """Texts; `text_2` (vLLM) is the same."""
    model: Text | None = None
    """A served model's name; the server's reranker if absent."""
    truncation: Truncation | None = None
    """A document that does not fit is cut, scored in pieces, or refused; the server's setting."""
    instruction: Text | None = None
    """The reranker's task, if it follows instructions."""
    raw_scores: bool = False
    """Return the model's logits as scores."""
    use_activation: bool = True
    """vLLM's name: false is `raw_scores: true`."""

    @model_validator(mode="before")
    @classmethod
    def _one_name(cls, data: Any) -> Any:
        if isinstance(data, dict):
            for first, second in _SCORE_NAMES:
                if data.get(second) is not None and data.get("documents") is None:
                    renamed = {"queries": data.get(first), "documents": data[second]}
                    return {**data, **renamed}
        return data

    @model_validator(mode="after")
    def _as_many(self) -> ScoreRequest:
        queries, texts = len(self.each_query), len(self.texts)
        if queries not in (1, texts):
            raise ValueError(
                f"queries has {queries} texts and documents {texts}; give one query for all or one "
                "for each"
            )
        return self

    @property
    def each_query(self) -> list[str]:
        """One query for all texts, or one for each."""
        return [self.queries] if isinstance(self.queries, str) else self.queries

    @property
    def texts(self) -> list[str]:
        """The texts."""
        return [self.documents] if isinstance(self.documents, str) else self.documents


class SnippetRequest(Request):
    """Which parts of a hit's text an answer shows."""

    number: Annotated[int, Field(ge=1, le=10)] = 1
    """Most passages of a text."""
    length: Annotated[int, Field(ge=20, le=2000)] = 200
    """Most characters of a passage: whole sentences where they fit."""


class DocumentRequest(Request):
    """How documents are ranked by their passages."""

    passages: Annotated[int, Field(ge=1, le=1000)] = 1
    """A score is the mean of the best so many passages that a document has; 1 is MaxP."""
    delimiter: Annotated[str, Field(min_length=1, max_length=16)] = "#"
    """What is between a document's id and a passage's number in the ids of an index."""


class SearchRequest(Request):
    """A query against the served index."""

    model_config = ConfigDict(json_schema_extra={"example": _SEARCH_EXAMPLE})

    query: Text
    """The query's text."""
    k: Annotated[int, Field(ge=1, le=1000)] = 10
    """Most results."""
    rerank: bool = True
    """Whether the server's reranker orders the first `depth` results."""
    depth: Annotated[int, Field(ge=1, le=1000)] = 100
    """Documents that are retrieved for fusion and reranking."""
    ids: TextList | None = None
    """Search among these documents only."""
    filter: Annotated[str, Field(min_length=1, max_length=MOST_FILTER)] | None = None
    """Search among the documents whose columns pass, such as `year >= 2020 and source == 'x'`."""
    by: DocumentRequest | Literal["document"] | None = None
    """Ranks documents by their passages, where the index holds passages: by the best one for
    `document`, or an object of `passages` and `delimiter`. `depth` and `k` count documents."""
    snippets: SnippetRequest | bool = False
    """The passages of each text that match best, with the query's words marked as the index has
    them, by their stems. `true`, or an object of `number` and `length`."""
    return_documents: bool = True
    """Whether results carry the documents' texts."""
    partial: bool = False
    """Whether a sharded index is searched without the shards that are lost; the answer says in
    `searched` how much that is. Else the request is answered with 503 until they are back."""
