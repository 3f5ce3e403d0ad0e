"""Tracking of runs in MLflow: the local record first, MLflow follows.

A tracker follows the two files of a `Mirror` in a thread (`follower.py`), so training never waits
for MLflow and survives an outage; the rest is sent when MLflow answers again, or by `raydist
tracking replay`. A tracker that cannot start is an error. One process writes to a run: the one that
started it.
"""

from __future__ import annotations

import getpass
import os
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from raydist import __version__
from raydist.errors import ArtifactError, ConfigError, JobError
from raydist.evaluation.follower import Follower, State, read_state
from raydist.evaluation.mirror import EVENTS, METRICS, Mirror, read_lines
from raydist.evaluation.mlflow_store import (
    MlflowStore,
    connect,
    create_run,
    give_up,
    mlflow_errors,
)
from raydist.evaluation.secrets import hide_keys, without_secrets
from raydist.evaluation.spec import Tracking
from raydist.extras import has_mlflow
from raydist.log import say, warn

_PACKAGES = (
    "ray", "torch", "transformers", "deepspeed", "pyarrow", "ir-measures", "mlflow", "numpy",
)  # fmt: skip


def resolve_uri(uri: str, storage: str | os.PathLike[str] = ".") -> str | None:
    """Returns the tracking URI that `tracking.uri` means, None for no tracking.

    `none` is none, `sqlite` is `STORAGE/mlflow.db`, `auto` is `MLFLOW_TRACKING_URI` where that is
    set and `sqlite` otherwise (none without MLflow); anything else is MLflow's own URI, with the
    path of a SQLite file made absolute (a worker runs in another folder). It has no user and
    password, because it is written into files and messages: `connect` takes those of
    `MLFLOW_TRACKING_URI`.
    """
    if uri in ("none", ""):
        return None
    if uri == "auto":
        if not has_mlflow():
            return None
        uri = os.environ.get("MLFLOW_TRACKING_URI") or "sqlite"
    if uri == "sqlite":
        storage = "." if "://" in str(storage) else storage  # a database needs a real file
        return f"sqlite:///{Path(storage).absolute() / 'mlflow.db'}"
    if uri.startswith("sqlite:///") and not uri.startswith("sqlite:////"):
        return f"sqlite:///{Path(uri.removeprefix('sqlite:///')).absolute()}"
    return without_secrets(uri)


