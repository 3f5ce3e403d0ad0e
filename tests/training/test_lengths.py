"""Steps of a number of tokens."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raydist.data.samples.prepare import prepare
from raydist.data.samples.sample_set import SampleSet
from raydist.errors import DataError
from raydist.models.crossencoder import CrossEncoderModel
from raydist.models.spec import BiEncoderSettings, CrossEncoderSettings
from raydist.training import run
from raydist.training.collate import Batch, collate_pairs, collate_texts
from raydist.training.engine import TorchEngine
from raydist.training.lengths import PairCounter, TextCounter, budgeted, counter_of, cut, measured
from raydist.training.plan import SetPlan, plan_groups, plan_lists
from raydist.training.samplers import DistillationListwiseSampler, Order
from raydist.training.source import BatchSource, TrainingSet
from raydist.training.spec import Optim, TrainingData
from raydist.training.trainer import Model
from tests.training import small, test_loop
from tests.training.small import WORDS

GROUP, BUDGET = 3, 300


@given(st.integers(1, 400), st.integers(80, 3000), st.integers(1, 20), st.integers(0, 2**32 - 1))
@settings(max_examples=60)
def test_streams_hold_every_sample_once_and_batches_of_them_the_budget(
    rows: int, budget: int, most: int, seed: int
) -> None:
    random = np.random.default_rng(seed)
    lengths = np.stack([random.integers(1, 10, rows), random.integers(1, 50, rows)], axis=1)
    counts = np.stack([np.ones(rows, np.int64), random.integers(1, most + 1, rows)], axis=1)
    budget *= most
    streams = cut(lengths, counts, budget)
    subsets = [stream.subset for stream in streams]
    assert all(subset is not None and len(subset) == s.rows for subset, s in zip(subsets, streams))
    assert sorted(np.concatenate(subsets).tolist()) == list(range(rows))  # type: ignore[arg-type]
    for stream in streams:
        padded = (lengths[stream.subset].max(0) * counts[stream.subset].max(0)).sum()
        assert 1 <= stream.batch_size <= stream.rows
        assert stream.batch_size * padded <= budget
        assert (stream.batch_size + 1) * padded > budget or stream.batch_size == stream.rows


def test_samples_of_any_length_are_padded_little() -> None:
    random = np.random.default_rng(0)
    tokens = np.stack([np.full(20_000, 8), random.integers(8, 512, 20_000)], axis=1)
    streams = cut(tokens, np.ones_like(tokens), 16_384)
    padded = sum(s.rows * tokens[s.subset].max(0).sum() for s in streams)
    assert padded < 1.15 * tokens.sum()
    assert [s.batch_size for s in streams] == sorted(s.batch_size for s in streams)
    full = [s.batch_size * tokens[s.subset].max(0).sum() for s in streams]
    assert np.mean(full) > 0.9 * 16_384


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Samples of 2 to 60 words, some with few negatives, one with answers."""
    folder = tmp_path_factory.mktemp("lengths")
    small.checkpoint(folder / "model")
    random = np.random.default_rng(1)

    def text(most: int) -> str:
        return " ".join(random.choice(WORDS, random.integers(2, most)))

    with open(folder / "train.jsonl", "w", encoding="utf-8") as out:
        for i in range(90):
            negatives = [text(12 if i % 3 else 60) for _ in range(2 + i % 4)]
            line = {"query": text(9) + f" {i}", "pos": [text(12 if i % 3 else 60)]}
            line |= {"neg": negatives, "answer": text(20), "neg_answer": [text(9)]}
            line |= {"prompt": "find: "} if i % 5 == 0 else {}
            out.write(json.dumps(line) + "\n")
    prepare(folder / "train.jsonl", folder / "data")
    return folder


def settings_of(folder: Path) -> BiEncoderSettings:
    return BiEncoderSettings(
        path=str(folder / "model"), query_max_length=12, document_max_length=40, dropout=0.0
    )


def plan_of(folder: Path, answers: bool = False, weight: float = 1.0) -> SetPlan:
    return plan_groups(
        SampleSet(folder / "data").facts,
        folder / "data",
        TrainingData(path=("train.jsonl",), weight=weight),
        batch_size=1,
        group=GROUP,
        teacher=False,
        answers=answers,
    )


def students(folder: Path) -> list[Model]:
    """A cross-encoder and a bi-encoder, to be taught by lists."""
    pairs = small.reranker(folder / "model", fresh_head=True, max_length=48)
    return [pairs, small.encoder(folder / "model", query_max_length=12, document_max_length=40)]


