"""Training samples on disk: checked, indexed, and read by row."""

from __future__ import annotations

import gzip
import json
import os
import resource
import subprocess
import sys
import tracemalloc
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from raydist.data.samples.judged import LeftOut, samples_of
from raydist.data.samples.sample_set import SampleSet
from raydist.data.store.reader import DocumentStore
from raydist.errors import ArtifactError, DataError
from raydist.records import DOCUMENTS, Run, Sample
from tests.data.sample_files import LINE, jsonl, prepare, read


def test_a_flagembedding_line_keeps_all_that_it_says(tmp_path: Path) -> None:
    record = {
        "query": "größe",
        "pos": ["p1", "p2"],
        "neg": ["n"],
        "pos_scores": [3, 2.5],
        "neg_scores": [-1],
        "answer": "a",
        "neg_answer": ["b", "c"],
        "answer_scores": 5,
        "neg_answer_scores": [1, 2],
        "prompt": "find: ",
        "type": "symmetric_sts",
        "train_group_size": 4,
        "batch_size": 6,
    }
    facts = prepare(jsonl(tmp_path / "a.jsonl", [record]), tmp_path / "d")
    assert SampleSet(tmp_path / "d")[0] == Sample(
        query="größe",
        documents=("p1", "p2", "n"),
        positives=2,
        scores=(3.0, 2.5, -1.0),
        answer="a",
        negative_answers=("b", "c"),
        answer_scores=(5.0, 1.0, 2.0),
        prompt="find: ",
        kind="symmetric_sts",
    )
    assert facts.overrides == {"train_group_size": 4, "batch_size": 6}
    assert (facts.scores, facts.answers, facts.answer_scores) == (True, True, True)
    assert (facts.lowest_score, facts.highest_score) == (-1.0, 3.0)
    assert facts.negative_answers == 2 and facts.negatives == {1: 1} and facts.longest == 3


def test_any_row_is_read_alone(tmp_path: Path) -> None:
    records = [{"query": f"q{i} ä", "pos": [f"p{i}"], "neg": ["n"] * (i % 3)} for i in range(50)]
    lines = [json.dumps(r, ensure_ascii=i % 2 == 0) for i, r in enumerate(records)]
    text = "\ufeff" + "\r\n".join(lines[:25]) + "\n\n  \n" + "\n".join(lines[25:])
    (tmp_path / "a.jsonl").write_text(text, encoding="utf-8", newline="")
    prepare(tmp_path / "a.jsonl", tmp_path / "d")
    samples = SampleSet(tmp_path / "d")
    assert len(samples) == 50
    for row in (49, 0, 24, 25, 7):
        assert samples[row].query == f"q{row} ä" and samples[row].documents[0] == f"p{row}"


