"""Drawn samples become the inputs of a step: padded token ids, and what losses read beside them.

Shapes: B samples of this rank, G documents of each (positive first), P = sum of the list sizes
(B·G where they are equal), D the longest list, K known positives of a query, A answers of a sample
(the answer first), L tokens.

Everything that must agree between ranks (which optional tensors exist, G, A) follows from the data
set that the whole step was drawn from, never from the samples that one rank happens to hold.
A step with accumulation is a list of batches; its sums are divided once, by the summed counts.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Protocol

import numpy as np
import torch

from raydist.fingerprints import text_key
from raydist.losses.inputs import Supervision
from raydist.models.texts.tokens import Role
from raydist.records import Sample

Inputs = dict[str, torch.Tensor]
"""Padded model inputs: `input_ids` and `attention_mask` [n, L], `token_type_ids` where used."""
_INPUTS = ("queries", "passages", "answers", "pairs")


@dataclass(frozen=True, slots=True)
class Batch:
    """One rank's share of a step (or of one accumulation part of it), on the CPU.

    A bi-encoder reads queries, passages and answers; a cross-encoder reads pairs.

    Attributes:
        supervision: the losses' inputs besides the model's output.
        queries: inputs of the B queries.
        passages: inputs of the P documents, sample after sample, positive first.
        answers: inputs of the B·A answers, sample after sample; None where the data set has none.
            A missing answer is an empty text that `supervision.answer_mask_BA` leaves out.
        pairs: inputs of the P (query, document) pairs, sample after sample.
        symmetric: documents are encoded as queries are.
        global_samples: samples of this step (or part) over all ranks.
        tokens: of all inputs, without padding.
    """

    supervision: Supervision
    queries: Inputs | None = None
    passages: Inputs | None = None
    answers: Inputs | None = None
    pairs: Inputs | None = None
    symmetric: bool = False
    global_samples: int = 0
    tokens: int = 0

    def over_ranks(self, ranks: tuple[int, ...], documents: tuple[int, ...] | None) -> Batch:
        """Returns the batch with the number of each rank's samples, and of their documents."""
        return replace(
            self, supervision=replace(self.supervision, ranks=ranks, documents=documents)
        )

    def pinned(self) -> Batch:
        """Returns the batch in memory that a GPU can fetch from by itself."""
        return replace(
            self,
            supervision=_pinned(self.supervision),
            **{name: _pinned(getattr(self, name)) for name in _INPUTS},
        )


class Tokenizing(Protocol):
    """What prepares texts for a bi-encoder."""

    def tokenize(
        self, texts: Sequence[str], role: Role, instruction: str | None = None
    ) -> list[list[int]]:
        """Returns the unpadded token ids of texts; None takes the role's own instruction."""
        ...


class TextModel(Tokenizing, Protocol):
    """A bi-encoder's part in collation."""

    def pad(self, token_ids: Sequence[Sequence[int]]) -> Inputs:
        """Returns the rows padded to the longest."""
        ...


class PairModel(Protocol):
    """A cross-encoder's part in collation."""

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
    teacher: bool = False,
    answers: int = 0,
    answer_teacher: bool = False,
    no_in_batch: bool = False,
    symmetric: bool = False,
    global_samples: int | None = None,
) -> Batch:
    """Returns a bi-encoder's batch of drawn samples.

    Args:
        samples: drawn samples: documents in their final order, the same number in each.
        model: tokenises and pads.
        teacher: the samples carry a teacher's targets.
        answers: A, the answers of each sample (1 and its negatives); 0 for none.
        answer_teacher: the samples carry teacher scores of their answers.
        no_in_batch: only the sample's own documents are negatives.
        symmetric: documents are encoded as queries are, with the query's instruction.
        global_samples: samples over all ranks; the given ones if None.
    """
    prompts = [sample.prompt for sample in samples]
    queries = tokens_of(model, [sample.query for sample in samples], "query", prompts)
    texts = [text for sample in samples for text in sample.documents]
    if symmetric:
        spread = [sample.prompt for sample in samples for _ in sample.documents]
        passages = tokens_of(model, texts, "query", spread)
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
        answer_ids = model.tokenize(answer_texts, "answer")  # a prompt is the queries' alone
    query_inputs, passage_inputs, answer_inputs = (
        model.pad(ids) if ids else None for ids in (queries, passages, answer_ids)
    )
    supervision = _supervision(
        samples,
        teacher,
        known_BK=_known(samples),
        answer_mask_BA=answer_mask,
        answer_hashes=text_hashes(answer_texts) if answers else None,
        answer_targets_BA=_answer_targets(samples, answers) if answer_teacher else None,
        no_in_batch=no_in_batch,
    )
    return Batch(
        supervision,
        queries=query_inputs,
        passages=passage_inputs,
        answers=answer_inputs,
        symmetric=symmetric,
        global_samples=len(samples) if global_samples is None else global_samples,
        tokens=sum(len(ids) for part in (queries, passages, answer_ids) for ids in part),
    )


