"""What one training step reads: drawn samples become padded token ids, hashes, masks and targets.

Shapes: B samples of this rank, G documents of each (positive first), P = sum of the list sizes
(B·G where they are equal), D the longest list, A answers of a sample (the answer first), L tokens.

Everything that must agree between ranks (which optional parts are there, G, A) follows from the
data set that the whole step was drawn from, never from the samples that one rank happens to hold.
A step with accumulation is a list of such batches; its sums are divided once, by the summed counts.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, Protocol

import numpy as np
import torch

from raydist.records import Sample

__all__ = [
    "Batch",
    "Inputs",
    "PairModel",
    "TextModel",
    "collate_pairs",
    "collate_texts",
    "padding_waste",
    "take",
    "text_hash",
    "text_hashes",
]

Role = Literal["query", "document", "answer"]

Inputs = dict[str, torch.Tensor]
"""Padded model inputs: `input_ids` and `attention_mask` [n, L], `token_type_ids` where used."""


class TextModel(Protocol):
    """What collation needs of a bi-encoder."""

    def tokenize(
        self, texts: Sequence[str], role: Role, instruction: str | None = None
    ) -> list[list[int]]:
        """Returns the unpadded token ids of texts; None takes the role's own instruction."""
        ...

    def pad(self, token_ids: Sequence[Sequence[int]]) -> Inputs:
        """Returns the rows padded to the longest."""
        ...


