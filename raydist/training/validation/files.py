"""A listener's files, and its part of the run's record.

Rank 0 writes; checkpoints are saved by every rank, since each may hold a part of the model.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from raydist.disk import atomic, write_json
from raydist.evaluation.dashboard import record_queries, record_validation
from raydist.evaluation.measures import Evaluation, evaluate
from raydist.evaluation.mirror import Mirror, to_json
from raydist.log import say, warn
from raydist.records import Qrels, Run
from raydist.training.checkpoint import Save, save_model
from raydist.training.validation.decisions import State
from raydist.training.validation.retrieval import Ranks

_NO_MEASURES = ("step", "stop", "new_best", "quartiles")
"""The other keys of a line of history."""


@dataclass(frozen=True, slots=True)
class ValidationSettings:
    """The listener and the measure that chose a checkpoint; goes with it to the model card."""

    listener: str
    key: str
    value: float
    step: int


@dataclass(frozen=True, slots=True)
class ListenerFiles:
    """The folder of one listener, and its part of the run's record.

    Attributes:
        root: where the listeners' folders are.
        id: names its folder and its metrics.
        save: writes a checkpoint; `save_model` on rank 0 by default.
        mirror: takes values and kept checkpoints (rank 0).
        ranks: the processes that validate together.
        facts: fingerprints and the like, kept beside the settings of a checkpoint.
    """

    root: Path
    id: str
    save: Save | None = None
    mirror: Mirror | None = None
    ranks: Ranks = field(default_factory=Ranks)
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        """The listener's folder."""
        return self.root / self.id

    @property
    def _first(self) -> bool:
        return self.ranks.rank == 0

    def record(
        self,
        step: int,
        results: Evaluation,
        metrics: Mapping[str, bool],
        state: State,
        improved: Sequence[str],
        wants_to_stop: bool | None,
        texts: Mapping[str, str],
    ) -> None:
        """Writes an evaluation: line, info, per-query tables, metrics; `texts` are the queries'."""
        if not self._first:
            return
        import pyarrow.parquet as pq

        table = self.folder / "per_query" / f"step-{step:08}.parquet"
        table.parent.mkdir(parents=True, exist_ok=True)
        earlier = sorted(path for path in table.parent.glob("step-*.parquet") if path < table)
        pq.write_table(results.table(), table)
        if self.mirror is not None:
            before = pq.read_table(earlier[-1]) if earlier else None
            measure = _deciding(metrics)
            record_queries(self.mirror, self.id, results.table(), before, measure, texts)
        self._keep_run(step, results, metrics, improved)
        values = {name: results.means[name] for name in metrics}
        spread = {
            name: [float(q) for q in np.quantile(results.of(name), [0, 0.25, 0.5, 0.75, 1])]
            for name in metrics
        }
        self.line(step, values, spread, improved, wants_to_stop)
        self.info(state)
        quartiles = {
            f"quartiles/{name} {label}": spread[name][i]
            for name in metrics
            for label, i in (("q1", 1), ("median", 2), ("q3", 3))
        }
        self.log(step, values, state, quartiles)

    def line(
        self,
        step: int,
        values: Mapping[str, float],
        spread: Mapping[str, Sequence[float]],
        improved: Sequence[str],
        wants_to_stop: bool | None,
    ) -> None:
        """Appends to `history.jsonl`."""
        if not self._first:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        line: dict[str, Any] = {"step": step, **values, "new_best": list(improved)}
        line["stop"] = wants_to_stop
        if spread:
            line["quartiles"] = dict(spread)
        with open(self.folder / "history.jsonl", "a", encoding="utf-8") as out:
            out.write(json.dumps(to_json(line)) + "\n")

    def info(self, state: State) -> None:
        """Writes `info.json`: best value and step per measure."""
        if self._first:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_json(self.folder / "info.json", {k: asdict(b) for k, b in state.best.items()})

    def log(
        self,
        step: int,
        values: Mapping[str, float],
        state: State,
        more: Mapping[str, float] | None = None,
    ) -> None:
        """Records the values and the best so far, and prints them."""
        if not self._first:
            return
        bests = {f"best/{name}": best.value for name, best in state.best.items()}
        if self.mirror is not None:
            named = {**values, **bests, **(more or {})}
            self.mirror.metrics(step, {f"{self.id}/{k}": v for k, v in named.items()})
        new = {name for name, best in state.best.items() if best.step == step}
        words = [f"{k} {v:.4f}" + (" (best)" if k in new else "") for k, v in values.items()]
        say(f"validation {self.id}, step {step:,}: {', '.join(words)}")

    def keep(
        self, step: int, model: Any, kept: Sequence[str], state: State, place: Path | None
    ) -> None:
        """Puts the checkpoint under `best/` for each measure that has a new best.

        `place` is a checkpoint that was saved before, for an evaluation beside training; it is
        removed.
        """
        if kept and place is None:
            place = self.folder / f".step-{step:08}.part"
            self._write(place, step, model)
        self.ranks.barrier()  # every rank has written
        if place is None or not self._first:
            return
        for name in kept:
            settings = ValidationSettings(self.id, name, state.best[name].value, step)
            target = self.folder / "best" / name
            target.parent.mkdir(parents=True, exist_ok=True)
            with atomic(target) as partial:
                shutil.copytree(place, partial, copy_function=_link)
                write_json(partial / "settings.json", {**asdict(settings), **self.facts})
            if self.mirror is not None:
                values = {f"{self.id}/{k}": v for k, v in state.current.items()}
                self.mirror.model(f"{self.id}/{name}", step, target, values, asdict(settings))
        shutil.rmtree(place)

    def pending(self, step: int) -> Path:
        """Returns where a checkpoint waits for its evaluation."""
        return self.folder / "pending" / f"step-{step:08}"

    def save_pending(self, step: int, model: Any) -> Path:
        """Saves a checkpoint to be evaluated beside training."""
        place = self.pending(step)
        self._write(place, step, model)
        self.ranks.barrier()  # every rank has written
        return place

    def _write(self, place: Path, step: int, model: Any) -> None:
        if self._first:
            shutil.rmtree(place, ignore_errors=True)
            place.mkdir(parents=True)
        self.ranks.barrier()  # the folder exists
        if self.save is not None:
            self.save(model, place, {"listener": self.id, "step": step})
        elif self._first:
            save_model(model, place, {"listener": self.id, "step": step})

    def cut(self, state: State) -> dict[int, dict[str, float]]:
        """Removes lines of later steps than the state's; returns the removed values by step."""
        removed: dict[int, dict[str, float]] = {}
        path = self.folder / "history.jsonl"
        if self._first and path.exists():
            lines = []
            for text in path.read_text(encoding="utf-8").splitlines():
                try:
                    line = json.loads(text)
                except ValueError:
                    continue  # half-written in a crash
                if line["step"] <= state.step:
                    lines.append(text + "\n")
                else:
                    removed[line["step"]] = {
                        k: float(v) for k, v in line.items() if k not in _NO_MEASURES
                    }
            with atomic(path) as partial:
                partial.write_text("".join(lines), encoding="utf-8")
            self.info(state)
        return self.ranks.broadcast(removed)  # type: ignore[no-any-return]

    def _keep_run(
        self, step: int, results: Evaluation, metrics: Mapping[str, bool], improved: Sequence[str]
    ) -> None:
        """Keeps the runs of the start, of the newest best and of the newest evaluation."""
        if results.run is None:
            return
        import pyarrow.parquet as pq

        names = ["end", *(["start"] if step == 0 else [])]
        names += ["best"] if _deciding(metrics) in improved else []
        for name in names:
            path = self.folder / "runs" / f"{name}.parquet"
            path.parent.mkdir(exist_ok=True)
            pq.write_table(results.run.table, path)

    def dashboard(self, metrics: Mapping[str, bool], state: State, qrels: Qrels) -> None:
        """Records how start, best and end compare: figures, values per query, runs."""
        if not self._first or self.mirror is None or state.step < 0:
            return
        import pyarrow.parquet as pq

        best = state.best.get(_deciding(metrics))
        steps = {"start": 0, "best": best.step if best else -1, "end": state.step}
        runs = {}
        for name, step in steps.items():
            path = self.folder / "runs" / f"{name}.parquet"
            if path.exists() and step >= 0 and f"step {step:,}" not in runs:
                runs[f"step {step:,}"] = Run(pq.read_table(path))
        evaluations = {name: evaluate(run, qrels, list(metrics)) for name, run in runs.items()}
        if evaluations:
            record_validation(self.mirror, self.id, evaluations, runs, qrels, self.folder)

    def warn_below(self, state: State) -> None:
        """Warns where a run ends below its start."""
        for name, (before, after) in state.below_baseline().items():
            best = f"; its best is step {state.best[name].step:,}" if name in state.best else ""
            self.warn(
                f"validation {self.id}: {name} ENDS BELOW ITS START: {after:.4f} at step "
                f"{state.step:,}, {before:.4f} before training{best}"
            )

    def warn(self, message: str) -> None:
        """Warns once, not once per rank, and tags the run's record."""
        if self._first:
            warn(message)
            if self.mirror is not None:
                self.mirror.tags({f"warning.{self.id}": message})


def _deciding(metrics: Mapping[str, bool]) -> str:
    """Returns the measure whose best run is reported: the first that is kept, or the first."""
    return next((name for name, keep in metrics.items() if keep), next(iter(metrics)))


def _link(source: str, target: str) -> None:
    """Copies a file, as a hard link where the file system has them."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
