"""The verbs `index` and `embed` over a Dataset of Ray, from Python.

    from raydist import datasets

    dataset = ray.data.read_parquet("s3://bucket/wiki")
    datasets.index(dataset, out="IDX", workers=8)
    datasets.embed(dataset, out="VEC", model="sentence-transformers/all-MiniLM-L6-v2", workers=8)

The rows are written to Parquet files in `.NAME.dataset` beside the output, where every worker must
see them, and removed at the end. From there on the verb does what it does with files: the same rows
continue an interrupted output, or are "already built"; others are another input.
"""

from __future__ import annotations

import contextlib
import importlib
import posixpath
from typing import TYPE_CHECKING, Any

from raydist import locks, storage
from raydist.cli import execute
from raydist.config.base import Flags
from raydist.config.load import load
from raydist.data.files import filesystem
from raydist.data.materialise import clear, materialise
from raydist.data.readers import naming_of

if TYPE_CHECKING:
    import ray.data


def index(dataset: ray.data.Dataset, out: str, *, append: bool = False, **settings: Any) -> None:
    """Builds a bag-of-words index of a Dataset, or adds its documents to one.

    Args:
        dataset: rows with an id, a text, and a title if there are any.
        out: as for the verb.
        append: add to an existing index.
        settings: the verb's other keys; `corpus` may have all but `path` and `format`.

    Raises:
        RaydistError: as for the verb.
    """
    _run("index", dataset, out, settings, Flags(append=append))


def embed(dataset: ray.data.Dataset, out: str, *, append: bool = False, **settings: Any) -> None:
    """Turns a Dataset into vectors, or adds those of its documents.

    Args:
        dataset: rows with an id, a text, and a title if there are any.
        out: as for the verb.
        append: add to existing vectors.
        settings: the verb's other keys; `corpus` may have all but `path` and `format`.

    Raises:
        RaydistError: as for the verb.
    """
    _run("embed", dataset, out, settings, Flags(append=append))


def _run(
    verb: str, dataset: ray.data.Dataset, out: str, settings: dict[str, Any], flags: Flags
) -> None:
    module = importlib.import_module(f"raydist.commands.{verb}")
    place = storage.resolve(out, settings.get("storage")).rstrip("/")
    head, name = posixpath.split(place)
    folder = posixpath.join(head, f".{name}.dataset")
    corpus = {**settings.get("corpus", {}), "path": [folder], "format": "parquet"}
    config = load(module.Config, [{**settings, "out": out, "corpus": corpus}])
    with contextlib.ExitStack() as stack:
        if not storage.is_remote(folder):
            stack.enter_context(locks.writer(filesystem(folder)[1], config.lock_wait))
        stack.callback(clear, folder)
        materialise(dataset, folder, naming_of(config.corpus))
        execute(module, config, flags)