def collate_pairs(
    samples: Sequence[Sample],
    model: PairModel,
    *,
    teacher: bool = False,
    global_samples: int | None = None,
) -> Batch:
    """Returns a cross-encoder's batch of drawn samples, whose lists may be ragged.

    Args:
        samples: drawn samples: documents in their final order.
        model: tokenises and pads pairs.
        teacher: the samples carry a teacher's targets.
        global_samples: samples over all ranks; the given ones if None.
    """
    texts = [text for sample in samples for text in sample.documents]
    queries = [sample.query for sample in samples for _ in sample.documents]
    ids = model.tokenize(queries, texts)
    return Batch(
        _supervision(samples, teacher, known_BK=_known(samples)),
        pairs=model.pad(ids),
        global_samples=len(samples) if global_samples is None else global_samples,
        tokens=sum(len(pair) for pair in ids),
    )


def text_hashes(texts: Iterable[str]) -> torch.Tensor:
    """Returns int64 hashes [n] of texts."""
    return torch.tensor([text_key(text) for text in texts], dtype=torch.int64)


def take(inputs: Inputs, rows: slice | torch.Tensor) -> Inputs:
    """Returns some rows of padded inputs without the columns that are padding in all of them.

    Works under padding on either side: the chunks of a long batch are no wider than they must be.
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


def _pinned(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.pin_memory()
    if isinstance(value, dict):
        return {name: tensor.pin_memory() for name, tensor in value.items()}
    if isinstance(value, Supervision):
        return replace(value, **{f.name: _pinned(getattr(value, f.name)) for f in fields(value)})
    return value


def _supervision(samples: Sequence[Sample], teacher: bool, **more: Any) -> Supervision:
    sizes_B = torch.tensor([len(sample.documents) for sample in samples], dtype=torch.int64)
    longest = int(sizes_B.max()) if len(sizes_B) else 0
    return Supervision(
        sizes_B=sizes_B,
        mask_BD=torch.arange(longest)[None, :] < sizes_B[:, None],
        targets_BD=_padded([s.targets for s in samples], sizes_B) if teacher else None,
        scores_BD=_padded([s.scores for s in samples], sizes_B) if teacher else None,
        labels_BD=_padded([_labels(s) for s in samples], sizes_B),
        hashes_P=text_hashes(text for sample in samples for text in sample.documents),
        **more,
    )


def tokens_of(
    model: Tokenizing, texts: Sequence[str], role: Role, prompts: Sequence[str | None]
) -> list[list[int]]:
    """Returns the token ids of texts, each with its own prompt if it has one."""
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


def _known(samples: Sequence[Sample]) -> torch.Tensor | None:
    """Hashes [B, K] of each query's positives, the drawn ones first; the first is the padding."""
    positives = [(*sample.documents[: sample.positives], *sample.others) for sample in samples]
    most = max(map(len, positives), default=1)
    if most == 1:
        return None
    known: dict[str, int] = {}
    rows = []
    for texts in positives:
        hashes = [known.setdefault(text, text_key(text)) for text in texts]
        rows.append(hashes + hashes[:1] * (most - len(hashes)))
    return torch.tensor(rows, dtype=torch.int64)


def _padded(rows: Sequence[Sequence[float] | None], sizes_B: torch.Tensor) -> torch.Tensor:
    longest = int(sizes_B.max()) if len(sizes_B) else 0
    table = np.zeros((len(rows), longest), np.float32)
    for i, (row, size) in enumerate(zip(rows, sizes_B.tolist(), strict=True)):
        assert row is not None and len(row) == size, (row, size)
        table[i, :size] = row
    return torch.from_numpy(table)


def _labels(sample: Sample) -> Sequence[float]:
    """Graded labels; where there are none, 1 for the positives and 0 for the others."""
    if sample.labels is not None:
        return sample.labels
    return [float(i < sample.positives) for i in range(len(sample.documents))]


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
