"""`raydist evaluate`, as a user calls it."""

from __future__ import annotations

import json

import pytest

from raydist.cli import main
from raydist.records import Run

QRELS = "1 0 a 1\n1 0 b 0\n2 0 c 2\n3 0 a 1\n"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (tmp_path / "qrels.txt").write_text(QRELS)
    rankings = [("1", ["b", "a"], [2, 1]), ("2", ["c"], [1]), ("9", ["c"], [1])]
    Run.from_lists(rankings).write(tmp_path / "bm25.txt")
    rankings = [("1", ["a", "b"], [2, 1]), ("2", ["c"], [1]), ("3", ["b", "a"], [2, 1])]
    Run.from_lists(rankings).write(tmp_path / "dense.txt")
    return tmp_path


def test_one_run_gives_a_table_of_means_and_a_run_in_mlflow(folder, capsys):
    assert main(["evaluate", "run=bm25.txt", "qrels=qrels.txt", "measures=AP,RR,map"]) == 0
    printed = capsys.readouterr()
    rows = [line.split() for line in printed.out.splitlines()]
    assert rows[0] == ["measure", "mean", "low", "high"]
    assert [row[:2] for row in rows[1:]] == [["AP", "0.5000"], ["RR", "0.5000"], ["map", "0.5000"]]
    assert "1 of 3 judged queries without results, which count 0" in printed.err
    assert f"mlflow ui --backend-store-uri sqlite:///{folder}/mlflow.db" in printed.err
    assert (folder / "mlflow.db").exists()


def test_several_runs_are_compared_with_the_baseline(folder, capsys):
    words = ["run=bm25.txt,dense.txt", "qrels=qrels.txt", "measures=AP", "baseline=bm25.txt"]
    extra = ["figures=FIGS", "per_query=values.tsv", "out=OUT", "format=json", "tracking=none"]
    assert main(["evaluate", *words, *extra]) == 0
    data = json.loads(capsys.readouterr().out)
    assert [row["run"] for row in data["rows"]] == ["bm25", "dense"]
    assert data["rows"][1]["difference"] == pytest.approx(1 / 3)
    assert (data["rows"][1]["wins"], data["rows"][1]["ties"]) == (2, 1)
    names = {"box", "recall_precision", "scores", "wins", "differences_dense"}
    assert {path.stem for path in (folder / "FIGS").iterdir()} == names
    assert {path.stem for path in (folder / "OUT/figures").iterdir()} == names
    assert len((folder / "values.tsv").read_text().splitlines()) == 7
    assert json.loads((folder / "OUT/results.json").read_text())["rows"] == data["rows"]
    assert (folder / "OUT/report.md").read_text().startswith("| measure | run |")
    assert json.loads((folder / "OUT/manifest.json").read_text())["kind"] == "evaluation"
    assert main(["evaluate", *words[:-2], "measures=RR,NumRelRet", *extra]) == 0
    data = json.loads((folder / "OUT/results.json").read_text())
    assert {row["measure"] for row in data["rows"]} == {"RR", "NumRelRet"} and not data["baseline"]
    assert not (folder / "OUT/figures/wins.png").exists(), "the report before is replaced"
    assert not list(folder.glob(".OUT*"))


def test_a_folder_that_is_no_report_is_left_alone_and_nothing_is_measured(folder, capsys):
    (folder / "OUT").mkdir()
    (folder / "OUT/mine.txt").write_text("mine")
    assert main(["evaluate", "run=bm25.txt", "qrels=qrels.txt", "out=OUT"]) == 2
    printed = capsys.readouterr()
    assert "OUT" in printed.err and not printed.out and not (folder / "mlflow.db").exists()
    assert [path.name for path in (folder / "OUT").iterdir()] == ["mine.txt"]


def test_what_was_measured_goes_to_mlflow(folder, database, capsys):
    words = ["run=bm25.txt,dense.txt", "qrels=qrels.txt", "measures=nDCG@10"]
    tracking = [f"tracking={database}", "tracking.experiment=tests"]
    assert main(["evaluate", *words, "baseline=bm25.txt", *tracking]) == 0
    from mlflow import MlflowClient

    client = MlflowClient(database)
    experiment = client.get_experiment_by_name("tests")
    runs = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    assert set(runs) == {"evaluate bm25, dense on qrels.txt", "bm25", "dense"}
    dense = runs["dense"]
    assert dense.data.metrics["nDCG_at_10"] > runs["bm25"].data.metrics["nDCG_at_10"]
    parent = runs["evaluate bm25, dense on qrels.txt"]
    assert dense.data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert parent.data.params["measures"] == "nDCG@10"
    inputs = {each.dataset.name: each.tags[0].value for each in parent.inputs.dataset_inputs}
    assert inputs == {"bm25.txt+dense.txt": "evaluation run", "qrels.txt": "evaluation qrels"}
    artifacts = {item.path for item in client.list_artifacts(parent.info.run_id)}
    assert {"figures", "report.md", "per_query.json"} <= artifacts
    assert [item.path for item in client.list_artifacts(dense.info.run_id, "run")] == [
        "run/dense.txt"
    ]


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["run=none.txt", "qrels=qrels.txt"], "none.txt"),
        (["run=bm25.txt", "qrels=qrels.txt", "measures=ndcg@10"], "did you mean nDCG@10"),
        (["run=bm25.txt", "qrels=qrels.txt", "baseline=x.txt"], "expected one of the runs"),
        (["run=bm25.txt,bm25.txt", "qrels=qrels.txt"], "occurs twice"),
        (["run=bm25.txt", "qrels=qrels.txt", "per_query=x.doc"], "ends in .tsv"),
        (["run=bm25.txt", "qrels=other.txt"], "none of its 3 queries is judged"),
        (["run=bm25.txt", "qrels=qrels.txt", "figures=qrels.txt"], "is a file"),
    ],
)
def test_mistakes_are_named_without_a_traceback(folder, capsys, words, text):
    (folder / "other.txt").write_text("x1 0 a 1\n")
    assert main(["evaluate", *words]) == 2
    printed = capsys.readouterr().err
    assert text in printed and "Traceback" not in printed


