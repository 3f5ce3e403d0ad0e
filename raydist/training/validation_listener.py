"""The validation listener: evaluates at every interval, keeps the best, votes for stopping.

The arithmetic is in `decisions.py`, retrieval in `validation.py`, files in `listener_files.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from raydist.evaluation.measures import Evaluation
from raydist.evaluation.mirror import Mirror
from raydist.training.checkpoint import Save
from raydist.training.decisions import State, observe, vote
from raydist.training.listener_files import ListenerFiles
from raydist.training.spec import Listener
from raydist.training.validation import Ranks, Retrieval, Task, validate

_SIGN_OF_LIFE_S = 60.0
"""Other ranks hear from the one that waits so often: none of them waits for a collective long."""


class Hook(Protocol):
    """Called with (step, model, results) around an evaluation; results is None before it."""

    def __call__(self, step: int, model: Any, results: Evaluation | None, /) -> None:
        """Is told of an evaluation."""
        ...


class Pending(Protocol):
    """An evaluation that runs beside training."""

    def result(self, timeout_s: float) -> Evaluation | None:
        """Returns the evaluation, None if it is not there within this time."""
        ...


class ValidationListener:
    """Evaluates a model at every `interval`-th step, step 0 included.

    Args:
        id: names its folder and its metrics.
        spec: measures, interval, when to record and to stop.
        dataset: queries and judgements.
        retriever: turns model and queries into a run.
        folder: where the listeners' folders are.
        hooks: pairs of callables (before, after) with (step, model, results); None for neither.
        save: writes a checkpoint; `save_model` on rank 0 by default.
        mirror: takes values and kept checkpoints (rank 0).
        ranks: the processes that validate together.
        submit: starts the evaluation of a saved checkpoint beside training; one is under way at a
            time, so decisions lag by an interval.
        facts: fingerprints and the like, kept beside the settings of a checkpoint.
    """

    def __init__(
        self,
        id: str,
        spec: Listener,
        dataset: Task,
        retriever: Retrieval,
        *,
        folder: Path,
        hooks: Sequence[tuple[Hook | None, Hook | None]] = (),
        save: Save | None = None,
        mirror: Mirror | None = None,
        ranks: Ranks = Ranks(),  # noqa: B008  frozen
        submit: Callable[[Path, int], Pending] | None = None,
        facts: Mapping[str, Any] | None = None,
    ) -> None:
        self.id = id
        self.spec = spec
        self.state = State()
        self._dataset = dataset
        self._retriever = retriever
        self._hooks = hooks
        self._ranks = ranks
        self._submit = submit
        self._pending: dict[int, Pending] = {}
        self._files = ListenerFiles(folder / id, id, save, mirror, ranks, facts or {})

    def after_step(self, step: int, model: Any) -> bool:
        """Evaluates if the step is one of the interval's; returns whether it wants to stop."""
        if step % self.spec.interval == 0 and step > max([self.state.step, *self._pending]):
            self._collect(model)
            self._before(step, model)
            if self._submit is None:
                results = validate(
                    model, self._dataset, self._retriever, list(self.spec.metrics), self._ranks
                )
                self._observe(step, model, results, None)
            else:
                place = self._files.save_pending(step, model)
                self._pending[step] = self._submit(place, step)
        return self.vote() is True

    def finish(self, model: Any) -> None:
        """Waits for evaluations that are under way, warns if the run ends below its start.

        What start, best and end are like goes into the record.
        """
        self._collect(model)
        self._files.warn_below(self.state)
        self._files.dashboard(self.spec.metrics, self.state, self._dataset.qrels)

    def vote(self) -> bool | None:
        """Returns whether it wants to stop, None if it has no vote."""
        return vote(self.spec, self.state)

    def state_dict(self) -> dict[str, Any]:
        """Returns what decides from here on, as JSON values."""
        return {"state": self.state.to_dict(), "pending": sorted(self._pending)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on from `state_dict`: later lines of the files are cut, as they will come again."""
        self.state = State.from_dict(state["state"])
        recorded = self._files.cut(self.state)
        for step in state.get("pending", ()):
            place = self._files.pending(step)
            if place.is_dir() and self._submit is not None:
                self._pending[step] = self._submit(place, step)
            elif step in recorded:  # it was decided after the checkpoint that we go on from
                results = recorded[step]
                self.state, seen = observe(self.spec, self.state, step, results)
                self._files.line(step, results, {}, seen.improved, self.vote())
                self._files.info(self.state)

    def _before(self, step: int, model: Any) -> None:
        if self.state.step < 0 and not self._pending:
            self._files.cut(self.state)  # what an earlier attempt left
        for before, _ in self._hooks:
            if before is not None:
                before(step, model, None)

    def _collect(self, model: Any) -> None:
        """Waits for what is under way."""
        for step in sorted(self._pending):
            results = None
            while results is None:
                first = self._ranks.rank == 0
                mine = self._pending[step].result(_SIGN_OF_LIFE_S) if first else None
                results = self._ranks.gather(mine)[0]
            del self._pending[step]
            self._observe(step, model, results, self._files.pending(step))

    def _observe(self, step: int, model: Any, results: Evaluation, place: Path | None) -> None:
        values = {name: results.means[name] for name in self.spec.metrics}
        self.state, seen = observe(self.spec, self.state, step, values)
        self._files.record(step, results, self.spec.metrics, self.state, seen.improved, self.vote())
        self._files.keep(step, model, seen.kept, self.state, place)
        for name in seen.not_a_number:
            self._files.tell(f"validation {self.id}, step {step}: {name} is not a number", bad=True)
        for _, after in self._hooks:
            if after is not None:
                after(step, model, results)
