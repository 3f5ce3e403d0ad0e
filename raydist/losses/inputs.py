"""What a loss reads: the model's output and the supervision that came with the batch.

`LossBatch` holds both for one batch and computes what several losses share (the gathered columns,
the scores of a scope) once. All ranks must call the same methods in the same order.

Legend: B queries of this rank, P their documents (sample after sample, positive first), D the
longest list, K known positives and A answers of each query, d the embedding's width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from raydist.errors import ConfigError
from raydist.losses.contrastive import (
    Columns,
    ScopeScores,
    columns_of,
    in_lists,
    scope_scores,
)
from raydist.losses.gather import add_over_ranks, logits_dtype
from raydist.losses.spec import Scope


@dataclass(frozen=True, slots=True)
class Supervision:
    """The part of a batch that does not depend on the model.

    Attributes:
        sizes_B: int64, documents of each query.
        mask_BD: true where a query has a document.
        targets_BD: teacher targets, 0 where padded, or None without a teacher.
        scores_BD: the teacher's scores that the targets were made of.
        labels_BD: relevance grades, or None.
        hashes_P: int64 text hashes of the documents, or None.
        known_BK: int64 text hashes of all known positives of each query, the drawn one first; None
            where only that one is known.
        answer_mask_BA: true where there is an answer, or None without answers.
        answer_hashes: int64 [B·A] text hashes of the answers, or None.
        answer_targets_BA: teacher scores of the answers, or None.
        no_in_batch: only a query's own documents are its negatives, whatever the scope.
        ranks: how many queries each rank has, where that follows from the data.
        documents: how many documents each rank has, likewise.
    """

    sizes_B: Tensor
    mask_BD: Tensor
    targets_BD: Tensor | None = None
    scores_BD: Tensor | None = None
    labels_BD: Tensor | None = None
    hashes_P: Tensor | None = None
    known_BK: Tensor | None = None
    answer_mask_BA: Tensor | None = None
    answer_hashes: Tensor | None = None
    answer_targets_BA: Tensor | None = None
    no_in_batch: bool = False
    ranks: tuple[int, ...] | None = None
    documents: tuple[int, ...] | None = None

    def rows_of_ranks(self, each: int) -> tuple[int, ...] | None:
        """Returns the rows of each rank where every query has so many; None asks the ranks."""
        return tuple(n * each for n in self.ranks) if self.ranks else None


@dataclass(frozen=True, slots=True)
class Embeddings:
    """A bi-encoder's output: embeddings of queries [B, d], documents [P, d], answers [B·A, d].

    Of a multi-vector model they are [B, T, d] and so on, rows of zeros where there is no vector.
    A sparse model's are weights of d terms; `table_V` are its weights of queries' tokens.
    """

    queries_Bd: Tensor
    passages_Pd: Tensor
    answers: Tensor | None = None
    table_V: Tensor | None = None


@dataclass(frozen=True, slots=True)
class Scores:
    """A cross-encoder's output: one logit per document, sample after sample."""

    logits_P: Tensor


