"""Values and gradients against sentence-transformers and lightning-ir on random lists."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from raydist.losses import distillation, listwise, pairwise
from raydist.losses.contrastive import ScopeScores, columns_of, info_nce, scope_scores
from raydist.losses.gather import SumCount
from raydist.losses.objective import make_objective
from raydist.losses.spec import InfoNCE

SEEDS = range(6)


def lists(seed: int, *, ragged: bool, ties: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Returns scores, targets and mask of lists of 2 to 7 documents; `ties` repeats grades."""
    g = torch.Generator().manual_seed(seed)
    rows, depth = 4, 7
    sizes = torch.randint(2, depth + 1, (rows, 1), generator=g) if ragged else depth
    mask = (torch.arange(depth)[None] < sizes) & torch.ones(rows, 1, dtype=torch.bool)
    scores = torch.randn(rows, depth, generator=g) * 2
    targets = torch.randn(rows, depth, generator=g)
    if ties:
        targets = torch.randint(0, 4, (rows, depth), generator=g).float()
    # Large values in the padding must not matter.
    return scores.masked_fill(~mask, 50.0), targets.masked_fill(~mask, 99.0), mask


def compare(
    ours: Callable[[Tensor], SumCount], oracle: Callable[[Tensor], Tensor], s: Tensor
) -> None:
    """Asserts equal mean losses and gradients."""
    a, b = s.clone().requires_grad_(), s.clone().requires_grad_()
    total, count = ours(a)
    loss = total / count
    expected = oracle(b)
    assert loss.item() == pytest.approx(expected.item(), rel=2e-5, abs=1e-6)
    loss.backward()
    expected.backward()
    assert a.grad is not None and b.grad is not None
    torch.testing.assert_close(a.grad, b.grad, rtol=1e-4, atol=2e-6)


class PairScorer(nn.Module):
    """A fake cross-encoder: a document is the index of its score in a table."""

    num_labels = 1
    device = torch.device("cpu")

    def __init__(self, scores: Tensor) -> None:
        super().__init__()
        self.scores = scores

    def preprocess(self, pairs: Any, **_: Any) -> dict[str, Tensor]:
        return {"at": torch.tensor([int(document) for _, document in pairs])}

    def forward(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"scores": self.scores.flatten()[features["at"]]}


def st_loss(name: str, targets: Tensor, mask: Tensor, **options: Any) -> Callable[[Tensor], Tensor]:
    """Returns a sentence-transformers loss on lists as a function of the score table."""
    losses = pytest.importorskip("sentence_transformers.cross_encoder.losses")
    positions = torch.arange(mask.numel()).reshape(mask.shape)
    documents = [[str(p) for p in row[m].tolist()] for row, m in zip(positions, mask)]
    labels = [row[m] for row, m in zip(targets, mask)]

    def loss(scores: Tensor) -> Tensor:
        function = getattr(losses, name)(PairScorer(scores), **options)
        value: Tensor = function([["q"] * len(documents), documents], labels)
        return value

    return loss


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("ties", [False, True])
def test_list_losses_equal_those_of_sentence_transformers(seed: int, ties: bool) -> None:
    s, t, mask = lists(seed, ragged=True, ties=ties)
    compare(lambda x: listwise.list_net(x, t, mask), st_loss("ListNetLoss", t, mask), s)
    compare(lambda x: listwise.adr_mse(x, t, mask), st_loss("ADRMSELoss", t, mask), s)
    compare(
        lambda x: listwise.distill_rank_net(x, t, mask, log_base_2=True),
        st_loss("RankNetLoss", t, mask),
        s,
    )
    compare(
        lambda x: distillation.list_mle(
            ScopeScores(x, mask, torch.full(x.shape[:1], -torch.inf)), mean=False
        ),
        st_loss("ListMLELoss", t, mask, respect_input_order=True),
        s,
    )


SCHEMES: dict[listwise.LambdaScheme, str] = {
    "none": "NoWeightingScheme",
    "ndcg_loss1": "NDCGLoss1Scheme",
    "ndcg_loss2": "NDCGLoss2Scheme",
    "lambda_rank": "LambdaRankScheme",
    "ndcg_loss2pp": "NDCGLoss2PPScheme",
}


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("k", [0, 3])
def test_lambda_loss_equals_that_of_sentence_transformers(
    scheme: listwise.LambdaScheme, k: int
) -> None:
    losses = pytest.importorskip("sentence_transformers.cross_encoder.losses")
    weighting = getattr(losses, SCHEMES[scheme])()
    for seed in SEEDS:
        s, t, mask = lists(seed, ragged=True, ties=True)
        compare(
            lambda x: listwise.lambda_loss(x, t, mask, scheme=scheme, k=k),  # noqa: B023
            st_loss("LambdaLoss", t, mask, weighting_scheme=weighting, k=k or None),
            s,
        )


