"""What the service reads and answers: one shape that several vendors' clients speak.

Requests take the fields of Cohere (v1, v2), Jina, Voyage and TEI; null means absent everywhere and
unknown fields are ignored, because those clients send fields of their own. Responses carry both
`results` (Cohere, Jina) and `data` (Voyage).
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, AliasChoices, BaseModel, ConfigDict, Field, model_validator

__all__ = [
    "Document",
    "EmbeddingsRequest",
    "ErrorBody",
    "ErrorEnvelope",
    "RerankRequest",
    "RerankResponse",
    "RerankResult",
    "ScoreRequest",
    "SearchRequest",
    "Timings",
    "Truncation",
    "Usage",
]

_HALF = re.compile("[\x00\ud800-\udfff]")

Truncation = Literal["truncate", "chunk_max", "error"]


def _clean(text: str) -> str:
    if _HALF.search(text):
        raise ValueError("text may hold neither NUL nor half of a surrogate pair")
    return text


Text = Annotated[str, AfterValidator(_clean)]


class _Request(BaseModel):
    model_config = ConfigDict(extra="ignore", populate_by_name=True, protected_namespaces=())

    model: Text | None = Field(None, description="A model from /v1/models; the first if absent.")

    @model_validator(mode="before")
    @classmethod
    def _null_is_absent(cls, data: Any) -> Any:
        if isinstance(data, dict):
            return {key: value for key, value in data.items() if value is not None}
        return data


class Document(BaseModel):
    """A document with an id of its own and further fields."""

    model_config = ConfigDict(extra="allow")

    id: Text | None = None
    text: Text | None = None

    def join(self, fields: list[str] | None) -> str | None:
        """Returns the text that is ranked: `text`, or the given fields, one a line."""
        if not fields:
            return self.text
        values = {"text": self.text, "id": self.id} | (self.model_extra or {})
        found = [values.get(name) for name in fields]
        return "\n".join(_clean(str(value)) for value in found if isinstance(value, str)) or None


class RerankRequest(_Request):
    """Orders documents for a query."""

    query: Text = Field(description="What is searched for.")
    documents: list[Text | Document] = Field(
        validation_alias=AliasChoices("documents", "texts"),
        description="Strings, or objects with `text` and optionally `id`.",
    )
    top_n: int | None = Field(
        None,
        ge=1,
        validation_alias=AliasChoices("top_n", "top_k"),
        description="How many results to return; all if absent.",
    )
    return_documents: bool = Field(False, description="Repeat each document's text.")
    rank_fields: list[Text] | None = Field(None, description="Fields of the documents to rank by.")
    max_tokens_per_doc: int | None = Field(
        None, ge=1, description="Tokens of a document that are read; the model's limit if absent."
    )
    truncation: Truncation | bool = Field(
        "truncate",
        validation_alias=AliasChoices("truncation", "truncate"),
        description=(
            "A document that is too long is cut (truncate), scored piece by piece and counted by "
            "its best (chunk_max), or refused (error). True is truncate, false is error."
        ),
    )
    instruction: Text | None = Field(None, description="What the model is told to look for.")
    raw_scores: bool = Field(False, description="Scores before the sigmoid.")

    @property
    def how(self) -> Truncation:
        """How long documents are treated."""
        if isinstance(self.truncation, bool):
            return "truncate" if self.truncation else "error"
        return self.truncation

    def texts(self) -> list[str | None]:
        """Returns the text of each document, None where an object has none."""
        return [d if isinstance(d, str) else d.join(self.rank_fields) for d in self.documents]

    def ids(self) -> list[str | None]:
        """Returns the documents' own ids."""
        return [None if isinstance(d, str) else d.id for d in self.documents]


class ScoreRequest(_Request):
    """Scores pairs: one query for several documents, or lists of equal length."""

    text_1: Text | list[Text] = Field(
        validation_alias=AliasChoices("text_1", "queries", "query"), description="Queries."
    )
    text_2: Text | list[Text] = Field(
        validation_alias=AliasChoices("text_2", "documents", "document"), description="Documents."
    )
    instruction: Text | None = Field(None, description="What the model is told to look for.")
    raw_scores: bool = Field(False, description="Scores before the sigmoid.")

    @model_validator(mode="after")
    def _lengths(self) -> ScoreRequest:
        first = self.text_1
        if isinstance(first, list) and len(first) != 1 and len(first) != len(self.second()):
            raise ValueError(f"text_1 has {len(first)} texts, text_2 {len(self.second())}")
        return self

    def second(self) -> list[str]:
        """Returns the documents as a list."""
        return [self.text_2] if isinstance(self.text_2, str) else self.text_2

    def first(self) -> list[str]:
        """Returns the query of each document."""
        if isinstance(self.text_1, str):
            return [self.text_1] * len(self.second())
        return self.text_1 * len(self.second()) if len(self.text_1) == 1 else self.text_1


class EmbeddingsRequest(_Request):
    """OpenAI's embeddings request."""

    input: Text | list[Text] = Field(description="A text or several.")
    encoding_format: Literal["float", "base64"] = Field("float", description="How vectors travel.")
    dimensions: int | None = Field(None, ge=1, description="First dimensions only (Matryoshka).")
    input_type: Literal["query", "document", "search_query", "search_document"] = Field(
        "document", description="Which of the model's two roles the texts have."
    )
    user: str | None = None

    def texts(self) -> list[str]:
        """Returns the texts as a list."""
        return [self.input] if isinstance(self.input, str) else self.input


class SearchRequest(_Request):
    """Searches the served index."""

    query: Text = Field(min_length=1, description="What is searched for.")
    k: int = Field(10, ge=1, le=1000, description="How many results to return.")
    rerank: bool = Field(True, description="Rerank, where the service has a reranker.")
    depth: int | None = Field(None, ge=1, le=1000, description="Candidates that are reranked.")
    ids: list[Text] | None = Field(None, description="Only documents with these ids.")
    return_documents: bool = Field(True, description="Return titles and texts.")


class Timings(BaseModel):
    """Milliseconds by stage."""

    queue: float = 0.0
    tokenize: float = 0.0
    infer: float = 0.0


class Usage(BaseModel):
    """Tokens."""

    prompt_tokens: int = 0
    total_tokens: int = 0
    cached_prefix_tokens: int = 0


class RerankResult(BaseModel):
    """One document's score."""

    index: int
    id: str | None = None
    relevance_score: float
    document: dict[str, Any] | None = None
    truncated: bool = False
    chunks: int = 1


class RerankResponse(BaseModel):
    """Documents by score, descending, equal scores by index."""

    id: str
    object: Literal["rerank"] = "rerank"
    model: str
    results: list[RerankResult]
    data: list[RerankResult] = Field(description="The results again, as Voyage names them.")
    usage: Usage
    meta: dict[str, Any]


class ErrorBody(BaseModel):
    """What went wrong."""

    message: str
    type: str
    param: str | None = None
    code: str | None = None


class ErrorEnvelope(BaseModel):
    """Every error has this form."""

    error: ErrorBody
