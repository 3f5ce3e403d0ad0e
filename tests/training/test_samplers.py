from __future__ import annotations

from collections import Counter

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from raydist.records import Sample
from raydist.training.samplers import (
    DistillationListwiseSampler,
    DistillationNegativesSampler,
    GroupSampler,
    Order,
    Stream,
    Visit,
    key,
    permuted,
    share,
    shuffled,
)


def sample(positives: int, negatives: int, scores: bool = False, labels: bool = True) -> Sample:
    n = positives + negatives
    return Sample(
        "q",
        tuple(f"d{i}" for i in range(n)),
        positives,
        labels=tuple(float(i < positives) for i in range(n)) if labels else None,
        scores=tuple(float((7 * i) % 11) + i / 100 for i in range(n)) if scores else None,
        doc_ids=tuple(f"i{i}" for i in range(n)),
    )


@given(st.integers(1, 5000), st.integers(0, 2**70))
def test_a_feistel_permutation_takes_every_place_once(n: int, seed: int) -> None:
    assert np.array_equal(np.sort(permuted(np.arange(n), n, seed)), np.arange(n))


@given(st.integers(0, 500), st.integers(0, 2**70))
def test_a_shuffle_is_a_permutation(n: int, seed: int) -> None:
    assert np.array_equal(np.sort(shuffled(n, seed)), np.arange(n))


def test_permutations_of_three_are_equally_likely() -> None:
    for of in (lambda s: permuted(np.arange(3), 3, s), lambda s: shuffled(3, s)):
        counts = Counter(tuple(of(key(seed)).tolist()) for seed in range(6000))
        assert len(counts) == 6
        chi_square = sum((c - 1000) ** 2 / 1000 for c in counts.values())
        assert chi_square < 20.5, counts  # 99.9 % point of 5 degrees of freedom


def test_a_huge_data_set_is_permuted_in_no_memory() -> None:
    n = 10**12
    places = permuted(np.arange(1000), n, 3)
    assert len(set(places.tolist())) == 1000 and places.max() < n and places.max() > n // 2


streams = st.lists(
    st.builds(
        Stream, st.integers(1, 60), st.integers(1, 20), st.floats(0.1, 3, allow_subnormal=False)
    ),
    min_size=1,
    max_size=4,
)


@given(streams, st.integers(0, 2**40), st.data())
@settings(max_examples=60)
def test_the_order_is_a_pure_function_of_seed_epoch_and_step(
    sets: list[Stream], seed: int, data: st.DataObject
) -> None:
    order, again = Order(tuple(sets), seed), Order(tuple(sets), seed)
    step = data.draw(st.integers(0, 3 * order.steps_per_epoch))
    for other in range(min(step, 3)):
        again.at(*again.locate(other))  # earlier calls leave no trace
    which, rows, visits = order.at(*order.locate(step))
    which2, rows2, visits2 = again.at(*again.locate(step))
    assert which == which2 and np.array_equal(rows, rows2) and np.array_equal(visits, visits2)
    assert len(rows) == sets[which].batch_size
    assert rows.min() >= 0 and rows.max() < sets[which].rows


@given(streams, st.integers(0, 2**40))
@settings(max_examples=40)
def test_each_pass_over_a_data_set_visits_every_row_once(sets: list[Stream], seed: int) -> None:
    order = Order(tuple(sets), seed)
    visited: list[Counter[tuple[int, int]]] = [Counter() for _ in sets]
    batches: list[Counter[int]] = [Counter() for _ in sets]
    for step in range(3 * order.steps_per_epoch):
        epoch, within = order.locate(step)
        which, rows, visits = order.at(epoch, within)
        visited[which].update(zip(rows.tolist(), visits.tolist()))
        batches[which][epoch] += 1
    for stream, seen, per_epoch in zip(sets, visited, batches):
        assert set(per_epoch.values()) == {stream.batches}
        assert set(seen.values()) == {1}, "a row twice in the same pass"
        whole = 3 * stream.batches * stream.batch_size // stream.rows
        for number in range(whole):
            assert {row for row, n in seen if n == number} == set(range(stream.rows))


def test_weights_change_how_often_a_data_set_is_seen() -> None:
    order = Order((Stream(100, 10, 2.0), Stream(100, 10, 0.5)), 1)
    steps = [order.at(*order.locate(i))[0] for i in range(order.steps_per_epoch)]
    assert Counter(steps) == {0: 20, 1: 5}
    assert steps != sorted(steps)


