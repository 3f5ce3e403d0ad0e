"""What learned sparse and multi-vector retrieval gain: `python -m benchmarks.learning`.

Collections are NFCorpus and `quickstart`, Python's own documentation. The parts:

start    MiniLM as its package has it, where head and projection of the two kinds are new, on the
         collection's test queries beside BM25 and dense vectors: nDCG@10 with bootstrap
         intervals, CPU milliseconds of a query, one thread, with its encoding, and MB on the disk
         that a search reads, models and texts not counted. NFCorpus' dev queries are in the notes.
trained  The same of models trained by `jobs/COLLECTION/sparse.yaml` and `multivector.yaml`, and of
         all fusions by ranks, with paired tests.
effort   NFCorpus' trained sparse index at growing `effort`: recall of the exact top 10 and top
         100, and milliseconds of a search without encoding.

    python -m benchmarks.learning
    python -m benchmarks.learning parts=start,trained collections=quickstart

Models and indexes are made in `benchmarks/.work` where they are missing. No setting was chosen by
test queries; those of the quickstart, which has no dev queries, are NFCorpus'. nDCG@10 of NFCorpus
is written to the records of `benchmarks.sparse` and `benchmarks.multivector`, too.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

from benchmarks.models import minilm, raydist
from benchmarks.report import SHARED, WORK, Measured, amend, arguments, measure_parts, recorded
from benchmarks.retrieval import built, corpus_of, half_precision, one_by_one, size

JOBS = Path(__file__).resolve().parents[1] / "jobs"
KINDS = ("sparse", "multivector")
WAYS = ("bm25", "dense", *KINDS)
FUSED = tuple("+".join(ways) for n in (2, 3, 4) for ways in combinations(WAYS, n))
EFFORTS = (0.3, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
FUSED_SAMPLE = 4
"""Fusions are timed with every so many queries."""


def main() -> None:
    options = arguments(
        {
            "parts": "start,trained,effort",
            "collections": "nfcorpus,quickstart",
            "rounds": 2,
            "k": 100,
        }
    )
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    import torch

    torch.set_num_threads(1)
    measure_parts("learning", PARTS, options)


def start(options: dict[str, Any]) -> Measured:
    """Measures BM25, dense vectors and the untrained models."""
    names = ["bm25", "dense", *(f"{kind}_start" for kind in KINDS)]
    return of_collections("start", options, lambda each: measured(each, names, [], options))


def after(options: dict[str, Any]) -> Measured:
    """Measures the trained models, and all fusions."""
    tests = [(kind, other) for kind in KINDS for other in (f"{kind}_start", "bm25", "dense")]
    tests += [(name, "bm25+dense") for name in (*KINDS, *FUSED[1:])]

    def one(collection: str) -> Measured:
        figures, notes = measured(collection, [*KINDS, *FUSED], tests, options)
        models = {kind: trained(collection, kind) for kind in KINDS}
        return figures, notes | {"training": {k: training_of(each) for k, each in models.items()}}

    return of_collections("trained", options, one)


def of_collections(
    part: str, options: dict[str, Any], measure: Callable[[str], Measured]
) -> Measured:
    """Returns a part's figures of the collections that `options` name, and remarks by collection.

    Remarks about other collections are those of the last record.
    """
    figures: dict[str, float] = {}
    notes = dict(recorded("learning")[1].get(part, {}))
    for collection in options["collections"].split(","):
        more, notes[collection] = measure(collection)
        figures |= more
    return figures, notes


def measured(
    collection: str,
    names: Sequence[str],
    tests: Sequence[tuple[str, str]],
    options: dict[str, Any],
) -> Measured:
    """Measures ways of search, and tests differences of two."""
    from raydist.evaluation.significance import compare, interval

    figures: dict[str, float] = {}
    k, values, queries = options["k"], {}, read(collection)
    runs: dict[str, Any] = {}
    for name in names:
        folders = [folder_of(collection, part) for part in name.split("+")]
        values[name] = values_of(collection, run_of(collection, name, k, runs))
        within = interval(values[name])
        figures[key(collection, name, "ndcg10")] = float(values[name].mean())
        figures[key(collection, name, "ndcg10", "_low")] = within.low
        figures[key(collection, name, "ndcg10", "_high")] = within.high
        search = searched(folders)
        search.run(queries[:1], k)
        timed = queries[::FUSED_SAMPLE] if "+" in name else queries
        seconds = [one_by_one(search, timed, k) for _ in range(options["rounds"])]
        figures[key(collection, name, "ms")] = 1000 * min(seconds) / len(timed)
        figures[key(collection, name, "mb")] = sum(map(read_bytes, folders)) / 1e6
        shown = (figures[key(collection, name, each)] for each in ("ndcg10", "ms", "mb"))
        print(collection, name, *(round(each, 4) for each in shown), flush=True)
    for name in {each for pair in tests for each in pair} - set(values):
        values[name] = values_of(collection, run_of(collection, name, k, runs))
    results = {pair: compare(values[pair[0]], values[pair[1]]) for pair in tests}
    notes: dict[str, Any] = {"k": k, "queries": len(queries), "interval": within.method}
    if collection == "nfcorpus":
        notes["dev_ndcg10"] = {
            name: round(float(dev_values(name, k).mean()), 4) for name in names if "+" not in name
        }
        for kind in KINDS:
            start = f"{kind}_ndcg10_"
            own = {k.removeprefix(f"{kind}_"): v for k, v in figures.items() if k.startswith(start)}
            amend(kind, own)
    if results:
        notes["paired_t"] = {
            f"{own} - {other}": {"difference": round(test.difference, 4), "p": round(test.p, 4)}
            for (own, other), test in results.items()
        }
    return figures, notes


def run_of(collection: str, name: str, k: int, runs: dict[str, Any]) -> Any:
    """Returns the run of a way of search, fused of those of its parts; `runs` keeps the parts'."""
    from raydist.dense.fusion import fuse

    for part in name.split("+"):
        if part not in runs:
            runs[part] = searched([folder_of(collection, part)]).run(read(collection), k)
    parts = [runs[part] for part in name.split("+")]
    return parts[0] if len(parts) == 1 else fuse(parts, k)


