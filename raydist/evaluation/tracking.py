"""MLflow: sends a run's local record, keeps checkpoints' lineage, sets registry aliases.

The only module that imports mlflow, and only when a tracker starts. A tracker follows the two files
of a `Mirror` in a thread (`follower.py`), so whoever trains never waits for MLflow, an outage stops
nothing, and what was not sent is sent when MLflow answers again or by `raydist tracking replay`.
A tracker that cannot start is an error. One process writes to a run: the one that started it.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from raydist.errors import ArtifactError, ConfigError, JobError
from raydist.evaluation.follower import Follower, Refused, Value, read_state
from raydist.evaluation.mirror import EVENTS, METRICS, Mirror, read_lines
from raydist.evaluation.names import metric_name
from raydist.evaluation.provenance import facts
from raydist.log import say, warn

__all__ = ["Promotion", "Tracker", "promote", "replay", "resolve_uri"]

PARAM_LENGTH = 6000
TAG_LENGTH = 5000
_BATCH = 100  # parameters or tags of one request, MLflow's limit
_REFUSALS = ("INVALID_PARAMETER_VALUE", "BAD_REQUEST", "MALFORMED_REQUEST")


def resolve_uri(uri: str, storage: str | os.PathLike[str] = ".") -> str | None:
    """Returns the tracking URI that `tracking.uri` means, None for no tracking.

    `none` is none, `sqlite` is `STORAGE/mlflow.db`, `auto` is `MLFLOW_TRACKING_URI` where that is
    set and `sqlite` otherwise; anything else is MLflow's own URI, relative SQLite files being made
    absolute (a worker runs in another folder).
    """
    if uri in ("none", ""):
        return None
    if uri == "auto":
        uri = os.environ.get("MLFLOW_TRACKING_URI") or "sqlite"
    if uri == "sqlite":
        return f"sqlite:///{Path(storage).absolute() / 'mlflow.db'}"
    if uri.startswith("sqlite:///") and not uri.startswith("sqlite:////"):
        return f"sqlite:///{Path(uri.removeprefix('sqlite:///')).absolute()}"
    return uri


class Tracker:
    """A run in MLflow that follows its local record; make one with `Tracker.start`.

    Attributes:
        folder: where the record is.
        run_id: MLflow's id of the run.
        complete: whether it was closed and everything was sent.
    """

    def __init__(self, folder: Path, follower: Follower) -> None:
        self.folder = folder
        self.run_id: str = follower.state["run_id"]
        self.follower = follower
        self.complete = False

    @classmethod
    def start(
        cls,
        folder: str | os.PathLike[str],
        *,
        uri: str,
        experiment: str = "raydist",
        name: str | None = None,
        tags: Mapping[str, str] | None = None,
        parent: str | None = None,
        artifacts: str | None = None,
        resume: bool = False,
        follow: bool = True,
        poll_s: float = 1.0,
    ) -> Tracker:
        """Creates the run (or goes on with it) and begins to follow the record.

        Args:
            folder: where the record is; also keeps the tracker's own `tracking.json`.
            uri: MLflow's tracking URI, from `resolve_uri`.
            experiment: created if need be, its artifacts under an absolute place.
            name: the run's name; the folder's if None.
            tags: further tags of the run.
            parent: run id of the parent.
            artifacts: URI of a new experiment's artifacts; beside a SQLite file by default.
            resume: go on with the run that `folder` was sent to before.
            follow: send in a thread; otherwise only `flush` and `close` send.
            poll_s: seconds between looks at the record.

        Raises:
            JobError: MLflow cannot be reached or refuses.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        old = read_state(folder)
        client = _client(uri)
        with _start_errors(uri):
            if resume and old and old["uri"] == uri:
                client.update_run(old["run_id"], status="RUNNING")
                state = old
            else:
                state = {"uri": uri, "experiment": experiment, "name": name or folder.name}
                state["tags"] = facts() | dict(tags or {})
                if parent:
                    state["tags"]["mlflow.parentRunId"] = parent
                state |= _create(client, state, artifacts)
        store = _MlflowStore(client, state)
        follower = Follower(folder, store, state, poll_s)
        if follow:
            follower.start()
        return cls(folder, follower)

    def __enter__(self) -> Tracker:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.close("FINISHED" if kind is None else "FAILED")

    @property
    def experiment_id(self) -> str:
        """MLflow's id of the experiment."""
        return str(self.follower.state["experiment_id"])

    @property
    def uri(self) -> str:
        """The tracking URI."""
        return str(self.follower.state["uri"])

    def child(self, folder: str | os.PathLike[str], name: str, **options: Any) -> Tracker:
        """Starts the tracker of a child run; `options` as in `start`."""
        options = {"experiment": self.follower.state["experiment"], **options}
        return Tracker.start(folder, uri=self.uri, name=name, parent=self.run_id, **options)

    def flush(self) -> bool:
        """Sends what is new now; returns whether everything was sent."""
        return self.follower.flush()

    def close(self, status: str = "FINISHED", timeout_s: float = 60.0) -> bool:
        """Records the end (FINISHED, FAILED, KILLED), sends the rest and ends the run.

        Gives up after `timeout_s`, says how to send the record later and returns False.
        """
        Mirror(self.folder, repair=False).end(status)
        self.complete = done = self.follower.stop(timeout_s)
        if not done:
            warn(
                f"tracking: not everything reached {self.uri}; the record in {self.folder} is "
                f"complete; send it later with: raydist tracking replay {self.folder}"
            )
        if self.follower.skipped:
            say(f"tracking: {self.follower.skipped} NaN or infinite values are not in MLflow")
        return done


