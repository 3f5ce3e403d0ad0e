from __future__ import annotations

from collections.abc import Sequence

import torch

from raydist.records import Sample
from raydist.training.collate import Inputs, text_hash
from raydist.training.collating import collate_texts


class Words:
    """Tokenises nothing but lengths."""

    def tokenize(
        self, texts: Sequence[str], role: str, instruction: str | None = None
    ) -> list[list[int]]:
        return [[1] * len(text.split()) for text in texts]

    def pad(self, token_ids: Sequence[Sequence[int]]) -> Inputs:
        width = max(map(len, token_ids))
        ids = torch.tensor([[*row, *[0] * (width - len(row))] for row in token_ids])
        return {"input_ids": ids, "attention_mask": (ids > 0).long()}


def test_a_batch_knows_all_positives_of_its_queries() -> None:
    samples = [
        Sample("q one", ("a", "n"), others=("b", "c")),
        Sample("q two", ("d", "n")),
        Sample("q three", ("b", "m"), others=("a",)),
    ]
    batch = collate_texts(samples, Words())
    assert batch.known_BK is not None
    expected = ["abc", "ddd", "bab"]
    assert batch.known_BK.tolist() == [[text_hash(text) for text in row] for row in expected]
    assert collate_texts(samples[1:2], Words()).known_BK is None