def test_compressed_and_several_files_are_one_data_set(tmp_path: Path) -> None:
    jsonl(tmp_path / "a.jsonl", [LINE, {**LINE, "query": "second"}])
    with gzip.open(tmp_path / "b.jsonl.gz", "wt", encoding="utf-8") as out:
        out.write(json.dumps({**LINE, "query": "third"}) + "\n")
    samples = read(str(tmp_path / "[ab].jsonl*"), tmp_path / "d")
    assert [s.query for s in samples] == ["q", "second", "third"]


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ("{broken", "a JSON object"),
        ("[1]", "a JSON object"),
        ({"query": "q", "pos": [], "neg": ["n"]}, "pos to be a list with at least one"),
        ({"query": "q", "pos": "p", "neg": ["n"]}, "pos to be a list"),
        ({"query": "q", "pos": ["p"], "neg": ["n", " "]}, "each of neg to be a text"),
        ({"query": "", "pos": ["p"]}, "query to be a text"),
        ({"query": 3, "pos": ["p"]}, "query to be a text"),
        ({**LINE, "pos_scores": [1], "neg_scores": [1]}, "neg_scores to hold 2 scores"),
        ({**LINE, "pos_scores": [1]}, "neg_scores beside pos_scores"),
        ({**LINE, "pos_scores": [1], "neg_scores": [1, "x"]}, "neg_scores to be a number"),
        ({**LINE, "pos_scores": [1], "neg_scores": [1, float("nan")]}, "finite"),
        ({**LINE, "answer": "a", "neg_answer": ["b"], "answer_scores": [1, 2, 3]}, "2 scores"),
        ({**LINE, "type": "only_1neg"}, "type '' as in the first sample"),
    ],
)
def test_a_bad_line_is_named_or_skipped_and_counted(
    tmp_path: Path, bad: Mapping[str, Any] | str, message: str
) -> None:
    path = jsonl(tmp_path / "train.jsonl", [LINE, LINE, bad, LINE])
    with pytest.raises(DataError, match=r"train\.jsonl, line 3: .*expected .*" + message) as caught:
        prepare(path, tmp_path / "d")
    start = (bad if isinstance(bad, str) else json.dumps(bad))[:20]
    assert start in str(caught.value) and "on_bad=skip" in str(caught.value)
    facts = prepare(path, tmp_path / "d", on_bad="skip")
    assert (facts.rows, facts.rejected) == (3, 1)
    text = (tmp_path / "d" / "rejects.jsonl").read_text()
    rejects = [json.loads(line) for line in text.splitlines()]
    assert [(r["line"], message in r["reason"]) for r in rejects] == [(3, True)]
    assert any("1 bad line skipped" in note for note in facts.notes)


