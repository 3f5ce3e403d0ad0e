"""The losses again, written as their formulas read: loops over queries, no tricks.

All functions take the joined batch of all ranks; `blocks` are the queries of each rank.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass
class Joined:
    """A batch of all ranks: N queries with G passages and A answers each."""

    group: int
    hashes: Tensor
    known: Tensor
    teacher: Tensor
    answer_mask: Tensor
    answer_hashes: Tensor
    answer_teacher: Tensor
    blocks: list[range]

    def block(self, i: int) -> range:
        return next(b for b in self.blocks if i in b)


def rows_in_scope(joined: Joined, i: int, scope: str) -> list[int]:
    if scope == "no_in_batch":
        return [i]
    if scope == "in_batch":
        return list(joined.block(i))
    return [j for b in joined.blocks for j in b]


def logits(
    x: Tensor,
    y: Tensor,
    i: int,
    rows: list[int],
    group: int,
    hashes: Tensor,
    known: Tensor,
    valid: Tensor,
    keep_own: bool,
) -> tuple[Tensor, list[int]]:
    """Returns scores of query i in its scope, own columns first, and the columns' indices."""
    own = [i * group + g for g in range(group)]
    foreign = [j * group + g for j in rows if j != i for g in range(group)]
    positives = set(known[i].tolist())
    columns = [c for c in own if valid[c]]
    if not keep_own:
        columns = [c for c in columns if c == own[0] or int(hashes[c]) not in positives]
    columns += [c for c in foreign if valid[c] and int(hashes[c]) not in positives]
    return torch.stack([x @ y[c] for c in columns]), columns


def cross_entropy(scores: Tensor, at: int) -> Tensor:
    return torch.logsumexp(scores, 0) - scores[at]


def contrastive_terms(
    x: Tensor,
    y: Tensor,
    joined: Joined,
    *,
    temperature: float,
    scope: str,
    kind: str | None,
    group: int,
    hashes: Tensor,
    known: Tensor,
    valid: Tensor,
    teacher: Tensor,
    rows: list[int],
) -> Tensor:
    """Mean over `rows` of the contrastive loss with its distillation (weight 1)."""
    total = x.new_zeros(())
    hard = x.new_zeros(())
    soft_count = 0
    for i in rows:
        scope_rows = rows_in_scope(joined, i, scope)
        masked, _ = logits(x[i], y, i, scope_rows, group, hashes, known, valid, keep_own=False)
        if kind not in ("m3_kd", "list_mle"):
            hard = hard + cross_entropy(masked / temperature, 0)
        if kind is None:
            continue
        full, columns = logits(x[i], y, i, scope_rows, group, hashes, known, valid, keep_own=True)
        full = full / temperature
        n = sum(c // group == i for c in columns)
        own, foreign = full[:n], full[n:]
        t = teacher[i][[c % group for c in columns[:n]]]
        share = t.softmax(0)
        logs = own.log_softmax(0)
        if kind == "kl_div":
            total = total - (share * logs).sum()
        elif kind == "true_kl":
            total = total + (share * (share.log() - logs)).sum()
        elif kind in ("m3_kd", "list_mle"):
            for g in range(n):
                weight = share[g] if kind == "m3_kd" else 1.0 / n
                remaining = torch.cat([own[g:], foreign])
                total = total + weight * (torch.logsumexp(remaining, 0) - own[g])
        elif kind == "margin_mse":
            for g in range(1, n):
                total = total + ((own[0] - own[g]) - (t[0] - t[g])) ** 2
                soft_count += 1
        elif kind == "pairwise_kl":
            for g in range(1, n):
                p = t[[0, g]].softmax(0)
                q = own[[0, g]].log_softmax(0)
                total = total + (p * (p.log() - q)).sum()
                soft_count += 1
    per_pair = kind in ("margin_mse", "pairwise_kl")
    return hard / len(rows) + total / (max(1, soft_count) if per_pair else len(rows))


def total_loss(
    q: Tensor,
    p: Tensor,
    a: Tensor,
    joined: Joined,
    *,
    temperature: float,
    answer_temperature: float,
    scope: str,
    kind: str | None,
    training_type: str | None,
) -> Tensor:
    """The whole objective; `training_type` None is InfoNCE alone, else BiIR."""
    queries = list(range(len(q)))
    loss = contrastive_terms(
        q,
        p,
        joined,
        temperature=temperature,
        scope=scope,
        kind=kind,
        group=joined.group,
        hashes=joined.hashes,
        known=joined.known,
        valid=torch.ones(len(p), dtype=torch.bool),
        teacher=joined.teacher,
        rows=queries,
    )
    if training_type in (None, "retrieval"):
        return loss
    answers = joined.answer_mask.shape[1]
    answered = [i for i in queries if joined.answer_mask[i, 0]]
    loss = loss + contrastive_terms(
        q,
        a,
        joined,
        temperature=answer_temperature,
        scope=scope,
        kind=kind,
        group=answers,
        hashes=joined.answer_hashes,
        known=joined.answer_hashes[::answers, None],
        valid=joined.answer_mask.flatten(),
        teacher=joined.answer_teacher,
        rows=answered,
    )
    first = a.reshape(len(q), answers, -1)[:, 0]
    loss = loss + torch.stack([(first[i].norm() - 1.0) ** 2 for i in answered]).mean()
    if training_type == "retrieval_answer_passage":
        loss = loss + 0.25 * contrastive_terms(
            first,
            p,
            joined,
            temperature=temperature,
            scope=scope,
            kind=None,
            group=joined.group,
            hashes=joined.hashes,
            known=joined.known,
            valid=torch.ones(len(p), dtype=torch.bool),
            teacher=joined.teacher,
            rows=answered,
        )
    return loss
