from __future__ import annotations

import contextlib
import random
import time
from pathlib import Path
from typing import Any

import pytest

from raydist.serving.admission import Admission, estimate_tokens, text_tokens
from raydist.serving.backend import Cost, ReplicaState, ScoreOptions
from raydist.serving.errors import ServiceError


def refused(admission: Admission, tokens: int, client: str = "") -> ServiceError | None:
    try:
        with admission.enter(tokens, client):
            return None
    except ServiceError as error:
        return error


def test_what_is_under_way_is_bounded_and_given_back() -> None:
    admission = Admission(max_tokens=100, max_requests=3)
    with admission.enter(60, "a"):
        assert refused(admission, 41, "b") is not None
        with admission.enter(40, "b"):
            assert (admission.tokens, admission.requests) == (100, 2)
            error = refused(admission, 1, "c")
            assert error is not None and error.status == 429
            assert int(error.headers["Retry-After"]) >= 1
    assert (admission.tokens, admission.requests) == (0, 0)
    assert refused(admission, 41, "b") is None


def test_a_large_request_is_let_in_alone() -> None:
    admission = Admission(max_tokens=100, max_requests=3)
    with admission.enter(1000):
        assert refused(admission, 1) is not None
    assert refused(admission, 1) is None


def test_requests_are_counted() -> None:
    admission = Admission(max_tokens=1000, max_requests=1)
    with admission.enter(1):
        assert refused(admission, 1) is not None


def test_one_client_cannot_take_everything_from_another() -> None:
    admission = Admission(max_tokens=100, max_requests=10, share=0.5)
    with admission.enter(40, "greedy"), admission.enter(10, "other"):
        assert refused(admission, 20, "greedy") is not None
        assert refused(admission, 20, "other") is None


def test_a_share_is_of_what_can_be_done_in_time() -> None:
    """Far below the bound on tokens, where a slow model's own bound bites."""
    admission = Admission(max_tokens=500_000, max_requests=256, tokens_per_s=2000.0)
    with contextlib.ExitStack() as open_:
        open_.enter_context(admission.enter(1000, "other"))
        entered = 0
        with pytest.raises(ServiceError, match="share"):
            for _ in range(20):
                open_.enter_context(admission.enter(1000, "greedy"))
                entered += 1
        assert entered == 10  # of the 20 for which there is room
        assert refused(admission, 9000, "other") is None


def test_who_holds_everything_makes_room_for_who_was_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    admission = Admission(max_tokens=100, max_requests=10, max_wait_s=10.0)
    under_way = [admission.enter(10, "greedy") for _ in range(10)]
    for each in under_way:
        each.__enter__()
    assert refused(admission, 10, "other") is not None
    now = 1.0
    under_way.pop().__exit__(None, None, None)
    assert refused(admission, 10, "greedy") is not None  # the other one comes again
    assert refused(admission, 10, "other") is None
    now = 30.0
    assert refused(admission, 10, "greedy") is None  # it never did: all is greedy's again


def test_alone_a_client_may_use_it_all() -> None:
    admission = Admission(max_tokens=100, max_requests=10, share=0.5)
    with admission.enter(40, "one"):
        assert refused(admission, 60, "one") is None


def test_nobody_is_let_in_to_wait_too_long() -> None:
    admission = Admission(max_tokens=10**9, max_requests=10, max_wait_s=2.0, tokens_per_s=100.0)
    with admission.enter(150):
        assert refused(admission, 51) is not None
        assert refused(admission, 50) is None


