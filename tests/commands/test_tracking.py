"""`raydist tracking replay`, as a user calls it."""

from __future__ import annotations

import pytest

from raydist.cli import main
from raydist.evaluation.mirror import Mirror


def test_a_record_is_sent_and_sending_it_again_changes_nothing(database, tmp_path, capsys):
    from mlflow import MlflowClient

    mirror = Mirror(tmp_path / "run")
    mirror.step(1, {"loss": 0.5})
    mirror.end()
    words = ["tracking", "replay", str(tmp_path / "run"), f"uri={database}", "experiment=later"]
    assert main(words) == 0 and main(words) == 0
    assert "sent to run" in capsys.readouterr().err
    client = MlflowClient(database)
    experiment = client.get_experiment_by_name("later")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED" and run.data.metrics == {"train/loss": 0.5}
    assert len(client.get_metric_history(run.info.run_id, "train/loss")) == 1


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["replay"], "expected replay DIR"),
        (["send", "x"], "expected replay DIR"),
        (["replay", "x", "url=y"], "allowed here: uri, experiment"),
        (["replay", "none/such", "uri=sqlite"], "nothing to send"),
        (["replay", "x", "uri=none"], "expected where to send"),
    ],
)
def test_mistakes_are_named(words, text, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["tracking", *words]) == 2
    assert text in capsys.readouterr().err
