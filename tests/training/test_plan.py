from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from raydist.data.samples.sample_set import SampleFacts
from raydist.errors import DataError
from raydist.training.plan import Schedule, SetPlan, plan_groups, plan_lists
from raydist.training.samplers import (
    DistillationListwiseSampler,
    DistillationNegativesSampler,
    GroupSampler,
)
from raydist.training.spec import TrainingData

FACTS = SampleFacts(
    "data", "flagembedding", rows=100, files=("/d/train.jsonl",), negatives={9: 60, 20: 40}
)


def data(**options: object) -> TrainingData:
    return TrainingData(path=("train.jsonl",), **options)  # type: ignore[arg-type]


def groups(facts: SampleFacts, group: int | None = None, **options: object) -> SetPlan:
    named = [name for name in ("teacher", "answers") if name in options]
    flags = {"teacher": True, "answers": True, **{name: options.pop(name) for name in named}}
    return plan_groups(facts, Path("/d"), data(**options), batch_size=32, group=group, **flags)  # type: ignore[arg-type]


def test_the_group_size_follows_the_options_and_else_the_data() -> None:
    assert groups(FACTS).sampler == GroupSampler(8)
    assert groups(FACTS, 4).sampler == GroupSampler(4)
    carried = replace(FACTS, overrides={"train_group_size": 5, "batch_size": 16})
    assert groups(carried).sampler == GroupSampler(5)
    assert groups(carried).batch_sizes == (16, 16)
    assert groups(carried, batch_size=9).batch_sizes == (9, 9)
    alone = groups(replace(FACTS, negatives={0: 100}, without_negatives="train.jsonl, line 1"))
    assert alone.sampler == GroupSampler(1) and "no negatives" in alone.notes[0]


def test_no_negative_is_encoded_again_only_to_fill_a_group() -> None:
    for most, size in ((1, 2), (3, 4), (7, 8), (30, 8)):
        plan = groups(replace(FACTS, negatives={most: 100}))
        assert plan.sampler == GroupSampler(size) and not plan.notes


def test_types_set_the_group_and_how_documents_are_encoded() -> None:
    assert groups(replace(FACTS, kind="only_1neg"), 6).sampler == GroupSampler(2)
    few = replace(FACTS, kind="symmetric_class", negatives={3: 100})
    assert groups(few, 6).sampler == GroupSampler(4)
    assert groups(replace(FACTS, kind="symmetric_sts")).symmetric
    assert not groups(FACTS).symmetric


def test_too_few_negatives_are_said_once_and_none_is_an_error() -> None:
    plan = groups(FACTS, 16)
    assert plan.notes == ("60 of 100 samples have fewer than 15 negatives: repeated",)
    mixed = replace(FACTS, negatives={0: 1, 9: 99}, without_negatives="/d/train.jsonl, line 7")
    with pytest.raises(DataError, match=r"train\.jsonl, line 7: a sample without negatives"):
        groups(mixed)
    assert groups(mixed, 1).sampler == GroupSampler(1)


def test_a_file_name_can_turn_negatives_of_the_batch_off() -> None:
    named = replace(FACTS, files=("/d/classes_no_in_batch_neg.jsonl",))
    assert groups(named).no_in_batch and not groups(FACTS).no_in_batch
    assert not groups(named, no_in_batch=False).no_in_batch


def test_answers_and_teachers_are_used_where_they_are_and_wanted() -> None:
    rich = replace(FACTS, scores=True, answers=True, answer_scores=True, negative_answers=3)
    plan = groups(rich)
    assert plan.teacher and plan.answers == 4 and plan.answer_teacher
    assert groups(rich, 3).answers == 3
    assert groups(replace(rich, negative_answers=0)).answers == 1
    bare = groups(rich, teacher=False, answers=False)
    assert not bare.teacher and bare.answers == 0 and not bare.answer_teacher


def test_a_small_data_set_says_that_it_fills_a_batch_several_times() -> None:
    assert "several times" in groups(replace(FACTS, rows=10)).notes[0]


def test_lists_get_the_requested_sampler() -> None:
    facts = replace(FACTS, format="lists", scores=True)
    listwise = DistillationListwiseSampler(9, 5)
    plan = plan_lists(facts, Path("/d"), data(), batch_size=4, sampler=listwise)
    assert plan.sampler == listwise and plan.teacher
    negatives = DistillationNegativesSampler(6, "all")
    judged = replace(facts, format="ids", labels=True)
    plan = plan_lists(judged, Path("/d"), data(), batch_size=4, sampler=negatives)
    assert plan.sampler == negatives


def test_rates_rise_then_fall() -> None:
    linear = Schedule(2.0, 10, 4)
    assert [linear.at(s) for s in range(4)] == [0.5, 1.0, 1.5, 2.0]
    assert linear.at(4) == 2.0 and linear.at(7) == 1.0 and linear.at(10) == 0.0
    cosine = Schedule(2.0, 10, 0, "cosine")
    assert cosine.at(0) == 2.0 and cosine.at(5) == pytest.approx(1.0) and cosine.at(10) < 1e-9
    assert Schedule(2.0, 10, 0, "constant").at(9) == 2.0
    assert Schedule(2.0, 10, 0.2).warmup_steps == 2
    assert Schedule(2.0, 10, 0, "linear", floor=0.3).at(9) == pytest.approx(0.6)
