"""Requests of the HTTP service: Cohere's, Jina's, Voyage's and TEI's shapes at once.

A null means absent, unknown fields are ignored (clients send fields of other services), numbers are
bounded. Limits that depend on the server's settings are checked in `admission.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    field_validator,
    model_validator,
)

from raydist.rerank.spec import Truncation
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
_EMBEDDINGS_EXAMPLE: dict[str, Any] = {"input": ["what causes rain?"], "input_type": "query"}
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
Texts = Annotated[list[Text], _ENTRIES]


class _Request(BaseModel):
    """Null means absent: the field has its default."""

    model_config = ConfigDict(
        extra="ignore", use_attribute_docstrings=True, allow_inf_nan=False, protected_namespaces=()
    )

    @model_validator(mode="before")
    @classmethod
    def _null_is_absent(cls, data: Any) -> Any:
        if isinstance(data, dict):
            return {key: value for key, value in data.items() if value is not None}
        return data


class TextDocument(_Request):
    """A document as an object: `text`, an optional `id`, and fields for `rank_fields`."""

    model_config = ConfigDict(extra="allow")

    id: Text | int | None = None
    """Echoed in the results."""
    text: Text | None = None
    """What is scored, unless `rank_fields` names other fields."""


class RerankRequest(_Request):
    """A query and the documents to rank."""

    model_config = ConfigDict(json_schema_extra={"example": _RERANK_EXAMPLE})

    query: Text
    """The query's text."""
    documents: Annotated[list[Text | TextDocument], _ENTRIES] = []
    """Texts, or objects with `text` (Cohere v1, Jina)."""
    texts: Texts | None = None
    """The same under TEI's name, instead of `documents`."""
    model: Text | None = None
    """A served model's name; the server's reranker if absent."""
    top_n: Annotated[int, Field(ge=1)] | None = None
    """How many results; all if absent."""
    top_k: Annotated[int, Field(ge=1)] | None = None
    """The same under Voyage's name."""
    return_documents: bool = False
    """Whether results carry the documents' texts."""
    return_text: bool = False
    """The same under TEI's name."""
    rank_fields: Texts | None = None
    """Fields of document objects that are scored, joined by newlines (Cohere v1)."""
    max_tokens_per_doc: Annotated[int, Field(ge=1)] | None = None
    """Documents are cut to this many tokens."""
    max_chunks_per_doc: Annotated[int, Field(ge=1)] | None = None
    """Accepted for Cohere v1's clients and ignored; see `truncation: chunk_max`."""
    truncation: Truncation | bool | None = None
    """A document that does not fit is cut, scored in pieces, or refused (false, as Voyage says).

    The server's own setting if absent."""
    truncate: bool | None = None
    """TEI's name: false is `truncation: error`."""
    instruction: Text | None = None
    """The reranker's task, if it follows instructions."""
    raw_scores: bool = False
    """Return the model's logits as scores."""

    @model_validator(mode="after")
    def _one_list(self) -> RerankRequest:
        if self.texts is not None and self.documents:
            raise ValueError("give documents or texts, not both")
        if self.texts is None and "documents" not in self.model_fields_set:
            raise ValueError("documents is required")
        return self

    @model_validator(mode="after")
    def _ranked_fields_are_text(self) -> RerankRequest:
        """Checks the fields that are read; others, whatever they hold, are ignored."""
        for position, item in enumerate(self.documents if self.rank_fields else ()):
            extra = {} if isinstance(item, str) else item.model_extra or {}
            for name in self.rank_fields or ():
                if isinstance(value := extra.get(name), str):
                    try:
                        _clean(value)
                    except ValueError as error:
                        raise ValueError(f"documents[{position}].{name} {error}") from None
        return self

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

    def contents(self) -> list[str]:
        """Returns the texts to score; raises ValueError naming a document without text."""
        items: Sequence[str | TextDocument] = (
            self.texts if self.texts is not None else self.documents
        )
        return [_content(position, item, self.rank_fields) for position, item in enumerate(items)]

    def ids(self) -> list[str | int | None]:
        """Returns the documents' own ids, None where there is none."""
        if self.texts is not None:
            return [None] * len(self.texts)
        return [None if isinstance(item, str) else item.id for item in self.documents]


def _content(position: int, item: str | TextDocument, fields: Sequence[str] | None) -> str:
    if isinstance(item, str):
        return item
    if fields:
        values = {"text": item.text, "id": item.id, **(item.model_extra or {})}
        texts = [str(values[name]) for name in fields if values.get(name) is not None]
        if texts:
            return "\n".join(texts)
        raise ValueError(f"documents[{position}] has none of the rank_fields {', '.join(fields)}")
    if item.text is None:
        raise ValueError(f"documents[{position}] has no text")
    return item.text


class ScoreRequest(_Request):
    """Pairs to score, in order: one query for all texts, or one per text."""

    model_config = ConfigDict(json_schema_extra={"example": _SCORE_EXAMPLE})

    queries: Texts | Text
    """One query, or as many as there are documents."""
    documents: Texts
    """Texts."""
    model: Text | None = None
    """A served model's name; the server's reranker if absent."""
    truncation: Truncation | None = None
    """A document that does not fit is cut, scored in pieces, or refused; the server's setting."""
    instruction: Text | None = None
    """The reranker's task, if it follows instructions."""
    raw_scores: bool = False
    """Return the model's logits as scores."""

    @model_validator(mode="after")
    def _as_many(self) -> ScoreRequest:
        if not isinstance(self.queries, str) and len(self.queries) != len(self.documents):
            raise ValueError(
                f"queries has {len(self.queries)} texts and documents {len(self.documents)}; give "
                "one query for all or one for each"
            )
        return self


class EmbeddingsRequest(_Request):
    """Texts to embed, as in OpenAI's API."""

    model_config = ConfigDict(json_schema_extra={"example": _EMBEDDINGS_EXAMPLE})

    input: Text | Texts
    """A text or a list of texts."""
    model: Text | None = None
    """A served embedding model's name; the server's if absent."""
    encoding_format: Literal["float", "base64"] = "float"
    """Numbers, or float32 in little-endian base64."""
    dimensions: Annotated[int, Field(ge=1)] | None = None
    """Keep this many dimensions, scaled to unit length."""
    input_type: Literal["query", "document"] = "document"
    """Which instruction and tower the texts get."""
    user: str | None = None
    """Ignored."""

    @field_validator("input")
    @classmethod
    def _something(cls, value: str | list[str]) -> str | list[str]:
        if not value:
            raise ValueError("input is empty")
        return value


class SearchRequest(_Request):
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
    ids: Texts | None = None
    """Search among these documents only."""
    return_documents: bool = True
    """Whether results carry the documents' texts."""