def replay(
    folder: str | os.PathLike[str], *, uri: str | None = None, experiment: str | None = None
) -> Tracker:
    """Sends a record to MLflow from where it stopped, or whole to another `uri` as a new run.

    Returns the tracker, whose follower counts what was left out.

    Raises:
        ArtifactError: there is no record.
        JobError: MLflow cannot be reached.
    """
    folder = Path(folder)
    if not (folder / EVENTS).exists() and not (folder / METRICS).exists():
        raise ArtifactError(f"{folder}: no {METRICS} and no {EVENTS}: nothing to send")
    old = read_state(folder) or {}
    target = uri or old.get("uri") or resolve_uri("auto")
    if target is None:
        raise ConfigError("uri = none: expected where to send the record, for example sqlite")
    same = old.get("uri") == target and experiment in (None, old.get("experiment"))
    tracker = Tracker.start(
        folder,
        uri=target,
        experiment=experiment or old.get("experiment", "raydist"),
        name=old.get("name"),
        tags=old.get("tags"),
        resume=same,
        follow=False,
    )
    if not tracker.flush():
        raise JobError(f"uri = {target}: MLflow does not take the record; try again later")
    ends = [record["status"] for record, _ in read_lines(folder / EVENTS) if "status" in record]
    with _start_errors(target):
        _client(target).set_terminated(tracker.run_id, ends[-1] if ends else "KILLED")
    return tracker


