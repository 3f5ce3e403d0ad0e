"""Batches are a function of the step; a document's target is its own, whatever else is drawn."""

from __future__ import annotations

import json
import threading
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from raydist.data.samples.prepare import prepare
from raydist.data.samples.sample_set import SampleSet
from raydist.data.spec import CorpusSource, SampleSource
from raydist.losses.inputs import Supervision
from raydist.losses.spec import TargetSpec
from raydist.losses.targets import make_targets
from raydist.records import Sample
from raydist.training.collate import Batch, text_hashes
from raydist.training.samplers import (
    DataSampler,
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
)
from tests.training.small import samples

SCORES = (9.0, 3.0, 7.0, 7.0, 0.0, 5.0, 1.0, 2.0)
SAMPLE = Sample("q", tuple("abcdefgh"), scores=SCORES, positives=2)


def test_ranks_share_the_global_batch_in_order() -> None:
    def collate(drawn: Any, total: int) -> Any:
        hashes = text_hashes(sample.query for sample in drawn)
        sizes = torch.full((len(drawn),), 3)
        supervision = Supervision(sizes, torch.ones(len(drawn), 3), hashes_P=hashes)
        return Batch(supervision, global_samples=total)

    def three(rows: np.ndarray) -> np.ndarray:
        return np.full(len(rows), 3)

    small = TrainingSet("small", samples(), GroupSampler(3), collate, drawn=three)
    order = Order((Stream(24, 7),), 5)
    (whole,) = BatchSource(order, (small,))(2)
    for world in (2, 3):
        shares = [BatchSource(order, (small,), rank, world)(2)[0] for rank in range(world)]
        hashes = torch.cat([batch.supervision.hashes_P for batch in shares])
        assert torch.equal(hashes, whole.supervision.hashes_P)
        assert {batch.global_samples for batch in shares} == {7}
        # Each knows the rows of all, without asking.
        rows = tuple(3 * len(batch.supervision.sizes_B) for batch in shares)
        assert {batch.supervision.documents for batch in shares} == {rows}
        assert {batch.supervision.rows_of_ranks(3) for batch in shares} == {rows}
        assert sum(rows) == 21


@pytest.mark.parametrize(
    "sampler",
    [
        GroupSampler(3),
        DistillationNegativesSampler(4, positives="all"),
        *(
            DistillationListwiseSampler(top_k=top_k, size=size)
            for top_k in (0, 2, 5)
            for size in (0, 3)
        ),
    ],
)
@pytest.mark.parametrize("labels", [False, True])
def test_ranks_know_the_lists_of_all_whatever_is_drawn_and_however_long_they_are(
    tmp_path: Path, sampler: DataSampler, labels: bool
) -> None:
    with open(tmp_path / "lists.jsonl", "w", encoding="utf-8") as out:
        for i in range(11):
            names = [f"d{i}.{j}" for j in range(2 + i % 7)]
            judged = min(1 + i % 4, len(names) - 1)
            line = {"query_id": f"q{i}", "query": f"query {i}"}
            line |= {"pos": names[:judged], "neg": names[judged:]}
            line |= {"pos_scores": [1.0] * judged, "neg_scores": [0.0] * (len(names) - judged)}
            line |= {"labels": [1.0] * judged + [0.0] * (len(names) - judged)} if labels else {}
            out.write(json.dumps(line) + "\n")
    texts = "".join(
        json.dumps({"id": f"d{i}.{j}", "text": f"text {i} {j}"}) + "\n"
        for i in range(11)
        for j in range(2 + i % 7)
    )
    (tmp_path / "corpus.jsonl").write_text(texts)
    corpus = CorpusSource(path=(str(tmp_path / "corpus.jsonl"),))
    path = (str(tmp_path / "lists.jsonl"),)
    prepare(SampleSource(path=path, format="ids", corpus=corpus), tmp_path / "data")
    rows = SampleSet(tmp_path / "data", lazy=True)
    assert rows.facts.labels == labels and rows.verify() == 11

    def collate(drawn: Any, total: int) -> Any:
        sizes = torch.tensor([len(sample.documents) for sample in drawn])
        return Batch(Supervision(sizes, torch.ones(len(drawn), 1)), global_samples=total)

    def count(numbers: np.ndarray) -> np.ndarray:
        return sampler.drawn(rows.sizes_n2[numbers], rows.facts.labels)

    taught = TeacherSampler(sampler, partial(make_targets, target=TargetSpec()))
    dataset = TrainingSet("lists", rows, taught, collate, rows.fill, count)
    order = Order((Stream(11, 5),), 2)
    for step in range(4):
        shares = [BatchSource(order, (dataset,), rank, 3, 1)(step)[0] for rank in range(3)]
        actual = tuple(int(batch.supervision.sizes_B.sum()) for batch in shares)
        assert {batch.supervision.documents for batch in shares} == {actual}


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