@pytest.mark.parametrize("seed", SEEDS)
def test_margin_mse_and_kl_equal_those_of_sentence_transformers(seed: int) -> None:
    losses = pytest.importorskip("sentence_transformers.losses")
    s, t, mask = lists(seed, ragged=False, ties=False)

    def oracle(loss: Any, labels: Tensor) -> Callable[[Tensor], Tensor]:
        def value(x: Tensor) -> Tensor:
            embeddings = [torch.ones(len(x), 1), *(column[:, None] for column in x.unbind(1))]
            result: Tensor = loss.compute_loss_from_embeddings(embeddings, labels)
            return result

        return value

    margin = losses.MarginMSELoss(nn.Identity())
    compare(lambda x: pairwise.margin_mse(x, t, mask), oracle(margin, t[:, :1] - t[:, 1:]), s)
    divergence = losses.DistillKLDivLoss(nn.Identity())
    compare(lambda x: distillation.true_kl(x, t, mask), oracle(divergence, t), s)
    two = mask[:, :2]
    compare(
        lambda x: pairwise.pairwise_kl(x, t[:, :2], two), oracle(divergence, t[:, :2]), s[:, :2]
    )


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("ties", [False, True])
def test_list_losses_equal_those_of_lightning_ir(lightning: Any, seed: int, ties: bool) -> None:
    s, t, mask = lists(seed, ragged=False, ties=ties)

    def oracle(loss: Any) -> Callable[[Tensor], Tensor]:
        def value(x: Tensor) -> Tensor:
            result: Tensor = loss.compute_loss(
                SimpleNamespace(scores=x), SimpleNamespace(targets=t)
            )
            return result

        return value

    compare(lambda x: listwise.distill_rank_net(x, t, mask), oracle(lightning.RankNet()), s)
    compare(
        lambda x: pairwise.margin_mse_pairs(x, t, mask), oracle(lightning.SupervisedMarginMSE()), s
    )
    compare(lambda x: distillation.true_kl(x, t, mask), oracle(lightning.KLDivergence()), s)
    compare(lambda x: listwise.info_nce_list(x, t, mask), oracle(lightning.InfoNCE()), s)
    if not ties:  # its ranks of tied targets depend on an unstable sort
        compare(
            lambda x: listwise.adr_mse(x, t, mask), oracle(lightning.ApproxRankMSE(1, "log2")), s
        )
        compare(
            lambda x: listwise.adr_mse(x, t, mask, ties="ordinal", temperature=0.5),
            oracle(lightning.ApproxRankMSE(0.5, "log2")),
            s,
        )


@pytest.mark.parametrize("group", [1, 3])
@pytest.mark.parametrize("block", [0, 1, 4])
def test_info_nce_equals_multiple_negatives_ranking(group: int, block: int) -> None:
    losses = pytest.importorskip("sentence_transformers.losses")
    g = torch.Generator().manual_seed(group)
    q = nn.functional.normalize(torch.randn(5, 8, generator=g), dim=1)
    p = nn.functional.normalize(torch.randn(5, group, 8, generator=g), dim=2)
    joined = torch.cat([q[:, None], p], 1)
    reference = losses.MultipleNegativesRankingLoss(nn.Identity(), scale=20.0)

    def ours(x: Tensor) -> SumCount:
        documents = x[:, 1:].flatten(0, 1)
        columns = columns_of(documents, torch.full((5,), group), scope="in_batch")
        scores = scope_scores(x[:, 0], columns, temperature=0.05, column_block=block)
        return info_nce(scores)

    def oracle(x: Tensor) -> Tensor:
        # Cosine and dot product agree on unit vectors, but not in their gradient along the vector.
        unit = nn.functional.normalize(x, dim=2)
        value: Tensor = reference.compute_loss_from_embeddings(list(unit.unbind(1)), None)
        return value

    compare(lambda x: ours(nn.functional.normalize(x, dim=2)), oracle, joined)


def test_cached_gradients_equal_those_of_cached_multiple_negatives_ranking() -> None:
    """Both sides encode in chunks of two and replay; compares the parameters' gradients."""
    losses = pytest.importorskip("sentence_transformers.losses")
    from raydist.training.engine import TorchEngine
    from raydist.training.spec import Optim
    from tests.training import tiny
    from tests.training.steps import forward_backward

    whole = tiny.data(group=1)
    batch = tiny.batch(whole, range(whole.size), teacher=False)

    class Unit(tiny.TinyEncoder):
        def forward(self, inputs: Any, role: str = "query") -> Tensor:
            return nn.functional.normalize(super().forward(inputs, "query"), dim=1)

    class Sentence(nn.Module):
        def forward(self, features: Any) -> dict[str, Tensor]:
            return {"sentence_embedding": model(features)}

    model = Unit(torch.float32)
    reference = losses.CachedMultipleNegativesRankingLoss(
        nn.Sequential(Sentence()), scale=20.0, mini_batch_size=2
    )
    expected = reference([whole.queries, whole.passages], torch.zeros(0))
    expected.backward()
    expected_gradient = tiny.gradient(model)
    model.zero_grad()
    objective = make_objective(InfoNCE(temperature=0.05, mask_duplicates=False))
    terms = forward_backward(TorchEngine(model, Optim(lr=0.0)), batch, objective, chunk_size=2)
    assert objective.total(terms) == pytest.approx(expected.item(), rel=1e-6)
    torch.testing.assert_close(tiny.gradient(model), expected_gradient, rtol=1e-4, atol=1e-6)
