"""Requests for embeddings: OpenAI's, Voyage's, Jina's and mixedbread's shape; Cohere's; TEI's.

Each becomes an `EmbedOrder`, so the service knows one request only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal, get_args

from pydantic import AliasChoices, ConfigDict, Field, model_validator

from raydist.serving.schema import Request, Text, TextList, refusal
from raydist.serving.vectors import Number

_EMBEDDINGS_EXAMPLE: dict[str, Any] = {"input": ["what causes rain?"], "input_type": "query"}
_COHERE_EXAMPLE: dict[str, Any] = {
    "texts": ["what causes rain?"],
    "input_type": "search_query",
    "embedding_types": ["float"],
}
_TEI_EXAMPLE: dict[str, Any] = {"inputs": ["Rain falls when clouds saturate."]}

Role = Literal["query", "document"]
_ROLES: dict[str, Role] = {
    "query": "query",
    "search_query": "query",
    "retrieval.query": "query",
    "document": "document",
    "passage": "document",
    "search_document": "document",
    "retrieval.passage": "document",
}
"""What the contracts call a text's role."""


@dataclass(frozen=True, slots=True)
class EmbedOrder:
    """What a request for embeddings asks for.

    Attributes:
        texts: to embed.
        field: where the request has them.
        role: which instruction and tower they get.
        dimensions: keep so many, scaled to unit length; 0 keeps all.
        normalize: whether vectors are scaled to unit length in any case.
        truncate: whether a text that does not fit is cut, or refused.
        numbers: kinds of numbers that vectors consist of.
        packed: whether they are sent in base64.
        terms: whether weights of terms are wanted, which sparse models alone have.
    """

    texts: Sequence[str]
    field: str
    role: Role = "document"
    dimensions: int = 0
    normalize: bool = False
    truncate: bool = True
    numbers: Sequence[Number] = ("float",)
    packed: bool = False
    terms: bool = False


def _texts(field: str, value: Any) -> Any:
    """Returns a text or a list of texts; objects with a `text` become their texts."""
    if isinstance(value, dict) and "source_sentence" in value:
        raise refusal(
            field,
            "asks for similarities: send source_sentence as query and sentences as documents to "
            "/v1/score, or embed them",
        )
    items = value if isinstance(value, list) else [value]
    if not items:
        raise refusal(field, "is empty")
    first = items[0][0] if isinstance(items[0], list) and items[0] else items[0]
    if isinstance(first, int) and not isinstance(first, bool):
        raise refusal(
            field,
            "has token ids, which are those of another model's vocabulary: send texts "
            "(LangChain: check_embedding_ctx_length=False)",
        )
    texts = [item.get("text", item) if isinstance(item, dict) else item for item in items]
    for position, text in enumerate(texts):
        if isinstance(text, dict):
            raise refusal(f"{field}[{position}]", "has no text; other inputs are not embedded here")
    return texts if isinstance(value, list) else texts[0]


def _role(fields: dict[str, str | None]) -> Role:
    """Returns the role that fields ask for; they have to agree."""
    roles: dict[Role, str] = {}
    for field, value in fields.items():
        if value is None:
            continue
        if value not in _ROLES:
            raise refusal(field, f"may be {', '.join(_ROLES)}: a text is one or the other here")
        roles[_ROLES[value]] = field
    if len(roles) > 1:
        raise refusal(" and ".join(roles.values()), "contradict each other")
    return next(iter(roles), "document")


def _cuts(field: str, value: bool | str | None) -> bool:
    """Returns whether texts that do not fit are cut at their end."""
    if isinstance(value, str) and value.upper() not in ("NONE", "END"):
        raise refusal(field, "is not supported here: send END (cut the end) or NONE (refuse)")
    return value is not False and value != "NONE"


