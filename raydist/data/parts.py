"""Which files each part of a collection is read from: exactly those count as its content, too."""

from __future__ import annotations

import glob
import os
from dataclasses import dataclass

from raydist.data import docstrings
from raydist.data.folders import is_run, say_runs
from raydist.data.sources import SUFFIXES, InputFile, expand
from raydist.errors import DataError


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a collection.

    Attributes:
        name: what a docstring collection calls it.
        accept: suffixes of the files that a folder stands for; any if empty.
        well_known: names of the file that represents a folder that has it, best first.
    """

    name: str
    accept: tuple[str, ...] = ()
    well_known: tuple[str, ...] = ()

    def files(self, path: str, format: str | None = None) -> list[InputFile]:
        """Returns the files behind a path, in order; of any suffix where their format is given.

        Runs in a local folder of documents or queries are left out.

        Raises:
            DataError: there are none.
        """
        files = expand(resolve(path, self.name), () if format else self.accept, self.well_known)
        if self.accept is not SUFFIXES or not os.path.isdir(path):
            return files
        runs = [file.path for file in files if is_run(file.path)]
        if not runs or len(runs) == len(files):
            return files
        say_runs(path, runs)
        return [file for file in files if file.path not in runs]


CORPUS = Part("corpus", SUFFIXES, ("corpus.jsonl", "corpus.jsonl.gz", "corpus.jsonl.zst"))
QUERIES = Part("queries", SUFFIXES, ("queries.jsonl", "queries.jsonl.gz", "queries.tsv"))
QRELS = Part(
    "qrels",
    (".txt", ".tsv", ".qrels", ".qrel"),
    ("qrels.txt", "qrels/test.tsv", "qrels.tsv", "qrels.parquet", "qrels.jsonl", "qrels.json"),
)
SAMPLES = Part(
    "samples",
    (".jsonl", ".json", ".tsv", ".txt", ".run", ".trec", ".parquet", ".pq", ".arrow", ".feather"),
)
FILES = Part("files")


def is_beir(folder: str) -> bool:
    """Returns whether a path is a folder as BEIR's: a corpus with queries and judgements."""
    return all(os.path.isfile(os.path.join(folder, f"{n}.jsonl")) for n in ("corpus", "queries"))


def sample_files(path: str) -> list[InputFile]:
    """Returns the files of training samples, or those of a BEIR folder that make such.

    Raises:
        DataError: there are none.
    """
    if not is_beir(path):
        return SAMPLES.files(path)
    names = ("corpus.jsonl", "queries.jsonl", "qrels/*.tsv", "*/qrels.txt", "qrels.t*")
    paths = [each for name in names for each in glob.glob(name, root_dir=path)]
    return expand([os.path.join(path, each) for each in sorted(paths)])


def resolve(path: str, part: str) -> str:
    """Returns a path itself, or the file of the docstring collection that it stands for.

    `docstrings:numpy+scipy/test` are the queries and judgements of its test split.
    """
    if not path.startswith(docstrings.PREFIX):
        return path
    packages, _, split = path.removeprefix(docstrings.PREFIX).partition("/")
    if split not in ("", "train", "test"):
        raise DataError(f"{path}: expected the split train or test after the slash")
    folder = docstrings.cached([name for name in packages.split("+") if name])
    if part in ("queries", "qrels"):
        return str(folder / split / {"queries": "queries.jsonl", "qrels": "qrels.txt"}[part])
    return str(folder / ("train.jsonl" if part == "samples" else "corpus.jsonl"))
