"""Hostile training data: an error that names the file, or samples that can be trained on."""

from __future__ import annotations

import copy
import gzip
import json
import math
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raydist.data.samples.sample_set import SampleSet
from raydist.errors import DataError
from tests.data.sample_files import prepare
from tests.data.test_fuzz import hostile

CORPUS = [{"_id": f"d{i}", "title": "t" * (i % 2), "text": f"text é {i}"} for i in range(6)]
QUERIES = [{"_id": f"q{i}", "text": f"query {i}"} for i in range(3)]

RECORDS: dict[str, list[dict[str, Any]]] = {
    "flagembedding": [
        {
            "query": f"größe {i}",
            "pos": ["p"],
            "neg": ["n1", "n2"],
            "pos_scores": [2.5],
            "neg_scores": [1, 0.5],
            "answer": "a",
            "neg_answer": ["b"],
            "answer_scores": [3, 1],
            "prompt": "find: ",
            "type": "retrieval",
            "batch_size": 2,
        }
        for i in range(3)
    ],
    "tevatron": [
        {
            "query_id": f"q{i}",
            "query": f"query {i}",
            "positive_passages": [{"docid": "d1", "title": "t", "text": "x"}],
            "negative_passages": [{"docid": "d2", "title": "", "text": "y"}],
        }
        for i in range(3)
    ],
    "tevatron ids": [
        {"query": f"query {i}", "positive_document_ids": ["d1"], "negative_document_ids": ["d2"]}
        for i in range(3)
    ],
    "lists": [
        {
            "query_id": f"q{i}",
            "query": f"query {i}",
            "candidates": [{"id": "d0", "score": 2.0}, {"id": "d1", "score": 1, "text": "x"}],
        }
        for i in range(3)
    ],
    "ids": [
        {
            "query_id": f"q{i}",
            "pos": ["d0"],
            "neg": ["d1", "d2"],
            "labels": [2, 0, 0],
            "pos_scores": [3.0],
            "neg_scores": [1.0, 0.5],
        }
        for i in range(3)
    ],
}
LINES = {
    name: "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records).encode()
    for name, records in RECORDS.items()
}
FILES: dict[str, bytes] = {
    **{f"{name}.jsonl": data for name, data in LINES.items()},
    "flagembedding.jsonl.gz": gzip.compress(LINES["flagembedding"]),
    "flagembedding.jsonl.zst": pa.compress(LINES["flagembedding"], "zstd", asbytes=True),
    "triples.tsv": b"query\tpositive \xc3\xa9\tnegative\n" * 3,
    "triples-of-ids.tsv": b"q0\td0\td1\nq1\td1\td2\nq2\td3\td4\n",
    "pairs.tsv": b"2.0\t1.0\tquery\tone\tother\n" * 3,
    "run.txt": b"".join(b"q%d Q0 d%d %d %d t\n" % (q, d, d, 9 - d) for q in (0, 1) for d in (0, 1)),
    "qrels.txt": b"".join(b"q%d 0 d%d %d\n" % (q, d, d % 2) for q in (0, 1) for d in (0, 1)),
}
WITH_TEXTS = {"tevatron ids.jsonl", "lists.jsonl", "ids.jsonl", "triples-of-ids.tsv"}
WITH_TEXTS |= {"run.txt", "qrels.txt"}

Read = Mapping[str, Any]


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("texts")
    for name, records in (("corpus", CORPUS), ("queries", QUERIES)):
        lines = "".join(json.dumps(record) + "\n" for record in records)
        (folder / f"{name}.jsonl").write_text(lines, encoding="utf-8")
    return {name: str(folder / f"{name}.jsonl") for name in ("corpus", "queries")}


def check(name: str, data: bytes, on_bad: str, texts: Read, **options: Any) -> None:
    """Prepares and reads a file: what comes out can be trained on, or the file is named."""
    place = Path(texts["corpus"]).parent  # the stores of corpus and queries are made once
    with tempfile.TemporaryDirectory(dir=place) as scrap:
        file = Path(scrap) / name
        file.write_bytes(data)
        folder = place / "set"
        shutil.rmtree(folder, ignore_errors=True)
        try:
            facts = prepare(
                file,
                folder,
                on_bad=on_bad,  # type: ignore[arg-type]
                **options,
                **(texts if name in WITH_TEXTS else {}),
            )
        except DataError as error:
            assert name in str(error), error
            return
        samples = SampleSet(folder)
        assert len(samples) == facts.rows > 0
        for row in range(len(samples)):
            sample = samples[row]
            assert sample.query and 0 <= sample.positives <= len(sample.documents)
            for text in (sample.query, *sample.documents, sample.answer or "", sample.prompt or ""):
                text.encode()
            for numbers in (sample.scores, sample.labels):
                assert numbers is None or len(numbers) == len(sample.documents)
                assert all(math.isfinite(number) for number in numbers or ())


ON_BAD = st.sampled_from(["error", "skip"])


@pytest.mark.parametrize("name", FILES)
def test_damaged_samples_are_an_error_that_names_the_file_or_are_read(
    name: str, texts: Read
) -> None:
    @settings(max_examples=25)
    @given(hostile(FILES[name]), ON_BAD)
    def damaged(data: bytes, on_bad: str) -> None:
        check(name, data, on_bad, texts)

    damaged()


ODD: st.SearchStrategy[Any] = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from(
        [0, -1, 10**400, 1.5, float("nan"), float("inf"), 1e300, "", " ", "x", "\ud800"]
    ),
    st.sampled_from(
        [[], [[]], {}, [None], ["x"], [1], [{}], {"a": 1}, ["d1"], ["\udfff"], "d1"]
    ).map(copy.deepcopy),  # a value that is drawn into itself, or changed, is another example's too
)


@st.composite
def odd_records(draw: st.DrawFn, records: list[dict[str, Any]]) -> bytes:
    """Well-formed JSON in which a value is of another kind, missing, or new."""
    changed = json.loads(json.dumps(records))
    for _ in range(draw(st.integers(1, 2))):
        record = changed[draw(st.integers(0, len(changed) - 1))]
        name = draw(st.sampled_from(sorted(records[0])))
        inner = record.get(name)
        if isinstance(inner, list) and inner and draw(st.booleans()):
            if isinstance(inner[0], dict) and draw(st.booleans()):
                inner[0][draw(st.sampled_from(sorted(inner[0]) or ["id"]))] = draw(ODD)
            else:
                inner[draw(st.integers(0, len(inner) - 1))] = draw(ODD)
        elif draw(st.integers(0, 4)) == 0:
            record.pop(name, None)
        else:
            record[name] = draw(ODD)
    return "".join(json.dumps(record) + "\n" for record in changed).encode()


@pytest.mark.parametrize("name", RECORDS)
def test_a_field_of_another_kind_is_an_error_that_names_the_file(name: str, texts: Read) -> None:
    @settings(max_examples=50)
    @given(odd_records(RECORDS[name]), ON_BAD)
    def odd(data: bytes, on_bad: str) -> None:
        check(f"{name}.jsonl", data, on_bad, texts)

    odd()


def test_lists_that_are_judged_name_the_file_they_stand_in(texts: Read, tmp_path: Path) -> None:
    qrels = tmp_path / "qrels.txt"
    qrels.write_text("q0 0 d0 1\nq1 0 d1 1\nq2 0 d0 1\n")

    @settings(max_examples=50)
    @given(st.one_of(hostile(LINES["lists"]), odd_records(RECORDS["lists"])))
    def odd(data: bytes) -> None:
        check("lists.jsonl", data, "error", texts, qrels=str(qrels), positives="retrieved")

    odd()
