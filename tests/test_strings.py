from __future__ import annotations

import itertools

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raydist.data.ids import IdList, filter_documents
from raydist.dense.fusion import fuse
from raydist.dense.spec import Rrf
from raydist.errors import DataError
from raydist.records import DOCUMENTS, RUN, Run
from raydist.strings import codes, narrowed, repeated, take

COLUMNS = st.lists(st.lists(st.text(max_size=5), max_size=4), max_size=5)


@given(parts=COLUMNS, draw=st.lists(st.integers(0, 99), max_size=12), limit=st.integers(1, 30))
def test_rows_are_taken_across_chunks_and_into_chunks_of_limited_size(
    parts: list[list[str]], draw: list[int], limit: int
) -> None:
    values = list(itertools.chain.from_iterable(parts))
    rows = np.array([each % len(values) for each in draw if values], np.int64)
    for kind in (pa.string(), pa.large_string()):
        column = pa.chunked_array([pa.array(each, kind) for each in parts], kind)
        taken = take(column, rows, limit)
        assert taken.type == pa.string() and taken.to_pylist() == [values[row] for row in rows]
        sizes = [sum(len(each.encode()) for each in chunk.to_pylist()) for chunk in taken.chunks]
        assert all(size <= limit or len(c) == 1 for size, c in zip(sizes, taken.chunks))
        same = narrowed(column, limit)
        assert same.type == pa.string() and same.to_pylist() == values


@given(parts=COLUMNS)
def test_a_value_has_one_number_in_all_chunks(parts: list[list[str]]) -> None:
    values = list(itertools.chain.from_iterable(parts))
    chunks = [pa.array(each, pa.string()) for each in parts]
    numbers, distinct = codes(pa.chunked_array(chunks, pa.string()))
    assert distinct.to_pylist() == list(dict.fromkeys(values))
    assert [distinct[number].as_py() for number in numbers] == values


@pytest.mark.slow
def test_runs_and_documents_have_more_than_2_gib_of_ids() -> None:
    """Arrow's 32-bit offsets end there. A column of 2,300 ids of 1 MiB that share one buffer."""
    rows = 2300
    long = pa.array(["x" * (1 << 20)])
    ids = pa.chunked_array([long] * rows)
    queries = pa.array([f"q{row % 23}-{row // 23}" for row in range(rows)])
    scores = pa.array(np.arange(rows), pa.float32())
    run = Run.sorted(pa.table([queries, ids, scores], schema=RUN))
    assert len(run) == rows and run.query_ids == queries.to_pylist()
    assert len(run.top(1)) == rows and len(run.without_own()) == rows
    last = run.table.slice(rows - 1).to_pylist()[0]
    assert (last["query_id"], last["score"], len(last["doc_id"])) == ("q22-99", rows - 1, 1 << 20)
    long_queries = Run(
        pa.table([ids.slice(0, 1), queries.slice(0, 1), scores[:1]], names=RUN.names)
    )
    assert [len(each) for each in long_queries.query_ids] == [1 << 20]
    wide = pa.table(
        [queries, ids.cast(pa.large_string()).combine_chunks(), scores], names=RUN.names
    )
    assert len(Run(wide)) == rows
    assert len(fuse([run, run], 5, Rrf())) == rows
    with pytest.raises(DataError, match="twice"):
        Run.sorted(pa.table([pa.array(["q"] * rows), ids, scores], schema=RUN))
    texts = pa.array([f"text {row}" for row in range(rows)], pa.large_string())
    documents = pa.table([queries, ids, texts], schema=DOCUMENTS)  # the titles are long
    wanted = IdList(pa.array(queries.to_pylist()[::-1]))
    (chosen,) = filter_documents([documents], wanted, order="list")
    assert chosen["text"][0].as_py() == f"text {rows - 1}" and chosen.num_rows == rows


@given(value=st.text(max_size=5), count=st.integers(0, 5))
def test_a_value_is_repeated(value: str, count: int) -> None:
    column = repeated(value, count)
    column.validate(full=True)
    assert column.type == pa.string() and column.to_pylist() == [value] * count