class EmbeddingsRequest(Request):
    """Texts to embed, in the form of OpenAI, Voyage, Jina, mixedbread, infinity or vLLM."""

    model_config = ConfigDict(json_schema_extra={"example": _EMBEDDINGS_EXAMPLE})
    fixed = {
        "late_chunking": (False,),  # Jina
        "return_multivector": (False,),
        "prompt": (),  # mixedbread
        "modality": ("text",),  # infinity
        "priority": (0,),  # vLLM
        "truncate_prompt_tokens": (-1,),
        "add_special_tokens": (True,),
        "embed_dtype": ("float32",),
        "endianness": ("native", "little"),
    }

    input: Text | TextList
    """A text or a list of texts (Jina: or of objects with `text`)."""
    model: Text | None = None
    """A served embedding model's name; the server's if absent."""
    encoding_format: Literal["float", "base64", "int8", "uint8", "binary", "ubinary"] = "float"
    """Numbers, or base64 (float32 is little-endian); mixedbread: the kind of numbers."""
    output_dtype: Number | None = None
    """The kind of numbers (Voyage)."""
    embedding_type: Literal["float", "base64", "int8", "uint8", "binary", "ubinary"] | None = None
    """The same, or base64 (Jina)."""
    dimensions: Annotated[int, Field(ge=1)] | None = None
    """Keep this many dimensions, scaled to unit length."""
    output_dimension: Annotated[int, Field(ge=1)] | None = None
    """The same under Voyage's name."""
    input_type: str | None = None
    """Which instruction and tower the texts get: `query` or `document`, the default."""
    task: str | None = None
    """The same for Jina: `retrieval.query` or `retrieval.passage`."""
    prompt_name: str | None = None
    """The same for sentence-transformers: `query` or `document`."""
    normalized: bool = Field(False, validation_alias=AliasChoices("normalized", "normalize"))
    """Scale vectors to unit length whatever the model does."""
    truncation: bool | None = None
    """Whether a text that does not fit is cut (true, the default) or refused (Voyage)."""
    truncate: bool | str | None = None
    """The same for Jina, or `END` and `NONE`."""
    user: str | None = None
    """Ignored."""

    @model_validator(mode="before")
    @classmethod
    def _read(cls, data: Any) -> Any:
        if isinstance(data, dict):
            data = dict(data)
            if data.get("input") is not None:
                data["input"] = _texts("input", data["input"])
            for name in ("encoding_format", "embedding_type"):
                if isinstance(data.get(name), list):
                    if len(data[name]) != 1:
                        raise refusal(name, "may be one kind of numbers here")
                    data[name] = data[name][0]
        return data

    def order(self) -> EmbedOrder:
        """Returns what is asked for."""
        kinds = {
            "encoding_format": self.encoding_format,
            "output_dtype": self.output_dtype,
            "embedding_type": self.embedding_type,
        }
        fields = {
            name: kind
            for name, kind in kinds.items()
            if kind not in (None, "base64") and name in self.model_fields_set
        }
        if self.output_dtype is not None and self.encoding_format == "float":
            fields.pop("encoding_format", None)  # OpenAI's "float" is "not in base64"
        numbers = {*fields.values()} or {"float"}
        if len(numbers) > 1:
            raise refusal(" and ".join(fields), "contradict each other")
        if self.dimensions and self.output_dimension not in (None, self.dimensions):
            raise refusal("dimensions and output_dimension", "contradict each other")
        cuts = [_cuts("truncate", self.truncate), _cuts("truncation", self.truncation)]
        return EmbedOrder(
            [self.input] if isinstance(self.input, str) else self.input,
            "input",
            _role(
                {
                    "input_type": self.input_type,
                    "task": self.task,
                    "prompt_name": self.prompt_name,
                }
            ),
            self.dimensions or self.output_dimension or 0,
            normalize=self.normalized,
            truncate=all(cuts),
            numbers=[each for each in get_args(Number) if each in numbers],
            packed="base64" in (self.encoding_format, self.embedding_type),
        )


class CohereEmbedRequest(Request):
    """Texts to embed, in Cohere's form."""

    model_config = ConfigDict(json_schema_extra={"example": _COHERE_EXAMPLE})
    fixed = {"priority": (0,), "max_tokens": (), "images": ([],), "inputs": ([],)}

    texts: TextList
    """Texts; images are not embedded."""
    model: Text | None = None
    """A served embedding model's name; the server's if absent."""
    input_type: str | None = None
    """`search_query` or `search_document`, the default; other tasks are refused."""
    embedding_types: (
        list[Literal["float", "int8", "uint8", "binary", "ubinary", "base64"]] | None
    ) = None
    """Kinds of numbers; base64 is float32 in base64."""
    output_dimension: Annotated[int, Field(ge=1)] | None = None
    """Keep this many dimensions, scaled to unit length."""
    truncate: str | None = None
    """A text that does not fit is cut (`END`) or refused (`NONE`)."""

    def order(self) -> EmbedOrder:
        """Returns what is asked for."""
        if not self.texts:
            raise refusal("texts", "is empty")
        kinds = self.embedding_types or ["float"]
        return EmbedOrder(
            self.texts,
            "texts",
            _role({"input_type": self.input_type}),
            self.output_dimension or 0,
            truncate=_cuts("truncate", self.truncate),
            numbers=[each for each in get_args(Number) if each in kinds],
            packed="base64" in kinds,
        )


class _TeiRequest(Request):
    """What both requests of text-embeddings-inference have."""

    model_config = ConfigDict(json_schema_extra={"example": _TEI_EXAMPLE})

    inputs: Text | TextList
    """A text or a list of texts."""
    truncate: bool | None = None
    """Whether a text that does not fit is cut (the default) or refused."""
    prompt_name: str | None = None
    """`query` or `document`, the default."""

    @model_validator(mode="before")
    @classmethod
    def _read(cls, data: Any) -> Any:
        return _with_texts(data)

    def order(self) -> EmbedOrder:
        """Returns what is asked for."""
        return EmbedOrder(
            [self.inputs] if isinstance(self.inputs, str) else self.inputs,
            "inputs",
            _role({"prompt_name": self.prompt_name}),
            truncate=self.truncate is not False,
        )


class TeiSparseRequest(_TeiRequest):
    """Texts whose terms are weighed, in the form of text-embeddings-inference."""

    fixed = {"truncation_direction": ("right", "Right")}

    def order(self) -> EmbedOrder:
        """Returns what is asked for."""
        return replace(super().order(), terms=True)


class TeiEmbedRequest(_TeiRequest):
    """Texts to embed, in the form of text-embeddings-inference."""

    fixed = {"truncation_direction": ("right", "Right"), "encoding_format": ("float",)}

    normalize: bool = True
    """Scale vectors to unit length; false leaves them as the model gives them."""
    dimensions: Annotated[int, Field(ge=1)] | None = None
    """Keep this many dimensions, scaled to unit length."""

    def order(self) -> EmbedOrder:
        """Returns what is asked for."""
        return replace(super().order(), dimensions=self.dimensions or 0, normalize=self.normalize)


def _with_texts(data: Any) -> Any:
    """Returns a body of TEI's with its inputs read."""
    if isinstance(data, dict) and data.get("inputs") is not None:
        return {**data, "inputs": _texts("inputs", data["inputs"])}
    return data
