"""The documents' texts of an index whose shards have opened them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from raydist.protocols import Group
from raydist.records import Document


class ShardTexts(NamedTuple):
    """Texts by id; each shard has those of its own documents.

    Attributes:
        shards: answer `texts`.
        number: how many they are.
    """

    shards: Group
    number: int

    def get(self, doc_ids: Sequence[str]) -> list[Document | None]:
        """Returns a document for each id, None where there is none."""
        documents: list[Document | None] = [None] * len(doc_ids)
        if not doc_ids:
            return documents
        for own in self.shards.ask("texts", [(list(doc_ids),)] * self.number):
            for at, document in enumerate(own or ()):
                if document is not None:
                    documents[at] = document
        return documents
