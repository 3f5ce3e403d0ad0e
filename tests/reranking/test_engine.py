from __future__ import annotations

import gc
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raydist.reranking.engine import Engine
from raydist.reranking.queue import FairQueue, Unit
from raydist.reranking.request import BadForward, DeadlinePassed, NotStarted
from raydist.reranking.rows import EncodedDocuments, Options, Row, TooLong, fit, sigmoid


class Letters:
    """A scorer whose tokens are characters: the logit is their sum modulo 97, the work recorded."""

    name = "letters"
    sigmoid = False
    max_length = 50

    def __init__(self, *, packed: bool = False, room: int = 50, wait: float = 0.0) -> None:
        self.packed = packed
        self.room = room
        self.wait = wait
        self.memory = 1 << 30
        self.batches: list[list[int]] = []
        self.gate = threading.Event()
        self.gate.set()

    def encode(self, query: str, documents: Sequence[str], options: Options) -> EncodedDocuments:
        if query == "bad":
            raise ValueError("bad query")
        rows, truncated = [], []
        for index, text in enumerate(documents):
            pieces, lost = fit([ord(c) for c in text] or [0], self.room, index, options)
            rows.append([Row(piece) for piece in pieces])
            truncated.append(lost)
        return EncodedDocuments(rows, truncated, sum(len(row) for pieces in rows for row in pieces))

    def forward(self, rows: Sequence[Row]) -> np.ndarray:
        self.gate.wait()
        time.sleep(self.wait)
        self.batches.append([len(row) for row in rows])
        if any(ord("!") in row.tokens for row in rows):
            raise RuntimeError("the model broke")
        if len(rows) > self.memory:
            raise MemoryError
        return np.array([sum(row.tokens) % 97 for row in rows], np.float32)


def wanted(text: str) -> float:
    return float(sum(map(ord, text)) % 97)


documents = st.lists(st.text(alphabet="abcdefgh", max_size=40), max_size=12)


@settings(max_examples=60, deadline=None)
@given(
    batch=st.lists(st.tuples(st.just("q"), documents), max_size=6),
    budget=st.integers(1, 200),
    packed=st.booleans(),
    window=st.integers(1, 20),
)
def test_every_document_gets_its_own_score(
    batch: list[tuple[str, list[str]]], budget: int, packed: bool, window: int
) -> None:
    scorer = Letters(packed=packed)
    with Engine(scorer, batch_tokens=budget, window=window) as engine:
        assert engine.score(batch) == [[wanted(text) for text in texts] for _, texts in batch]
    for lengths in scorer.batches:
        cost = sum(lengths) if packed else max(lengths) * len(lengths)
        assert cost <= budget or len(lengths) == 1
        assert lengths == sorted(lengths, reverse=True)


def test_micro_batches_of_a_list_do_not_depend_on_when_texts_were_tokenised() -> None:
    class Uneven(Letters):
        def encode(
            self, query: str, documents: Sequence[str], options: Options
        ) -> EncodedDocuments:
            time.sleep(waits.pop())
            return super().encode(query, documents, options)

    batch = [(f"q{i}", ["abcdefgh"[: (3 * i + j) % 8 + 1] * 3 for j in range(5)]) for i in range(8)]
    seen = []
    for waits in ([0.0] * 8, [0.02, 0.0] * 4, [0.0, 0.0, 0.03, 0.01] * 2):  # noqa: B007
        scorer = Uneven()
        with Engine(scorer, batch_tokens=64, window=20) as engine:
            engine.score(batch)
        seen.append(scorer.batches)
    assert seen[0] == seen[1] == seen[2]


def test_equal_documents_are_scored_once() -> None:
    scorer = Letters()
    with Engine(scorer) as engine:
        scored = engine.submit("q", ["ab", "c", "ab", "ab"]).result()
    assert scored.scores.tolist() == [wanted(text) for text in ("ab", "c", "ab", "ab")]
    assert sum(map(len, scorer.batches)) == 2