def values_of(collection: str, run: Any) -> Any:
    """Returns nDCG@10 of each test query."""
    from raydist.data.readers import read_qrels
    from raydist.evaluation.measures import evaluate

    return evaluate(run, read_qrels(source(collection, "qrels.txt")), ["nDCG@10"]).of("nDCG@10")


def dev_values(name: str, k: int) -> Any:
    """Returns nDCG@10 of each of NFCorpus' dev queries."""
    from raydist.data.readers import read_qrels, read_queries
    from raydist.evaluation.measures import evaluate

    qrels = read_qrels(SHARED / "nfcorpus/dev/qrels.txt")
    every = read_queries(SHARED / "nfcorpus/dev/queries.jsonl")
    queries = [each for each in every if each.query_id in qrels]
    run = searched([folder_of("nfcorpus", name)]).run(queries, k)
    return evaluate(run, qrels, ["nDCG@10"]).of("nDCG@10")


def folder_of(collection: str, name: str) -> Path:
    """Returns the index of a way of search."""
    if name in ("bm25", "dense"):
        return built(collection, "index" if name == "bm25" else "vectors")
    kind, _, state = name.partition("_")
    return embedded(collection, started(collection, kind) if state else trained(collection, kind))


def effort(options: dict[str, Any]) -> Measured:
    """Measures what the trained sparse index loses and saves by `effort`."""
    from raydist.bow.spec import BowSearchSpec
    from raydist.build import open_retriever
    from raydist.manifest import read_manifest
    from raydist.sparse.queries import QueryTerms

    folder = embedded("nfcorpus", trained("nfcorpus", "sparse"))
    queries = read("nfcorpus")
    weigh = QueryTerms.open(folder, read_manifest(folder)["model"])
    terms = weigh([query.text for query in queries])
    rows = [(query.query_id, each) for query, each in zip(queries, terms)]
    figures: dict[str, float] = {}
    for k in (10, 100):
        exact: dict[str, set[str]] = {}
        for value in reversed(EFFORTS):
            retriever: Any = open_retriever(folder, BowSearchSpec(effort=value))
            run = retriever.search_terms(rows, k)
            found = {query_id: set(docs) for query_id, docs, _ in run}
            exact = exact or found
            shares = [len(found[each] & best) / len(best) for each, best in exact.items() if best]
            figures[f"recall{k}_effort_{value:g}"] = sum(shares) / len(shares)
            times = []
            for _ in range(5):
                began = time.process_time()
                retriever.search_terms(rows, k)
                times.append(time.process_time() - began)
            figures[f"ms_k{k}_effort_{value:g}"] = 1000 * min(times) / len(rows)
    per_query = sum(map(len, terms)) / len(terms)
    return figures, {"queries": len(rows), "terms_of_a_query": round(per_query, 1)}


