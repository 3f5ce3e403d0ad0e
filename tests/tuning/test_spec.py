from __future__ import annotations

import math

import numpy as np
import pytest

from raydist.tuning.spec import Choice, Interval, draws, parse_distribution, size


def test_a_text_describes_a_distribution() -> None:
    assert parse_distribution("log(1e-6, 1e-4)") == Interval("log", 1e-6, 1e-4)
    assert parse_distribution(" uniform(-.5,2) ") == Interval("uniform", -0.5, 2.0)
    assert parse_distribution("int(1, 8)") == Interval("int", 1, 8)
    values = ("{kind: infonce, weight: 2}", "biir", "[a, b]")
    assert parse_distribution(f"choice({', '.join(values)})") == Choice(values)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1e-5", r"log\(a, b\), uniform\(a, b\), int\(a, b\) or choice"),
        ("normal(0, 1)", r"or choice\(x, y"),
        ("log(0, 1)", "0 < a"),
        ("log(2, 1)", "a < b"),
        ("uniform(0, inf)", "a < b"),
        ("uniform(1)", "two numbers"),
        ("int(1, 2.5)", "two integers"),
        ("choice(a, a)", "two different values"),
        ("log()", r"log\(\) has no two bounds, which are not guessed; log\(1e-6, 1e-4\) has"),
        ("choice( )", r"choice\(\) has no values to choose from"),
    ],
)
def test_a_text_that_describes_none_is_explained(text: str, expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        parse_distribution(text)


def test_draws_have_the_distribution_that_they_say() -> None:
    space = {"a": "log(1e-6, 1e-2)", "b": "uniform(2, 4)", "c": "int(1, 3)", "d": "choice(x, y)"}
    drawn = draws(space, 2000, 7)
    magnitudes = [math.log10(float(each["a"])) for each in drawn]
    assert -6 <= min(magnitudes) < -5.98 and -2.02 < max(magnitudes) <= -2
    np.testing.assert_allclose(np.quantile(magnitudes, [0.25, 0.5, 0.75]), [-5, -4, -3], atol=0.15)
    numbers = [float(each["b"]) for each in drawn]
    np.testing.assert_allclose(np.quantile(numbers, [0.25, 0.75]), [2.5, 3.5], atol=0.08)
    for key, values in (("c", "123"), ("d", "xy")):
        counts = [sum(each[key] == value for each in drawn) for value in values]
        np.testing.assert_allclose(counts, 2000 / len(values), rtol=0.12)


def test_a_trial_is_drawn_from_its_number_and_the_seed_alone() -> None:
    space = {"optim.lr": "log(1e-6, 1e-4)", "batch_size": "int(8, 64)"}
    drawn = draws(space, 5, 1)
    assert drawn[:4] == draws(dict(reversed(space.items())), 4, 1)
    alone = draws({"optim.lr": space["optim.lr"]}, 4, 1)
    assert [each["optim.lr"] for each in alone] == [each["optim.lr"] for each in drawn[:4]]
    assert draws(space, 4, 2)[3] != drawn[3] and draws(space, 1, -1) == draws(space, 1, -1)


def test_trials_differ_and_a_small_space_has_no_more_than_it_has() -> None:
    space = {"a": "choice(1, 2)", "b": "int(0, 2)"}
    assert size(space) == 6 and size({**space, "c": "log(1, 2)"}) == math.inf
    drawn = [(each["a"], each["b"]) for each in draws(space, 6, 0)]
    assert sorted(drawn) == [(a, b) for a in "12" for b in "012"]
    with pytest.raises(ValueError, match="only 6 different trials; trials=6 tries all"):
        draws(space, 7, 0)