def test_long_documents_are_cut_chunked_or_refused() -> None:
    text = "abcdefghij" * 3
    with Engine(Letters(room=10)) as engine:
        cut = engine.submit("q", [text, "a"]).result()
        assert cut.truncated == [True, False] and cut.scores[0] == wanted(text[:10])
        chunked = engine.submit("q", ["zz" + text], Options(truncation="chunk_max")).result()
        pieces = [("zz" + text)[a : a + 10] for a in range(0, 32, 10)]
        assert chunked.chunks == [4] and chunked.truncated == [False]
        assert chunked.scores[0] == max(map(wanted, pieces))
        capped = engine.submit("q", [text], Options(max_tokens_per_document=4)).result()
        assert capped.truncated == [True] and capped.scores[0] == wanted(text[:4])
        with pytest.raises(ValueError, match=r"documents\[1\] has 30 tokens and there is room"):
            engine.submit("q", ["a", text], Options(truncation="error")).result()


def test_a_small_request_overtakes_a_large_one() -> None:
    scorer = Letters()
    scorer.gate.clear()
    finished: list[str] = []
    with Engine(scorer, batch_tokens=40) as engine:
        large = engine.submit("q", [f"{'a' * 20}{i}" for i in range(100)])
        time.sleep(0.05)
        small = engine.submit("q", ["bb", "ccc"])
        large.add_done_callback(lambda _: finished.append("large"))
        small.add_done_callback(lambda _: finished.append("small"))
        time.sleep(0.05)
        scorer.gate.set()
        large.result()
    assert finished == ["small", "large"]
    assert len(scorer.batches) > 50


def test_a_batch_mixes_requests() -> None:
    scorer = Letters()
    scorer.gate.clear()
    with Engine(scorer, batch_tokens=1000) as engine:
        futures = [engine.submit("q", [f"{'a' * 5}{i}"]) for i in range(30)]
        time.sleep(0.1)
        scorer.gate.set()
        assert [f.result().scores[0] for f in futures] == [
            wanted(f"{'a' * 5}{i}") for i in range(30)
        ]
    assert len(scorer.batches) <= 4


def test_a_cancelled_request_is_not_computed_further() -> None:
    scorer = Letters(wait=0.005)
    with Engine(scorer, batch_tokens=21) as engine:
        gone = engine.submit("q", [f"{'a' * 19}{i:02}" for i in range(100)])
        time.sleep(0.05)
        assert gone.cancel()
        assert engine.score([("q", ["abc"])]) == [[wanted("abc")]]
    assert len(scorer.batches) < 60


def test_a_deadline_fails_the_rest() -> None:
    scorer = Letters(wait=0.01)
    with Engine(scorer, batch_tokens=21) as engine:
        late = engine.submit(
            "q", [f"{'a' * 19}{i:02}" for i in range(100)], deadline=time.monotonic() + 0.1
        )
        with pytest.raises(DeadlinePassed):
            late.result(timeout=5)
        assert engine.score([("q", ["abc"])]) == [[wanted("abc")]]


def test_what_is_not_begun_in_time_is_refused_and_what_is_begun_ends() -> None:
    scorer = Letters(wait=0.001)
    scorer.gate.clear()
    with Engine(scorer, batch_tokens=21) as engine:
        documents = [f"{'a' * 19}{i:02}" for i in range(40)]
        first = engine.submit("q", documents, patience_s=0.1)
        while engine.batcher.queued_tokens != 38 * 21:  # one runs, one comes next
            time.sleep(0.001)
        second = engine.submit("q", documents, patience_s=0.1)
        time.sleep(0.2)
        scorer.gate.set()
        with pytest.raises(NotStarted):
            second.result(timeout=5)
        assert len(first.result(timeout=5).scores) == 40


def test_equal_requests_are_answered_in_the_order_of_their_arrival() -> None:
    scorer = Letters(wait=0.001)
    scorer.gate.clear()
    finished: list[int] = []
    with Engine(scorer, batch_tokens=100) as engine:
        for number in range(12):  # 12 requests of 8 batches; rows of like length everywhere
            texts = [f"{'a' * (5 + i % 20)}{number:02}{i:02}" for i in range(40)]
            future = engine.submit("q", texts)
            future.add_done_callback(lambda _, number=number: finished.append(number))
            time.sleep(0.005)
        scorer.gate.set()
        future.result(timeout=20)
    # Those that share their last batch may change places.
    assert all(abs(place - number) <= 1 for place, number in enumerate(finished))


