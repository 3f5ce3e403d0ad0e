from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raydist.data.readers import read_qrels, read_run
from raydist.data.spec import RunSource
from raydist.errors import DataError
from raydist.records import RUN, Run


@pytest.mark.parametrize(
    "content",
    [
        "1 0 a 1\n1 0 b 0\n2 0 a -1\n",
        "1\t0\ta\t1\r\n1\t0\tb\t0\r\n\r\n2\t0\ta\t-1",
        "query-id\tcorpus-id\tscore\n1\ta\t1\n1\tb\t0\n2\ta\t-1\n",
        "\ufeff1\ta\t1\n1\tb\t0\n2\ta\t-1\n2\ta\t-1\n",
        "query_id 0 doc_id relevance\n1 0 a 1\n1 0 b 0\n2 0 a -1",
    ],
)
def test_qrels_are_read_in_every_form(tmp_path: Path, content: str) -> None:
    file = tmp_path / "qrels.txt"
    file.write_text(content)
    assert read_qrels(file) == {"1": {"a": 1, "b": 0}, "2": {"a": -1}}
    assert read_qrels(tmp_path) == read_qrels(file)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("1 0 a 1\n1 0 b\n", "line 2: .*4 columns"),
        ("1 0 a one\n", "line 1: .*whole number as relevance"),
        ("1 0 a 1.5\n", "whole number"),
        ("1 0 a 1\n1 0 a 2\n", "line 2: .*judged 2 here and 1 on line 1; remove one"),
        ("1 2\n", "query 0 document relevance"),
        ("\n", "no judgements"),
    ],
)
def test_bad_qrels_are_named(tmp_path: Path, content: str, message: str) -> None:
    file = tmp_path / "qrels.txt"
    file.write_text(content)
    with pytest.raises(DataError, match=message):
        read_qrels(file)


def test_qrels_of_several_files_must_agree(tmp_path: Path) -> None:
    a, b = tmp_path / "a.txt", tmp_path / "b.txt"
    a.write_text("1 0 a 1\n")
    b.write_text("1 0 b 1\n")
    assert read_qrels([a, b]) == {"1": {"a": 1, "b": 1}}
    b.write_text("1 0 a 2\n")
    with pytest.raises(
        DataError, match=r"b.txt, line 1: .*judged 2 here and 1 on .*a.txt, line 1; remove one"
    ):
        read_qrels([a, b])


IDS = st.text(
    st.characters(min_codepoint=33, max_codepoint=0x24F, exclude_characters="\x7f\x85\xa0\xad"),
    min_size=1,
    max_size=8,
)
SCORES = st.floats(width=32, allow_nan=False, allow_infinity=False)


@settings(max_examples=100, deadline=None)
@given(
    st.dictionaries(IDS, st.dictionaries(IDS, SCORES, min_size=1, max_size=6), max_size=6),
    st.sampled_from(["txt", "parquet", "gz"]),
)
def test_a_run_comes_back_bit_for_bit(
    tmp_path_factory: pytest.TempPathFactory, rankings: dict[str, dict[str, float]], form: str
) -> None:
    import gzip

    run = Run.from_lists(
        [
            (q, [d for d, _ in ranked], [s for _, s in ranked])
            for q, docs in rankings.items()
            for ranked in [sorted(docs.items(), key=lambda item: -item[1])]
        ],
        "mine",
    )
    file = tmp_path_factory.mktemp("run") / f"run.{'parquet' if form == 'parquet' else 'txt'}"
    if form == "parquet":
        pq.write_table(run.table, file)
    else:
        run.write(file)
    if form == "gz":
        file.write_bytes(gzip.compress(file.read_bytes()))
    back = read_run(file)
    assert back.table.select(["query_id", "doc_id"]).equals(
        run.table.select(["query_id", "doc_id"])
    )
    ours, theirs = back.table["score"].to_numpy(), run.table["score"].to_numpy()
    assert np.array_equal(ours.view(np.int32), theirs.view(np.int32))
    assert form == "parquet" or not len(run) or back.tag == "mine"


@pytest.mark.parametrize(
    "content",
    [
        "1 Q0 a 1 2.5 t\n1 Q0 b 2 1.5 t\n",
        "1\tQ0\ta\t1\t2.5\tt\r\n1\tQ0\tb\t2\t1.5\tt",
        "  1  Q0 a 1   2.5 t  \n\n1 Q0 b 2 +1.5 t",
        "\ufeff1 Q0 a 1 25e-1 t\n1 Q0 b 2 1.5 t",
    ],
)
def test_run_lines_may_be_spaced_in_any_way(tmp_path: Path, content: str) -> None:
    file = tmp_path / "run.txt"
    file.write_bytes(content.encode())
    assert read_run(file).as_dict() == {"1": {"a": 2.5, "b": 1.5}}
    assert read_run(file).tag == "t"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("1 Q0 b 2 1.5", "line 2: .*6 columns .*not 5"),
        ("1 Q0 b two 1.5 t", "line 2: .*whole number as rank"),
        ("1 Q0 b 2 high t", "line 2: .*finite number as score"),
        ("1 Q0 b 2 nan t", "line 2: .*finite number as score"),
        ("1 Q0 b 2 1e39 t", "line 2: .*finite number as score"),
        ("1 Q0 b 2 1_0 t", "line 2: .*finite number as score"),
        ("1 Q0 a 2 1.5 t", "ranks document 'a' twice"),
        ("1 Q0 b 2 9.5 t", r"above the score.*sort=true"),
        ("2 Q0 b 1 1 t\n1 Q0 c 1 1 t", "the rows of query '1' are not together"),
    ],
)
def test_bad_run_lines_are_named(tmp_path: Path, line: str, message: str) -> None:
    file = tmp_path / "run.txt"
    file.write_text(f"1 Q0 a 1 2.5 t\n{line}\n")
    with pytest.raises(DataError, match=message) as caught:
        read_run(file)
    assert str(file) in str(caught.value)


def test_a_run_is_ordered_on_request(tmp_path: Path) -> None:
    file = tmp_path / "run.txt"
    file.write_text("1 Q0 a 1 1.5 t\n1 Q0 b 2 2.5 t\n1 Q0 c 3 2.5 t\n")
    assert next(iter(read_run(RunSource(path=file, sort=True))))[1] == ["b", "c", "a"]


def test_a_parquet_run_needs_its_columns(tmp_path: Path) -> None:
    file = tmp_path / "run.parquet"
    pq.write_table(pa.table({"query_id": ["1"], "ids": ["a"], "score": [1.0]}), file)
    with pytest.raises(DataError, match=r"no field doc_id or .*; there are query_id, ids, score"):
        read_run(file)
    pq.write_table(pa.table({"query_id": [1], "doc_id": ["a"], "score": [1.0]}), file)
    assert read_run(file).table.schema == RUN
    file.write_bytes(b"PAR1 nonsense PAR1")
    with pytest.raises(DataError, match="not a Parquet file"):
        read_run(file)