class Tracker:
    """A run in MLflow that follows its local record; make one with `Tracker.start`.

    Attributes:
        folder: where the record is.
        run_id: MLflow's id of the run.
        complete: whether it was closed and everything was sent.
    """

    def __init__(self, folder: Path, follower: Follower) -> None:
        self.folder = folder
        self.run_id = follower.state.run_id
        self.follower = follower
        self.complete = False

    @classmethod
    def start(
        cls,
        folder: str | os.PathLike[str],
        tracking: Tracking,
        *,
        resume: bool = False,
        follow: bool = True,
        poll_s: float = 1.0,
    ) -> Tracker:
        """Creates the run (or resumes it) and starts to follow the record.

        Args:
            folder: where the record is; also keeps the tracker's own `tracking.json`.
            tracking: of the run, with a `uri` from `resolve_uri`.
            resume: continue the run that `folder` was sent to before.
            follow: send in a thread; otherwise only `flush` and `close` send.
            poll_s: seconds between looks at the record.

        Raises:
            JobError: MLflow cannot be reached or refuses.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        old = read_state(folder)
        uri = tracking.uri
        client = connect(uri)
        with mlflow_errors(uri):
            if resume and old and old.uri == uri:
                client.update_run(old.run_id, status="RUNNING")
                state = old
            else:
                if old and old.uri == uri:
                    give_up(client, old.run_id)
                tags = facts() | tracking.tags
                if tracking.parent:
                    tags["mlflow.parentRunId"] = tracking.parent
                state = State(uri, tracking.experiment, tracking.name or folder.name, tags)
                state = create_run(client, state, tracking.artifacts)
        store = MlflowStore(client, state)
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
        return self.follower.state.experiment_id

    @property
    def uri(self) -> str:
        """The tracking URI."""
        return self.follower.state.uri

    @property
    def look(self) -> str:
        """Where to look at the run: its page, or the command that shows it."""
        state = self.follower.state
        if state.uri.startswith(("http://", "https://")):
            page = f"#/experiments/{state.experiment_id}/runs/{state.run_id}"
            return f"{state.uri.rstrip('/')}/{page}"
        return f"mlflow ui --backend-store-uri {state.uri}"

    def child(self, folder: str | os.PathLike[str], name: str, **options: Any) -> Tracker:
        """Starts the tracker of a child run; `options` as in `start`."""
        experiment = self.follower.state.experiment
        tracking = Tracking(uri=self.uri, experiment=experiment, name=name, parent=self.run_id)
        return Tracker.start(folder, tracking, **options)

    def flush(self) -> bool:
        """Sends new lines now; returns whether everything was sent."""
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
        if skipped := self.follower.state.skipped:
            say(f"tracking: {skipped} NaN or infinite values are not in MLflow")
        return done


def replay(
    folder: str | os.PathLike[str], *, uri: str | None = None, experiment: str | None = None
) -> Tracker:
    """Sends the rest of a record to MLflow, or all of it to another `uri` as a new run.

    Returns the tracker, whose follower counts the values and events that were left out.

    Raises:
        ArtifactError: the folder has no record.
        JobError: MLflow cannot be reached.
    """
    folder = Path(folder)
    if not (folder / EVENTS).exists() and not (folder / METRICS).exists():
        raise ArtifactError(f"{folder}: no {METRICS} and no {EVENTS}: nothing to send")
    old = read_state(folder) or State()
    target = uri or old.uri or resolve_uri("auto")
    if target is None:
        raise ConfigError("uri = none: expected where to send the record, for example sqlite")
    same = old.uri == target and experiment in (None, old.experiment)
    tracking = Tracking(
        uri=target,
        experiment=experiment or old.experiment or "raydist",
        name=old.name or None,
        tags=old.tags,
    )
    tracker = Tracker.start(folder, tracking, resume=same, follow=False)
    if not tracker.flush():
        raise JobError(f"uri = {target}: MLflow does not take the record; try again later")
    ends = [record["status"] for record, _ in read_lines(folder / EVENTS) if "status" in record]
    with mlflow_errors(target):
        connect(target).set_terminated(tracker.run_id, ends[-1] if ends else "KILLED")
    return tracker


def git_state(folder: Path | None = None) -> dict[str, str]:
    """Returns commit, branch and whether tracked files differ from it; empty outside a checkout."""
    commit = _git(folder, "rev-parse", "HEAD")
    if not commit:
        return {}
    return {
        "mlflow.source.git.commit": commit,
        "git.branch": _git(folder, "rev-parse", "--abbrev-ref", "HEAD"),
        "git.dirty": str(bool(_git(folder, "status", "--porcelain", "-uno"))).lower(),
    }


def facts(folder: Path | None = None) -> dict[str, str]:
    """Returns tags of a run: git state, versions of raydist and its main packages, the machine."""
    tags = {"raydist.version": __version__, "python.version": platform.python_version()}
    for name in _PACKAGES:
        try:
            tags[f"{name}.version"] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    tags["host"] = platform.node()
    # MLflow shows what follows the last slash of a source, which must not be that of an argument.
    tags["mlflow.source.name"] = " ".join(["raydist", *sys.argv[1:2]])
    tags["raydist.command"] = hide_keys(" ".join(["raydist", *sys.argv[1:]]))[:5000]
    try:
        tags["mlflow.user"] = getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        tags["mlflow.user"] = "unknown"
    return tags | git_state(folder)


def _git(folder: Path | None, *words: str) -> str:
    try:
        done = subprocess.run(
            ["git", *words], cwd=folder, capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
