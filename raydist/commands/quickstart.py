"""Indexes, searches and measures a small corpus that needs no download.

    raydist quickstart
    raydist quickstart workers=2
    raydist quickstart full=true

It works in this process; `workers=2` does the same on Ray. The corpus is the documentation of the
running Python's standard library and packages: a query is the first sentence of a docstring, its
one relevant document the rest of it. Each step prints the command that does the same by hand.
"""

from __future__ import annotations

import importlib
import json
import shlex
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from raydist import log
from raydist.artefact import planned
from raydist.config.base import Flags
from raydist.config.doctor import QuickstartConfig
from raydist.config.load import load
from raydist.data.docstrings import Entry
from raydist.errors import ArtifactError, ConfigError
from raydist.manifest import is_output
from raydist.shard_files import Split, Stats, shard_path
from raydist.shards import sharded_map

Config = QuickstartConfig
_MODULES = 100  # per split


def run(config: QuickstartConfig, flags: Flags) -> int:
    """Writes data, index and run below `out` and prints the measures."""
    from raydist.data import docstrings
    from raydist.disk import atomic, disk_errors

    out = Path(config.out)
    data = out / "data"
    _check(out)
    if planned(flags.dry_run, f"write a collection, its index and a run below {out}"):
        return 0
    if not (data / "corpus.jsonl").exists():
        names = ", ".join(["the standard library", *config.packages])
        log.say(f"collecting the docstrings of {names}")
        read = partial(_read, data.with_name(".modules"), config.workers)
        collection = docstrings.cached(config.packages, read)
        with disk_errors(data):
            out.mkdir(parents=True, exist_ok=True)
        with disk_errors(data), atomic(data) as unfinished:
            shutil.copytree(collection, unfinished)
    corpus, queries, qrels = data / "corpus.jsonl", data / "queries.jsonl", data / "qrels.txt"
    index, ranking = out / "index", out / "bm25.txt"
    steps = [
        ("index", f"corpus={corpus}", f"out={index}", f"workers={config.workers}"),
        ("search", f"index={index}", f"queries={queries}", "k=100", f"out={ranking}"),
        ("evaluate", f"run={ranking}", f"qrels={qrels}", "measures=nDCG@10,RR@10,R@100"),
    ]
    if config.full:
        steps += _training(out, index, config)
    for verb, *arguments in steps:
        print(f"\n$ {shlex.join(['raydist', verb, *arguments])}", file=sys.stderr)
        module = importlib.import_module(f"raydist.commands.{verb}")
        module.run(load(module.Config, (), arguments), Flags())
    log.say(f"\ntry next:\n{_next(config, index)}")
    return 0


def _next(config: QuickstartConfig, index: Path) -> str:
    """Returns what to try after the steps, a line each."""
    lines = {
        f"raydist search index={index}": "ask the index yourself",
        f"raydist status {index}": "what it is made of",
        "raydist help search": "what else a verb can do",
    }
    if not config.full:
        lines["raydist quickstart full=true"] = "train a bi-encoder on the same data, search both"
    if not config.workers:
        lines["raydist quickstart workers=2 out=on-ray"] = "the same on Ray"
    lines["raydist index corpus=FILE.jsonl out=IDX"] = "your own documents: id, title and text"
    width = max(map(len, lines))
    return "\n".join(f"  {line:<{width}}  {what}" for line, what in lines.items())


def _check(out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise ConfigError(f"out = {out}: is a file, expected a folder")
    if is_output(out):
        raise ArtifactError(f"out = {out}: another command writes this folder; choose another out=")


def _training(out: Path, index: Path, config: QuickstartConfig) -> list[tuple[str, ...]]:
    """Returns the steps from the same data to a hybrid search, measured on held-out queries."""
    data, model, vectors = out / "data", out / "model", out / "vectors"
    queries, qrels = f"queries={data}/test/queries.jsonl", f"qrels={data}/test/qrels.txt"
    before, after = out / "test-bm25.txt", out / "test-hybrid.txt"
    scratch = "{layers: 2, hidden: 128, heads: 2, vocab: 8192, max_length: 128}"
    return [
        (
            *("train", f"data={data}/train.jsonl", f"model.scratch={scratch}"),
            *("model.pooling=mean", "model.normalize=true", "model.dropout=0"),
            *("model.query_max_length=32", "model.document_max_length=96", "train_group_size=1"),
            *("loss.kind=infonce", "loss.temperature=0.05", "batch_size=64", "optim.lr=2e-3"),
            *("optim.schedule=cosine", "optim.warmup=0.1", f"steps={config.train_steps}"),
            f"out={model}",
        ),
        (
            *("embed", f"corpus={data}/corpus.jsonl", f"model={model}/checkpoint-final"),
            *(f"out={vectors}", f"workers={config.workers}"),
        ),
        ("search", f"index={index}", queries, "k=100", f"out={before}"),
        ("search", f"index={index},{vectors}", "fusion=rrf", queries, "k=100", f"out={after}"),
        (
            *("evaluate", f"run={before},{after}", qrels, f"baseline={before}"),
            "measures=nDCG@10,RR@10,R@100",
        ),
    ]


def _read(
    folder: Path,
    workers: int,
    extract: Callable[[tuple[str, str]], list[Entry]],
    modules: Sequence[tuple[str, str]],
) -> Iterator[list[Entry]]:
    """Yields the entries of all modules; workers parse the sources."""
    shutil.rmtree(folder, ignore_errors=True)  # the sources may have changed
    splits = [
        {"modules": modules[at : at + _MODULES], "size": len(modules[at : at + _MODULES])}
        for at in range(0, len(modules), _MODULES)
    ]
    make_worker = partial(_Reader, extract)
    sharded_map(splits, make_worker, folder, workers=workers, label="reading", unit="module")
    for number in range(len(splits)):
        rows = json.loads(shard_path(folder, number).read_text(encoding="utf-8"))
        yield [Entry(*row) for row in rows]
    shutil.rmtree(folder)


class _Reader:
    def __init__(self, extract: Callable[[tuple[str, str]], list[Entry]]) -> None:
        self._extract = extract

    def __call__(self, split: Split, target: Path) -> Stats:
        """Writes the entries of some modules."""
        entries = [e for name, path in split["modules"] for e in self._extract((name, path))]
        rows = [(e.name, e.summary, e.rest) for e in entries]
        target.write_text(json.dumps(rows), encoding="utf-8")
        return {"modules": len(split["modules"])}