def plan_of_lists(folder: Path, **sampler: int) -> SetPlan:
    """Lists of 1 to 9 documents of 2 to 60 words, the longest ones last in most lists."""
    path = folder / "lists.jsonl"
    if not path.exists():
        random = np.random.default_rng(2)

        def text(most: int) -> str:
            return " ".join(random.choice(WORDS, random.integers(2, most)))

        with open(path, "w", encoding="utf-8") as out:
            for i in range(90):
                texts = [text(12) for _ in range(1 + i % 6)] + [text(60) for _ in range(i % 4)]
                lists = [{"id": f"d{i}.{j}", "text": t, "score": -j} for j, t in enumerate(texts)]
                line = {"query_id": f"q{i}", "query": text(9) + f" {i}", "candidates": lists}
                out.write(json.dumps(line) + "\n")
        prepare(path, folder / "lists")
    return plan_lists(
        SampleSet(folder / "lists").facts,
        folder / "lists",
        TrainingData(path=("lists.jsonl",)),
        batch_size=1,
        sampler=DistillationListwiseSampler(**sampler),
    )


def settings_of_student(folder: Path, model: Model) -> BiEncoderSettings | CrossEncoderSettings:
    if isinstance(model, CrossEncoderModel):
        return CrossEncoderSettings(path=str(folder / "model"), max_length=48)
    return settings_of(folder)


def source_of(
    folder: Path,
    plan: SetPlan,
    rank: int = 0,
    world: int = 1,
    parts: int = 1,
    model: Model | None = None,
) -> BatchSource:
    model = model or small.encoder(folder / "model", query_max_length=12, document_max_length=40)
    rows = SampleSet(plan.folder, lazy=True)

    def collate(drawn: list, total: int) -> Batch:
        if isinstance(model, CrossEncoderModel):
            return collate_pairs(drawn, model, global_samples=total)
        return collate_texts(drawn, model, answers=plan.answers, global_samples=total)

    def drawn(numbers: np.ndarray) -> np.ndarray:
        return plan.sampler.drawn(rows.sizes_n2[numbers], rows.facts.labels)

    streams = tuple(replace(stream, dataset=0) for stream in plan.streams)
    dataset = TrainingSet(plan.name, rows, plan.sampler, collate, rows.fill, drawn)
    return BatchSource(Order(streams, 7), (dataset,), rank, world, parts)


@pytest.mark.parametrize("answers", [False, True])
def test_no_step_of_an_epoch_has_more_tokens_and_the_epoch_has_every_sample(
    folder: Path, answers: bool
) -> None:
    plan = budgeted(
        plan_of(folder, answers), TextCounter(settings_of(folder)), BUDGET + 200 * answers, 1
    )
    assert len(plan.streams) > 1 and plan.rows == 90
    assert [file.name for file in plan.folder.glob("lengths-*.npy")]  # kept beside the samples
    source = source_of(folder, plan)
    seen: Counter[int] = Counter()
    padded = []
    for step in range(source.order.steps_per_epoch):
        (drawn,), (batch,) = source.drawn(step), source(step)
        seen.update(drawn.rows)
        parts = (batch.queries, batch.passages, batch.answers)
        padded.append(sum(part["input_ids"].numel() for part in parts if part is not None))
    assert max(padded) <= BUDGET + 200 * answers
    assert np.mean(padded) > 0.6 * max(padded)
    assert set(seen) == set(range(90))
    assert sum(seen.values()) - 90 < sum(stream.batch_size for stream in plan.streams)


@pytest.mark.parametrize("sampler", [{"size": 0}, {"size": 3}, {"size": 0, "top_k": 4}])
def test_lists_of_any_length_keep_the_budget_and_an_epoch_has_them_all(
    folder: Path, sampler: dict[str, int]
) -> None:
    plan = plan_of_lists(folder, **sampler)
    for model in students(folder):
        counter = counter_of(settings_of_student(folder, model))
        limited = budgeted(plan, counter, 1200, 1)
        source = source_of(folder, limited, model=model)
        seen: Counter[int] = Counter()
        padded = []
        for step in range(source.order.steps_per_epoch):
            (drawn,), (batch,) = source.drawn(step), source(step)
            seen.update(drawn.rows)
            inputs = (batch.queries, batch.passages, batch.pairs)
            padded.append(sum(each["input_ids"].numel() for each in inputs if each is not None))
        assert max(padded) <= 1200 and set(seen) == set(range(90))
        assert sum(seen.values()) - 90 < sum(stream.batch_size for stream in limited.streams)
    # Documents that are never drawn do not count.
    lengths = [
        measured(plan_of_lists(folder, size=0, top_k=k), SampleSet(plan.folder), counter)[:, 1]
        for k in (0, 1)
    ]
    assert (lengths[0] >= lengths[1]).all() and lengths[0].sum() > 2 * lengths[1].sum()


