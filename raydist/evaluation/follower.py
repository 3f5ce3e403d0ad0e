"""Follows a run's record and sends new lines to a store; never loses a line, never blocks.

It does not depend on MLflow: a store takes values, parameters, tags, files, tables and checkpoints.
`tracking.json` beside the record says how far it was sent, so sending continues after an outage or
in another process.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from raydist.disk import atomic
from raydist.errors import ArtifactError
from raydist.evaluation.metric_names import metric_name, metric_names
from raydist.evaluation.mirror import EVENTS, METRICS, lines_of
from raydist.log import say, warn

STATE = "tracking.json"
TRAIN = "train"
"""The group of the values of training steps; a listener's are the group of its id."""
SYSTEM = "system"
"""The group of the machine's load, for which MLflow has a page."""
_CHUNK = 500  # values of one request


class Value(NamedTuple):
    """One value of one metric under the name that the store takes."""

    name: str
    value: float
    step: int
    time_ms: int


@dataclass(slots=True)
class State:
    """The contents of `tracking.json`: where a record goes, and how much of it was sent.

    Attributes:
        uri, experiment, name, tags: the arguments that the run was started with.
        experiment_id, run_id: the run.
        sent: by file, the inode that was read and the offset in it.
        models: by name and step, the ids of kept checkpoints.
        names: by a metric's name in the store, its own name.
        skipped: values that were NaN or infinite.
        refused: events that the store refused.
        tables: files of the tables.
    """

    uri: str = ""
    experiment: str = ""
    name: str = ""
    tags: dict[str, str] = field(default_factory=dict)
    experiment_id: str = ""
    run_id: str = ""
    sent: dict[str, dict[str, int]] = field(default_factory=dict)
    models: dict[str, dict[str, str]] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    skipped: int = 0
    refused: int = 0
    tables: list[str] = field(default_factory=list)


@dataclass(slots=True)
class _Chunk:
    """Values of one request, with their new names, and how many values are left out."""

    values: list[Value] = field(default_factory=list)
    names: dict[str, str] = field(default_factory=dict)
    skipped: int = 0


class Refusal(Exception):
    """A store will never take this, so trying again is useless."""


class Store(Protocol):
    """The receiver of a record: MLflow, or a test's. All of it may be sent twice."""

    def values(self, values: Sequence[Value]) -> None:
        """Takes values of metrics."""

    def params(self, params: Mapping[str, Any]) -> None:
        """Takes parameters; one that changed since must not be an error."""

    def tags(self, tags: Mapping[str, str]) -> None:
        """Takes tags, replacing those of the same name."""

    def artifact(self, path: str, folder: str) -> None:
        """Takes a copy of a file or folder."""

    def text(self, content: str, file: str) -> None:
        """Takes a text, replacing one of the same file name."""

    def dataset(self, record: Mapping[str, Any]) -> None:
        """Takes an input: its name, digest, source, context and profile."""

    def table(self, columns: Mapping[str, list[Any]], file: str) -> None:
        """Takes a table, replacing one of the same file name."""

    def model(self, record: Mapping[str, Any], superseded: Sequence[str]) -> str:
        """Takes a kept checkpoint and returns its id; `superseded` are earlier ones' ids."""
        ...

    def end(self, status: str, time_ms: int) -> None:
        """Ends the run."""


