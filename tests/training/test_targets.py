"""A document's target is its own, whatever else a draw takes."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest

from raydist.losses.targets import make_targets
from raydist.records import Sample
from raydist.training.samplers import (
    DistillationListwiseSampler,
    DistillationNegativesSampler,
    GroupSampler,
    Visit,
)
from raydist.training.source import TeacherSampler

SCORES = (9.0, 3.0, 7.0, 7.0, 0.0, 5.0, 1.0, 2.0)
SAMPLE = Sample("q", tuple("abcdefgh"), scores=SCORES, positives=2)


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
        ({"target": "score"}, SCORES),
        ({"target": "rank"}, (8.0, 4.0, 6.5, 6.5, 1.0, 5.0, 2.0, 3.0)),
        ({"target": "minmax"}, tuple(score / 9 for score in SCORES)),
        ({"target": "binary", "threshold": 5.0}, (1.0, 0.0, 1.0, 1.0, 0.0, 1.0, 0.0, 0.0)),
    ],
)
def test_a_target_says_where_a_document_stands_in_the_whole_list(
    sampler: Any, target: dict[str, Any], expected: tuple[float, ...]
) -> None:
    wanted = dict(zip(SAMPLE.documents, expected))
    for number in range(5):
        drawn = TeacherSampler(sampler, partial(make_targets, **target))(SAMPLE, Visit(3, number))
        assert drawn is not None and drawn.targets is not None
        plain = sampler(SAMPLE, Visit(3, number))
        assert (drawn.documents, drawn.scores) == (plain.documents, plain.scores)
        assert drawn.targets == pytest.approx([wanted[name] for name in drawn.documents])


def test_a_positive_is_pulled_up_towards_the_drawn_best() -> None:
    low = Sample("q", ("p", "n"), scores=(1.0, 5.0))
    taught = TeacherSampler(GroupSampler(2), make_targets, repair=True)
    drawn = taught(low, Visit(0, 0))
    assert drawn is not None and drawn.scores == (1.0, 5.0)
    assert drawn.targets == pytest.approx((0.8 * 1.0 + 0.2 * 5.0, 5.0))
