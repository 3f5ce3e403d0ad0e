"""An MLflow database that is created once per session and copied."""

from __future__ import annotations

import shutil

import pytest


@pytest.fixture(scope="session")
def _migrated(tmp_path_factory):
    import os

    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    import logging

    from mlflow import MlflowClient

    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.ERROR)
    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    MlflowClient(f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def database(_migrated, tmp_path):
    """The URI of a fresh database."""
    path = tmp_path / "store" / "mlflow.db"
    path.parent.mkdir()
    shutil.copy(_migrated, path)
    return f"sqlite:///{path}"