@pytest.mark.parametrize("speed", [300.0, 3_000.0, 60_000.0])
@pytest.mark.parametrize("mixed", [False, True])
def test_the_speed_is_found_out_under_ten_times_the_load(
    speed: float, mixed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A simulated service shares its speed among all requests; some are small, some large."""
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    admission = Admission(max_tokens=500_000, max_requests=256, max_wait_s=10.0)
    draw = random.Random(1)
    size = speed / 4  # a request takes a quarter of a second if it is alone
    open_: list[list[Any]] = []
    waits: list[tuple[float, float]] = []
    done = 0.0
    while now < 200:
        now += 0.01
        if draw.random() < 0.4:  # ten times what can be done
            tokens = max(1, int(size * (draw.choice([0.02, 0.3, 2.7]) if mixed else 1.0)))
            entered = admission.enter(tokens)
            try:
                ticket = entered.__enter__()
                ticket.costs.append(Cost(tokens, tokens_per_s=speed * draw.uniform(0.7, 1.3)))
                open_.append([now, float(tokens), entered])
            except ServiceError:
                pass
        for request in open_:
            request[1] -= 0.01 * speed / len(open_)
            done += 0.01 * speed / len(open_)
        for request in [each for each in open_ if each[1] <= 0]:
            open_.remove(request)
            request[2].__exit__(None, None, None)
            waits.append((now, now - request[0]))
    later = [wait for when, wait in waits if when > 100]
    assert sum(later) / len(later) < 12 and max(later) < 40  # large ones wait for many small ones
    assert done > 0.95 * speed * 200  # and the service is never idle
    assert speed / 2 < admission.speed() < speed * 2


def test_each_model_has_its_own_speed() -> None:
    admission = Admission(max_tokens=10**9, max_requests=10, max_wait_s=1.0)
    admission.expect("fast", ReplicaState(1, tokens_per_s=1e6))
    admission.expect("slow", ReplicaState(2, tokens_per_s=100.0))
    with admission.enter(90, model="slow"):
        with pytest.raises(ServiceError), admission.enter(20, model="slow"):
            pass
        with admission.enter(900_000, model="fast"), admission.enter(90_000, model="fast"):
            assert admission.requests == 3
    admission.expect("slow", ReplicaState(2, tokens_per_s=1e9))  # it is known already
    assert admission.speed("slow") < 1e7


def test_what_is_given_up_lowers_the_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    admission = Admission(max_tokens=10**9, max_requests=10, max_wait_s=10, tokens_per_s=1e6)
    for _ in range(20):
        with pytest.raises(TimeoutError), admission.enter(1000):
            now += 60
            raise TimeoutError
    assert admission.speed() < 100
    assert refused(admission, 10_000) is None  # alone, everything is let in


def test_a_failed_request_gives_its_room_back() -> None:
    admission = Admission(max_tokens=100, max_requests=3)
    with pytest.raises(RuntimeError), admission.enter(80):
        raise RuntimeError
    assert (admission.tokens, admission.requests) == (0, 0)


def test_tokens_are_estimated_with_the_query_in_every_pair() -> None:
    assert estimate_tokens("q" * 40, ["d" * 400, ""], overhead=8) == 100 + 2 * (10 + 8)


@pytest.mark.parametrize(
    ("text", "low", "high"),
    [
        ("The cause of rain is the condensation of vapour. " * 20, 0.9, 1.4),
        ("雨は、大気中の水蒸気が凝結して地上に落下する現象である。" * 20, 0.6, 1.4),
        ("Дождь — атмосферные осадки, выпадающие из облаков. " * 20, 0.6, 2.2),
    ],
)
def test_estimates_know_scripts(text: str, low: float, high: float, minilm: Path) -> None:
    """Beside a WordPiece of English, which has a token for most characters of other scripts."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(minilm / "tokenizer.json"))
    tokenizer.no_truncation()
    true = len(tokenizer.encode(text, add_special_tokens=False))
    assert low < true / text_tokens(text) < high


def test_estimates_know_what_a_model_reads() -> None:
    admission = Admission(max_tokens=10**9, max_requests=10)
    long, short = "rain " * 180_000, "rain " * 20
    assert admission.estimate("a", "", [long, short]) == 225_000 + 25 + 16
    admission.expect("a", ReplicaState(1, max_length=512))
    assert admission.estimate("a", "q" * 40, [long, short]) == 512 + 25 + 18
    chunks = ScoreOptions(truncation="chunk_max")
    assert admission.estimate("a", "", [long, short], chunks) == 225_000 + 25 + 16
    capped = ScoreOptions(truncation="chunk_max", max_tokens_per_doc=100)
    assert admission.estimate("a", "", [long, short], capped) == 100 + 25 + 16


def test_estimates_learn_from_what_was_read() -> None:
    admission = Admission(max_tokens=10**9, max_requests=10)
    for _ in range(60):
        estimate = admission.estimate("a", "", ["rain " * 80])
        with admission.enter(estimate, model="a") as ticket:
            ticket.costs.append(Cost(324, tokens_per_s=1000.0))  # three times what was thought
    assert admission.estimate("a", "", ["rain " * 80]) == pytest.approx(324, rel=0.02)
    assert admission.speed("a") == pytest.approx(1000.0)


def test_quick_answers_do_not_raise_the_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the replica's own measurement does: requests may share a batch, or their texts."""
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    admission = Admission(max_tokens=10**9, max_requests=10)
    admission.expect("a", ReplicaState(1, tokens_per_s=3400.0))
    for _ in range(4):
        with admission.enter(1000, model="a") as ticket:
            now += 0.008
            ticket.costs.append(Cost(1000, tokens_per_s=3400.0))
    assert admission.speed("a") == pytest.approx(3400.0)


def test_the_room_grows_with_the_replicas() -> None:
    admission = Admission(max_tokens=1000, max_requests=2, tokens_per_s=1e6)
    with admission.enter(500), admission.enter(400):
        assert refused(admission, 10) is not None
        admission.expect("", ReplicaState(1, tokens_per_s=1e6), replicas=3.0)
        with admission.enter(2000):
            assert admission.speed() == pytest.approx(3e6)
            assert refused(admission, 101) is not None
            assert refused(admission, 100) is None
