"""What a search of some of an index's segments knows of all of them."""

from __future__ import annotations

from dataclasses import dataclass, field

import pyarrow as pa


@dataclass(slots=True)
class Whole:
    """Statistics of a whole index, for scores that do not depend on which segments are opened.

    Attributes:
        nonempty: live documents with at least one token.
        tokens: of all live documents.
        columns: the schema that the documents' metadata have together; None without any.
        df: how many live documents have each term of the queries at hand.
        occurrences: how often each of these occurs in them, where the model needs it.
    """

    nonempty: int
    tokens: int
    columns: pa.Schema | None = None
    df: dict[bytes, int] = field(default_factory=dict)
    occurrences: dict[bytes, int] = field(default_factory=dict)