def test_broken_utf8_is_named_by_its_byte(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(json.dumps(LINE).encode() + b'\n{"query": "\xff"}\n')
    with pytest.raises(DataError, match=r"line 2.*UTF-8, broken at byte 11"):
        prepare(tmp_path / "a.jsonl", tmp_path / "d")


def test_missing_and_empty_files_are_errors(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        prepare(tmp_path / "none.jsonl", tmp_path / "d")
    (tmp_path / "empty.jsonl").write_text("\n\n")
    with pytest.raises(DataError, match="no usable sample"):
        prepare(tmp_path / "empty.jsonl", tmp_path / "d")
    path = jsonl(tmp_path / "bad.jsonl", [LINE["query"], "x"])
    with pytest.raises(DataError, match="no usable sample; 2 bad lines skipped, the first"):
        prepare(path, tmp_path / "d", on_bad="skip")


def test_negatives_and_scores_are_required_where_training_needs_them(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "a.jsonl", [LINE, {"query": "q", "pos": ["p"]}])
    facts = prepare(path, tmp_path / "d")
    assert facts.fewest_negatives == 0 and facts.without_negatives.endswith("a.jsonl, line 2")
    with pytest.raises(DataError, match=r"line 2.*at least one negative"):
        prepare(path, tmp_path / "d", need_negatives=True)
    with pytest.raises(DataError, match=r"line 1.*teacher scores"):
        prepare(path, tmp_path / "d", need_scores=True)


@pytest.mark.parametrize(
    "line",
    [
        "q\t\tneg",
        "q\tpos\t ",
        "\tpos\tneg",
        "1\t0\tq\tdoc\t",
        "1\t0\t\tdoc\tother",
        {"query": "q", "positive_passages": [{"docid": "1", "text": ""}]},
        {"query": "q", "candidates": [{"id": "a", "score": 1, "text": " "}]},
    ],
)
def test_an_empty_text_is_a_bad_line_in_every_format(
    tmp_path: Path, line: Mapping[str, Any] | str
) -> None:
    path = jsonl(tmp_path / "train", [line])
    with pytest.raises(DataError, match=r"line 1: .*a text that is not empty, found '"):
        prepare(path, tmp_path / "d")


def test_an_id_of_0_is_an_id(tmp_path: Path) -> None:
    (sample,) = read(jsonl(tmp_path / "a.jsonl", [{**LINE, "query_id": 0}]), tmp_path / "d")
    assert sample.query_id == "0"


@pytest.mark.parametrize(
    ("more", "what"),
    [
        ({"pos_scores": [2], "neg_scores": [1, 0]}, "no teacher scores, as the first sample"),
        ({"answer": "b", "answer_scores": [1]}, "no answer_scores, as the first answer"),
    ],
)
def test_what_only_later_samples_have_is_not_dropped_in_silence(
    tmp_path: Path, more: Mapping[str, Any], what: str
) -> None:
    first = {**LINE, "answer": "a"} if "answer" in more else LINE
    path = jsonl(tmp_path / "a.jsonl", [first, {**LINE, **more}])
    with pytest.raises(DataError, match=rf"line 2.*expected {what}.*data sets of their own"):
        prepare(path, tmp_path / "d")


@pytest.mark.parametrize("place", ["a:b/train.jsonl", "file://{}/a:b/train.jsonl"])
def test_a_changed_file_is_read_again_whatever_is_in_its_path(tmp_path: Path, place: str) -> None:
    file = tmp_path / "a:b" / "train.jsonl"
    file.parent.mkdir()
    path = place.format(tmp_path) if "://" in place else str(tmp_path / place)
    for lines in (1, 3):
        jsonl(file, [LINE] * lines)
        assert len(read(path, tmp_path / "d")) == lines


def test_making_samples_of_a_run_holds_one_query_at_a_time(tmp_path: Path) -> None:
    documents = [f"doc{i}" for i in range(1000)]
    run = Run.from_lists((f"q{i}", documents, range(1000, 0, -1)) for i in range(100))
    table = pa.table([documents, [""] * 1000, ["a text"] * 1000], schema=DOCUMENTS)
    qrels = {query: {"doc7": 1} for query in run.query_ids}
    with DocumentStore.create([table], tmp_path / "store") as known:
        lines = samples_of(
            dict.fromkeys(qrels, "text"), qrels=qrels, run=run, known=known, left_out=LeftOut()
        )
        tracemalloc.start()
        assert sum(len(line["neg"]) for line in lines) == 100 * 999
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak < 40 * len(run), "bytes for each row of the run"


def test_a_prepared_set_is_used_again_and_a_changed_file_is_read_again(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "a.jsonl", [LINE])
    first = prepare(path, tmp_path / "d")
    stamp = os.stat(tmp_path / "d" / "lines.npy").st_mtime_ns
    assert prepare(path, tmp_path / "d") == first
    assert os.stat(tmp_path / "d" / "lines.npy").st_mtime_ns == stamp
    jsonl(path, [LINE, LINE])
    assert prepare(path, tmp_path / "d").rows == 2
    (tmp_path / "d" / "sizes.npy").unlink()  # as earlier versions left it
    assert SampleSet(tmp_path / "d").verify() == 2
    prepare(path, tmp_path / "d")
    assert SampleSet(tmp_path / "d").verify() == 2
    np.save(tmp_path / "d" / "sizes.npy", np.ones((2, 2), np.int32))
    with pytest.raises(ArtifactError, match="sample 1 has 3 documents, 1 were counted"):
        SampleSet(tmp_path / "d").verify()
    jsonl(path, ["x" * 200, "y" * 200])
    with pytest.raises(DataError, match="changed since"):
        SampleSet(tmp_path / "d")[0]
    with pytest.raises(ArtifactError, match="not a prepared data set"):
        SampleSet(tmp_path)


def test_a_data_sets_prompt_stands_in_where_a_line_has_none(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "a.jsonl", [LINE, {**LINE, "prompt": "own"}])
    prepare(path, tmp_path / "d")
    samples = SampleSet(tmp_path / "d", prompt="set's")
    assert [samples[0].prompt, samples[1].prompt] == ["set's", "own"]


def test_a_lazy_set_reads_only_the_texts_that_were_drawn(
    tmp_path: Path, texts: dict[str, str]
) -> None:
    candidates = [{"id": f"d{i}", "score": i} for i in range(1, 5)]
    path = jsonl(tmp_path / "a.jsonl", [{"query_id": "q3", "candidates": candidates}] * 2)
    prepare(path, tmp_path / "d", **texts)
    lazy, eager = SampleSet(tmp_path / "d", lazy=True), SampleSet(tmp_path / "d")
    assert lazy[0].documents == ("d4", "d3", "d2", "d1")
    assert lazy.fill([lazy[0], lazy[1]]) == [eager[0], eager[1]]
    drawn = replace(lazy[0], documents=lazy[0].documents[1:3], others=lazy[0].documents[:1])
    (filled,) = lazy.fill([drawn])
    assert (filled.documents, filled.others) == (("text 3", "text 2"), ("text 4",))
    inline = {"query": "q", "candidates": [{"text": "own text", "score": 1}]}
    prepare(jsonl(tmp_path / "b.jsonl", [inline]), tmp_path / "e")
    own = SampleSet(tmp_path / "e", lazy=True)
    assert own.fill([own[0]])[0].documents == ("own text",)


def test_a_worker_holds_a_row_and_not_the_file(tmp_path: Path) -> None:
    text = "word " * 20_000
    record = json.dumps({"query": "q", "pos": [text], "neg": [text]})
    with open(tmp_path / "big.jsonl", "w") as out:
        for _ in range(1000):
            out.write(record + "\n")  # 200 MB
    prepare(tmp_path / "big.jsonl", tmp_path / "d")
    script = (
        "import resource, sys; from raydist.data.samples.sample_set import SampleSet;"
        "samples = SampleSet(sys.argv[1]); before = resource.getrusage(resource.RUSAGE_SELF);"
        "import mmap; n = sum(len(samples[i].documents[0]) for i in range(0, 1000, 97));"
        "after = resource.getrusage(resource.RUSAGE_SELF);"
        "print(n, (after.ru_maxrss - before.ru_maxrss) // 1024)"
    )
    worker = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "d")],
        capture_output=True,
        text=True,
        check=True,
    )
    read_chars, grown_mb = map(int, worker.stdout.split())
    assert read_chars == 11 * len(text) and grown_mb < 60, grown_mb
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss > 0


