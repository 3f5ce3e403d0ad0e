"""Lengths of texts in a bi-encoder's tokens, for requests that want none cut."""

from __future__ import annotations

from collections.abc import Sequence

from raydist.models.biencoder import BiEncoder
from raydist.models.texts.tokens import Role, TextTokenizer
from raydist.serving.errors import ServiceError

_NO_LIMIT = 1 << 30


class Lengths:
    """Counts tokens as the model does, instruction and special tokens included."""

    def __init__(self, model: BiEncoder) -> None:
        contract = model.contract
        self._limits: dict[Role, int] = {
            "query": contract.query_max_length,
            "document": contract.document_max_length,
        }
        self._tokenizers: dict[Role, TextTokenizer] = {
            "query": _whole(model, contract.query_instruction),
            "document": _whole(model, contract.document_instruction),
        }

    def check(self, texts: Sequence[str], role: Role) -> None:
        """Raises ServiceError 422 for the first text that does not fit."""
        limit = self._limits[role]
        for position, text in enumerate(texts):
            (ids,) = self._tokenizers[role]([text])
            if len(ids) > limit:
                field = f"texts[{position}]"
                message = f"{field} has {len(ids)} tokens and the model reads {limit}; shorten it"
                raise ServiceError(422, message, "text_too_long", param=field)


def _whole(model: BiEncoder, instruction: str) -> TextTokenizer:
    """Returns the tokenizer of a role, without its limit."""
    return TextTokenizer(model.tokenizer, max_length=_NO_LIMIT, instruction=instruction)