class PairModel(Protocol):
    """What collation needs of a cross-encoder."""

    def tokenize(self, queries: Sequence[str], documents: Sequence[str]) -> list[Any]:
        """Returns each pair tokenised, unpadded; `len` counts its tokens."""
        ...

    def pad(self, pairs: list[Any]) -> Inputs:
        """Returns the pairs padded to the longest."""
        ...


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
        targets_BD: float32 teacher targets per document (already turned by `target`), 0 where
            padded; None where the data set has no teacher.
        labels_BD: float32 graded relevance per document, 1 for positives where it is not graded.
        answers: bi-encoder: inputs of the B·A answers, sample after sample, the answer first and
            its negatives after it; None where the data set has no answers. A missing answer is a
            row of an empty text that `answer_mask_BA` leaves out.
        answer_mask_BA: true where the answer exists.
        answer_hashes: int64 [B·A].
        answer_targets_BA: float32 teacher scores of the answers, or None.
        no_in_batch: only the sample's own documents are its negatives.
        dataset: name of the data set that the step was drawn from.
        rows_B: int64 rows of the samples in that data set, to find them again.
        global_samples: samples of this step (or part) over all ranks.
        tokens, padded_tokens: real tokens and cells of all inputs, for the padding waste.
    """

    sizes_B: torch.Tensor
    query_hashes_B: torch.Tensor
    passage_hashes_P: torch.Tensor
    mask_BD: torch.Tensor
    queries: Inputs | None = None
    passages: Inputs | None = None
    pairs: Inputs | None = None
    targets_BD: torch.Tensor | None = None
    labels_BD: torch.Tensor | None = None
    answers: Inputs | None = None
    answer_mask_BA: torch.Tensor | None = None
    answer_hashes: torch.Tensor | None = None
    answer_targets_BA: torch.Tensor | None = None
    no_in_batch: bool = False
    dataset: str = ""
    rows_B: torch.Tensor | None = None
    global_samples: int = 0
    tokens: int = 0
    padded_tokens: int = 0

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


def padding_waste(batches: Iterable[Batch]) -> float:
    """Returns the share of cells that hold padding, between 0 and 1."""
    tokens = cells = 0
    for batch in batches:
        tokens += batch.tokens
        cells += batch.padded_tokens
    return 1.0 - tokens / cells if cells else 0.0


def collate_texts(
    samples: Sequence[Sample],
    model: TextModel,
    *,
    dataset: str = "",
    rows: Sequence[int] | None = None,
    targets: bool = False,
    answers: int = 0,
    answer_targets: bool = False,
    answer_role: Role = "answer",
    no_in_batch: bool = False,
    symmetric: bool = False,
    global_samples: int | None = None,
) -> Batch:
    """Returns a bi-encoder's batch of drawn samples.

    Args:
        samples: drawn samples: documents in their final order, the same number in each.
        model: tokenises and pads.
        dataset: the data set's name.
        rows: the samples' rows in the data set.
        targets: the samples carry teacher scores.
        answers: A, the answers of each sample (1 and its negatives); 0 for none.
        answer_targets: the samples carry teacher scores of their answers.
        answer_role: the role that answers are encoded in.
        no_in_batch: only the sample's own documents are negatives.
        symmetric: documents are encoded as queries are, with the query's instruction.
        global_samples: samples over all ranks; the given ones if None.
    """
    prompts = [sample.prompt for sample in samples]
    queries = _tokens(model, [sample.query for sample in samples], "query", prompts)
    texts = [text for sample in samples for text in sample.documents]
    if symmetric:
        spread = [sample.prompt for sample in samples for _ in sample.documents]
        passages = _tokens(model, texts, "query", spread)
    else:
        passages = _tokens(model, texts, "document", [None] * len(texts))
    answer_ids: list[list[int]] = []
    answer_texts: list[str] = []
    answer_mask = None
    if answers:
        filled = [_answers(sample, answers) for sample in samples]
        answer_texts = [text or "" for row in filled for text in row]
        answer_mask = torch.tensor(
            [[text is not None for text in row] for row in filled], dtype=torch.bool
        ).reshape(len(samples), answers)
        spread = [sample.prompt for sample in samples for _ in range(answers)]
        answer_ids = _tokens(model, answer_texts, answer_role, spread)
    sizes = torch.tensor([len(sample.documents) for sample in samples], dtype=torch.int64)
    padded = [model.pad(ids) if ids else None for ids in (queries, passages, answer_ids)]
    return Batch(
        sizes_B=sizes,
        query_hashes_B=text_hashes(sample.query for sample in samples),
        passage_hashes_P=text_hashes(texts),
        mask_BD=_mask(sizes),
        queries=padded[0],
        passages=padded[1],
        targets_BD=_padded([_present(s.scores, s) for s in samples], sizes) if targets else None,
        labels_BD=_labels(samples, sizes),
        answers=padded[2],
        answer_mask_BA=answer_mask,
        answer_hashes=text_hashes(answer_texts) if answers else None,
        answer_targets_BA=_answer_targets(samples, answers) if answer_targets else None,
        no_in_batch=no_in_batch,
        dataset=dataset,
        rows_B=None if rows is None else torch.tensor(list(rows), dtype=torch.int64),
        global_samples=len(samples) if global_samples is None else global_samples,
        tokens=sum(len(ids) for part in (queries, passages, answer_ids) for ids in part),
        padded_tokens=sum(part["input_ids"].numel() for part in padded if part is not None),
    )


def collate_pairs(
    samples: Sequence[Sample],
    model: PairModel,
    *,
    dataset: str = "",
    rows: Sequence[int] | None = None,
    targets: bool = True,
    global_samples: int | None = None,
) -> Batch:
    """Returns a cross-encoder's batch of drawn samples, whose lists may be ragged.

    Args:
        samples: drawn samples: documents in their final order.
        model: tokenises and pads pairs.
        dataset: the data set's name.
        rows: the samples' rows in the data set.
        targets: the samples carry teacher scores.
        global_samples: samples over all ranks; the given ones if None.
    """
    texts = [text for sample in samples for text in sample.documents]
    queries = [sample.query for sample in samples for _ in sample.documents]
    ids = model.tokenize(queries, texts)
    sizes = torch.tensor([len(sample.documents) for sample in samples], dtype=torch.int64)
    pairs = model.pad(ids)
    return Batch(
        sizes_B=sizes,
        query_hashes_B=text_hashes(sample.query for sample in samples),
        passage_hashes_P=text_hashes(texts),
        mask_BD=_mask(sizes),
        pairs=pairs,
        targets_BD=_padded([_present(s.scores, s) for s in samples], sizes) if targets else None,
        labels_BD=_labels(samples, sizes),
        dataset=dataset,
        rows_B=None if rows is None else torch.tensor(list(rows), dtype=torch.int64),
        global_samples=len(samples) if global_samples is None else global_samples,
        tokens=sum(len(pair) for pair in ids),
        padded_tokens=pairs["input_ids"].numel(),
    )


def _tokens(
    model: TextModel, texts: Sequence[str], role: Role, prompts: Sequence[str | None]
) -> list[list[int]]:
    """Tokenises texts, each with its own prompt if it has one: a call for each distinct prompt."""
    distinct = set(prompts)
    if distinct <= {None}:
        return model.tokenize(texts, role)
    if len(distinct) == 1:
        return model.tokenize(texts, role, prompts[0])
    ids: list[list[int]] = [[] for _ in texts]
    for prompt in sorted(distinct, key=lambda p: (p is not None, p)):
        where = [i for i, p in enumerate(prompts) if p == prompt]
        for i, row in zip(where, model.tokenize([texts[i] for i in where], role, prompt)):
            ids[i] = row
    return ids


def _mask(sizes_B: torch.Tensor) -> torch.Tensor:
    longest = int(sizes_B.max()) if len(sizes_B) else 0
    return torch.arange(longest)[None, :] < sizes_B[:, None]


def _padded(rows: Sequence[Sequence[float]], sizes_B: torch.Tensor) -> torch.Tensor:
    longest = int(sizes_B.max()) if len(sizes_B) else 0
    table = np.zeros((len(rows), longest), np.float32)
    for i, row in enumerate(rows):
        table[i, : len(row)] = row
    return torch.from_numpy(table)


def _present(values: Sequence[float] | None, sample: Sample) -> Sequence[float]:
    assert values is not None and len(values) == len(sample.documents), sample.query
    return values


def _labels(samples: Sequence[Sample], sizes_B: torch.Tensor) -> torch.Tensor:
    """Graded labels; where there are none, 1 for the positives and 0 for the others."""
    return _padded(
        [
            sample.labels
            if sample.labels is not None
            else [float(i < sample.positives) for i in range(len(sample.documents))]
            for sample in samples
        ],
        sizes_B,
    )


def _answers(sample: Sample, count: int) -> list[str | None]:
    """The answer and its negatives, None where there is none."""
    if sample.answer is None:
        return [None] * count
    row: list[str | None] = [sample.answer, *sample.negative_answers[: count - 1]]
    return row + [None] * (count - len(row))


def _answer_targets(samples: Sequence[Sample], count: int) -> torch.Tensor:
    table = np.zeros((len(samples), count), np.float32)
    for i, sample in enumerate(samples):
        if sample.answer_scores is not None:
            values = sample.answer_scores[:count]
            table[i, : len(values)] = values
    return torch.from_numpy(table)