def test_a_failure_reaches_its_request_and_no_other() -> None:
    with Engine(Letters(), batch_tokens=1) as engine:
        broken, bad = engine.submit("q", ["a!"]), engine.submit("bad", ["a"])
        good = engine.submit("q", ["abc"])
        with pytest.raises(RuntimeError, match="the model broke"):
            broken.result(timeout=5)
        with pytest.raises(ValueError, match="bad query"):
            bad.result(timeout=5)
        assert good.result(timeout=5).scores[0] == wanted("abc")


def test_a_failing_row_fails_its_own_request_only() -> None:
    scorer = Letters()
    scorer.gate.clear()
    with Engine(scorer, batch_tokens=1000) as engine:
        engine.submit("q", ["z"])  # the batch that keeps the model while the others arrive
        time.sleep(0.05)
        texts = ["abc", "de", "f!", "gh", "bcd"]
        futures = [engine.submit("q", [text, text * 2]) for text in texts]
        time.sleep(0.05)
        scorer.gate.set()
        for text, future in zip(texts, futures):
            if "!" in text:
                with pytest.raises(RuntimeError, match="the model broke"):
                    future.result(timeout=5)
            else:
                assert future.result(timeout=5).scores.tolist() == [wanted(text), wanted(text * 2)]
    assert max(map(len, scorer.batches)) >= 8  # four of them shared a batch


def test_where_memory_is_short_a_batch_is_halved_until_it_fits() -> None:
    scorer = Letters()
    scorer.memory = 3
    texts = [chr(97 + i) * (1 + i % 5) for i in range(20)]
    with Engine(scorer, batch_tokens=1000) as engine:
        assert engine.submit("q", texts).result(5).scores.tolist() == list(map(wanted, texts))
        assert engine.score([("q", texts)]) == [list(map(wanted, texts))]
        scorer.memory = 0
        with pytest.raises(MemoryError):
            engine.submit("q", texts).result(5)
        with pytest.raises(MemoryError):
            engine.score([("q", texts)])


def test_too_few_values_are_an_error_and_no_wait() -> None:
    class Short(Letters):
        def forward(self, rows: Sequence[Row]) -> np.ndarray:
            return super().forward(rows)[:-1]

    with Engine(Short()) as engine:
        with pytest.raises(BadForward, match="0 values for 1 rows"):
            engine.submit("q", ["a"]).result(timeout=5)
        with pytest.raises(BadForward):
            engine.score([("q", ["a", "b"])])


def test_after_the_unexpected_the_next_request_is_answered() -> None:
    class Odd(Letters):
        def encode(
            self, query: str, documents: Sequence[str], options: Options
        ) -> EncodedDocuments:
            if query == "unhashable":  # which the queue trips over
                return EncodedDocuments([[Row([1], prefix=[2])]], [False], 1)  # type: ignore[arg-type]
            if query == "uncountable":
                return EncodedDocuments([[Row([1]), None]], [False], 1)  # type: ignore[list-item]
            if query == "short":
                return EncodedDocuments([], [], 0)
            return super().encode(query, documents, options)

    with Engine(Odd()) as engine:
        for query in ("unhashable", "uncountable", "short"):
            with pytest.raises((TypeError, AssertionError)):
                engine.submit(query, ["a"]).result(timeout=5)
            assert engine.submit("q", ["abc"]).result(timeout=5).scores == [wanted("abc")]
        engine.batcher._queue.take = None  # type: ignore[assignment,method-assign]
        with pytest.raises(TypeError):
            engine.submit("q", ["a"]).result(timeout=5)
        assert engine.submit("q", ["abc"]).result(timeout=5).scores == [wanted("abc")]


class Slow(Letters):
    """Its tokeniser takes 10 ms for a text."""

    def encode(self, query: str, documents: Sequence[str], options: Options) -> EncodedDocuments:
        time.sleep(0.01 * len(documents))
        return super().encode(query, documents, options)


