"""The only module that imports MLflow: a run as a store, an experiment, a client.

The import takes seconds, so it happens only where something is tracked, and never in workers.
"""

from __future__ import annotations

import contextlib
import gc
import json
import logging
import os
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from raydist import log
from raydist.disk import atomic
from raydist.errors import JobError
from raydist.evaluation.follower import Refusal, State, Value
from raydist.evaluation.metric_names import metric_name, metric_names
from raydist.evaluation.secrets import with_login, without_secrets

PARAM_LENGTH = 6000
TAG_LENGTH = 5000
_DIGEST = 36  # characters of a data set's digest, MLflow's limit
_GLOBAL = threading.Lock()  # of MLflow's global functions, which several followers may call
_BATCH = 100  # parameters or tags of one request, MLflow's limit
_REFUSALS = ("INVALID_PARAMETER_VALUE", "BAD_REQUEST", "MALFORMED_REQUEST")


class MlflowStore:
    """Puts what a follower sends into one MLflow run."""

    def __init__(self, client: Any, state: State) -> None:
        self._client = client
        self._state = state
        self._run_id = state.run_id
        self._params: dict[str, str] | None = None

    def values(self, values: Sequence[Value]) -> None:
        """Logs values in requests of at most 1000."""
        from mlflow.entities import Metric

        metrics = [Metric(v.name, v.value, v.time_ms, v.step) for v in values]
        self._log("metrics", metrics, 1000)

    def params(self, params: Mapping[str, Any]) -> None:
        """Logs parameters, cut at 6000 characters; changed ones become tags `param.NAME`."""
        from mlflow.entities import Param

        if self._params is None:
            self._params = dict(self._client.get_run(self._run_id).data.params)
        new, changed = [], {}
        for name, key in metric_names(params).items():
            value = params[name]
            text = (value if isinstance(value, str) else json.dumps(value))[:PARAM_LENGTH]
            if key not in self._params:
                new.append(Param(key, text))
            elif self._params[key] != text:  # parameters are immutable, a resumed run's become tags
                changed[f"param.{key}"] = text
        self.tags(changed)
        self._log("params", new, _BATCH)
        self._params |= {param.key: param.value for param in new}

    def tags(self, tags: Mapping[str, str]) -> None:
        """Sets tags, cut at 5000 characters."""
        from mlflow.entities import RunTag

        keys = metric_names(tags)
        entries = [RunTag(keys[name], str(value)[:TAG_LENGTH]) for name, value in tags.items()]
        self._log("tags", entries, _BATCH)

    def _log(self, kind: str, entries: Sequence[Any], size: int) -> None:
        """Logs `size` entries a request; where MLflow refuses one, the others arrive."""
        starts = range(0, len(entries), size)
        refusals = [each for i in starts for each in self._send(kind, entries[i : i + size])]
        if refusals:
            raise Refusal("; ".join(refusals))

    def _send(self, kind: str, entries: Sequence[Any]) -> list[str]:
        """Logs entries and returns why single ones were refused."""
        try:
            with _refusals():
                self._client.log_batch(self._run_id, **{kind: entries})
            return []
        except Refusal as error:
            if len(entries) == 1:
                return [str(error)]
        half = len(entries) // 2
        return [*self._send(kind, entries[:half]), *self._send(kind, entries[half:])]

    def artifact(self, path: str, folder: str) -> None:
        """Uploads a file, or what a folder holds."""
        if not Path(path).exists():
            raise Refusal(f"{path} does not exist any more")
        is_folder = Path(path).is_dir()
        send = self._client.log_artifacts if is_folder else self._client.log_artifact
        with _refusals():
            send(self._run_id, path, folder or None)

    def text(self, content: str, file: str) -> None:
        """Uploads a text as a file."""
        with _refusals():
            self._client.log_text(self._run_id, content, file)

    def dataset(self, record: Mapping[str, Any]) -> None:
        """Logs an input of the run, as MLflow's `log_input` does."""
        from mlflow.entities import Dataset, DatasetInput, InputTag

        source = str(record["source"])
        scheme = source.partition("://")[0] if "://" in source else "local"
        dataset = Dataset(
            name=record["name"],
            digest=str(record["digest"])[:_DIGEST],
            source_type=scheme,
            source=json.dumps({"uri" if "://" in source else "path": source}),
            profile=json.dumps(record["profile"]),
        )
        tags = [InputTag("mlflow.data.context", record["context"])]
        with _refusals():
            self._client.log_inputs(self._run_id, [DatasetInput(dataset, tags)])

    def table(self, columns: Mapping[str, list[Any]], file: str) -> None:
        """Logs a table as MLflow's `log_table` does, but replaces one of the same file name."""
        rows = [list(row) for row in zip(*columns.values())]
        with _refusals():
            self._client.log_text(
                self._run_id, json.dumps({"columns": list(columns), "data": rows}), file
            )
        tables = self._state.tables
        if file not in tables:
            tables.append(file)
        listed = json.dumps([{"path": table, "type": "table"} for table in tables])
        self._client.set_tag(self._run_id, "mlflow.loggedArtifacts", listed)

    def model(self, record: Mapping[str, Any], superseded: Sequence[str]) -> str:
        """Logs a LoggedModel without files (they stay where they are), linked to the run."""
        import mlflow
        from mlflow.entities import LoggedModelOutput

        name, step = metric_name(record["name"]).replace("/", "-").replace(":", "-"), record["step"]
        with _refusals(), _fluent(self._state.uri):
            model = mlflow.create_external_model(
                name=f"{name}-step-{step}",
                source_run_id=self._run_id,
                experiment_id=self._state.experiment_id,
                params={k: str(v)[:PARAM_LENGTH] for k, v in record["params"].items()},
                tags={"path": record["path"], "step": str(step), "kept": "true"},
                model_type="raydist checkpoint",
            )
        for key, value in record["metrics"].items():
            if isinstance(value, int | float):
                self._client.log_metric(
                    self._run_id, key, value, record["time"], step, model_id=model.model_id
                )
        self._client.log_outputs(self._run_id, [LoggedModelOutput(model.model_id, step)])
        for older in superseded:
            self._client.set_logged_model_tags(older, {"kept": "false"})
        return str(model.model_id)

    def end(self, status: str, time_ms: int) -> None:
        """Ends the run."""
        self._client.set_terminated(self._run_id, status, time_ms)


