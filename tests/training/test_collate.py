from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from raydist.data.samples.prepare import prepare
from raydist.data.samples.sample_set import SampleSet
from raydist.fingerprints import text_key
from raydist.losses.inputs import Embeddings, LossBatch, Scores
from raydist.losses.objective import make_objective
from raydist.losses.spec import InfoNCE, ListInfoNCE
from raydist.records import Sample
from raydist.training.collate import Inputs, collate_texts
from raydist.training.engine import TorchEngine
from raydist.training.samplers import (
    DistillationListwiseSampler,
    DistillationNegativesSampler,
    GroupSampler,
    Visit,
)
from raydist.training.spec import Optim
from tests.training.small import checkpoint, encoder
from tests.training.spawn import spawn
from tests.training.steps import forward_backward


class Words:
    """Tokenises nothing but lengths; remembers with which instructions."""

    def __init__(self) -> None:
        self.instructions: dict[str, str | None] = {}

    def tokenize(
        self, texts: Sequence[str], role: str, instruction: str | None = None
    ) -> list[list[int]]:
        self.instructions[role] = instruction
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
    known = collate_texts(samples, Words()).supervision.known_BK
    assert known is not None
    expected = ["abc", "ddd", "bab"]
    assert known.tolist() == [[text_key(text) for text in row] for row in expected]
    assert collate_texts(samples[1:2], Words()).supervision.known_BK is None


def test_a_prompt_is_put_before_queries_and_answers_keep_the_models_own() -> None:
    words = Words()
    sample = Sample("q one", ("a", "n"), answer="an answer", prompt="find: ")
    collate_texts([sample], words, answers=1)
    assert words.instructions == {"query": "find: ", "document": None, "answer": None}


def test_symmetric_documents_are_encoded_by_the_tower_of_queries(tmp_path: Path) -> None:
    model = encoder(checkpoint(tmp_path / "m"), towers=2)
    samples = [Sample("river stone", ("lamp", "garden")), Sample("bread", ("winter", "copper"))]
    for symmetric in (False, True):
        engine = TorchEngine(model, Optim(lr=1e-3))
        batch = collate_texts(samples, model, symmetric=symmetric)
        forward_backward(engine, batch, make_objective(InfoNCE()))
        trained = {name.split(".")[1] for name, p in model.named_parameters() if p.grad is not None}
        assert trained == ({"0"} if symmetric else {"0", "1"})
        engine.optimizer.zero_grad()


@pytest.mark.parametrize("margin", [0.05, 0.5])
def test_a_margin_is_of_the_teachers_own_scores_whatever_is_learnt_of_them(
    tmp_path: Path, margin: float
) -> None:
    """0.1 below the positive: as ranks it would be 1 below."""
    model = encoder(checkpoint(tmp_path / "m"))
    texts = ("river stone", "lamp", "garden")
    sample = Sample("river", texts, scores=(9.0, 8.9, 3.0), targets=(3.0, 2.0, 1.0))
    goal = make_objective(InfoNCE(teacher_margin=margin, scope="no_in_batch"))
    batch = collate_texts([sample], model, teacher=True)
    loss = goal.total(forward_backward(TorchEngine(model, Optim(lr=1e-3)), batch, goal))
    remaining = Sample("river", (texts[0], *texts[2 if margin > 0.1 else 1 :]))
    plain = make_objective(InfoNCE(scope="no_in_batch"))
    engine = TorchEngine(model, Optim(lr=1e-3))
    expected = plain.total(forward_backward(engine, collate_texts([remaining], model), plain))
    assert loss == pytest.approx(expected, rel=1e-5)


JUDGED = Sample(
    "q",
    ("relevant", "also relevant", "best of the teacher", "other"),
    2,
    labels=(1.0, 2.0, 0.0, 0.0),
    scores=(1.0, 2.0, 9.0, 5.0),
)