class _MlflowStore:
    """Puts what a follower sends into one MLflow run."""

    def __init__(self, client: Any, state: dict[str, Any]) -> None:
        self._client = client
        self._state = state
        self._run_id = state["run_id"]
        self._params: dict[str, str] | None = None

    def values(self, values: Sequence[Value]) -> None:
        from mlflow.entities import Metric

        metrics = [Metric(v.name, v.value, v.time_ms, v.step) for v in values]
        for i in range(0, len(metrics), 1000):
            with _refusals():
                self._client.log_batch(self._run_id, metrics=metrics[i : i + 1000])

    def params(self, params: Mapping[str, Any]) -> None:
        from mlflow.entities import Param

        if self._params is None:
            self._params = dict(self._client.get_run(self._run_id).data.params)
        new, changed = [], {}
        for name, value in params.items():
            key = metric_name(name)[:250]
            text = (value if isinstance(value, str) else json.dumps(value))[:PARAM_LENGTH]
            if key not in self._params:
                new.append(Param(key, text))
            elif self._params[key] != text:  # parameters are immutable, a resumed run's become tags
                changed[f"param.{key}"] = text
        for i in range(0, len(new), _BATCH):
            with _refusals():
                self._client.log_batch(self._run_id, params=new[i : i + _BATCH])
        self._params |= {param.key: param.value for param in new}
        self.tags(changed)

    def tags(self, tags: Mapping[str, str]) -> None:
        from mlflow.entities import RunTag

        found = [RunTag(key[:250], str(value)[:TAG_LENGTH]) for key, value in tags.items()]
        for i in range(0, len(found), _BATCH):
            with _refusals():
                self._client.log_batch(self._run_id, tags=found[i : i + _BATCH])

    def artifact(self, path: str, folder: str) -> None:
        if not Path(path).exists():
            raise Refused(f"the file {path} is gone")
        whole = Path(path).is_dir()
        send = self._client.log_artifacts if whole else self._client.log_artifact
        with _refusals():
            send(self._run_id, path, folder or None)

    def table(self, columns: Mapping[str, list[Any]], file: str) -> None:
        """As MLflow's `log_table`, but a table that is sent again replaces the first."""
        rows = [list(row) for row in zip(*columns.values())]
        with _refusals():
            self._client.log_text(
                self._run_id, json.dumps({"columns": list(columns), "data": rows}), file
            )
        tables = self._state.setdefault("tables", [])
        if file not in tables:
            tables.append(file)
        shown = json.dumps([{"path": table, "type": "table"} for table in tables])
        self._client.set_tag(self._run_id, "mlflow.loggedArtifacts", shown)

    def model(self, record: Mapping[str, Any], superseded: Sequence[str]) -> str:
        """A LoggedModel without files (they stay where they are), linked to the run."""
        import mlflow
        from mlflow.entities import LoggedModelOutput

        name, step = metric_name(record["name"]).replace("/", "-").replace(":", "-"), record["step"]
        with _refusals(), _fluent(self._state["uri"]):
            model = mlflow.create_external_model(
                name=f"{name}-step-{step}",
                source_run_id=self._run_id,
                experiment_id=self._state["experiment_id"],
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
        self._client.set_terminated(self._run_id, status, time_ms)


@dataclass(frozen=True, slots=True)
class Promotion:
    """What became of a model that was registered.

    Attributes:
        version: its version in the registry.
        moved: whether the alias now points to it.
        reason: why, or why not: one sentence.
    """

    version: int
    moved: bool
    reason: str


def promote(
    uri: str,
    name: str,
    source: str | os.PathLike[str],
    *,
    alias: str = "champion",
    metric: str,
    values: Mapping[str, float],
    run_id: str | None = None,
    model_id: str | None = None,
    level: float = 0.05,
) -> Promotion:
    """Registers a model and moves an alias to it if it beats the alias's present holder.

    The holder is beaten if the mean over the queries that both were measured on is higher and a
    paired t-test gives p < `level`; without a holder the alias is simply set. The values are
    kept as `per_query.json` in `source`, which the version's tags name.

    Args:
        uri: MLflow's URI.
        name: registered model, created if need be.
        source: the model's folder.
        alias: for example `champion`.
        metric: measure that decides; the holder must have been measured by the same one.
        values: this model's value for each query.
        run_id: run that made the model.
        model_id: LoggedModel that it is.
        level: of significance.

    Raises:
        JobError: MLflow cannot be reached or refuses.
    """
    from raydist.evaluation.significance import compare

    folder = Path(source).absolute()
    record = folder / "per_query.json"
    record.write_text(json.dumps({"metric": metric, "values": dict(values)}), encoding="utf-8")
    client = _client(uri)
    with _start_errors(uri):
        if not client.search_registered_models(f"name = '{name}'", max_results=1):
            client.create_registered_model(name)
        tags = {"metric": metric, "mean": f"{sum(values.values()) / max(len(values), 1):.6f}"}
        made = client.create_model_version(
            name, folder.as_uri(), run_id, {**tags, "per_query": str(record)}, model_id=model_id
        )
        version = int(made.version)
        registered = client.get_registered_model(name)
        if alias not in registered.aliases:
            client.set_registered_model_alias(name, alias, str(version))
            return Promotion(version, True, f"{name} had no {alias}")
        holder = client.get_model_version_by_alias(name, alias)
        try:
            old = json.loads(Path(holder.tags["per_query"]).read_text(encoding="utf-8"))
        except (KeyError, OSError, ValueError):
            old = {"metric": "unknown", "values": {}}
        common = sorted(old["values"].keys() & values.keys())
        if old["metric"] != metric or len(common) < 2:
            why = f"{alias} is version {holder.version}, whose {metric} per query is not known"
            return Promotion(version, False, f"{why}: nothing to test against")
        result = compare(
            np.array([values[q] for q in common]), np.array([old["values"][q] for q in common])
        )
        won = result.difference > 0 and result.p < level
        if won:
            client.set_registered_model_alias(name, alias, str(version))
        verb = "beats" if won else "does not beat"
        return Promotion(
            version,
            won,
            f"version {version} {verb} version {holder.version}: {metric} {result.difference:+.4f} "
            f"on {len(common)} queries, {result.test}, p = {result.p:.3g}",
        )


def _client(uri: str) -> Any:
    """Returns an MLflow client that fails within seconds and keeps to itself."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "ERROR")
    logging.getLogger("alembic").setLevel(logging.ERROR)
    with _start_errors(uri):
        if uri.startswith("sqlite:///"):
            Path(uri.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
        from mlflow import MlflowClient

        return MlflowClient(tracking_uri=uri, registry_uri=uri)


def _create(client: Any, state: Mapping[str, Any], artifacts: str | None) -> dict[str, str]:
    found = client.get_experiment_by_name(state["experiment"])
    if found is None:
        if artifacts is None and state["uri"].startswith("sqlite:///"):
            database = Path(state["uri"].removeprefix("sqlite:///"))
            artifacts = (database.parent / "mlartifacts" / state["experiment"]).as_uri()
        experiment_id = client.create_experiment(state["experiment"], artifacts)
    else:
        experiment_id = found.experiment_id
    tags = {key: str(value)[:TAG_LENGTH] for key, value in state["tags"].items()}
    run = client.create_run(experiment_id, tags=tags, run_name=state["name"])
    return {"experiment_id": experiment_id, "run_id": run.info.run_id}


@contextlib.contextmanager
def _start_errors(uri: str) -> Iterator[None]:
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (MlflowException, SQLAlchemyError, OSError) as error:
        text = " ".join(str(error).split())
        raise JobError(
            f"tracking.uri = {uri}: MLflow cannot be used: {text[:300]}; "
            f"mend it, or go without by tracking=none"
        ) from error


@contextlib.contextmanager
def _fluent(uri: str) -> Iterator[None]:
    """Points MLflow's global functions, which alone make external models, to `uri` for a moment."""
    import mlflow

    before = os.environ.get("MLFLOW_TRACKING_URI")  # set_tracking_uri writes it, too
    mlflow.set_tracking_uri(uri)
    try:
        yield
    finally:
        mlflow.set_tracking_uri(None)
        if before is not None:
            os.environ["MLFLOW_TRACKING_URI"] = before


@contextlib.contextmanager
def _refusals() -> Iterator[None]:
    """Tells what MLflow refuses for good from an outage."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        if error.error_code in _REFUSALS:
            raise Refused(" ".join(str(error).split())[:200]) from error
        raise
