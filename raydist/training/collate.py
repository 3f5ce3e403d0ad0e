"""What one training step reads: padded token ids, hashes, masks and targets of drawn samples.

Shapes: B samples of this rank, G documents of each (positive first), P = sum of the list sizes
(B·G where they are equal), D the longest list, K known positives of a query, A answers of a sample
(the answer first), L tokens.

Everything that must agree between ranks (which optional parts are there, G, A) follows from the
data set that the whole step was drawn from, never from the samples that one rank happens to hold.
A step with accumulation is a list of such batches; its sums are divided once, by the summed counts.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, fields, replace

import torch

Inputs = dict[str, torch.Tensor]
"""Padded model inputs: `input_ids` and `attention_mask` [n, L], `token_type_ids` where used."""


@dataclass(frozen=True, slots=True)
class Batch:
    """One rank's share of a step (or of one accumulation part of it), on the CPU until `to`.

    Attributes:
        sizes_B: int64, documents of each sample; for bi-encoders all equal G.
        queries: bi-encoder: inputs of the B queries; None for a cross-encoder.
        passages: bi-encoder: inputs of the P documents, sample after sample, positive first.
        pairs: cross-encoder: inputs of the P (query, document) pairs; None for a bi-encoder.
        query_hashes_B: int64 hashes of the queries' texts.
        passage_hashes_P: int64 hashes of the documents' texts: equal text, equal hash.
        mask_BD: true where a sample has a document: `targets` and `labels` are padded to D.
        known_BK: int64 hashes of all known positives of each query, padded with its drawn one's;
            None where only that one is known.
        targets_BD: float32 teacher targets per document (already turned by `target`), 0 where
            padded; None where the data set has no teacher.
        scores_BD: float32 teacher scores per document as they came, with the same holes.
        labels_BD: float32 graded relevance per document, 1 for positives where it is not graded.
        answers: bi-encoder: inputs of the B·A answers, sample after sample, the answer first and
            its negatives after it; None where the data set has no answers. A missing answer is a
            row of an empty text that `answer_mask_BA` leaves out.
        answer_mask_BA: true where the answer exists.
        answer_hashes: int64 [B·A].
        answer_targets_BA: float32 teacher scores of the answers, or None.
        no_in_batch: only the sample's own documents are its negatives.
        symmetric: documents are encoded as queries are.
        dataset: name of the data set that the step was drawn from.
        rows_B: int64 rows of the samples in that data set, to find them again.
        global_samples: samples of this step (or part) over all ranks.
        tokens: of all inputs, without padding.
    """

    sizes_B: torch.Tensor
    query_hashes_B: torch.Tensor
    passage_hashes_P: torch.Tensor
    mask_BD: torch.Tensor
    queries: Inputs | None = None
    passages: Inputs | None = None
    pairs: Inputs | None = None
    known_BK: torch.Tensor | None = None
    targets_BD: torch.Tensor | None = None
    scores_BD: torch.Tensor | None = None
    labels_BD: torch.Tensor | None = None
    answers: Inputs | None = None
    answer_mask_BA: torch.Tensor | None = None
    answer_hashes: torch.Tensor | None = None
    answer_targets_BA: torch.Tensor | None = None
    no_in_batch: bool = False
    symmetric: bool = False
    dataset: str = ""
    rows_B: torch.Tensor | None = None
    global_samples: int = 0
    tokens: int = 0

    @property
    def size(self) -> int:
        """B, the samples of this rank."""
        return int(self.sizes_B.shape[0])

    @property
    def group(self) -> int:
        """G where all lists are equally long, 0 where they are ragged (or there are none)."""
        sizes = self.sizes_B
        return int(sizes[0]) if len(sizes) and bool((sizes == sizes[0]).all()) else 0

    @property
    def answer_group(self) -> int:
        """A, answers of a sample; 0 without answers."""
        return 0 if self.answer_mask_BA is None else int(self.answer_mask_BA.shape[1])

    def to(self, device: torch.device | str) -> Batch:
        """Returns the batch with every tensor on `device`."""
        if torch.device(device).type == "cpu":
            return self
        moved: dict[str, object] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, torch.Tensor):
                moved[field.name] = value.to(device, non_blocking=True)
            elif isinstance(value, dict):
                moved[field.name] = {k: v.to(device, non_blocking=True) for k, v in value.items()}
        return replace(self, **moved)  # type: ignore[arg-type]


def text_hash(text: str) -> int:
    """Returns a text's 64-bit hash as a signed integer, the same in every process and version."""
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)


def text_hashes(texts: Iterable[str]) -> torch.Tensor:
    """Returns int64 hashes [n] of texts."""
    return torch.tensor([text_hash(text) for text in texts], dtype=torch.int64)


def take(inputs: Inputs, rows: slice | torch.Tensor) -> Inputs:
    """Returns some rows of padded inputs without the columns that are padding in all of them.

    Works under padding on either side; chunks of a long batch are so no wider than they must be.
    """
    part = {name: value[rows] for name, value in inputs.items()}
    mask = part.get("attention_mask")
    if mask is None or not mask.numel():
        return part
    used = mask.any(0).nonzero()
    if not len(used):
        return part
    first, last = int(used[0]), int(used[-1]) + 1
    if first == 0 and last == mask.shape[1]:
        return part
    return {name: value[:, first:last] for name, value in part.items()}
