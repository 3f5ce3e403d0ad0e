"""The verbs of the command line as functions.

Each takes the keys of `raydist VERB` (`raydist fields VERB` lists them), nested as dicts, and YAML
files by `config=`. Inputs are paths or objects: a DataFrame, an Arrow table, a `datasets.Dataset`,
a mapping, an iterable of mappings. The same call again says "already built", and is quick.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, overload

from raydist import log
from raydist.api import command
from raydist.api.command import Files, place_of
from raydist.api.folders import Index, Vectors, open
from raydist.api.outputs import Output, Training
from raydist.api.run import Run, read_run
from raydist.errors import ConfigError

if TYPE_CHECKING:
    from raydist.api.folders import Place
    from raydist.api.stages import Steps


def index(
    corpus: Any = None,
    out: Place | None = None,
    *,
    config: Files = (),
    append: bool = False,
    **keys: Any,
) -> Index:
    """Builds a bag-of-words index, adds documents to one, or deletes some (`delete=`).

    >>> import raydist as rd
    >>> index = rd.index({"1": "A heron eats fish.", "2": "A boat on a canal."}, "idx")
    >>> len(index)
    2
    >>> len(rd.index([{"id": "3", "text": "A kingfisher."}], "idx", append=True))
    3

    Args:
        corpus: a path or URI, `{id: text}`, rows with an id, a text and perhaps a title, a
            DataFrame, an Arrow table, a `datasets.Dataset`, a `ray.data.Dataset`.
        out: the folder to write, or its URI.
        config: YAML files.
        append: add to an existing index.
        keys: the other keys of `raydist index`, such as `workers=8`, `analyzer={"language": …}`.

    Raises:
        RaydistError: as the verb does.
    """
    # Who builds an index here searches it next.
    built: Index = _corpus_verb(
        "index", corpus, out, config, keys, observers={"search_next": True}, append=append
    )
    return built


def embed(
    corpus: Any = None,
    out: Place | None = None,
    *,
    config: Files = (),
    append: bool = False,
    **keys: Any,
) -> Vectors:
    """Turns a corpus into vectors, adds documents to them, or deletes some (`delete=`).

    >>> import raydist as rd
    >>> rd.embed({"1": "A heron eats fish."}, "vec", model=MODEL)
    Vectors('vec': 1 document, 32 dimensions)
    >>> len(rd.embed({"2": "A boat on a canal."}, "vec", append=True))
    2

    Args:
        corpus: as for `index`.
        out: the folder to write, or its URI.
        config: YAML files.
        append: add to existing vectors, by their own model.
        keys: the other keys of `raydist embed`, `model=` above all.

    Raises:
        RaydistError: as the verb does.
    """
    vectors: Vectors = _corpus_verb("embed", corpus, out, config, keys, append=append)
    return vectors


def _corpus_verb(
    verb: str,
    corpus: Any,
    out: Place | None,
    config: Files,
    keys: dict[str, Any],
    observers: Mapping[str, Any] = MappingProxyType({}),
    **flags: Any,
) -> Any:
    if type(corpus).__module__.startswith("ray.data"):
        from raydist import datasets, storage

        if out is None or config:
            raise ConfigError("corpus: with a Dataset of Ray, give out= and no config=")
        with command.spoken_errors():
            getattr(datasets, verb)(corpus, os.fspath(out), **flags, **keys)
        return open(storage.resolve(out, keys.get("storage")))
    config_ = command.run(
        verb, {"corpus": corpus, "out": out, **keys}, config, **flags, **observers
    )
    return open(place_of(config_))


def search(
    index: Any = None,
    queries: Any = None,
    out: Place | None = None,
    *,
    config: Files = (),
    **keys: Any,
) -> Run:
    """Searches one index or several, fused, as `raydist search` does; also on Ray.

    >>> import raydist as rd
    >>> built = rd.index({"1": "A heron eats fish.", "2": "A boat on a canal."}, "idx")
    >>> rd.search(built, {"q1": "boats"}, k=5)["q1"][0].id
    '2'

    Args:
        index: an index, vectors, or their folders; several are fused (`fusion="rrf"`).
        queries: a path, `{id: text}`, rows, a DataFrame, an Arrow table.
        out: the file of the run, TREC or Parquet; none is written if not given.
        config: YAML files.
        keys: the other keys of `raydist search`, such as `k=100` or `workers=8`.

    Raises:
        RaydistError: as the verb does.
    """
    folders = [index] if isinstance(index, str | os.PathLike) else index
    keys = {"index": folders, "queries": _listed(queries), "out": out, **keys}
    if keys["queries"] is None and not config:
        raise ConfigError("queries: required; a prompt for them is on the command line")
    with tempfile.TemporaryDirectory(prefix="raydist-search-") as scratch:
        if out is None:
            keys["out"] = str(Path(scratch) / "run.parquet")
            log.stands_for(keys["out"], "search")
        return read_run(place_of(command.run("search", keys, config)))


def _listed(values: Any) -> Any:
    """Returns a list of texts as texts by their places, where a verb would take it for paths."""
    if isinstance(values, list) and values and all(isinstance(each, str) for each in values):
        return {str(i): each for i, each in enumerate(values)}
    return values


@overload
def rerank(
    reranker: Any = None,
    *,
    depth: int = 0,
    missing: str = "error",
    texts: Any = None,
) -> Steps: ...
@overload
def rerank(
    reranker: Any = None,
    *,
    run: Any,
    out: Place | None = None,
    config: Files = (),
    **keys: Any,
) -> Run: ...
def rerank(reranker: Any = None, **keys: Any) -> Steps | Run:
    """Returns a stage that reorders candidates; with `run=` or `config=`, reorders that run.

    >>> import raydist as rd
    >>> built = rd.index({"1": "A heron eats fish.", "2": "Fish and boats."}, "idx")
    >>> english = {"kind": "bm25", "analyzer": "english"}
    >>> (built.bm25() >> rd.rerank(english, depth=10)).search("herons")[0].id
    '1'
    >>> run = built.search({"q1": "fish"}, k=10)
    >>> new = rd.rerank("bm25", run=run, queries={"q1": "fish"}, index=built, out="new.run")
    >>> len(new)
    2

    Args:
        reranker: bm25, Qwen/Qwen3-Reranker-0.6B (or -4B, -8B), a model's folder or hub name, or a
            mapping of all that can be set.
        keys: of the stage: `depth`, candidates of each query (0 is all); `missing`, for candidates
            without text: error, drop or keep; `texts`, an index or a corpus, where the retriever
            has no texts. Of the verb: those of `raydist rerank`, `run=`, `queries=`, `index=` or
            `corpus=` and `out=` above all.

    Raises:
        ConfigError: a value is not allowed.
        RaydistError: with `run=`, as the verb does.
    """
    if "run" in keys or "config" in keys:
        config = keys.pop("config", ())
        place = place_of(command.run("rerank", {"reranker": reranker, **keys}, config))
        return read_run(place)
    from raydist.api.reranking import Rerank, checked
    from raydist.api.stages import Steps

    texts = keys.pop("texts", None)
    if reranker is None:
        raise ConfigError("reranker: required: bm25, a model's folder or its name on the hub")
    return Steps((Rerank(checked(reranker, **keys), texts),))


def score(run: Any = None, out: Place | None = None, *, config: Files = (), **keys: Any) -> Output:
    """Scores a run's documents with a teacher, as training data for `distill`.

    >>> import raydist as rd
    >>> built = rd.index({"1": "A heron eats fish.", "2": "Fish and boats."}, "idx")
    >>> queries = {"q1": "fish"}
    >>> rd.score(built.search(queries, k=10), "lists.jsonl", queries=queries, index=built,
    ...          teacher="bm25")
    Output('lists.jsonl': teacher-scores)

    Args:
        run: a run, `{query: {document: score}}`, or a path.
        out: the file to write, jsonl.
        config: YAML files.
        keys: the other keys of `raydist score`: `queries=`, `teacher=`, `index=` or `corpus=`.

    Raises:
        RaydistError: as the verb does.
    """
    return _output("score", {"run": run, "out": out, **keys}, config)


def mine(out: Place | None = None, *, config: Files = (), **keys: Any) -> Output:
    """Writes training samples with hard negatives.

    >>> import raydist as rd
    >>> built = rd.index({"1": "A heron eats fish.", "2": "Fish and boats."}, "idx")
    >>> rd.mine("train.jsonl", index=built, queries={"q1": "fish"}, qrels={"q1": {"1": 1}})
    Output('train.jsonl': mined-samples)

    Args:
        out: the file to write, jsonl.
        config: YAML files.
        keys: the other keys of `raydist mine`: `queries=`, `qrels=`, and `run=` or `index=`.

    Raises:
        RaydistError: as the verb does.
    """
    return _output("mine", {"out": out, **keys}, config)


def train(data: Any = None, *, config: Files = (), resume: bool = False, **keys: Any) -> Training:
    """Trains a bi-encoder.

    >>> import raydist as rd
    >>> run = rd.train(SAMPLES, model=MODEL, out="run", steps=1, batch_size=2, tracking="none")
    >>> rd.embed({"1": "A heron eats fish."}, "vec", model=run).dimension
    32

    Args:
        data: a path, rows such as `{"query": …, "pos": […], "neg": […]}`, a DataFrame.
        config: YAML files.
        resume: continue an interrupted run.
        keys: the other keys of `raydist train`: `model=`, `out=`, `loss={"kind": …}`, `steps=`.

    Raises:
        RaydistError: as the verb does.
    """
    return _training("train", data, config, resume, keys)


def distill(data: Any = None, *, config: Files = (), resume: bool = False, **keys: Any) -> Training:
    """Trains a reranker (or a bi-encoder) from a teacher's rankings.

    >>> import raydist as rd
    >>> run = rd.distill(LISTS, model={"kind": "biencoder", "path": MODEL}, out="run", steps=1,
    ...                  batch_size=2, tracking="none")
    >>> run.metrics["step"].to_list()
    [1]

    Args:
        data: a path, rows such as `{"query": …, "candidates": [{"text": …, "score": …}]}`.
        config: YAML files.
        resume: continue an interrupted run.
        keys: the other keys of `raydist distill`.

    Raises:
        RaydistError: as the verb does.
    """
    return _training("distill", data, config, resume, keys)


def tune(data: Any = None, *, config: Files = (), resume: bool = False, **keys: Any) -> Training:
    """Trains bi-encoders of drawn configurations by Ray Tune, and keeps the best.

    >>> import raydist as rd
    >>> rd.tune(SAMPLES, model=MODEL, out="tuned", space={"optim.lr": "log(1e-4, 1e-6)"})
    Traceback (most recent call last):
    raydist.errors.ConfigError: space.optim.lr = 'log(1e-4, 1e-6)': expected log(a, b) with a < b

    Args:
        data: as for `train`.
        config: YAML files.
        resume: continue an interrupted search.
        keys: the other keys of `raydist tune`: `space={"optim.lr": "log(1e-6, 1e-4)"}`, `trials=`.

    Raises:
        RaydistError: as the verb does.
    """
    return _training("tune", data, config, resume, keys)


def _training(verb: str, data: Any, config: Files, resume: bool, keys: dict[str, Any]) -> Training:
    checked = command.run(verb, {"data": data, **keys}, config, resume=resume)
    return open(place_of(checked))  # type: ignore[return-value]


def export(
    checkpoint: Any = None, out: Place | None = None, *, config: Files = (), **keys: Any
) -> Output:
    """Writes a trained model as a Hugging Face folder with its model card.

    >>> import raydist as rd
    >>> rd.export(MODEL, "for-the-hub", name="me/small")
    Output('for-the-hub': model)

    Args:
        checkpoint: a training run, a checkpoint, or a model's folder.
        out: the folder to write.
        config: YAML files.
        keys: the other keys of `raydist export`.

    Raises:
        RaydistError: as the verb does.
    """
    return _output("export", {"checkpoint": checkpoint, "out": out, **keys}, config)


def convert(
    source: Any = None, out: Place | None = None, *, config: Files = (), **keys: Any
) -> Index | Run | Output:
    """Converts runs, samples and indexes.

    >>> import raydist as rd
    >>> built = rd.index({"1": "A heron eats fish."}, "idx")
    >>> rd.convert(built, "idx.ciff")
    Output('idx.ciff': ciff)
    >>> rd.convert(built.search({"q": "fish"}, k=5), "run.txt")["q"][0].id
    '1'

    Args:
        source: a run, training samples, an index, or their paths; the key `in` of the verb.
        out: the file to write, or the folder of an index.
        config: YAML files.
        keys: the other keys of `raydist convert`.

    Returns:
        an index or a run where one was written, else the path.

    Raises:
        RaydistError: as the verb does.
    """
    checked = command.run("convert", {"in": source, "out": out, **keys}, config)
    place = place_of(checked)
    suffix = Path(place).suffix.lstrip(".")
    if Path(place).is_dir():
        return open(place)  # type: ignore[return-value]
    if checked.to in ("trec", "parquet") or (
        checked.to is None and not place.endswith((".ciff", ".ciff.gz", ".bmp", ".jsonl", ".gz"))
    ):
        return read_run(place)
    return Output(place, {"kind": checked.to or suffix})


def merge(out: Place | None = None, *, config: Files = (), **keys: Any) -> Index | Vectors:
    """Rewrites an index or vectors without deleted documents, in as many segments as wanted.

    >>> import raydist as rd
    >>> built = rd.index({"1": "A heron eats fish."}, "idx")
    >>> len(rd.merge(built))
    1

    Args:
        out: the index, or the vectors.
        config: YAML files.
        keys: the other keys of `raydist merge`, such as `segments=8`.

    Raises:
        RaydistError: as the verb does.
    """
    return open(place_of(command.run("merge", {"out": out, **keys}, config)))  # type: ignore[return-value]


def _output(verb: str, keys: dict[str, Any], config: Files) -> Output:
    return open(place_of(command.run(verb, keys, config)))  # type: ignore[return-value]


@overload
def analyze(text: str, **keys: Any) -> list[str]: ...
@overload
def analyze(text: Iterable[str], **keys: Any) -> list[list[str]]: ...
def analyze(text: str | Iterable[str], **keys: Any) -> list[str] | list[list[str]]:
    """Returns the terms of a text, or of each of several.

    >>> import raydist as rd
    >>> rd.analyze("The quick brown foxes")
    ['quick', 'brown', 'fox']
    >>> rd.analyze(["Füchse"], analyzer={"language": "german", "stemmer": "snowball"})
    [['fuchs']]

    Args:
        text: one, or several.
        keys: the other keys of `raydist analyze`: `analyzer=`, or `index=` for that of an index.

    Raises:
        RaydistError: as the verb does.
    """
    from raydist.api.spool import Spool
    from raydist.commands.analyze import analyzer_of

    with command.spoken_errors(), Spool() as spool:
        checked = command.configure("analyze", [], {"text": "", **keys}, spool)
        tokens = analyzer_of(checked).tokens
    texts = [text] if isinstance(text, str) or not isinstance(text, Iterable) else list(text)
    for each in texts:
        if not isinstance(each, str):
            raise ConfigError(f"text = {each!r}: expected a text, or several")
    return tokens(text) if isinstance(text, str) else [tokens(each) for each in texts]
