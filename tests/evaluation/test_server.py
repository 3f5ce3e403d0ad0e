"""The registry of a real MLflow server, which takes no folder of another machine for a model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from raydist.evaluation.registry import Candidate, promote, registered
from tests.evaluation.server import mlflow_server


@pytest.fixture
def server(database: str, tmp_path: Path) -> Iterator[str]:
    with mlflow_server(database, str(tmp_path / "artifacts")) as address:
        yield address


def test_a_servers_champion_is_served_from_its_artifacts(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAYDIST_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "model"
    (folder / "1_Pooling").mkdir(parents=True)
    (folder / "1_Pooling" / "config.json").write_text("{}")
    for step in (1, 2):
        (folder / "model.safetensors").write_text(f"weights {step}")
        values = {f"q{i}": 0.3 * step + 0.01 * (i % 3) + 0.001 * step * i for i in range(20)}
        options = {"metric": "nDCG@10", "values": values, "fingerprint": f"f{step}"}
        for _ in range(2):  # again is the same version
            promotion = promote(server, Candidate(name="toy", folder=folder, **options))
            assert (promotion.version, promotion.moved) == (step, True), promotion.reason
        copy, version = registered("models:/toy@champion", server)
        assert version == str(step) and Path(copy) != folder
        assert (Path(copy) / "model.safetensors").read_text() == f"weights {step}"
        assert (Path(copy) / "1_Pooling" / "config.json").read_text() == "{}"
        assert registered("models:/toy@champion", server)[0] == copy