def key(collection: str, name: str, figure: str, end: str = "") -> str:
    """Returns the name of a figure: `sparse_ndcg10_nfcorpus_trained`, `bm25_ms_nfcorpus`."""
    kind, _, state = name.partition("_")
    state = state or ("trained" if kind in KINDS else "")
    return "_".join(filter(None, (kind, figure, collection, state))) + end


def source(collection: str, file: str, part: str = "") -> Path | str:
    """Returns a file of a collection's test part, or of another."""
    if collection == "quickstart":
        return f"{corpus_of(collection)}/{part or 'test'}"
    return SHARED / collection / part / file


def read(collection: str) -> list[Any]:
    """Returns the test queries that have judgements."""
    from raydist.data.readers import read_qrels, read_queries

    qrels = read_qrels(source(collection, "qrels.txt"))
    queries = read_queries(source(collection, "queries.jsonl"))
    return [query for query in queries if query.query_id in qrels]


def searched(folders: Sequence[Path]) -> Any:
    """Returns the search of a folder, or of several by reciprocal rank fusion."""
    from raydist.api.folder_search import search_of
    from raydist.api.stages import fuse

    ways = [search_of(str(folder), folder.name, False) for folder in folders]
    return ways[0] if len(ways) == 1 else fuse(*ways)


def read_bytes(folder: Path) -> int:
    """Returns the bytes below a folder, texts and models not counted."""
    return size(folder) - size(folder / "store")


def recipe(collection: str, kind: str) -> dict[str, Any]:
    """Returns the configuration of a kind's recipe."""
    import yaml

    text = (JOBS / collection / f"{kind}.yaml").read_text(encoding="utf-8")
    return dict(yaml.safe_load(text))


def started(collection: str, kind: str) -> Path:
    """Returns MiniLM as a model of a kind, before training, as the recipe starts it."""
    from raydist.models.biencoder import BiEncoder

    folder = WORK / f"{collection}-{kind}-start"
    if not (folder / "raydist.json").is_file():
        settings = {**recipe(collection, kind)["model"], "path": str(minilm()), "autocast": None}
        path = settings.pop("path")
        BiEncoder.load(path, fresh_head=kind == "sparse", device="cpu", **settings).save(folder)
    return folder


def trained(collection: str, kind: str) -> Path:
    """Returns the model of a kind's recipe."""
    folder = WORK / f"{collection}-{kind}"
    if not (folder / "manifest.json").is_file():
        words = [f"data={mined(collection)}", f"out={folder}", "tracking=none"]
        raydist("train", JOBS / collection / f"{kind}.yaml", *words)
    return folder


def mined(collection: str) -> Path:
    """Returns the samples of the recipes, made by the command in their headers."""
    out = WORK / f"{collection}-mined.jsonl"
    if not out.is_file():
        lines = (JOBS / collection / "sparse.yaml").read_text(encoding="utf-8").splitlines()
        command = next(line for line in lines if " mine " in line)
        words = dict(word.split("=", 1) for word in command.split()[3:])
        index, vectors = built(collection, "index"), built(collection, "vectors")
        words |= {"index": f"{index},{vectors}", "out": str(out)}
        words["queries"] = str(source(collection, "queries.jsonl", "train"))
        words["qrels"] = str(source(collection, "qrels.txt", "train"))
        raydist("mine", *(f"{name}={value}" for name, value in words.items()))
    return out


def embedded(collection: str, model: Path) -> Path:
    """Returns the index of the collection by a model."""
    folder = model.with_name(f"{model.name}-index")
    if not (folder / "manifest.json").is_file():
        words = [f"corpus={corpus_of(collection)}", f"model.path={model}", f"out={folder}"]
        raydist("embed", *words, *half_precision())
    return folder


def training_of(folder: Path) -> dict[str, Any]:
    """Returns the last logged line of a training run."""
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return dict(next(line for line in map(json.loads, reversed(lines)) if "loss" in line))


PARTS: dict[str, Callable[[dict[str, Any]], Measured]] = {
    "start": start,
    "trained": after,
    "effort": effort,
}

if __name__ == "__main__":
    main()