@given(st.integers(0, 100), st.integers(1, 9))
def test_shares_cover_the_batch_in_rank_order(n: int, world: int) -> None:
    parts = [list(range(n))[share(n, rank, world)] for rank in range(world)]
    assert [row for part in parts for row in part] == list(range(n))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


@given(st.integers(1, 4), st.integers(1, 40), st.integers(2, 9), st.integers(0, 2**40))
def test_negatives_go_without_replacement_through_all_of_them(
    positives: int, negatives: int, size: int, seed: int
) -> None:
    sampler = GroupSampler(size)
    item = sample(positives, negatives)
    visits = -(-negatives // (size - 1))
    seen: set[str] = set()
    for number in range(visits):
        drawn = sampler(item, Visit(seed, number))
        assert drawn is not None and len(drawn.documents) == size and drawn.positives == 1
        assert drawn.documents[0] in item.documents[:positives]
        rest = drawn.documents[1:]
        assert set(rest) <= set(item.documents[positives:])
        if negatives >= size - 1:
            assert len(set(rest)) == size - 1
        else:
            counts = Counter(rest).values()
            assert len(counts) == negatives and max(counts) - min(counts) <= 1
        assert [f"i{d[1:]}" for d in drawn.documents] == list(drawn.doc_ids or ())
        seen.update(rest)
    assert seen == set(item.documents[positives:])


@given(st.integers(1, 9), st.integers(0, 2**40))
def test_each_positive_has_its_turn(positives: int, seed: int) -> None:
    item = sample(positives, 5)
    drawn = [GroupSampler(3)(item, Visit(seed, n)) for n in range(positives)]
    assert {d.documents[0] for d in drawn if d} == set(item.documents[:positives])


def test_a_group_knows_the_positives_that_were_not_drawn() -> None:
    drawn = GroupSampler(3)(sample(4, 5), Visit(1, 0))
    assert drawn is not None
    assert {drawn.documents[0], *drawn.others} == {"d0", "d1", "d2", "d3"}
    assert len(drawn.others) == 3


def test_drawn_negatives_stand_in_the_teachers_order() -> None:
    drawn = GroupSampler(6)(sample(2, 20, scores=True), Visit(5, 0))
    assert drawn is not None and drawn.scores is not None
    assert list(drawn.scores[1:]) == sorted(drawn.scores[1:], reverse=True)


def test_a_sample_without_negatives_is_skipped_where_negatives_are_needed() -> None:
    assert GroupSampler(2)(sample(1, 0), Visit(0, 0)) is None
    alone = GroupSampler(1)(sample(1, 0), Visit(0, 0))
    assert alone is not None and alone.documents == ("d0",)


def test_answers_come_with_as_many_negative_answers_as_the_group_has() -> None:
    item = Sample(
        "q",
        ("p", "n"),
        1,
        answer="a",
        negative_answers=("x", "y", "z"),
        answer_scores=(9.0, 1.0, 2.0, 3.0),
    )
    drawn = GroupSampler(2, answers=3)(item, Visit(1, 0))
    assert drawn is not None and drawn.answer_scores is not None
    assert len(drawn.negative_answers) == 2 and drawn.answer_scores[0] == 9
    score_of = {"x": 1.0, "y": 2.0, "z": 3.0}
    assert [score_of[a] for a in drawn.negative_answers] == list(drawn.answer_scores[1:])
    assert drawn.answer_scores[1] > drawn.answer_scores[2]
    plain = GroupSampler(2, answers=1)(item, Visit(1, 0))
    assert plain is not None and plain.negative_answers == () and plain.answer_scores == (9.0,)


def test_the_listwise_sampler_keeps_the_teachers_best() -> None:
    item = sample(1, 19, scores=True, labels=False)
    assert item.scores is not None
    best = sorted(item.scores, reverse=True)
    drawn = DistillationListwiseSampler(top_k=6)(item, Visit(0, 0))
    assert drawn is not None and list(drawn.scores or ()) == best[:6]
    whole = DistillationListwiseSampler(size=0)(item, Visit(0, 0))
    assert whole is not None and list(whole.scores or ()) == best


@given(st.integers(1, 20), st.integers(0, 2**40))
def test_listwise_draws_go_through_all_kept_documents(size: int, seed: int) -> None:
    item = sample(1, 19, scores=True, labels=False)
    sampler = DistillationListwiseSampler(top_k=13, size=size)
    seen: set[str] = set()
    for number in range(-(-13 // size)):
        drawn = sampler(item, Visit(seed, number))
        assert drawn is not None and drawn.scores is not None
        assert len(drawn.documents) == min(size, 13) == len(set(drawn.documents))
        assert list(drawn.scores) == sorted(drawn.scores, reverse=True)
        seen.update(drawn.documents)
    assert len(seen) == 13


def test_grades_order_a_judged_list_before_the_teacher_does() -> None:
    item = Sample(
        "q",
        ("a", "b", "c", "d", "e"),
        2,
        labels=(1.0, 3.0, 0.0, 0.0, -1.0),
        scores=(0.1, 0.2, 9.0, 8.0, 7.0),
    )
    drawn = DistillationListwiseSampler(size=0)(item, Visit(0, 0))
    assert drawn is not None and drawn.documents == ("b", "a", "c", "d", "e")
    assert drawn.positives == 2 and drawn.labels == (3.0, 1.0, 0.0, 0.0, -1.0)
    first = DistillationListwiseSampler(top_k=3, size=0)(item, Visit(0, 0))
    assert first is not None and first.documents == ("b", "a", "c")
    narrow = DistillationListwiseSampler(top_k=1, size=0)(item, Visit(0, 0))
    assert narrow is not None and narrow.documents == ("b", "a"), "top_k cuts no positive"


@given(st.integers(1, 3), st.integers(1, 9), st.integers(0, 2**40))
def test_every_draw_of_a_judged_list_has_a_positive_and_knows_the_others(
    positives: int, size: int, seed: int
) -> None:
    item = sample(positives, 30, scores=True)
    for number in range(20):
        drawn = DistillationListwiseSampler(size=size)(item, Visit(seed, number))
        assert drawn is not None and len(set(drawn.documents)) == size
        chosen = drawn.documents[: drawn.positives]
        assert {*chosen, *drawn.others} == set(item.documents[:positives])
        assert drawn.labels is not None and sum(drawn.labels) == drawn.positives >= 1


@given(st.integers(1, 90), st.integers(1, 40))
def test_an_epoch_leaves_no_row_unseen(rows: int, batch_size: int) -> None:
    order = Order((Stream(rows, batch_size),), 3)
    seen: Counter[int] = Counter()
    for epoch in range(3):
        for step in range(order.steps_per_epoch):
            seen.update(order.at(epoch, step)[1].tolist())
        assert len(seen) == rows and min(seen.values()) >= epoch + 1
        assert sum(seen.values()) - (epoch + 1) * rows < (epoch + 1) * batch_size


def test_a_weight_that_makes_a_whole_number_of_batches_makes_no_more() -> None:
    assert Stream(10, 7, 0.7).batches == 1  # 0.7 * 10 is 7.000000000000001
    assert Stream(100, 32).batches == 4 and Stream(3, 64).batches == 1


def test_the_negatives_sampler_sets_a_positive_against_other_retrieved_documents() -> None:
    item = sample(3, 30, scores=True)
    assert item.scores is not None
    best = max(range(3), key=lambda i: item.scores[i] if item.scores else 0)
    drawn = DistillationNegativesSampler(8)(item, Visit(4, 0))
    assert drawn is not None and drawn.positives == 1 and len(drawn.documents) == 8
    assert drawn.documents[0] == f"d{best}" and len(set(drawn.documents)) == 8
    assert all(int(d[1:]) >= 3 for d in drawn.documents[1:])
    every = DistillationNegativesSampler(8, positives="all")(item, Visit(4, 0))
    assert every is not None and every.documents[:3] == ("d0", "d1", "d2")
    assert len(set(every.documents)) == 8 and every.labels == (1.0,) * 3 + (0.0,) * 5
    turns = [
        DistillationNegativesSampler(8, positives="random")(item, Visit(4, n)) for n in (0, 1, 2)
    ]
    assert {t.documents[0] for t in turns if t} == {"d0", "d1", "d2"}


def test_a_query_without_a_retrieved_positive_is_skipped() -> None:
    assert DistillationNegativesSampler()(sample(0, 9), Visit(0, 0)) is None
    assert DistillationNegativesSampler()(sample(2, 0), Visit(0, 0)) is None
