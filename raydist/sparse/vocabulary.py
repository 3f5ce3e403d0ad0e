"""The terms that a sparse model weighs, as an index names them."""

from __future__ import annotations

from typing import Any


def vocabulary(tokenizer: Any, size: int) -> list[str]:
    """Returns the name of each term: its token, or `[NUMBER]` where the tokenizer has none."""
    tokens = tokenizer.convert_ids_to_tokens(range(min(size, len(tokenizer))))
    tokens += [None] * (size - len(tokens))
    return [token or f"[{number}]" for number, token in enumerate(tokens)]
