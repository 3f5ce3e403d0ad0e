"""Indexes of weighted terms against dot products."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raydist.bow.exchange.bmp import export_bmp
from raydist.bow.exchange.ciff import export_ciff, import_ciff
from raydist.bow.exchange.vectors import VectorFiles, index_vectors, read_vectors
from raydist.bow.format.segment import Segment
from raydist.bow.index import BowIndex
from raydist.bow.search.retriever import BowRetriever
from raydist.errors import ConfigError, DataError

TERMS = ["hug", "##ging", "face", "é", "[SEP]"]
vectors = st.dictionaries(st.sampled_from(TERMS), st.integers(0, 900).map(lambda n: n / 100))


def opened(folder: Path, facts: dict) -> BowIndex:
    segments = [Segment.open(folder / name) for name in facts["segments"]]
    return BowIndex(segments, None, unit=facts["unit"])


@settings(max_examples=40, deadline=None)
@given(st.lists(vectors, min_size=1, max_size=50), vectors, st.integers(1, 60), st.booleans())
def test_scores_are_dot_products(
    tmp_path_factory: pytest.TempPathFactory,
    rows: list[dict[str, float]],
    query: dict[str, float],
    segment_documents: int,
    compress: bool,
) -> None:
    folder = tmp_path_factory.mktemp("vectors")
    facts = index_vectors(
        ((f"d{i}", row) for i, row in enumerate(rows)),
        folder,
        segment_documents=segment_documents,
        compress=compress,
    )
    assert facts["documents"] == len(rows)
    assert facts["empty"] == sum(not any(row.values()) for row in rows)
    run = BowRetriever(opened(folder, facts)).search_terms([("q", query)], 100)
    scores = run.as_dict().get("q", {})
    expected = {
        f"d{i}": sum(query.get(term, 0) * weight for term, weight in row.items())
        for i, row in enumerate(rows)
        if any(term in query and weight for term, weight in row.items())
    }
    assert scores == pytest.approx(expected, rel=1e-6)


def test_files_are_read_and_rounded_to_units_and_travel_as_ciff(tmp_path: Path) -> None:
    path = tmp_path / "v.jsonl.gz"
    rows = [{"id": "a", "vector": {"x": 1.26, "y": 0.01}}, {"id": 7, "vector": {"x": 3}}]
    with gzip.open(path, "wt") as out:
        out.write("\n".join(map(json.dumps, rows)) + "\n\n")
    facts = index_vectors(read_vectors(path), tmp_path / "v", unit=0.5)
    index = opened(tmp_path / "v", facts)
    docs, scores = BowRetriever(index).rank_terms({"x": 2.0, "y": 1.0}, 5)
    assert index.pick_ids(docs).to_pylist() == ["7", "a"]
    assert scores.tolist() == [6.0, 3.0]
    export_ciff(index, tmp_path / "v.ciff")
    back = import_ciff(tmp_path / "v.ciff", tmp_path / "back")
    again = opened(tmp_path / "back", {**back, "unit": facts["unit"]})
    assert BowRetriever(again).rank_terms({"x": 2.0}, 5)[1].tolist() == [6.0, 3.0]
    assert export_bmp(index, tmp_path / "v.bmp")["postings"] == 2


@pytest.mark.parametrize(
    "line",
    [
        "{}",
        "[1]",
        "nonsense",
        '{"id": "a", "vector": {"x": -1}}',
        '{"id": "a", "vector": [1]}',
        '{"id": "a", "vector": {"x": NaN}}',
        '{"id": "a", "vector": {"x": Infinity}}',
        '{"id": "a", "vector": {"x": -Infinity}}',
        '{"id": "a", "vector": {"x": 1e999}}',
        '{"id": "a", "vector": {"x": "1.5"}}',
        '{"id": "a", "vector": {"x": true}}',
        '{"id": "a", "vector": {"x": null}}',
        '{"id": "a", "vector": {"x": [1]}}',
        '{"id": "a", "vector": {"x": 1, "x": 2}}',
        '{"id": "a", "vector": {"x": 1' + "0" * 400 + "}}",
        '{"id": "a", "vector": ' + "[" * 100_000,
        '{"id": true, "vector": {}}',
        '{"id": 1.5, "vector": {}}',
        '{"id": "", "vector": {}}',
        '{"id": null, "vector": {}}',
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "v.jsonl"
    path.write_text('{"id": "ok", "vector": {}}\n' + line + "\n")
    with pytest.raises(DataError, match=r"v\.jsonl, line 2"):
        list(read_vectors(path))


def test_a_damaged_gzip_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "v.jsonl.gz"
    packed = gzip.compress(b'{"id": "ok", "vector": {}}\n' * 1000)
    path.write_bytes(packed[:-9])
    with pytest.raises(DataError, match=r"v\.jsonl\.gz: damaged gzip after line"):
        list(read_vectors(path))


def test_bad_settings_and_documents_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="unit = 0"):
        index_vectors([("a", {"x": 1.0})], tmp_path / "0", unit=0)
    with pytest.raises(DataError, match="twice"):
        index_vectors([("a", {}), ("a", {})], tmp_path / "1")
    with pytest.raises(DataError, match="no documents"):
        index_vectors([], tmp_path / "2")
    with pytest.raises(DataError, match=r"2\*\*32"):
        index_vectors([("a", {"x": 1e12})], tmp_path / "3")
    with pytest.raises(DataError, match="no such file"):
        list(read_vectors(tmp_path / "nowhere"))
    facts = index_vectors([("a", {"x": 1.0})], tmp_path / "4")
    with pytest.raises(ConfigError, match="analyzer"):
        BowRetriever(opened(tmp_path / "4", facts)).rank("x", 1)
    assert len(BowRetriever(opened(tmp_path / "4", facts)).rank_terms({"z": 1}, 1)[0]) == 0
    assert np.isclose(facts["tokens"], 100)


def test_vectors_are_indexed_and_searched_from_the_command_line(tmp_path, monkeypatch, capsys):
    from raydist.cli import main

    monkeypatch.chdir(tmp_path)
    documents = {"a": {"cat": 1.5, "dog": 0.25}, "b": {"dog": 2.0}, "c": {"bird": 0.5}}
    queries = {"q1": {"cat": 1.0, "dog": 2.0}, "q2": {"fish": 1.0}}
    for name, vectors in (("documents", documents), ("queries", queries)):
        lines = [json.dumps({"id": each, "vector": vectors[each]}) + "\n" for each in vectors]
        (tmp_path / f"{name}.jsonl").write_text("".join(lines))
    assert main(["convert", "in=documents.jsonl", "out=IDX", "unit=0.25"]) == 0
    assert main(["convert", "in=documents.jsonl", "out=IDX", "unit=0.25"]) == 0
    assert "already built" in capsys.readouterr().err
    assert main(["search", "index=IDX", "queries=queries.jsonl", "k=5"]) == 0
    output = capsys.readouterr()
    rows = [line.split() for line in output.out.splitlines()]
    assert [(row[0], row[2], float(row[4])) for row in rows] == [("q1", "b", 4.0), ("q1", "a", 2.0)]
    assert "no results for 1 of 2 queries" in output.err
    (tmp_path / "texts.tsv").write_text("q1\tcat dog\n")
    assert main(["search", "index=IDX", "queries=texts.tsv"]) == 2
    assert "vector" in capsys.readouterr().err


LINES = [
    '{"id": "a", "vector": {"x": 1.26, "y": 3e-1, "z": 0}}',
    '{"vector": {"y": 2, "x": 0.004}, "id": "b"}',
    '  {"id":"c" , "vector":{ } }\r',
    "",
    '{"id": 7, "vector": {"x": 12345678901234567890.125e-18}}',
    '{"id": "d\\u00e9", "vector": {"\\"": 1.5, "é": 0.125}}',
    '{"id": "e", "title": "ignored", "vector": {"x": 0.005, "w": 0.015, "v": 1E2}}',
    '{"id": "f", "vector": {"more than sixteen bytes": 0.30000000000000004, "x": 655.36}}',
]


def _facts_and_bytes(folder: Path, vectors: Any) -> tuple[dict, dict[str, bytes]]:
    facts = index_vectors(vectors, folder, segment_documents=4)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return facts, {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_the_kernel_reads_lines_as_pythons_parser_does(tmp_path: Path) -> None:
    path = tmp_path / "v.jsonl"
    path.write_text("\n".join(LINES), encoding="utf-8")
    ours = _facts_and_bytes(tmp_path / "a", VectorFiles([path]))
    python = _facts_and_bytes(tmp_path / "b", list(read_vectors(path)))
    assert ours == python
    assert ours[0]["documents"] == 7


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(0, 1e6, allow_subnormal=False), min_size=1, max_size=30))
def test_weights_are_read_to_the_bit(
    tmp_path_factory: pytest.TempPathFactory, weights: list[float]
) -> None:
    folder = tmp_path_factory.mktemp("weights")
    path = folder / "v.jsonl"
    rows = [{"id": f"d{n}", "vector": {"x": w, "y": w / 7}} for n, w in enumerate(weights)]
    path.write_text("\n".join(map(json.dumps, rows)))
    ours = _facts_and_bytes(folder / "a", VectorFiles([path]))
    assert ours == _facts_and_bytes(folder / "b", list(read_vectors(path)))


@pytest.mark.parametrize(
    "line",
    [
        '{"id": "a", "vector": {"x": 01}}',
        '{"id": "a", "vector": {"x": 1.}}',
        '{"id": "a", "vector": {"x": 1, "x": 1}}',
        '{"id": "a", "vector": {"x": 1,}}',
        '{"id": "a", "vector": {"x": 1}',
        '{"id": "a", "vector": {"x": 1}} {}',
        '{"id": "a", "id": "b", "vector": {"x": 1}}',
        '{"id": "", "vector": {"x": 1}}',
        '{"id": "a", "vector": {"": 1}}',
        '{"id": "a", "vector": {"x": -1}}',
        '{"id": "a", "vector": {"x": 1e400}}',
        '{"id": "a"}',
    ],
)
def test_a_bad_line_is_named_wherever_it_is(tmp_path: Path, line: str) -> None:
    path = tmp_path / "v.jsonl"
    path.write_text(f"{LINES[0]}\n\n{line}\n{LINES[1]}\n")
    with pytest.raises(DataError, match=r"v\.jsonl.*3"):
        index_vectors(VectorFiles([path]), tmp_path / "out")