def test_a_small_request_does_not_wait_for_the_tokens_of_a_large_one() -> None:
    with Engine(Slow(), threads=1) as engine:
        large = [engine.submit("q", [f"{i:02}" * 20_000 for i in range(50)]) for _ in range(3)]
        start = time.monotonic()
        assert engine.submit("q", ["abc"]).result(timeout=5).scores == [wanted("abc")]
        assert time.monotonic() - start < 0.3  # of 1.5 s
        assert not any(each.done() for each in large)
        for each in large:
            each.cancel()


def test_patience_counts_from_arrival() -> None:
    with Engine(Slow(), threads=1) as engine:
        first = engine.submit("q", [str(i) for i in range(20)], patience_s=1.0)
        while engine.batcher._texts:  # the thread is at it
            time.sleep(0.001)
        second = engine.submit("q", ["a"], patience_s=0.05)
        with pytest.raises(NotStarted):
            second.result(timeout=5)
        assert len(first.result(timeout=5).scores) == 20


def test_small_requests_do_not_starve_a_large_one() -> None:
    """It begins within its share, though small ones come as fast as they are answered."""
    scorer = Letters(wait=0.001)
    with Engine(scorer, batch_tokens=40) as engine:
        small = [engine.submit("q", [f"{'a' * 30}{i:04}"]) for i in range(4)]
        large = engine.submit("q", [f"{'b' * 35}{i:04}" for i in range(400)])
        number = 4
        while not any(39 in lengths for lengths in scorer.batches):
            for place, each in enumerate(small):
                if each.done():
                    small[place] = engine.submit("q", [f"{'a' * 30}{number:04}"])
                    number += 1
            time.sleep(0.0005)
        # One of five begins when 5 * 8 batches' worth was served; it is 400 batches itself.
        assert number < 100
        large.cancel()


AT_THE_END = """
import atexit, os, threading
from tests.reranking.test_engine import Letters
from raydist.reranking.engine import Engine

engine = Engine(Letters(wait=0.02), batch_tokens=10)
# Registered before the engine's own, so called after it; a failure there would not show.
alive = lambda: any(thread.name == "batcher" for thread in threading.enumerate())
atexit.register(lambda: os._exit(3) if alive() else None)
engine.score([("q", ["abc", "de"])])
if WAITING:
    engine.submit("q", [f"{i:05}" for i in range(400)])
"""


@pytest.mark.parametrize("waiting", [False, True])
def test_a_process_may_end_without_closing_its_engine(waiting: bool) -> None:
    source = AT_THE_END.replace("WAITING", str(waiting))
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, b"")


def test_an_idle_engine_ends_its_thread_and_starts_again() -> None:
    scorer = Letters()
    engine = Engine(scorer)
    for _ in range(3):
        assert engine.score([("q", ["ab", "c"])]) == [[wanted("ab"), wanted("c")]]
        deadline = time.monotonic() + 10
        while engine.batcher._driver is not None:
            assert time.monotonic() < deadline
            time.sleep(0.001)
    gone = weakref.ref(engine)
    del engine
    while gone() is not None:  # its thread has a few instructions left
        assert time.monotonic() < deadline
        gc.collect()


def test_statistics_count_padding() -> None:
    scorer = Letters()
    scorer.gate.clear()
    with Engine(scorer, batch_tokens=1000) as engine:
        future = engine.submit("q", ["a" * 10, "b" * 5])
        scorer.gate.set()
        future.result()
        stats = engine.batcher.stats
        assert (stats.batches, stats.tokens, stats.padded_tokens) == (1, 15, 20)


