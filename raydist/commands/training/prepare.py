"""Before a run is planned: fingerprints of its inputs, its samples, the model to start from."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raydist.commands.training.plan import Recipe, data_folder
from raydist.config.base import Flags, resolved
from raydist.config.load import load
from raydist.config.training import TrainingConfig
from raydist.data.spec import RunSource
from raydist.disk import atomic, write_json
from raydist.fingerprints import value_fingerprint
from raydist.models.spec import Scratch
from raydist.training.spec import TrainingData

if TYPE_CHECKING:
    from raydist.data.samples.sample_set import SampleFacts


def prepare(
    config: TrainingConfig, recipe: Recipe, folder: Path, rows: int = 0
) -> list[SampleFacts]:
    """Checks the listeners' inputs, writes each data set's samples and returns the facts.

    Args:
        config: of the run.
        recipe: of the verb.
        folder: of the run; samples go to `data/NAME` below it.
        rows: looks at so many samples of each data set and builds no index; 0 = all.
    """
    from raydist.data.samples.prepare import prepare as prepare_samples
    from raydist.training.validation.build import check_listeners

    check_listeners(config.validation, recipe.model.family)
    facts = []
    for name, data in config.sets().items():
        source = recipe.require(data, config.source(data))
        if data.bm25_negatives and not rows:
            ranking = _bm25_run(config, data, folder / "data")
            source = replace(source, run=RunSource(path=str(ranking)))
        if rows:
            source = replace(source, max_rows=min(rows, source.max_rows or rows))
        assumed = rows and data.bm25_negatives
        if assumed:
            source = replace(source, need_negatives=False)
        of_set = prepare_samples(source, data_folder(folder, name), name=name)
        if assumed:
            negatives = {data.bm25_negatives: of_set.rows}
            of_set = replace(of_set, negatives=negatives, without_negatives="")
        facts.append(of_set)
    return facts


def find_model(recipe: Recipe) -> Path | None:
    """Returns the folder to start from, None for a model from scratch.

    Raises:
        DataError: there is no such model.
    """
    if recipe.model.path is None:
        return None
    from raydist.models.backbone import resolve_folder

    return resolve_folder(recipe.model.path)


def create_model(scratch: Scratch, target: Path, samples: Iterable[Path], seed: int) -> None:
    """Makes a model from nothing, its vocabulary trained on the prepared samples' texts."""
    from raydist.data.samples.sample_set import SampleSet
    from raydist.models.scratch import create

    if (target / "config.json").exists():
        return

    def texts() -> Iterator[str]:
        for folder in samples:
            of_set = SampleSet(folder)
            for row in range(len(of_set)):
                sample = of_set[row]
                yield sample.query
                yield from sample.documents

    with atomic(target) as unfinished:
        create(texts(), unfinished, **asdict(scratch), seed=seed)


def prepare_shared(
    configs: Sequence[TrainingConfig], recipes: Sequence[Recipe], folder: Path
) -> list[Path]:
    """Prepares what several runs have in common below a folder: data, and a model from nothing.

    Returns the folders of what they share, none where they do not read the same.
    """
    first = configs[0]
    reads = [
        [(r.require(d, c.source(d)), d.bm25_negatives) for d in c.sets().values()]
        for c, r in zip(configs, recipes, strict=True)
    ]
    if any(each != reads[0] for each in reads):
        return []
    prepare(first, recipes[0], folder)
    shared = [data_folder(folder, "")]
    scratch = recipes[0].model.scratch
    seeds = {config.seed for config in configs}
    if scratch and len(seeds) == 1 and all(r.model.scratch == scratch for r in recipes):
        samples = [data_folder(folder, name) for name in first.sets()]
        create_model(scratch, folder / "scratch", samples, first.seed)
        shared.append(folder / "scratch")
    return shared


def _bm25_run(config: TrainingConfig, data: TrainingData, folder: Path) -> Path:
    """Returns BM25's ranking of a data set's queries, by the verbs `index` and `search`."""
    corpus, queries = data.corpus or config.corpus, data.queries or config.queries
    assert corpus is not None and queries is not None
    name = value_fingerprint([resolved(corpus), resolved(queries), data.bm25_negatives])
    index, ranking = folder / f"bm25-{name}", folder / f"bm25-{name}.txt"
    if not ranking.exists():
        folder.mkdir(parents=True, exist_ok=True)
        _run_verb("index", {"corpus": resolved(corpus), "out": str(index)}, index)
        search = {"index": str(index), "queries": resolved(queries), "k": data.bm25_negatives}
        _run_verb("search", {**search, "out": str(ranking)}, ranking)
    return ranking


def _run_verb(verb: str, config: Mapping[str, Any], out: Path) -> None:
    module = importlib.import_module(f"raydist.commands.{verb}")
    file = out.with_name(f".{out.name}.{verb}.json")
    write_json(file, config)
    module.run(load(module.Config, [str(file)]), Flags())
    file.unlink()
