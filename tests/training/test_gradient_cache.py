"""Chunks and replay: the same gradient with random dropout, padding cut, random state kept."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from raydist.losses.objective import make_objective
from raydist.losses.spec import InfoNCE
from raydist.training.engine import TorchEngine
from raydist.training.gradient_cache import represent, split, surrogates
from raydist.training.spec import Optim
from raydist.training.step import cells_of
from tests.training import tiny
from tests.training.steps import forward_backward

CPU = torch.device("cpu")


def test_chunks_hold_every_row_once_longest_first() -> None:
    inputs = tiny.data().passages
    pieces = split(inputs, 4)
    order = torch.cat(pieces)
    assert sorted(order.tolist()) == list(range(27))
    assert [len(piece) for piece in pieces] == [4] * 6 + [3]
    lengths = inputs["attention_mask"].sum(1)[order]
    assert (lengths[1:] <= lengths[:-1]).all()


def test_an_agreed_number_of_chunks_is_made_even_of_few_rows() -> None:
    inputs = {k: v[:3] for k, v in tiny.data().passages.items()}
    pieces = split(inputs, 2, chunks=5)
    assert len(pieces) == 5
    assert sorted(torch.cat(pieces[:3]).tolist()) == [0, 1, 2]


def test_chunks_that_only_keep_step_carry_no_gradient() -> None:
    inputs = {k: v[:3] for k, v in tiny.data().passages.items()}
    gradients = []
    for chunks in (0, 5):
        model = tiny.TinyEncoder(torch.float64, dropout=0.0)
        represented = represent(model, inputs, device=CPU, chunk_size=2, chunks=chunks)
        (represented.rows**2).sum().backward()
        passes = 0
        for surrogate in surrogates([represented], CPU):
            surrogate.backward()
            passes += 1
        assert passes == (chunks or 2)
        gradients.append(tiny.gradient(model))
    torch.testing.assert_close(*gradients, rtol=0, atol=1e-14)


def test_replayed_dropout_is_the_dropout_of_the_first_pass() -> None:
    """The gradient through the replay equals that of a graph kept from the same random state."""
    inputs = tiny.data().passages
    model = tiny.TinyEncoder(torch.float64, dropout=0.5)
    weights = torch.randn(27, 6, dtype=torch.float64)
    torch.manual_seed(11)
    represented = represent(model, inputs, device=CPU, chunk_size=5)
    (represented.rows * weights).sum().backward()
    for surrogate in surrogates([represented], CPU):
        surrogate.backward()
    after = torch.rand(3)
    cached = tiny.gradient(model)
    model.zero_grad()
    torch.manual_seed(11)
    for piece in split(inputs, 5):
        part = {k: v[piece] for k, v in inputs.items()}
        rows = model(part)
        torch.testing.assert_close(rows, represented.rows[piece])
        (rows * weights[piece]).sum().backward()
    torch.testing.assert_close(cached, tiny.gradient(model), rtol=0, atol=1e-13)
    # What is drawn afterwards is what an uncached run would draw.
    assert torch.equal(after, torch.rand(3))


def test_one_chunk_with_a_graph_is_not_computed_twice() -> None:
    calls: list[int] = []

    class Counting(tiny.TinyEncoder):
        def forward(self, inputs: dict[str, Tensor], role: str = "query") -> Tensor:
            calls.append(inputs["input_ids"].shape[0])
            return super().forward(inputs, role)

    whole = tiny.data()
    batch = tiny.batch(whole, range(9))
    goal = make_objective(InfoNCE(temperature=0.5))
    engine = TorchEngine(Counting(torch.float64), Optim(lr=0.0))
    forward_backward(engine, batch, goal)
    assert sum(calls) == 27 + 9
    calls.clear()
    forward_backward(engine, batch, goal, chunk_size=10)
    assert calls == [10, 10, 7, 9, 10, 10, 7, 9]


def test_rows_of_like_length_go_together_on_a_cpu_with_the_gradient_of_one_padded_batch() -> None:
    inputs = tiny.data().passages
    model = tiny.TinyEncoder(torch.float64, dropout=0.0)
    weights = torch.randn(27, 6, dtype=torch.float64)
    represented = represent(model, inputs, device=CPU)
    assert len(represented.chunks) > 1
    (represented.rows * weights).sum().backward()
    for surrogate in surrogates([represented], CPU):
        surrogate.backward()
    together = tiny.gradient(model)
    model.zero_grad()
    rows = model(inputs)
    torch.testing.assert_close(represented.rows.detach(), rows.detach())
    (rows * weights).sum().backward()
    torch.testing.assert_close(together, tiny.gradient(model), rtol=0, atol=1e-13)


def test_cells_are_those_that_the_model_computes() -> None:
    batch = tiny.batch(tiny.data(), range(9))
    batch = replace(
        batch, answers=None, supervision=replace(batch.supervision, answer_mask_BA=None)
    )
    goal = make_objective(InfoNCE(temperature=0.5))
    for chunk, passes in ((0, 1), (4, 2)):  # caching reads every row twice
        engine = TorchEngine(tiny.TinyEncoder(torch.float32), Optim(lr=0.0))
        seen: list[int] = []
        engine.module.register_forward_pre_hook(
            lambda module, args, seen=seen: seen.append(args[0]["input_ids"].numel())
        )
        forward_backward(engine, batch, goal, chunk_size=chunk)
        assert cells_of(batch, CPU, chunk_size=chunk) * passes == sum(seen)
    assert batch.queries is not None and batch.passages is not None
    uncut = batch.queries["input_ids"].numel() + batch.passages["input_ids"].numel()
    assert cells_of(batch, CPU, chunk_size=4) < uncut


def test_accumulation_parts_divide_once_by_the_counts_of_all() -> None:
    """Parts of 1, 3 and 5 queries weigh as one batch of 9 where negatives do not depend on it."""
    whole = tiny.data()
    goal = make_objective(InfoNCE(temperature=0.5, scope="no_in_batch"))
    results = []
    for parts in ([range(9)], [range(1), range(1, 4), range(4, 9)]):
        engine = TorchEngine(tiny.TinyEncoder(torch.float64), Optim(lr=0.0))
        terms = forward_backward(engine, [tiny.batch(whole, part) for part in parts], goal)
        results.append((goal.total(terms), tiny.gradient(engine.module)))
    (loss, gradient), (cut_loss, cut_gradient) = results
    assert abs(loss - cut_loss) < 1e-12
    torch.testing.assert_close(gradient, cut_gradient, rtol=0, atol=1e-12)


def test_scores_of_pairs_are_cached_alike() -> None:
    whole = tiny.data()
    goal = make_objective(InfoNCE(temperature=0.5))
    gradients = []
    for chunk in (0, 4):
        engine = TorchEngine(tiny.TinyScorer(torch.float64), Optim(lr=0.0))
        forward_backward(engine, tiny.pair_batch(whole, range(9)), goal, chunk_size=chunk)
        gradients.append(tiny.gradient(engine.module))
    torch.testing.assert_close(*gradients, rtol=0, atol=1e-13)
