"""`raydist mine`, as a user calls it."""

from __future__ import annotations

import json

import pytest

from raydist.cli import main
from raydist.models.biencoder import BiEncoder
from raydist.records import Run


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    documents = [{"_id": f"d{i}", "title": f"T{i}", "text": f"text {i}"} for i in range(30)]
    (tmp_path / "corpus.jsonl").write_text("".join(json.dumps(d) + "\n" for d in documents))
    (tmp_path / "queries.jsonl").write_text(
        "".join(json.dumps({"_id": f"q{i}", "text": f"query {i}"}) + "\n" for i in range(4))
    )
    (tmp_path / "qrels.txt").write_text("".join(f"q{i} 0 d{i} 1\n" for i in range(4)))
    ranked = [
        (f"q{i}", [f"d{j}" for j in range(25)], [25.0 - j for j in range(25)]) for i in (0, 1)
    ]
    Run.from_lists(ranked).write(tmp_path / "run.txt")
    backwards = [(f"q{i}", [f"d{29 - j}" for j in range(25)], [25.0 - j for j in range(25)])
                 for i in (0, 1)]  # fmt: skip
    Run.from_lists(backwards).write(tmp_path / "other.txt")
    return tmp_path


BASE = ["corpus=corpus.jsonl", "queries=queries.jsonl", "qrels=qrels.txt", "out=train.jsonl"]


def lines(folder):
    return [json.loads(text) for text in (folder / "train.jsonl").read_text().splitlines()]


def test_samples_are_written_with_scores_and_a_manifest(folder, capsys):
    assert main(["mine", "run=run.txt", *BASE, "negatives=15"]) == 0
    first, second = lines(folder)
    assert first["query"] == "query 0" and first["pos"] == ["T0\ntext 0"]
    assert len(first["neg"]) == len(first["neg_scores"]) == 15 and first["pos_scores"] == [25.0]
    assert second["pos_scores"] == [24.0] and "d1" not in second["neg_id"]
    manifest = json.loads((folder / "train.jsonl.raydist/manifest.json").read_text())
    assert manifest["kind"] == "mined-samples" and manifest["counts"]["samples"] == 2

    assert list(manifest)[-5:] == ["counts", "seconds", "content", "config_file", "check"]
    assert not (folder / "train.jsonl.raydist/texts").exists()
    before = (folder / "train.jsonl").read_bytes()
    assert main(["mine", "run=run.txt", *BASE, "negatives=15"]) == 0
    assert "already built" in capsys.readouterr().err
    assert (folder / "train.jsonl").read_bytes() == before


@pytest.mark.parametrize("scores", ["auto", "teacher"])
def test_the_samples_are_what_training_reads_and_a_runs_scores_are_no_teachers(folder, scores):
    main(["mine", "run=run.txt", *BASE, "negatives=3", "prompt=find: ", f"scores={scores}"])
    from raydist.data.samples.lines import FORMATS, sniff

    line = (folder / "train.jsonl").read_bytes().splitlines()[0]
    assert sniff(line, False) == "flagembedding"
    sample = FORMATS["flagembedding"](line, None)
    assert sample.positives == 1 and len(sample.documents) == 4
    assert (sample.scores is None) == (scores == "auto")
    assert sample.prompt == "find: "


def test_several_runs_are_fused_and_a_teacher_scores_the_result(folder):
    arguments = ["run=run.txt,other.txt", "negatives=5", "pick=top", "teacher=bm25"]
    assert main(["mine", *arguments, *BASE]) == 0
    first, _ = lines(folder)
    assert len(first["neg"]) == 5 and first["pos_scores"] != [25.0]
    assert {"d29", "d5"} & set(first["neg_id"])


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["run=run.txt", *BASE, "last=3", "first=5"], "expected at least first"),
        (["run=run.txt", *BASE, "index=I"], "one of corpus and index"),
        (BASE, "one of run and index"),
        (["index=I", *BASE], "I: no such folder"),
        (["index=I,J", *BASE, "weights=1"], "1 numbers for 2 indexes"),
        (["run=run.txt", *BASE[:2], "qrels=none.txt", "out=x"], "none.txt"),
        (["run=run.txt", *BASE, "margin=1000"], "no query has both"),
        (["run=run.txt", *BASE, "weights=1,2"], "2 numbers for 1 runs"),
        (["run=run.txt", "corpus=corpus.jsonl", "queries=few.jsonl", *BASE[2:]], "'q1'"),
        (["run=run.txt", *BASE[:3], "out=."], "is a folder"),
    ],
)
def test_mistakes_are_named_and_leave_no_file(folder, capsys, words, text):
    (folder / "few.jsonl").write_text('{"_id": "q0", "text": "query 0"}\n')
    assert main(["mine", *words]) == 2
    said = capsys.readouterr().err
    assert text in said and "Traceback" not in said
    assert not (folder / "train.jsonl").exists()


def test_a_dry_run_writes_nothing(folder):
    before = sorted(folder.iterdir())
    assert main(["mine", "run=run.txt", *BASE, "--dry-run"]) == 0
    assert sorted(folder.iterdir()) == before


def test_another_teacher_in_the_same_place_is_another_input(folder, tiny_bert, capsys):
    teacher = folder / "teacher"
    BiEncoder.load(tiny_bert, device="cpu").save(teacher)
    words = ["mine", "run=run.txt", *BASE, "negatives=3", f"teacher={teacher}"]
    assert main(words) == 0
    BiEncoder.load(tiny_bert, device="cpu", pooling="mean", normalize=True).save(teacher)
    weights = teacher / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4] + b"abcd")
    capsys.readouterr()
    assert main(words) == 2
    assert "content of teacher" in capsys.readouterr().err


def test_candidates_are_searched_for_in_indexes_and_vectors_that_are_there(
    folder, tiny_bert, capsys
):
    model = folder / "model"
    BiEncoder.load(tiny_bert, pooling="mean", normalize=True, device="cpu").save(model)
    assert main(["index", "corpus=corpus.jsonl", "out=IDX"]) == 0
    assert main(["embed", "corpus=corpus.jsonl", f"model={model}", "out=VEC"]) == 0
    search = ["search", "index=IDX,VEC", "fusion=rrf", "queries=queries.jsonl", "k=1000"]
    assert main([*search, "out=hybrid.txt"]) == 0
    more = ["negatives=5", "pick=top"]
    assert main(["mine", "run=hybrid.txt", *BASE, *more]) == 0
    from_run = lines(folder)
    mixed = ["mine", "index=IDX,VEC", "fusion=rrf", *BASE[1:3], "out=mixed.jsonl", *more]
    assert main(mixed) == 0  # the texts are those of IDX
    assert len(from_run) == 4
    rows = [json.loads(line) for line in (folder / "mixed.jsonl").read_text().splitlines()]
    assert [(one["neg_id"], one["pos"]) for one in rows] == [
        (one["neg_id"], one["pos"]) for one in from_run
    ]
    weights = model / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4] + b"abcd")
    capsys.readouterr()
    assert main([*mixed[:-3], "out=other.jsonl"]) == 2
    assert "is another model" in capsys.readouterr().err