def test_the_teacher_samples_of_a_real_file_are_read(collections: Path, tmp_path: Path) -> None:
    facts = prepare(collections / "bge-distill-samples" / "msmarco.jsonl", tmp_path / "d")
    assert facts.rows == 10 and facts.scores and facts.negatives == {25: 10}
    assert 80 < facts.lowest_score < facts.highest_score < 110


def test_samples_of_one_query_know_each_others_positives(tmp_path: Path) -> None:
    records = [
        {"query": "What is BM25?", "pos": ["a"], "neg": ["n"]},
        {"query": "another", "pos": ["x"], "neg": ["n"]},
        {"query": "what is  bm25?", "pos": ["b", "a"], "neg": ["m"]},
        {"query": "another", "pos": ["x"], "neg": ["m"]},
        {"query": "What is BM25?", "pos": ["c"], "neg": ["b"]},
    ]
    samples = list(read(jsonl(tmp_path / "a.jsonl", records), tmp_path / "d"))
    assert [set(s.others) for s in samples] == [
        {"b", "a", "c"} - {"a"},
        set(),
        {"c"},
        set(),
        {"a", "b"},
    ]
    teacher = [
        {"query_id": "1", "query": "q", "candidates": [{"id": i, "text": i, "score": 1}]}
        for i in "ab"
    ]
    lists = list(read(jsonl(tmp_path / "b.jsonl", teacher), tmp_path / "e"))
    assert [s.others for s in lists] == [(), ()], "a teacher's best is no judgement"