def test_ranks_and_parts_share_the_steps_of_lists(folder: Path) -> None:
    model = students(folder)[0]
    counter = PairCounter(CrossEncoderSettings(path=str(folder / "model"), max_length=48))
    plan = budgeted(plan_of_lists(folder, size=4), counter, 1600, 4)
    whole = source_of(folder, plan, model=model)
    for step in (3, 0, 9):
        (expected,) = whole.drawn(step)
        for world, parts in ((2, 1), (2, 2), (3, 1)):
            sources = [source_of(folder, plan, r, world, parts, model) for r in range(world)]
            drawn = [source.drawn(step) for source in sources]
            rows = [row for part in range(parts) for each in drawn for row in each[part].rows]
            assert rows == expected.rows
            batches = [batch for source in sources for batch in source(step)]
            inputs = [batch.pairs["input_ids"] for batch in batches if batch.pairs is not None]
            assert sum(ids.numel() for ids in inputs) <= 1600


def test_ranks_and_parts_share_the_steps_of_one_process(folder: Path) -> None:
    plan = budgeted(plan_of(folder), TextCounter(settings_of(folder)), 600, 4)
    whole = source_of(folder, plan)
    steps = [3, 0, 9]  # in any order: a run resumes at any step
    expected = {step: whole.drawn(step)[0].rows for step in steps}
    for world, parts in ((2, 1), (2, 2), (3, 1)):
        sources = [source_of(folder, plan, rank, world, parts) for rank in range(world)]
        for step in steps:
            drawn = [source.drawn(step) for source in sources]
            assert all(each.rows for of_rank in drawn for each in of_rank)
            rows = [row for part in range(parts) for of_rank in drawn for row in of_rank[part].rows]
            assert rows == expected[step]
            for of_rank in drawn:  # each knows how many the others have
                for part, each in enumerate(of_rank):
                    assert each.ranks == tuple(len(other[part].rows) for other in drawn)


@pytest.mark.parametrize("lists", [False, True])
def test_a_resumed_run_of_a_number_of_tokens_equals_an_undisturbed_one(
    folder: Path, tmp_path: Path, lists: bool
) -> None:
    if lists:
        counter = PairCounter(CrossEncoderSettings(path=str(folder / "model"), max_length=48))
        plan = budgeted(plan_of_lists(folder, size=4), counter, 500, 1)
    else:
        plan = budgeted(plan_of(folder), TextCounter(settings_of(folder)), 500, 1)
    goal = test_loop.make_objective(test_loop.InfoNCE())
    weights = []
    for name, stops in (("a", (5,)), ("b", (2, 5))):
        for stop in stops:
            model = students(folder)[0 if lists else 1]
            source = source_of(folder, plan, model=model)
            trainer = test_loop.Trainer(
                TorchEngine(model, Optim(lr=1e-3)),
                goal,
                source,
                test_loop.Checkpoints(tmp_path / name),
            )
            schedule = test_loop.Schedule(1e-3, 5)
            run.train(test_loop.Plan(stop, schedule, checkpoint_every=1, progress=False), trainer)
        weights.append({k: v.clone() for k, v in model.state_dict().items()})
    assert all((weights[0][key] == weights[1][key]).all() for key in weights[0])


def test_a_budget_that_leaves_a_worker_without_a_sample_is_refused_with_the_least(
    folder: Path,
) -> None:
    counter = TextCounter(settings_of(folder))
    with pytest.raises(DataError, match=r"batch_tokens = 300: data has samples of 1\d\d tokens"):
        budgeted(plan_of(folder), counter, 300, 4)
    with pytest.raises(DataError) as error:
        budgeted(plan_of(folder), counter, 20, 2)
    least = int(str(error.value).split("at least ")[1].split(",")[0])
    plan = budgeted(plan_of(folder), counter, least, 2)
    assert plan.batch_sizes[0] >= 2
