"""Queries by the model that embedded an index: texts become weighted terms."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from raydist.models.biencoder import BiEncoder
from raydist.models.encode import encode_terms
from raydist.models.folders.recorded import recorded_model
from raydist.models.inference import speed_up
from raydist.models.spec import EncoderPlace
from raydist.sparse.vocabulary import vocabulary


class QueryTerms:
    """Weighs the terms of queries; called with texts."""

    def __init__(self, encoder: BiEncoder) -> None:
        self._encoder = encoder
        self._names = vocabulary(encoder.tokenizer, encoder.dimension)
        self._lock = threading.Lock()

    @classmethod
    def open(
        cls, folder: Path | str, facts: Mapping[str, Any], place: EncoderPlace | None = None
    ) -> QueryTerms:
        """Loads the model that a manifest names.

        Args:
            folder: the index, for messages.
            facts: what its manifest says of the model.
            place: where the model is now, and how to load it.

        Raises:
            ArtifactError: the model is another one.
            DataError: it is no longer where it was.
        """
        model, settings = recorded_model(folder, facts, place)
        encoder = BiEncoder.load(model, **settings)
        speed_up(encoder)
        return cls(encoder)

    def __call__(self, texts: Sequence[str]) -> list[dict[str, float]]:
        """Returns the weights of each text's terms."""
        with self._lock:  # batches that are searched beside each other share the model
            rows = encode_terms(self._encoder, texts, "query")
        names = self._names
        return [
            dict(zip([names[term] for term in terms.tolist()], weights.tolist()))
            for terms, weights in (rows[number] for number in range(len(rows)))
        ]