@dataclass(slots=True)
class LossBatch:
    """One batch's output and supervision, and what several losses compute from them.

    Attributes:
        output: of the model.
        supervision: the rest of the batch.
        totals: sums over the rows of all ranks and accumulation parts, by name, where this batch
            is not the whole step.
        counting: only the counts of terms are asked for, and there is nothing to exchange.
    """

    output: Embeddings | Scores
    supervision: Supervision
    totals: Mapping[str, Tensor] = field(default_factory=dict)
    counting: bool = False
    _columns: dict[tuple[Scope, bool], Columns] = field(default_factory=dict)
    _scores: dict[tuple[float, Scope, bool], ScopeScores] = field(default_factory=dict)

    def without_output(self) -> LossBatch:
        """Returns this batch with an output of zeros, one wide, and without foreign columns.

        Counts depend on the supervision alone, so its losses have the counts of the real batch, at
        next to no cost and without a collective.
        """
        supervision = replace(self.supervision, no_in_batch=True)
        sizes_B = supervision.sizes_B
        zeros_P = torch.zeros(int(sizes_B.sum()), device=sizes_B.device)
        if isinstance(self.output, Scores):
            return LossBatch(Scores(zeros_P), supervision, counting=True)
        mask_BA = supervision.answer_mask_BA
        answers = None if mask_BA is None else torch.zeros_like(mask_BA.flatten()[:, None]).float()
        queries_B1 = torch.zeros(len(sizes_B), 1, device=sizes_B.device)
        output = Embeddings(queries_B1, zeros_P[:, None], answers)
        return LossBatch(output, supervision, counting=True)

    def total(self, name: str, own: Callable[[], Mapping[str, Tensor]]) -> Tensor:
        """Returns a sum over the rows of a whole step.

        Args:
            name: of the sum.
            own: returns the sums of this batch, which is this rank's whole step if it is called.
        """
        return self.totals[name] if name in self.totals else add_over_ranks(own()[name])

    def scope(self, scope: Scope) -> Scope:
        """Returns the scope for this batch: its own `no_in_batch` overrides any other."""
        return "no_in_batch" if self.supervision.no_in_batch else scope

    def embeddings(self, kind: str) -> Embeddings:
        """Returns the embeddings.

        Raises:
            ConfigError: the model is not a bi-encoder.
        """
        if not isinstance(self.output, Embeddings):
            raise ConfigError(f"loss.kind={kind} needs a bi-encoder; this model scores pairs")
        if self.output.queries_Bd.dim() > 2 and kind != "infonce":
            raise ConfigError(f"loss.kind={kind} needs one vector a text; this model has many")
        return self.output

    def columns(self, scope: Scope, *, mask_duplicates: bool = True) -> Columns:
        """Returns the documents as columns of a scope."""
        key = (self.scope(scope), mask_duplicates)
        if key not in self._columns:
            self._columns[key] = columns_of(
                self.embeddings("infonce").passages_Pd,
                self.supervision.sizes_B,
                mask_BD=self.supervision.mask_BD,
                of_ranks=self.supervision.documents,
                scope=key[0],
                hashes_P=self.supervision.hashes_P if mask_duplicates else None,
                known_BK=self.supervision.known_BK if mask_duplicates else None,
            )
        return self._columns[key]

    def scores(
        self,
        *,
        temperature: float,
        scope: Scope = "no_in_batch",
        mask_duplicates: bool = True,
        column_block: int = 0,
    ) -> ScopeScores:
        """Returns the queries' scores in a scope; a cross-encoder has no foreign columns."""
        key = (temperature, self.scope(scope), mask_duplicates)
        if key in self._scores:
            return self._scores[key]
        if isinstance(self.output, Scores):
            exact_P = self.output.logits_P.to(logits_dtype(self.output.logits_P))
            own_BD = (
                in_lists(exact_P, self.supervision.sizes_B, self.supervision.mask_BD) / temperature
            )
            own_BD = own_BD.masked_fill(~self.supervision.mask_BD, 0.0)
            empty_B = own_BD.new_full(own_BD.shape[:1], -torch.inf)
            scores = ScopeScores(own_BD, self.supervision.mask_BD, empty_B)
        else:
            scores = scope_scores(
                self.output.queries_Bd,
                self.columns(scope, mask_duplicates=mask_duplicates),
                temperature=temperature,
                column_block=column_block,
            )
        self._scores[key] = scores
        return scores

    def teacher(self, kind: str) -> Tensor:
        """Returns the teacher's targets [B, D].

        Raises:
            ConfigError: the data has no teacher scores.
        """
        if self.supervision.targets_BD is None:
            raise ConfigError(
                f"{kind} needs teacher scores, and the data has none (pos_scores and neg_scores "
                "in FlagEmbedding lines, scores of candidates in list files)"
            )
        return self.supervision.targets_BD

    def grades(self, kind: str) -> Tensor:
        """Returns what orders the lists: the teacher's targets, or else the labels [B, D]."""
        if self.supervision.targets_BD is None and self.supervision.labels_BD is not None:
            return self.supervision.labels_BD
        return self.teacher(kind)
