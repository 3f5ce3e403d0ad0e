"""The local record of a run: everything that is logged, line by line, before any tracker sees it.

`metrics.jsonl` has one flat line per logged step, `tracking.jsonl` the other events (parameters,
tags, validation values, kept checkpoints, files). Tracking sends these two files line by line, so
an outage loses nothing; a run without a tracker has the same record.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from raydist.disk import atomic

METRICS = "metrics.jsonl"
EVENTS = "tracking.jsonl"


class Mirror:
    """Appends to the record in `folder`. One process writes it: the driver or rank 0.

    Args:
        folder: the run's output folder, created if missing.
        resume_step: when a run continues from a checkpoint, drop the lines after its step: they
            will be logged again. A line that a crash left half-written is dropped in any case.
        repair: False leaves the files alone: another process writes them, too.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        resume_step: int | None = None,
        *,
        repair: bool = True,
    ) -> None:
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        if repair:
            for name in (METRICS, EVENTS):
                _repair(self.folder / name, resume_step)

    def step(self, step: int, values: Mapping[str, float]) -> None:
        """Records the values of a training step: one line of `metrics.jsonl`."""
        self._append(METRICS, {"step": step, **values, "time": _now()})

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Records values that are not of every step, such as a validation's."""
        event = {"event": "metrics", "step": step, "values": dict(values), "time": _now()}
        self._append(EVENTS, event)

    def system(self, sample: int, values: Mapping[str, float]) -> None:
        """Records the machine's load; its samples are numbered by themselves, not by steps."""
        event = {"event": "system", "sample": sample, "values": dict(values), "time": _now()}
        self._append(EVENTS, event)

    def params(self, values: Mapping[str, Any]) -> None:
        """Records parameters; nested mappings become dotted names."""
        self._append(EVENTS, {"event": "params", "values": flatten(values), "time": _now()})

    def tags(self, values: Mapping[str, Any]) -> None:
        """Records tags."""
        self._append(EVENTS, {"event": "tags", "values": dict(values), "time": _now()})

    def artifact(self, path: str | os.PathLike[str], folder: str = "") -> None:
        """Records a file or folder to be uploaded under `folder` of the run's artifacts."""
        event = {"event": "artifact", "path": str(Path(path).absolute()), "folder": folder}
        self._append(EVENTS, {**event, "time": _now()})

    def text(self, content: str, file: str) -> None:
        """Records a text to be uploaded as a file of the run's artifacts."""
        self._append(EVENTS, {"event": "text", "content": content, "file": file, "time": _now()})

    def dataset(self, name: str, digest: str, source: str, context: str, **profile: Any) -> None:
        """Records data that the run reads: what tells it from others, where it lies, what for."""
        event = {"event": "dataset", "name": name, "digest": digest, "source": source}
        profiled = {"context": context, "profile": profile, "time": _now()}
        self._append(EVENTS, {**event, **profiled})

    def table(self, columns: Mapping[str, Sequence[Any]], file: str) -> None:
        """Records a table that the tracker shows, as columns of equal length."""
        values = {name: list(column) for name, column in columns.items()}
        self._append(EVENTS, {"event": "table", "columns": values, "file": file, "time": _now()})

    def model(
        self,
        name: str,
        step: int,
        path: str | os.PathLike[str],
        metrics: Mapping[str, float],
        params: Mapping[str, Any] | None = None,
    ) -> None:
        """Records a kept checkpoint. An earlier one of the same `name` is superseded."""
        event = {"event": "model", "name": name, "step": step, "path": str(Path(path).absolute())}
        event |= {"metrics": dict(metrics), "params": flatten(params or {}), "time": _now()}
        self._append(EVENTS, event)

    def end(self, status: str = "FINISHED") -> None:
        """Records the end of the run: FINISHED, FAILED or KILLED."""
        self._append(EVENTS, {"event": "end", "status": status, "time": _now()})

    def _append(self, name: str, record: Mapping[str, Any]) -> None:
        line = json.dumps(to_json(record), ensure_ascii=False, allow_nan=False) + "\n"
        with open(self.folder / name, "ab", buffering=0) as out:
            out.write(line.encode("utf-8", "surrogatepass"))


def read_lines(path: Path, offset: int = 0) -> Iterator[tuple[dict[str, Any], int]]:
    """Yields (record, offset after it) from a byte offset on; a half-written last line is left."""
    if path.exists():
        with open(path, "rb") as file:
            yield from lines_of(file, offset)


def lines_of(file: BinaryIO, offset: int) -> Iterator[tuple[dict[str, Any], int]]:
    """Does the same as `read_lines` for an open file."""
    file.seek(offset)
    for line in file:
        if not line.endswith(b"\n"):
            return
        offset += len(line)
        yield json.loads(line.decode("utf-8", "surrogatepass")), offset


def to_json(value: Any) -> Any:
    """Returns JSON values; numbers that JSON has not become "NaN", "Infinity", "-Infinity"."""
    if isinstance(value, Mapping):
        return {str(key): to_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(item) for item in value]
    if isinstance(value, bool | int | str) or value is None:
        return value
    if hasattr(value, "item"):  # a NumPy or torch scalar
        return to_json(value.item())
    if isinstance(value, float):
        if math.isfinite(value):
            return value
        return "NaN" if math.isnan(value) else ("Infinity" if value > 0 else "-Infinity")
    return str(value)


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Returns nested mappings as one with dotted names; lists and scalars stay what they are."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _repair(path: Path, resume_step: int | None) -> None:
    """Cuts a half-written last line and, on resume, the lines of later steps and of an end."""
    if not path.exists():
        return
    records = []
    changed = False
    end = 0
    for record, after in read_lines(path):
        end = after
        # A run that begins again at 0 evaluates step 0 again; one that is resumed does not.
        later = resume_step is not None and (
            record.get("step", -1) >= resume_step + (resume_step > 0)
            or record.get("event") == "end"
        )
        changed |= later
        if not later:
            records.append(record)
    if changed:
        lines = (json.dumps(record, ensure_ascii=False) + "\n" for record in records)
        with atomic(path) as partial, open(partial, "wb") as out:
            out.writelines(line.encode("utf-8", "surrogatepass") for line in lines)
    elif end < path.stat().st_size:
        os.truncate(path, end)


def _now() -> int:
    return time.time_ns() // 1_000_000
