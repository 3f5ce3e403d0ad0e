"""Listeners of a run, built from their specs: reads each one's data and puts the parts together."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa

from raydist import cluster
from raydist.data.contents import file_fingerprint, input_files
from raydist.data.readers import read_documents, read_qrels, read_queries, read_run
from raydist.errors import ConfigError, JobError
from raydist.evaluation.measures import Evaluation
from raydist.evaluation.mirror import Mirror
from raydist.models.biencoder import BiEncoder
from raydist.models.crossencoder import CrossEncoderModel
from raydist.models.folders.contract import read_contract
from raydist.records import DOCUMENTS, Document
from raydist.training.checkpoint import Save
from raydist.training.spec import Aggregate, DenseRetriever, Listener
from raydist.training.validation.files import ListenerFiles
from raydist.training.validation.listener import (
    AggregatorValidationListener,
    Hook,
    Listeners,
    Pending,
    ValidationListener,
)
from raydist.training.validation.retrieval import (
    DenseRetrieval,
    Ranks,
    Retrieval,
    RunReranking,
    Score,
    Task,
    validate,
)

Hooks = Mapping[str, Sequence[tuple[Hook | None, Hook | None]]]
"""Listener id -> pairs called (before, after) each of its evaluations."""

Submit = Callable[[Listener, Path], Pending]
"""Starts `evaluate_checkpoint(spec, folder)` in another process."""


def make_listeners(
    specs: Mapping[str, Listener | Aggregate],
    *,
    folder: str | os.PathLike[str],
    steps: int | None = None,
    ranks: Ranks = Ranks(),  # noqa: B008  frozen
    mirror: Mirror | None = None,
    save: Save | None = None,
    submit: Submit | None = None,
    score: Score | None = None,
    hooks: Hooks | None = None,
    documents: bool = True,
) -> Listeners:
    """Returns the listeners of a run.

    Args:
        specs: by id.
        folder: where their folders go, usually `OUT/listeners`.
        steps: the run's last step.
        ranks: the processes that validate together.
        mirror: takes values and kept checkpoints; given on rank 0.
        save: writes a checkpoint, called by every rank.
        submit: starts evaluations beside training, for `async`; Ray tasks by default.
        score: scores pairs with the model, for reranking.
        hooks: by the listeners' ids.
        documents: False leaves the documents unread: such listeners cannot evaluate.

    Raises:
        ConfigError: contradictions, or an aggregate or hook that names an unknown listener.
        DataError: an input is missing or malformed.
    """
    hooks = hooks or {}
    place = Path(folder)
    single = {id: spec for id, spec in specs.items() if isinstance(spec, Listener)}
    means = {id: spec for id, spec in specs.items() if isinstance(spec, Aggregate)}
    data = {id: _fingerprints(spec) for id, spec in single.items()} if ranks.rank == 0 else {}
    listeners: dict[str, ValidationListener] = {}
    for id, spec in single.items():
        in_process = documents and not spec.async_
        start = partial(_start, submit or RaySubmit(evaluate_checkpoint), spec)
        listeners[id] = ValidationListener(
            ListenerFiles(place, id, save, mirror, ranks, {"data": data[id]} if data else {}),
            spec,
            _task(spec),
            _retrieval(spec, ranks, score) if in_process else _nothing,
            hooks=hooks.get(id, ()),
            submit=start if spec.async_ else None,
        )
    known = ", ".join(listeners) or "none"
    if stray := hooks.keys() - specs.keys():
        there = ", ".join(specs) or "none"
        raise ConfigError(f"hooks: {', '.join(sorted(stray))}: no such listener; there are {there}")
    aggregators = []
    for id, mean in means.items():
        if unknown := [name for name in mean.listeners if name not in listeners]:
            raise ConfigError(
                f"validation.{id}.listeners: {', '.join(unknown)}: no such listener; "
                f"there are {known}"
            )
        facts = {"data": {name: data[name] for name in mean.listeners}} if data else {}
        aggregators.append(
            AggregatorValidationListener(
                ListenerFiles(place, id, save, mirror, ranks, facts),
                mean,
                [listeners[name] for name in mean.listeners],
                hooks=hooks.get(id, ()),
            )
        )
    return Listeners([*listeners.values(), *aggregators], steps)


def check_listeners(
    specs: Mapping[str, Listener | Aggregate], kind: Literal["biencoder", "crossencoder"]
) -> None:
    """Raises early for a model of this kind that cannot be validated; reads no documents.

    Raises:
        ConfigError: contradictions, or a search with a model that has no vectors.
        DataError: an input is missing or malformed.
    """
    for id, spec in specs.items():
        if isinstance(spec, Aggregate):
            continue
        if kind == "crossencoder" and spec.retriever.kind == "dense":
            raise ConfigError(
                f"validation.{id}.retriever = dense: a cross-encoder has no vectors to search by; "
                f"give it a run to rerank: validation.{id}.retriever.kind=rerank "
                f"validation.{id}.retriever.run=RUN"
            )
        for source in spec.sources().values():
            input_files(source)
    make_listeners(specs, folder="", ranks=Ranks(1, 2), submit=_never, documents=False)


def _never(spec: Listener, folder: Path) -> Pending:
    raise AssertionError("a check submits nothing")


def evaluate_checkpoint(
    spec: Listener,
    folder: str | os.PathLike[str],
    score: Score | None = None,
    *,
    settings: Mapping[str, Any] | None = None,
) -> Evaluation:
    """Loads a saved checkpoint and evaluates it, for `async` listeners in another process.

    Without a share of a GPU it stays on the CPU: the GPUs are training's.

    Args:
        spec: of the listener.
        folder: the checkpoint.
        score: scores pairs with the model, for reranking.
        settings: of the model, beside what its folder keeps, such as `autocast`.
    """
    place = Path(folder)
    contract = read_contract(place)
    assert contract is not None, place  # every checkpoint has one
    cls = CrossEncoderModel if contract.pairs else BiEncoder
    model = cls.load(place, device=None if spec.gpus else "cpu", **(settings or {}))
    ranks = Ranks()
    return validate(model, _task(spec), _retrieval(spec, ranks, score), list(spec.metrics))


def _task(spec: Listener) -> Task:
    return Task(read_queries(spec.queries), read_qrels(spec.qrels))


def _nothing(model: Any, queries: Any) -> None:
    raise AssertionError("this listener does not retrieve in this process")


def _retrieval(spec: Listener, ranks: Ranks, score: Score | None) -> Retrieval:
    retriever = spec.retriever
    tables = read_documents(spec.corpus)
    if isinstance(retriever, DenseRetriever):
        kept = list(tables)
        corpus = pa.concat_tables(kept) if kept else DOCUMENTS.empty_table()
        doc_ids = corpus["doc_id"].cast(pa.large_string()).combine_chunks()
        share = ranks.share(len(corpus))  # no rank holds another's texts
        documents = [
            Document(row["doc_id"], row["text"], row["title"] or "")
            for row in corpus.slice(share.start, len(share)).to_pylist()
        ]
        return DenseRetrieval(doc_ids, documents, retriever.k, ranks)
    run = read_run(retriever.run).top(retriever.depth)
    candidates = set(run.table["doc_id"].to_pylist())
    texts = {
        row["doc_id"]: Document(row["doc_id"], row["text"], row["title"] or "").contents
        for table in tables
        for row in table.to_pylist()
        if row["doc_id"] in candidates
    }
    return RunReranking(run, texts, retriever.depth, ranks, score, retriever.missing)


def _fingerprints(spec: Listener) -> dict[str, str]:
    sources = {name.removeprefix("retriever."): each for name, each in spec.sources().items()}
    return {name: file_fingerprint(each) for name, each in sources.items()}


def _start(submit: Submit, spec: Listener, folder: Path, step: int) -> Pending:
    return submit(spec, folder)


@dataclass(frozen=True, slots=True)
class RaySubmit:
    """Starts `evaluate(spec, folder, settings=settings)` as a Ray task; picklable.

    The task takes a CPU if one is free when it starts. Otherwise it takes none and shares those of
    training: waiting for one that training holds until its end would never end. For the
    same reason its share of a GPU (`gpus` of the spec) must be one that training leaves.
    """

    evaluate: Callable[..., Evaluation]
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __call__(self, spec: Listener, folder: Path) -> _Task:
        """Starts a task and returns its handle."""
        cluster.connect()
        import ray

        free = ray.available_resources().get("CPU", 0.0)
        cpus = 1 if free >= 1 else 0
        task = ray.remote(num_cpus=cpus, num_gpus=spec.gpus, max_retries=3)(_evaluate_in)
        work = partial(self.evaluate, spec, str(folder), settings=self.settings)
        return _Task(task.remote(os.getcwd(), work), str(folder))


def _evaluate_in(cwd: str, evaluate: Callable[[], Evaluation]) -> Evaluation:
    cluster.enter(cwd)
    return evaluate()


@dataclass(frozen=True, slots=True)
class _Task:
    reference: Any
    folder: str

    def result(self, timeout_s: float) -> Evaluation | None:
        """Returns the evaluation, None if it takes longer than this time.

        Raises:
            JobError: the task failed.
        """
        import ray

        ready, _ = ray.wait([self.reference], timeout=timeout_s)
        if not ready:
            return None
        try:
            evaluation: Evaluation = ray.get(self.reference)
        except ray.exceptions.RayError as error:
            lines = str(error).strip().splitlines() or [type(error).__name__]
            raise JobError(f"validation of {self.folder} failed: {lines[-1]}") from error
        return evaluation