class Follower:
    """Sends a record to a store, in a thread or by `flush`.

    Attributes:
        state: the contents of `tracking.json`.
        down: whether the store failed the last time.
    """

    def __init__(self, folder: Path, store: Store, state: State, poll_s: float) -> None:
        self.folder = folder
        self.state = state
        self.down = False
        self._store = store
        self._poll_s = poll_s
        self._short = {name: short for short, name in state.names.items()}
        self._wake = threading.Event()
        self._closing = threading.Event()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self.save()

    def start(self) -> None:
        """Starts to follow in a thread."""
        self._thread = threading.Thread(target=self._follow, name="tracking", daemon=True)
        self._thread.start()

    def stop(self, timeout_s: float) -> bool:
        """Sends the rest; returns whether all was sent within the time."""
        if self._thread is None:
            return self.flush()
        self._closing.set()
        self._wake.set()
        self._thread.join(timeout_s)
        return not self._thread.is_alive() and not self.down

    def flush(self) -> bool:
        """Sends new lines; returns whether the store took them."""
        with self._lock:
            try:
                while self._send_some():
                    pass
            except Exception as error:  # noqa: BLE001  an outage must not stop a training run
                if not self.down:
                    warn(
                        f"tracking: the tracker does not take the record ({_short(error)}); "
                        f"the run continues and is recorded in {self.folder}"
                    )
                self.down = True
                return False
            if self.down:
                say("tracking: the tracker answers again, all was sent")
            self.down = False
            return True

    def save(self) -> None:
        """Writes `tracking.json`."""
        with atomic(self.folder / STATE) as partial:
            partial.write_text(json.dumps(asdict(self.state), indent=1), encoding="utf-8")

    def _follow(self) -> None:
        wait = self._poll_s
        while True:
            last = self._closing.is_set()
            done = self.flush()
            if last:
                return
            wait = self._poll_s if done else min(max(wait * 2, 5.0), 60.0)
            self._wake.wait(wait)
            self._wake.clear()

    def _send_some(self) -> bool:
        """Sends one chunk; False when nothing is left. Events go first, an end goes last."""
        end = None
        for record, after in self._new(EVENTS):
            if record["event"] == "end":
                end = record, after
                break
            self._event(record)
            self._sent(EVENTS, after)
        chunk, reached = _Chunk(), None
        for record, after in self._new(METRICS):
            reached = after
            values = {f"{TRAIN}/{k}": v for k, v in record.items() if k not in ("step", "time")}
            self._add(chunk, values, record["step"], record["time"])
            if len(chunk.values) >= _CHUNK:
                break
        if reached is not None:
            self._send_values(chunk)
            self._sent(METRICS, reached)
            return True
        if end is not None:
            if self.state.skipped:
                self._store.tags({"raydist.values_skipped": str(self.state.skipped)})
            self._store.end(end[0]["status"], end[0]["time"])
            self._sent(EVENTS, end[1])
            return True  # a record that was continued has more behind its end
        return False

    def _event(self, record: dict[str, Any]) -> None:
        match record["event"]:
            case "metrics":
                chunk = _Chunk()
                self._add(chunk, record["values"], record["step"], record["time"])
                self._send_values(chunk)
            case "system":
                chunk = _Chunk()
                values = {f"{SYSTEM}/{name}": value for name, value in record["values"].items()}
                self._add(chunk, values, record["sample"], record["time"])
                self._send_values(chunk)
            case "text":
                self._send(self._store.text, record["content"], record["file"])
            case "dataset":
                self._send(self._store.dataset, record)
            case "params":
                self._send(self._store.params, record["values"])
            case "tags":
                self._send(self._store.tags, record["values"])
            case "artifact":
                self._send(self._store.artifact, record["path"], record["folder"])
            case "table":
                self._send(self._store.table, record["columns"], record["file"])
            case "model":
                self._model(record)

    def _model(self, record: dict[str, Any]) -> None:
        """Sends a kept checkpoint, which supersedes the earlier ones of the same name."""
        known = self.state.models.setdefault(record["name"], {})
        if str(record["step"]) in known:
            return
        short = metric_names(record["metrics"])
        metrics = {short[name]: value for name, value in record["metrics"].items()}
        try:
            model_id = self._store.model({**record, "metrics": metrics}, list(known.values()))
        except Refusal as error:
            self._refuse(str(error))
        else:
            known[str(record["step"])] = model_id

    def _add(self, chunk: _Chunk, values: Mapping[str, Any], step: int, time_ms: int) -> None:
        for name, value in values.items():
            if value in ("NaN", "Infinity", "-Infinity"):
                chunk.skipped += 1
                continue
            if not isinstance(value, int | float):
                continue
            if name not in self._short:
                self._short |= metric_names([name], self._short.values())
            short = self._short[name]
            if short not in self.state.names:
                chunk.names[short] = name
            chunk.values.append(Value(short, float(value), int(step), int(time_ms)))

    def _send_values(self, chunk: _Chunk) -> None:
        """Sends values; their names and counts are noted once the store took them."""
        renamed = {
            f"metric.{short}": name
            for short, name in chunk.names.items()
            if short != metric_name(name)  # a number or a cut: the name no longer tells
        }
        if renamed:
            self._send(self._store.tags, renamed)
        self._send(self._store.values, chunk.values)
        self.state.names |= chunk.names
        self.state.skipped += chunk.skipped

    def _send(self, send: Any, *args: Any) -> None:
        try:
            send(*args)
        except Refusal as error:
            self._refuse(str(error))

    def _refuse(self, reason: str) -> None:
        if self.state.refused < 5:
            warn(f"tracking: left out: {reason}")
        self.state.refused += 1

    def _new(self, name: str) -> Iterator[tuple[dict[str, Any], dict[str, int]]]:
        """Yields (record, mark after it) of the lines that were not sent.

        A file that was rewritten is read from its beginning: a resumed run cuts its record. So a
        mark names the file's inode, not its path.
        """
        path = self.folder / name
        if not path.exists():
            return
        sent = self.state.sent.get(name, {"file": -1, "offset": 0})
        with open(path, "rb") as file:
            status = os.fstat(file.fileno())
            same = sent["file"] == status.st_ino and sent["offset"] <= status.st_size
            for record, after in lines_of(file, int(sent["offset"]) if same else 0):
                yield record, {"file": status.st_ino, "offset": after}

    def _sent(self, name: str, mark: Mapping[str, int]) -> None:
        self.state.sent[name] = dict(mark)
        self.save()


def read_state(folder: Path) -> State | None:
    """Returns the contents of `tracking.json`, None without one."""
    try:
        return State(**json.loads((folder / STATE).read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError) as error:
        raise ArtifactError(f"{folder / STATE} is corrupted: {error}; delete it") from None


def _short(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 200 else text[:197] + "..."
