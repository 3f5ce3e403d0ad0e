"""Drawn samples become batches: tokenised, padded, hashed, masked.

Shapes as in `raydist.training.collate`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, Protocol

import numpy as np
import torch

from raydist.records import Sample
from raydist.training.collate import Batch, Inputs, text_hash, text_hashes

Role = Literal["query", "document", "answer"]


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
        targets: the samples carry a teacher's targets.
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
        passages = model.tokenize(texts, "document")
    answer_ids: list[list[int]] = []
    answer_texts: list[str] = []
    answer_mask = None
    if answers:
        filled = [_answers(sample, answers) for sample in samples]
        answer_texts = [text or "" for row in filled for text in row]
        answer_mask = torch.tensor(
            [[text is not None for text in row] for row in filled], dtype=torch.bool
        ).reshape(len(samples), answers)
        answer_ids = model.tokenize(answer_texts, answer_role)  # a prompt is the queries'
    sizes = torch.tensor([len(sample.documents) for sample in samples], dtype=torch.int64)
    padded = [model.pad(ids) if ids else None for ids in (queries, passages, answer_ids)]
    return Batch(
        sizes_B=sizes,
        query_hashes_B=text_hashes(sample.query for sample in samples),
        passage_hashes_P=text_hashes(texts),
        mask_BD=_mask(sizes),
        queries=padded[0],
        passages=padded[1],
        known_BK=_known(samples),
        targets_BD=_padded([s.targets for s in samples], sizes) if targets else None,
        scores_BD=_padded([s.scores for s in samples], sizes) if targets else None,
        labels_BD=_labels(samples, sizes),
        answers=padded[2],
        answer_mask_BA=answer_mask,
        answer_hashes=text_hashes(answer_texts) if answers else None,
        answer_targets_BA=_answer_targets(samples, answers) if answer_targets else None,
        no_in_batch=no_in_batch,
        symmetric=symmetric,
        dataset=dataset,
        rows_B=None if rows is None else torch.tensor(list(rows), dtype=torch.int64),
        global_samples=len(samples) if global_samples is None else global_samples,
        tokens=sum(len(ids) for part in (queries, passages, answer_ids) for ids in part),
    )


def collate_pairs(
    samples: Sequence[Sample],
    model: PairModel,
    *,
    dataset: str = "",
    rows: Sequence[int] | None = None,
    targets: bool = False,
    global_samples: int | None = None,
) -> Batch:
    """Returns a cross-encoder's batch of drawn samples, whose lists may be ragged.

    Args:
        samples: drawn samples: documents in their final order.
        model: tokenises and pads pairs.
        dataset: the data set's name.
        rows: the samples' rows in the data set.
        targets: the samples carry a teacher's targets.
        global_samples: samples over all ranks; the given ones if None.
    """
    texts = [text for sample in samples for text in sample.documents]
    queries = [sample.query for sample in samples for _ in sample.documents]
    ids = model.tokenize(queries, texts)
    sizes = torch.tensor([len(sample.documents) for sample in samples], dtype=torch.int64)
    return Batch(
        sizes_B=sizes,
        query_hashes_B=text_hashes(sample.query for sample in samples),
        passage_hashes_P=text_hashes(texts),
        mask_BD=_mask(sizes),
        pairs=model.pad(ids),
        targets_BD=_padded([s.targets for s in samples], sizes) if targets else None,
        scores_BD=_padded([s.scores for s in samples], sizes) if targets else None,
        labels_BD=_labels(samples, sizes),
        dataset=dataset,
        rows_B=None if rows is None else torch.tensor(list(rows), dtype=torch.int64),
        global_samples=len(samples) if global_samples is None else global_samples,
        tokens=sum(len(pair) for pair in ids),
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


def _known(samples: Sequence[Sample]) -> torch.Tensor | None:
    """Hashes [B, K] of each query's positives, the drawn one first and where there are no more."""
    most = max((len(sample.others) for sample in samples), default=0)
    if not most:
        return None
    known: dict[str, int] = {}
    rows = []
    for sample in samples:
        texts = (sample.documents[0], *sample.others)
        hashes = [known.setdefault(text, text_hash(text)) for text in texts]
        rows.append(hashes + hashes[:1] * (1 + most - len(hashes)))
    return torch.tensor(rows, dtype=torch.int64)


def _padded(rows: Sequence[Sequence[float] | None], sizes_B: torch.Tensor) -> torch.Tensor:
    longest = int(sizes_B.max()) if len(sizes_B) else 0
    table = np.zeros((len(rows), longest), np.float32)
    for i, (row, size) in enumerate(zip(rows, sizes_B.tolist(), strict=True)):
        assert row is not None and len(row) == size, (row, size)
        table[i, :size] = row
    return torch.from_numpy(table)


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
