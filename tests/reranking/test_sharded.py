from __future__ import annotations

import os
import signal
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raydist.data.store.build import needed_texts
from raydist.data.store.reader import DocumentStore
from raydist.errors import DataError
from raydist.records import DOCUMENTS, Query, Run
from raydist.reranking.apply import query_splits, rerank, rerank_sharded
from raydist.reranking.spec import Reranking

TEXTS = {f"d{i}": "x" * (i * 7 % 11) for i in range(40)}


class Lengths:
    def __init__(self, log: Path | None = None, fail_on: str = "") -> None:
        self.log = log
        self.fail_on = fail_on

    def score(self, batch: Sequence[tuple[str, Sequence[str]]]) -> list[list[float]]:
        for query, _ in batch:
            if query == self.fail_on:
                raise DataError("no more")
            if self.log:
                with self.log.open("a") as out:
                    out.write(f"{query}\n")
        return [[float(len(text)) for text in texts] for _, texts in batch]


def make(log: str, fail_on: str) -> Lengths:
    return Lengths(Path(log), fail_on)


class Mortal(Lengths):
    """Kills its process at query 7, the first time."""

    def __init__(self, flag: str) -> None:
        super().__init__()
        self.flag = Path(flag)

    def score(self, batch: Sequence[tuple[str, Sequence[str]]]) -> list[list[float]]:
        if any(query == "query 7" for query, _ in batch) and not self.flag.exists():
            self.flag.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().score(batch)


@pytest.fixture
def run() -> Run:
    draw = np.random.default_rng(0)
    return Run.from_lists(
        (f"q{i}", [f"d{d}" for d in draw.permutation(40)[: i + 1]], np.arange(i + 1, 0, -1))
        for i in range(12)
    )


@pytest.fixture
def texts(run: Run, tmp_path: Path) -> Callable[[], DocumentStore]:
    table = pa.table([list(TEXTS), [""] * len(TEXTS), list(TEXTS.values())], schema=DOCUMENTS)
    folder = needed_texts(run.table["doc_id"].to_pylist(), [table], tmp_path / "texts")
    return partial(DocumentStore.open, folder)


QUERIES = [Query(f"q{i}", f"query {i}") for i in range(15)]


@given(sizes=st.lists(st.integers(1, 9), max_size=12), pairs=st.integers(1, 20))
def test_splits_are_whole_queries(sizes: list[int], pairs: int) -> None:
    run = Run.from_lists(
        (f"q{i}", [f"d{j}" for j in range(size)], np.zeros(size)) for i, size in enumerate(sizes)
    )
    splits = query_splits(run, pairs)
    starts = np.cumsum([0, *sizes]).tolist()
    assert [s["first"] for s in splits] + [len(run)] == [
        *np.cumsum([0, *(s["size"] for s in splits)]).tolist()
    ]
    assert all(s["first"] in starts for s in splits)
    assert all(s["size"] <= pairs or s["size"] in sizes for s in splits)


@pytest.mark.parametrize("split_pairs", [1, 10, 1000])
def test_the_result_is_that_of_one_call(
    run: Run, texts: Callable[[], DocumentStore], tmp_path: Path, split_pairs: int
) -> None:
    reranked, facts = rerank_sharded(
        run, QUERIES, texts, tmp_path / "out", Lengths, Reranking(split_pairs=split_pairs)
    )
    assert pa.concat_tables(reranked).equals(rerank(run, Lengths(), TEXTS, QUERIES).table)
    assert facts.pairs == len(run) and facts.without_text == 0 and facts.queries == 12


def test_a_restart_scores_only_what_was_not_finished(
    run: Run, texts: Callable[[], DocumentStore], tmp_path: Path
) -> None:
    log = tmp_path / "log"
    with pytest.raises(DataError, match="no more"):
        rerank_sharded(
            run,
            QUERIES,
            texts,
            tmp_path / "out",
            partial(make, str(log), "query 7"),
            Reranking(split_pairs=1),
        )
    assert log.read_text().split("\n")[:-1] == [f"query {i}" for i in range(7)]
    reranked, _ = rerank_sharded(
        run, QUERIES, texts, tmp_path / "out", partial(make, str(log), ""), Reranking(split_pairs=1)
    )
    assert log.read_text().split("\n")[:-1] == [f"query {i}" for i in range(12)]
    assert pa.concat_tables(reranked).equals(rerank(run, Lengths(), TEXTS, QUERIES).table)


@pytest.mark.ray
def test_a_killed_actor_is_replaced_and_the_result_is_the_same(
    ray_cluster: None, run: Run, texts: Callable[[], DocumentStore], tmp_path: Path
) -> None:
    flag = tmp_path / "flag"
    reranked, facts = rerank_sharded(
        run,
        QUERIES,
        texts,
        tmp_path / "out",
        partial(Mortal, str(flag)),
        Reranking(split_pairs=1, workers=2),
    )
    assert flag.exists() and facts.pairs == len(run)
    assert pa.concat_tables(reranked).equals(rerank(run, Lengths(), TEXTS, QUERIES).table)


def test_an_empty_run_stays_empty(texts: Callable[[], DocumentStore], tmp_path: Path) -> None:
    reranked, facts = rerank_sharded(Run.from_lists([]), QUERIES, texts, tmp_path / "out", Lengths)
    assert list(reranked) == [] and facts.pairs == 0


def test_documents_without_text_are_counted(run: Run, tmp_path: Path) -> None:
    empty = needed_texts(["d1"], [], tmp_path / "none")
    reranked, facts = rerank_sharded(
        run,
        QUERIES,
        partial(DocumentStore.open, empty),
        tmp_path / "out",
        Lengths,
        Reranking(missing="keep", depth=3),
    )
    ranked = pa.concat_tables(reranked)["doc_id"].to_pylist()
    assert ranked == run.top(3).table["doc_id"].to_pylist()
    assert facts.without_text == len(run.top(3))