def test_a_dry_run_reads_the_inputs_and_writes_nothing(folder, capsys):
    before = sorted(folder.iterdir())
    assert main(["evaluate", "run=bm25.txt", "qrels=qrels.txt", "out=OUT", "--dry-run"]) == 0
    assert "would evaluate 1 run on" in capsys.readouterr().err
    assert sorted(folder.iterdir()) == before


def test_every_match_of_a_glob_is_measured_and_named_by_its_path(folder, capsys):
    for name in ("one", "two"):
        (folder / name).mkdir()
        (folder / name / "run.txt").write_bytes((folder / "dense.txt").read_bytes())
    words = ["qrels=qrels.txt", "measures=AP", "tracking=none", "format=tsv"]
    assert main(["evaluate", "run=*/run.txt", "baseline=two/run.txt", *words]) == 0
    rows = [line.split("\t")[:3] for line in capsys.readouterr().out.splitlines()]
    mean = str((1 + 1 + 1 / 2) / 3)
    assert rows[1:] == [["AP", "one/run.txt", mean], ["AP", "two/run.txt", mean]]
    assert main(["evaluate", "run=one,two/run.txt", *words]) == 0
    assert "one/run.txt" in capsys.readouterr().out
    assert main(["evaluate", "run=*/run.txt,one/run.txt", *words]) == 2
    assert "one/run.txt occurs twice" in capsys.readouterr().err
    assert main(["evaluate", "run=no*/run.txt", *words]) == 2
    assert "no file matches this pattern" in capsys.readouterr().err


def test_ties_are_ordered_as_trec_eval_does_in_all_measures_and_are_said(folder, capsys):
    (folder / "run.txt").write_text("1 Q0 a 1 1 t\n1 Q0 b 2 1 t\n1 Q0 c 3 0 t\n2 Q0 c 1 1 t\n")
    words = ["run=run.txt", "qrels=qrels.txt", "measures=RR,RR@10,AP", "tracking=none"]
    assert main(["evaluate", *words]) == 0
    printed = capsys.readouterr()
    means = [line.split()[:2] for line in printed.out.splitlines()[1:]]
    assert means == [["RR", "0.5000"], ["RR@10", "0.5000"], ["AP", "0.5000"]]
    assert "run.txt: 50% of the results have the score of another one" in printed.err
    assert "ties=score orders them by document id, descending, as in trec_eval" in printed.err
    assert main(["evaluate", *words, "ties=rank"]) == 0
    printed = capsys.readouterr()
    means = [line.split()[:2] for line in printed.out.splitlines()[1:]]
    assert means == [["RR", "0.6667"], ["RR@10", "0.6667"], ["AP", "0.6667"]]
    assert "ties=rank orders them by their order in the run" in printed.err


def test_a_query_is_no_document_for_itself_on_request(folder, capsys):
    (folder / "own.txt").write_text("1 Q0 1 1 3 t\n1 Q0 a 2 2 t\n2 Q0 c 1 1 t\n3 Q0 a 1 1 t\n")
    words = ["run=own.txt", "qrels=qrels.txt", "measures=RR", "tracking=none"]
    assert main(["evaluate", *words]) == 0
    assert capsys.readouterr().out.split()[5] == "0.8333"
    assert main(["evaluate", *words, "queries.exclude_own=true"]) == 0
    assert capsys.readouterr().out.split()[5] == "1.0000"


def test_subtopics_count_where_a_measure_asks_for_them(folder, capsys):
    pytest.importorskip("pyndeval")
    (folder / "qrels.all").write_text("1 1 a 1\n1 2 a 0\n1 2 b 1\n2 1 c 1\n3 1 a 1\n")
    words = ["run=dense.txt", "qrels=qrels.all", "tracking=none"]
    assert main(["evaluate", *words, "measures=StRecall@1,P@1"]) == 0
    printed = capsys.readouterr()
    assert [line.split()[1] for line in printed.out.splitlines()[1:]] == ["0.5000", "0.6667"]
    assert "for P@1 the highest of a document's grades counts" in printed.err
    assert main(["evaluate", *words[:1], "qrels=qrels.txt", "measures=StRecall@1"]) == 2
    assert "needs judgements by subtopic" in capsys.readouterr().err
