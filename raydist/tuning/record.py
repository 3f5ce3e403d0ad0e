"""The record of a search: every value that a trial reported, and how each trial ended.

`trials.jsonl` has a line per value and per end, written by the driver alone. A search that was
interrupted continues from it: trials that have ended are not run again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from raydist.evaluation.mirror import read_lines, to_json

TRIALS = "trials.jsonl"

End = Literal["finished", "stopped", "failed"]


@dataclass(slots=True)
class Trial:
    """One configuration that is trained.

    Attributes:
        index: its number, from 0.
        values: what was drawn, by key.
        reports: (step, value) of each validation.
        end: how it ended, None before that.
        reason: why it failed.
    """

    index: int
    values: Mapping[str, str]
    reports: list[tuple[int, float]] = field(default_factory=list)
    end: End | None = None
    reason: str = ""

    @property
    def name(self) -> str:
        """Its name, which its folder has too."""
        return f"trial-{self.index:03}"

    def folder(self, out: Path) -> Path:
        """Returns the folder of its training run below the search's."""
        return out / "trials" / self.name

    def __str__(self) -> str:
        return ", ".join(f"{key}={value}" for key, value in self.values.items())


class Record:
    """The trials of a search, as their record says.

    Args:
        folder: the search's.
        draws: the drawn values of each trial.
    """

    def __init__(self, folder: Path, draws: list[dict[str, str]]) -> None:
        self._path = folder / TRIALS
        self.trials = [Trial(index, values) for index, values in enumerate(draws)]
        end = 0
        for line, after in read_lines(self._path):
            end = after
            if line["trial"] < len(self.trials):
                self._apply(line)
        if self._path.exists() and end < self._path.stat().st_size:
            os.truncate(self._path, end)  # a line that a crash left half-written

    def report(self, trial: int, step: int, value: float) -> None:
        """Records a value; one of a step that was reported before is dropped."""
        if step not in [reported for reported, _ in self.trials[trial].reports]:
            self._write({"trial": trial, "step": step, "value": value})

    def ended(self, trial: int, end: End, reason: str = "") -> None:
        """Records the end of a trial."""
        self._write({"trial": trial, "end": end, "reason": reason})

    def _write(self, line: dict[str, Any]) -> None:
        with open(self._path, "ab", buffering=0) as out:
            out.write((json.dumps(to_json(line), ensure_ascii=False) + "\n").encode())
        self._apply(line)

    def _apply(self, line: Mapping[str, Any]) -> None:
        trial = self.trials[line["trial"]]
        if "end" in line:
            trial.end, trial.reason = line["end"], line["reason"]
        else:
            trial.reports.append((int(line["step"]), float(line["value"])))
