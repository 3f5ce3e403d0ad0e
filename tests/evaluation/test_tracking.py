"""MLflow, on a real SQLite store: records, outages and champions."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from raydist.errors import ArtifactError, JobError
from raydist.evaluation.mirror import Mirror
from raydist.evaluation.registry import Candidate, promote
from raydist.evaluation.spec import Tracking
from raydist.evaluation.tracking import Tracker, replay, resolve_uri


def client(uri):
    from mlflow import MlflowClient

    return MlflowClient(uri)


def history(uri, run_id, name):
    return [(m.step, m.value) for m in client(uri).get_metric_history(run_id, name)]


def test_everything_that_is_recorded_arrives_under_names_that_mlflow_takes(
    database, tmp_path, monkeypatch
):
    tracker = Tracker.start(
        tmp_path / "run", Tracking(uri=database, name="first", tags={"corpus": "c1"})
    )
    mirror = Mirror(tmp_path / "run")
    mirror.params({"optim": {"lr": 2e-5}, "long": "x" * 9000, "listed": [1, 2]})
    for step in range(1, 4):
        mirror.step(step, {"loss": 1 / step, "loss/kl": 0.5, "bad": float("nan")})
    mirror.metrics(3, {"dev/nDCG@10": 0.25, "dev/AP(rel=2)@100": 0.5})
    (tmp_path / "figure.txt").write_text("a figure")
    mirror.artifact(tmp_path / "figure.txt", "figures")
    mirror.table({"query_id": ["q1", "q2"], "map": [0.5, 1.0]}, "per_query.json")
    assert tracker.close()
    run = client(database).get_run(tracker.run_id)
    assert run.info.status == "FINISHED" and run.info.run_name == "first"
    assert run.data.params["optim.lr"] == "2e-05" and run.data.params["listed"] == "[1, 2]"
    assert len(run.data.params["long"]) == 6000
    assert run.data.metrics["dev/nDCG_at_10"] == 0.25
    assert run.data.metrics["dev/AP_rel_2_at_100"] == 0.5
    assert not [tag for tag in run.data.tags if tag.startswith("metric.")]
    assert run.data.tags["corpus"] == "c1" and "raydist.version" in run.data.tags
    assert "bad" not in run.data.metrics and tracker.follower.state.skipped == 3
    assert run.data.tags["raydist.values_skipped"] == "3"
    assert history(database, tracker.run_id, "train/loss") == [(1, 1.0), (2, 0.5), (3, 1 / 3)]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", database)  # load_table searches by the global URI
    table = client(database).load_table(tracker.experiment_id, "per_query.json", [tracker.run_id])
    assert table["map"].tolist() == [0.5, 1.0]
    assert [a.path for a in client(database).list_artifacts(tracker.run_id, "figures")]


def test_a_tracker_that_dies_in_mid_run_stops_nothing_and_gets_everything_later(
    database, tmp_path, capsys
):
    folder = tmp_path / "run"
    tracker = Tracker.start(folder, Tracking(uri=database), poll_s=0.02)
    mirror = Mirror(folder)
    mirror.step(1, {"loss": 1.0})
    assert tracker.flush()
    path = tmp_path / "store" / "mlflow.db"
    shutil.move(path, tmp_path / "kept.db")
    path.mkdir()  # no database any more; connections of the pool do not help
    (path / "x").touch()
    tracker.follower._store._client._tracking_client.store.engine.dispose()
    for step in (2, 3):
        mirror.step(step, {"loss": 1.0 / step})
    mirror.metrics(3, {"dev/map": 0.5})
    assert not tracker.flush()
    assert not tracker.close(timeout_s=10)
    messages = capsys.readouterr().err
    assert "the run continues" in messages and f"raydist tracking replay {folder}" in messages
    with pytest.raises(JobError, match="MLflow"):
        replay(folder)
    shutil.rmtree(path)
    shutil.move(tmp_path / "kept.db", path)
    again = replay(folder)
    assert again.run_id == tracker.run_id
    assert history(database, again.run_id, "train/loss") == [(1, 1.0), (2, 0.5), (3, 1 / 3)]
    run = client(database).get_run(again.run_id)
    assert run.info.status == "FINISHED" and run.data.metrics["dev/map"] == 0.5
    replay(folder)  # a second time changes nothing
    assert len(history(database, again.run_id, "train/loss")) == 3


def test_a_tracker_that_cannot_start_is_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    for uri in (f"sqlite:///{tmp_path}/file/mlflow.db", str(tmp_path / "files"), "http://[::1]:9"):
        with pytest.raises(JobError, match="tracking=none"):
            Tracker.start(tmp_path / "run", Tracking(uri=uri))


def test_a_record_goes_whole_to_another_store(database, tmp_path):
    mirror = Mirror(tmp_path / "run")
    mirror.params({"lr": 1})
    mirror.step(1, {"loss": 2.0})
    first = replay(tmp_path / "run", uri=database)
    run = client(database).get_run(first.run_id)
    assert run.info.status == "KILLED" and run.data.metrics == {"train/loss": 2.0}
    with pytest.raises(ArtifactError, match="nothing to send"):
        replay(tmp_path / "other", uri=database)


def test_a_resumed_run_continues_and_changed_parameters_become_tags(database, tmp_path):
    folder = tmp_path / "run"
    first = Tracker.start(folder, Tracking(uri=database), follow=False)
    mirror = Mirror(folder)
    mirror.params({"workers": 1, "lr": 0.1})
    for step in (1, 2):
        mirror.step(step, {"loss": float(step)})
    first.close("FAILED")
    second = Tracker.start(folder, Tracking(uri=database), resume=True, follow=False)
    assert second.run_id == first.run_id
    assert client(database).get_run(first.run_id).info.status == "RUNNING"
    mirror = Mirror(folder, resume_step=1)
    mirror.params({"workers": 2, "lr": 0.1})
    mirror.step(2, {"loss": 2.0})
    mirror.step(3, {"loss": 3.0})
    second.close()
    run = client(database).get_run(first.run_id)
    assert run.data.params["workers"] == "1" and run.data.tags["param.workers"] == "2"
    assert "param.lr" not in run.data.tags and run.info.status == "FINISHED"
    assert sorted(set(history(database, first.run_id, "train/loss"))) == [
        (1, 1.0),
        (2, 2.0),
        (3, 3.0),
    ]


def test_a_run_that_is_begun_anew_leaves_no_run_behind_that_seems_alive(database, tmp_path):
    from mlflow import MlflowClient

    client = MlflowClient(database)
    killed = Tracker.start(tmp_path / "run", Tracking(uri=database), follow=False)
    anew = Tracker.start(tmp_path / "run", Tracking(uri=database), follow=False)
    assert client.get_run(killed.run_id).info.status == "KILLED"
    anew.close()
    Tracker.start(tmp_path / "run", Tracking(uri=database), follow=False)
    assert client.get_run(anew.run_id).info.status == "FINISHED"


def test_each_kept_checkpoint_is_a_logged_model_with_its_values_and_the_last_is_the_kept_one(
    database, tmp_path
):
    before = os.environ.get("MLFLOW_TRACKING_URI")
    tracker = Tracker.start(tmp_path / "run", Tracking(uri=database), follow=False)
    mirror = Mirror(tmp_path / "run")
    for step, value in ((50, 0.3), (100, 0.4)):
        mirror.model("dev/nDCG@10", step, tmp_path / "best", {"nDCG@10": value}, {"lr": 1})
    assert tracker.close()
    models = client(database).search_logged_models([tracker.experiment_id])
    by_name = {m.name: m for m in models}
    assert set(by_name) == {"dev-nDCG_at_10-step-50", "dev-nDCG_at_10-step-100"}
    newest = by_name["dev-nDCG_at_10-step-100"]
    assert newest.tags["kept"] == "true" and newest.tags["path"] == str(tmp_path / "best")
    assert by_name["dev-nDCG_at_10-step-50"].tags["kept"] == "false"
    assert [(m.key, m.value, m.step) for m in newest.metrics] == [("nDCG_at_10", 0.4, 100)]
    assert os.environ.get("MLFLOW_TRACKING_URI") == before
    assert newest.source_run_id == tracker.run_id and newest.params == {"lr": "1"}


def test_child_runs_know_their_parent(database, tmp_path):
    parent = Tracker.start(tmp_path / "all", Tracking(uri=database), follow=False)
    child = parent.child(tmp_path / "train", "train", follow=False)
    assert client(database).get_parent_run(child.run_id).info.run_id == parent.run_id


def test_a_missing_file_is_left_out_and_counted_not_waited_for(database, tmp_path):
    tracker = Tracker.start(tmp_path / "run", Tracking(uri=database), follow=False)
    mirror = Mirror(tmp_path / "run")
    mirror.artifact(tmp_path / "gone.png")
    mirror.step(1, {"loss": 1.0})
    assert tracker.close() and tracker.follower.state.refused == 1
    assert client(database).get_run(tracker.run_id).data.metrics == {"train/loss": 1.0}


def test_names_that_mlflow_cannot_tell_apart_are_numbered_also_after_an_outage(database, tmp_path):
    tracker = Tracker.start(tmp_path / "run", Tracking(uri=database), follow=False)
    mirror = Mirror(tmp_path / "run")
    mirror.params({"a(b": 1, "a_b": 2, "c": 3})
    mirror.step(1, {"P@5": 1.0, "P_at_5": 2.0})
    assert tracker.flush()
    again = Tracker.start(tmp_path / "run", Tracking(uri=database), resume=True, follow=False)
    mirror.step(2, {"P_at_5": 4.0, "P@5": 3.0})
    assert again.close() and again.follower.state.refused == 0
    data = client(database).get_run(tracker.run_id).data
    assert data.params == {"a_b": "1", "a_b_2": "2", "c": "3"}
    assert data.metrics == {"train/P_at_5": 3.0, "train/P_at_5_2": 4.0}
    assert data.tags["metric.train/P_at_5_2"] == "train/P_at_5"


def test_what_mlflow_refuses_takes_nothing_else_with_it(database, tmp_path):
    tracker = Tracker.start(tmp_path / "run", Tracking(uri=database), follow=False)
    mirror = Mirror(tmp_path / "run")
    mirror.params({"../bad": 1, "good": 2})
    mirror.step(1, {"a": 1.0, "../bad": 2.0, "b": 3.0})
    assert tracker.close() and tracker.follower.state.refused == 2
    data = client(database).get_run(tracker.run_id).data
    assert data.params == {"good": "2"} and data.metrics == {"train/a": 1.0, "train/b": 3.0}


def test_the_alias_moves_only_to_a_model_that_wins_the_paired_test(database, tmp_path):
    values = {f"q{i}": 0.3 + 0.01 * (i % 7) for i in range(40)}
    better = {q: v + 0.1 + 0.001 * i for i, (q, v) in enumerate(values.items())}
    noisy = {q: v + (0.2 if i % 2 else -0.199) for i, (q, v) in enumerate(better.items())}
    moved = []
    for n, per_query in enumerate((values, better, noisy, values)):
        folder = tmp_path / f"model{n}"
        folder.mkdir()
        options = {"metric": "nDCG@10", "fingerprint": str(n)}
        candidate = Candidate(name="retriever", folder=folder, values=per_query, **options)
        promotion = promote(database, candidate)
        moved.append(promotion.moved)
        assert promotion.version == n + 1
    assert moved == [True, True, False, False]
    assert "does not beat version 2" in promotion.reason and "paired t(39)" in promotion.reason
    holder = client(database).get_model_version_by_alias("retriever", "champion")
    assert holder.version in (2, "2")
    artifact = client(database).download_artifacts(
        *holder.tags["per_query.nDCG_at_10"].removeprefix("runs:/").split("/", 1)
    )
    assert json.loads(Path(artifact).read_text()) == better
    assert not list((tmp_path / "model1").iterdir())  # the model's folder is left alone


def test_a_champion_can_be_beaten_after_its_folder_was_replaced(database, tmp_path):
    values = {f"q{i}": 0.3 + 0.01 * (i % 7) for i in range(40)}
    better = {q: v + 0.1 + 0.001 * i for i, (q, v) in enumerate(values.items())}
    out = tmp_path / "out"
    first = Candidate(name="r", folder=out, metric="nDCG@10", values=values, fingerprint="a")
    promote(database, first)
    assert promote(database, replace(first, values=better, fingerprint="b")).moved
    lost = promote(database, replace(first, fingerprint="c"))
    assert not lost.moved and "does not beat version 2" in lost.reason
    last = replace(first, values=better, fingerprint="d")
    other = promote(database, replace(last, metric="AP"))
    assert not other.moved and "remove the alias in MLflow" in other.reason
    client(database).delete_registered_model_alias("r", "champion")
    assert promote(database, last).moved


def test_a_model_is_registered_once_for_each_folder_that_it_lies_in(database, tmp_path):
    values = {"q1": 0.1, "q2": 0.2}
    one = Candidate(name="r", folder=tmp_path / "out", metric="AP", values=values, fingerprint="a")
    first, again = promote(database, one), promote(database, one)
    assert (first.version, again.version, again.moved) == (1, 1, True)
    assert "is champion already" in again.reason
    moved = promote(database, replace(one, folder=tmp_path / "elsewhere"))
    assert moved.moved and "same model as version 1" in moved.reason
    assert len(client(database).search_model_versions("name = 'r'")) == 2


def test_what_tracking_uri_means(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert resolve_uri("none") is None
    assert resolve_uri("auto", tmp_path / "s") == f"sqlite:///{tmp_path}/s/mlflow.db"
    assert resolve_uri("sqlite:///x.db") == f"sqlite:///{tmp_path}/x.db"
    assert resolve_uri("sqlite:////a/x.db") == "sqlite:////a/x.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://tracker:5000")
    assert resolve_uri("auto") == "http://tracker:5000"
    assert resolve_uri("sqlite") == f"sqlite:///{tmp_path}/mlflow.db"