@settings(max_examples=100, deadline=None)
@given(
    owners=st.lists(st.lists(st.integers(1, 30), min_size=1, max_size=8), max_size=6),
    prefixes=st.tuples(st.integers(0, 20), st.integers(0, 20)),
    budget=st.integers(1, 60),
    packed=st.booleans(),
    dropped=st.integers(0, 5),
)
def test_the_pool_gives_every_unit_once(
    owners: list[list[int]],
    prefixes: tuple[int, int],
    budget: int,
    packed: bool,
    dropped: int,
) -> None:
    pool: FairQueue[str] = FairQueue()
    units: list[Unit[str]] = []
    for number, lengths in enumerate(owners):
        mine = [
            Unit(
                length, Row(range(length), prefix=(0,) * prefixes[length % 2]), f"o{number}", place
            )
            for place, length in enumerate(lengths)
        ]
        pool.add(f"o{number}", mine)
        if number == dropped:
            pool.drop(f"o{number}")
        else:
            units += mine
    assert pool.tokens == sum(unit.length for unit in units)
    seen: list[Unit[str]] = []
    while pool:
        batch = pool.take(budget, packed=packed)
        assert batch and batch[0].length == max(unit.length for unit in batch)
        prefixes = {len(unit.row.prefix) for unit in batch}
        if packed:
            assert sum(unit.length for unit in batch) <= budget or len(batch) == 1
        else:
            assert len(batch) * (batch[0].length + max(prefixes)) <= budget or len(batch) == 1
            assert max(prefixes) <= 1.5 * min(prefixes)
        seen += batch
    assert sorted(unit.serial for unit in seen) == [unit.serial for unit in units]
    assert pool.tokens == 0


def test_a_padded_batch_has_room_for_its_prefixes_and_mixes_no_long_with_short_ones() -> None:
    """Rows of a padded batch all hold a prefix as long as the longest one."""
    pool: FairQueue[str] = FairQueue()
    for owner, prefix, count in (("short", 90, 100), ("like", 110, 100), ("long", 7000, 10)):
        rows = [Row(range(50), prefix=(len(owner),) * prefix) for _ in range(count)]
        pool.add(owner, [Unit(50, row, owner, place) for place, row in enumerate(rows)])
    batches: list[list[str]] = []
    while pool:
        batch = pool.take(30_000, packed=False)
        longest = max(len(unit.row.prefix) for unit in batch)
        assert len(batch) * (50 + longest) <= 30_000
        batches.append(sorted({unit.owner for unit in batch}))
    assert batches.count(["like", "short"]) == 1 and len(batches) <= 6
    assert ["long"] in batches and all("long" not in each or len(each) == 1 for each in batches)


def test_a_piece_whose_score_is_not_a_number_is_not_outvoted() -> None:
    class Lost(Letters):
        def forward(self, rows: Sequence[Row]) -> np.ndarray:
            return np.where([ord("!") in row.tokens for row in rows], np.nan, 1.0)

    with Engine(Lost(room=10)) as engine:
        options = Options(truncation="chunk_max")
        scores = engine.submit("q", ["a" * 10 + "!" * 5, "b" * 25, "!"], options).result()
    assert scores.chunks == [2, 3, 1]
    np.testing.assert_array_equal(scores.scores, [np.nan, 1.0, np.nan])


def test_a_document_that_is_too_long_is_named_by_its_place_in_the_request() -> None:
    with (
        Engine(Letters(room=4)) as engine,
        pytest.raises(TooLong, match=r"documents\[3\] has 6 tokens"),
    ):
        engine.score([("q", ["a", "a", "b", "abcdef", "abcdef"])], Options(truncation="error"))


def test_waiting_for_a_tokeniser_is_waiting_too() -> None:
    class Slow(Letters):
        def encode(
            self, query: str, documents: Sequence[str], options: Options
        ) -> EncodedDocuments:
            time.sleep(0.2)
            return super().encode(query, documents, options)

    with Engine(Slow(), threads=1) as engine:
        futures = [engine.submit("q", [text]) for text in ("a", "b")]
        first, second = (future.result() for future in futures)
    assert second.times.queue_s > 0.15 and second.times.tokenize_s < second.times.queue_s + 0.2
    assert first.times.queue_s < second.times.queue_s


def test_sigmoid_has_no_overflow() -> None:
    values = sigmoid(np.array([-1e4, -1.0, 0.0, 1.0, 1e4], np.float32))
    np.testing.assert_allclose(values, [0, 1 / (1 + np.e), 0.5, np.e / (1 + np.e), 1], atol=1e-12)