def connect(uri: str) -> Any:
    """Returns an MLflow client that fails within seconds and keeps to itself.

    Raises:
        JobError: MLflow cannot be reached or refuses.
    """
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    with mlflow_errors(uri):
        if uri.startswith("sqlite:///"):
            Path(uri.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
        with _without_collection():
            from mlflow import MlflowClient

            if uri.startswith("sqlite:///"):  # which the first request would import
                import mlflow.store.tracking.sqlalchemy_store  # noqa: F401

        for name in ("alembic", "mlflow"):  # which another library may have imported before
            logging.getLogger(name).setLevel(logging.ERROR)
        own = with_login(uri)
        return MlflowClient(tracking_uri=own, registry_uri=own)


@contextlib.contextmanager
def _without_collection() -> Iterator[None]:
    """Does not look for garbage among what the import of thousands of modules makes.

    It would take a fifth of the time, and a command's later searches would begin there again.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
        if log.is_program:
            gc.freeze()
    finally:
        if was_enabled:
            gc.enable()


def create_run(client: Any, state: State, artifacts: str | None = None) -> State:
    """Creates a run, and its experiment if it is missing; returns the state with their ids.

    Args:
        client: from `connect`.
        state: the run's URI, experiment, name and tags.
        artifacts: URI of a new experiment's artifacts; beside a SQLite file by default.
    """
    experiment = client.get_experiment_by_name(state.experiment)
    if experiment is None:
        if artifacts is None and state.uri.startswith("sqlite:///"):
            database = Path(state.uri.removeprefix("sqlite:///"))
            artifacts = (database.parent / "mlartifacts" / state.experiment).as_uri()
        kind = {"mlflow.experimentKind": "custom_model_development"}  # its pages are of training
        experiment_id = client.create_experiment(state.experiment, artifacts, kind)
    else:
        experiment_id = experiment.experiment_id
    tags = {key: str(value)[:TAG_LENGTH] for key, value in state.tags.items()}
    run = client.create_run(experiment_id, tags=tags, run_name=state.name)
    return replace(state, experiment_id=str(experiment_id), run_id=run.info.run_id)


def read_artifact(client: Any, uri: str) -> str | None:
    """Returns the text of `runs:/RUN_ID/PATH`, None if it does not exist."""
    from mlflow.exceptions import MlflowException

    run_id, _, path = uri.removeprefix("runs:/").partition("/")
    try:
        with tempfile.TemporaryDirectory() as folder:
            copy = client.download_artifacts(run_id, path, folder)
            return Path(copy).read_text(encoding="utf-8")
    except (MlflowException, OSError):
        return None


def download(uri: str, source: str, target: Path) -> None:
    """Copies a folder of artifacts to `target`, which appears when it is complete."""
    from mlflow.artifacts import download_artifacts

    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        copy = download_artifacts(
            artifact_uri=source, dst_path=scratch, tracking_uri=with_login(uri)
        )
        with atomic(target, replace=False) as partial:
            os.rename(copy, partial)  # a move on the same disk, no second copy


def give_up(client: Any, run_id: str) -> None:
    """Ends a run whose process was killed before there was anything to resume."""
    from mlflow.exceptions import MlflowException

    with contextlib.suppress(MlflowException):  # somebody deleted it
        if client.get_run(run_id).info.status == "RUNNING":
            client.set_terminated(run_id, status="KILLED")


@contextlib.contextmanager
def mlflow_errors(uri: str) -> Iterator[None]:
    """Turns MLflow's errors into a JobError that says how to do without it."""
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (MlflowException, SQLAlchemyError, OSError) as error:
        text = without_secrets(" ".join(str(error).split()))
        raise JobError(
            f"tracking.uri = {uri}: MLflow cannot be used: {text[:300]}; "
            f"fix it, or do without by tracking=none"
        ) from error


@contextlib.contextmanager
def _fluent(uri: str) -> Iterator[None]:
    """Points MLflow's global functions, which alone create external models, to `uri`."""
    import mlflow

    with _GLOBAL:
        before = os.environ.get("MLFLOW_TRACKING_URI")  # set_tracking_uri writes it, too
        mlflow.set_tracking_uri(with_login(uri))
        try:
            yield
        finally:
            mlflow.set_tracking_uri(None)
            if before is not None:
                os.environ["MLFLOW_TRACKING_URI"] = before


@contextlib.contextmanager
def _refusals() -> Iterator[None]:
    """Distinguishes what MLflow refuses for good from an outage."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        if error.error_code in _REFUSALS:
            raise Refusal(" ".join(str(error).split())[:200]) from error
        raise
