"""Batches are a function of the step; a document's target is its own, whatever else is drawn."""

from __future__ import annotations

import threading
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch

from raydist.losses.inputs import Targets
from raydist.losses.spec import TargetSpec
from raydist.losses.targets import make_targets
from raydist.records import Sample
from raydist.training.collate import Batch, text_hashes
from raydist.training.samplers import (
    DistillationListwiseSampler,
    DistillationNegativesSampler,
    GroupSampler,
    Order,
    Stream,
    Visit,
)
from raydist.training.source import (
    BatchSource,
    TeacherSampler,
    TrainingSet,
    ahead,
    documents_of,
)
from tests.training.small import samples

SCORES = (9.0, 3.0, 7.0, 7.0, 0.0, 5.0, 1.0, 2.0)
SAMPLE = Sample("q", tuple("abcdefgh"), scores=SCORES, positives=2)


def test_ranks_share_the_global_batch_in_order() -> None:
    def collate(drawn: Any, total: int) -> Any:
        hashes = text_hashes(sample.query for sample in drawn)
        sizes = torch.full((len(drawn),), 3)
        targets = Targets(sizes, torch.ones(len(drawn), 3), hashes_P=hashes)
        return Batch(targets, global_samples=total)

    small = TrainingSet("small", samples(), GroupSampler(3), collate, group=3)
    order = Order((Stream(24, 7),), 5)
    (whole,) = BatchSource(order, (small,))(2)
    for world in (2, 3):
        shares = [BatchSource(order, (small,), rank, world)(2)[0] for rank in range(world)]
        hashes = torch.cat([batch.targets.hashes_P for batch in shares])
        assert torch.equal(hashes, whole.targets.hashes_P)
        assert {batch.global_samples for batch in shares} == {7}
        # Each knows the rows of all, without asking.
        rows = tuple(3 * len(batch.targets.sizes_B) for batch in shares)
        assert {batch.targets.rows_of_ranks(3) for batch in shares} == {rows}
        assert sum(rows) == 21


def test_every_draw_has_the_documents_that_ranks_count_on() -> None:
    for sampler in (
        GroupSampler(3),
        DistillationNegativesSampler(4, positives="all"),
        DistillationListwiseSampler(size=3),
    ):
        taught = TeacherSampler(sampler, partial(make_targets, target=TargetSpec()))
        count = documents_of(taught)
        assert count == documents_of(sampler)
        for few in (2, 8):
            sample = replace(
                SAMPLE, documents=SAMPLE.documents[:few], scores=SCORES[:few], positives=1
            )
            drawn = sampler(sample, Visit(1, 0))
            assert drawn is not None
            assert count in (0, len(drawn.documents))


def test_several_threads_prepare_steps_at_a_time_and_in_order() -> None:
    both = threading.Barrier(2, timeout=20)

    def source(step: int) -> list[Batch]:
        both.wait()  # for another step that is prepared beside this one
        return [step]  # type: ignore[list-item]

    with ahead(source, 0, 6, 1, threads=2) as batches:
        assert [b[0] for b in batches] == list(range(6))


def test_batches_come_in_order_and_errors_come_through() -> None:
    def source(step: int) -> list[Batch]:
        if step == 7:
            raise ValueError("row 7")
        return [step]  # type: ignore[list-item]

    for depth in (0, 1, 3):
        seen: list[Any] = []
        with pytest.raises(ValueError, match="row 7"), ahead(source, 2, 9, depth) as batches:
            for batch in batches:
                seen += batch
        assert seen == [2, 3, 4, 5, 6]
    with ahead(source, 3, 6) as batches:
        assert [b[0] for b in batches] == [3, 4, 5]


@pytest.mark.parametrize(
    "sampler",
    [
        DistillationListwiseSampler(size=3),
        DistillationNegativesSampler(4, "random"),
        GroupSampler(3),
    ],
)
@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ({"kind": "score"}, SCORES),
        ({"kind": "rank"}, (8.0, 4.0, 6.5, 6.5, 1.0, 5.0, 2.0, 3.0)),
        ({"kind": "minmax"}, tuple(score / 9 for score in SCORES)),
        ({"kind": "binary", "threshold": 5.0}, (1.0, 0.0, 1.0, 1.0, 0.0, 1.0, 0.0, 0.0)),
    ],
)
def test_a_target_depends_on_the_document_s_place_in_the_whole_list(
    sampler: Any, target: dict[str, Any], expected: tuple[float, ...]
) -> None:
    target_of = dict(zip(SAMPLE.documents, expected))
    taught = partial(make_targets, target=TargetSpec(**target))
    for number in range(5):
        drawn = TeacherSampler(sampler, taught)(SAMPLE, Visit(3, number))
        assert drawn is not None and drawn.targets is not None
        plain = sampler(SAMPLE, Visit(3, number))
        assert (drawn.documents, drawn.scores) == (plain.documents, plain.scores)
        assert drawn.targets == pytest.approx([target_of[name] for name in drawn.documents])


def test_a_positive_is_pulled_up_towards_the_drawn_best() -> None:
    low = Sample("q", ("p", "n"), scores=(1.0, 5.0))
    taught = TeacherSampler(GroupSampler(2), make_targets, repair=True)
    drawn = taught(low, Visit(0, 0))
    assert drawn is not None and drawn.scores == (1.0, 5.0)
    assert drawn.targets == pytest.approx((0.8 * 1.0 + 0.2 * 5.0, 5.0))