@pytest.mark.parametrize("kind", ["infonce", "infonce_list"])
def test_the_judged_document_is_the_positive_and_no_other_judged_one_a_negative(kind: str) -> None:
    """By hand: −log of the softmax of "also relevant" among itself and the two negatives."""
    of_draw = {
        "also relevant": 2.0,
        "relevant": 7.0,
        "best of the teacher": 1.5,
        "other": 0.5,
    }
    loss = InfoNCE(temperature=1.0, scope="in_batch") if kind == "infonce" else ListInfoNCE()
    for sampler in (
        DistillationListwiseSampler(size=0),
        DistillationNegativesSampler(4, positives="all"),
    ):
        drawn = sampler(JUDGED, Visit(0, 0))
        assert drawn is not None and drawn.documents[0] == "also relevant"
        supervision = collate_texts([drawn], Words()).supervision
        scores = torch.tensor([of_draw[text] for text in drawn.documents], requires_grad=True)
        output = (
            Embeddings(torch.ones(1, 1), scores[:, None]) if kind == "infonce" else Scores(scores)
        )
        goal = make_objective(loss)
        batch = LossBatch(output, supervision)
        goal.loss(goal.forward(batch), goal.counts(batch)).backward()
        read = torch.tensor([2.0, 1.5, 0.5], requires_grad=True)
        (-read.log_softmax(0)[0]).backward()
        assert scores.grad is not None and read.grad is not None
        slope = dict(zip(drawn.documents, scores.grad.tolist()))
        assert slope["relevant"] == 0.0
        names = ("also relevant", "best of the teacher", "other")
        assert [slope[name] for name in names] == pytest.approx(read.grad.tolist(), abs=1e-6)


def repeated_query(folder: Path) -> list[Sample]:
    """Two samples of one query with different positives, one of them the other's negative."""
    path = folder / "a.jsonl"
    records = [
        {"query": "q", "pos": ["a"], "neg": ["n"]},
        {"query": "Q", "pos": ["b"], "neg": ["A"]},
    ]
    path.write_text("".join(json.dumps(each) + "\n" for each in records))
    prepare(path, folder / "d")
    rows = SampleSet(folder / "d", lazy=True)
    drawn = [GroupSampler(2)(rows[row], Visit(0, 0)) for row in range(2)]
    return rows.fill([each for each in drawn if each])


def repeated_query_loss(samples: Sequence[Sample]) -> tuple[float, float, list[float]]:
    """Loss, count and gradients by document, of scores that depend on the document alone."""
    value = {"a": 1.0, "n": 3.0, "b": 0.5, "A": 9.0}
    texts = [text for sample in samples for text in sample.documents]
    scores = torch.tensor([[value[text]] for text in texts], requires_grad=True)
    output = Embeddings(torch.ones(len(samples), 1), scores)
    supervision = collate_texts(samples, Words()).supervision
    goal = make_objective(InfoNCE(temperature=1.0, scope="cross_device"))
    total, count = goal.forward(LossBatch(output, supervision))["infonce"]
    total.backward()
    assert scores.grad is not None
    return total.item(), float(count), scores.grad.flatten().tolist()


REPEATED = (  # each of the two samples against the other's negative alone, in 2 columns
    math.log(math.exp(1) + math.exp(3)) - 1,
    math.log(math.exp(0.5) + math.exp(3)) - 0.5,
)


def test_a_repeated_query_has_none_of_its_positives_as_a_negative(tmp_path: Path) -> None:
    total, count, gradients = repeated_query_loss(repeated_query(tmp_path))
    assert total == pytest.approx(sum(REPEATED), abs=1e-5) and count == 2
    pull = [1 - math.exp(-loss) for loss in REPEATED]
    assert gradients == pytest.approx([-pull[0], sum(pull), -pull[1], 0.0], abs=1e-6)


def repeated_across(rank: int, world: int, folder: Path) -> None:
    samples = repeated_query(folder / str(rank))
    total, count, gradients = repeated_query_loss(samples[rank : rank + 1])
    assert total == pytest.approx(REPEATED[rank], abs=1e-5) and count == 1
    pull = [1 - math.exp(-loss) for loss in REPEATED]
    expected = [[-pull[0], sum(pull)], [-pull[1], 0.0]]
    assert gradients == pytest.approx(expected[rank], abs=1e-6)


def test_a_repeated_query_has_none_of_another_rank_s_positives_as_a_negative(
    tmp_path: Path,
) -> None:
    for rank in range(2):
        (tmp_path / str(rank)).mkdir()
    spawn(repeated_across, 2, tmp_path)
