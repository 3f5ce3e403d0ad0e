"""Training data of any size, read by row: a line index, files mapped into memory, and the texts.

`raydist.data.samples.prepare.prepare` checks a data set once and writes the index; every worker
opens it here and holds only the texts of the rows it asks for.
"""

from __future__ import annotations

import json
import mmap
import os
import tokenize
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from raydist.data.samples.lines import FORMATS, Texts
from raydist.data.store.reader import DocumentStore
from raydist.errors import ArtifactError, DataError
from raydist.fingerprints import text_key
from raydist.records import Sample

FACTS = "facts.json"
LINES = "lines.npy"
SIZES = "sizes.npy"
"""Documents and positives of each row, int32 [rows, 2]."""
REPEATED = "repeated.npy"
"""Rows of queries that occur with several sets of positives: (text key, row), in order."""
_MOST_REPEATED = 100


@dataclass(frozen=True, slots=True)
class SampleFacts:
    """What is known of a prepared data set, the same for every worker.

    Attributes:
        name: the data set's name.
        format: format of its lines, a key of `FORMATS`.
        rows: number of usable samples.
        rejected: number of bad lines that were skipped.
        files: the files of the lines.
        scores: whether every sample has teacher scores.
        lowest_score, highest_score: their bounds, 0 without any.
        answers: whether some sample has an answer.
        answer_scores: whether every answer has teacher scores.
        negative_answers: most negative answers of a sample.
        labels: whether every sample has graded labels.
        negatives: number of samples by their number of negatives (64 and more count as 64).
        longest: most documents of a sample.
        without_negatives: file and line of the first sample without negatives, or empty.
        kind: the samples' `type`.
        overrides: `train_group_size` and `batch_size` that the lines ask for.
        notes: sentences for the user: what was left out, and how often.
        documents: folder of the document store that ids refer to, or empty.
        queries: folder of the query store that ids refer to, or empty.
        key: fingerprint of the inputs and settings it was prepared from.
    """

    name: str
    format: str
    rows: int = 0
    rejected: int = 0
    files: tuple[str, ...] = ()
    scores: bool = False
    lowest_score: float = 0.0
    highest_score: float = 0.0
    answers: bool = False
    answer_scores: bool = False
    negative_answers: int = 0
    labels: bool = False
    negatives: Mapping[int, int] = field(default_factory=dict)
    longest: int = 0
    without_negatives: str = ""
    kind: str = ""
    overrides: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    documents: str = ""
    queries: str = ""
    key: str = ""

    @property
    def fewest_negatives(self) -> int:
        """The fewest negatives of a sample."""
        return min(self.negatives, default=0)

    def to_dict(self) -> dict[str, Any]:
        """Returns JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> SampleFacts:
        """Returns the facts that `to_dict` gave, after JSON."""
        values = {f.name: data[f.name] for f in fields(cls) if f.name in data}
        for name in ("files", "notes"):
            values[name] = tuple(values.get(name, ()))
        values["negatives"] = {int(n): count for n, count in values["negatives"].items()}
        return cls(**values)


class StoredTexts:
    """The texts that ids refer to, read from document stores."""

    def __init__(self, documents: DocumentStore | None, queries: DocumentStore | None) -> None:
        self._documents = documents
        self._queries = queries

    @property
    def has_documents(self) -> bool:
        """Whether there is a corpus."""
        return self._documents is not None

    def documents(self, doc_ids: Sequence[str]) -> list[str]:
        """Returns the documents' contents; ValueError names an unknown id."""
        if self._documents is None:
            raise ValueError("texts; document ids need corpus=PATH")
        documents = self._documents.get(doc_ids)
        for doc_id, document in zip(doc_ids, documents):
            if document is None:
                raise ValueError(f"ids of documents in the corpus; it has no {doc_id!r}")
        return [document.contents for document in documents if document is not None]

    def query(self, query_id: str) -> str:
        """Returns a query's text; ValueError for an unknown id."""
        if self._queries is None:
            raise ValueError("the query's text; query ids need queries=PATH")
        query = self._queries.get([query_id])[0]
        if query is None:
            raise ValueError(f"ids of queries in the queries file; it has no {query_id!r}")
        return query.text


class _Id(str):
    """A document's id in the place of its text."""

    __slots__ = ()


class _IdsForNow:
    """Texts whose documents stay ids until some of them were drawn."""

    def __init__(self, texts: StoredTexts) -> None:
        self.has_documents = texts.has_documents
        self.query = texts.query

    def documents(self, doc_ids: Sequence[str]) -> list[str]:
        return [_Id(doc_id) for doc_id in doc_ids]


class SampleSet:
    """A prepared data set: `len`, and `samples[row]` in time that does not grow with it.

    Open it once per process; the files stay mapped.
    """

    def __init__(
        self, folder: str | os.PathLike[str], *, prompt: str | None = None, lazy: bool = False
    ) -> None:
        """Opens a prepared folder.

        Args:
            folder: what `prepare` wrote.
            prompt: instruction of queries that have none of their own.
            lazy: leave documents that are given by id to `fill`, after some of them were drawn.

        Raises:
            ArtifactError: the folder is not complete.
            DataError: a file is missing, or has changed since it was prepared.
        """
        path = Path(folder)
        try:
            facts = json.loads((path / FACTS).read_text(encoding="utf-8"))
            self._lines = np.load(path / LINES, mmap_mode="r")
            self._repeated = np.load(path / REPEATED) if (path / REPEATED).exists() else None
        except (OSError, ValueError, SyntaxError, tokenize.TokenError) as error:  # of a header
            raise ArtifactError(
                f"{path}: not a prepared data set ({error}); prepare it again"
            ) from None
        self.folder = path
        self.facts = SampleFacts.from_dict(facts)
        self.prompt = prompt
        self._parse = FORMATS[self.facts.format]
        self._maps = [_mapped(file) for file in self.facts.files]
        self._store = StoredTexts(
            DocumentStore.open(Path(self.facts.documents)) if self.facts.documents else None,
            DocumentStore.open(Path(self.facts.queries)) if self.facts.queries else None,
        )
        self._texts: Texts = _IdsForNow(self._store) if lazy else self._store

    @cached_property
    def sizes_n2(self) -> np.ndarray:
        """Documents and positives of each row, int32 [rows, 2]."""
        sizes_n2: np.ndarray = np.load(self.folder / SIZES, mmap_mode="r")
        return sizes_n2

    def __len__(self) -> int:
        return self.facts.rows

    def __getitem__(self, row: int) -> Sample:
        """Returns a sample; what other samples of its query's text name as positive is `others`."""
        sample = self._read(row)
        own = set(sample.documents[: sample.positives])
        others: dict[str, None] = {}
        for other in self._same_query(sample.query):
            if other != row:
                of_other = self._read(other)
                others |= dict.fromkeys(of_other.documents[: of_other.positives])
        return replace(sample, others=tuple(d for d in others if d not in own))

    def _same_query(self, query: str) -> list[int]:
        if self._repeated is None or not len(self._repeated):
            return []
        keys, value = self._repeated[:, 0], text_key(query)
        first, last = np.searchsorted(keys, value), np.searchsorted(keys, value, "right")
        rows: list[int] = self._repeated[first : min(last, first + _MOST_REPEATED), 1].tolist()
        return rows

    def _read(self, row: int) -> Sample:
        file, start, stop, number = self._lines[row].tolist()
        line = self._maps[file][start:stop]
        try:
            sample = self._parse(line, self._texts)
        except ValueError as error:
            raise DataError.at(
                self.facts.files[file],
                number,
                line.decode("utf-8", "replace"),
                f"{error}; the file has changed since it was prepared",
            ) from None
        if self.prompt is not None and sample.prompt is None:
            sample = replace(sample, prompt=self.prompt)
        return sample

    def verify(self) -> int:
        """Reads all samples and their texts; returns how many there are.

        Raises:
            ArtifactError: the number of lines is not that of the samples, or a sample has other
                documents than were counted.
            DataError: a line is not what it was.
        """
        counted = (self.folder / SIZES).exists()  # earlier versions did not
        if len(self._lines) != len(self) or (counted and len(self.sizes_n2) != len(self)):
            raise ArtifactError(
                f"{self.folder}: {len(self._lines):,} lines for {len(self):,} samples; prepare it "
                "again"
            )
        for row in range(len(self)):
            sample = self[row]
            if counted and self.sizes_n2[row].tolist() != [len(sample.documents), sample.positives]:
                raise ArtifactError(
                    f"{self.folder}: sample {row + 1:,} has {len(sample.documents):,} documents, "
                    f"{self.sizes_n2[row, 0]:,} were counted; prepare it again"
                )
        return len(self)

    def fill(self, samples: Sequence[Sample]) -> list[Sample]:
        """Returns samples of a lazy set with their documents' texts, looked up all at once."""
        drawn = (text for sample in samples for text in sample.documents + sample.others)
        ids = list(dict.fromkeys(text for text in drawn if type(text) is _Id))
        if not ids:
            return list(samples)
        try:
            text_of = dict(zip(ids, self._store.documents(ids)))
        except ValueError as error:
            raise DataError(f"{self.folder}: expected {error}") from None

        def filled(documents: tuple[str, ...]) -> tuple[str, ...]:
            return tuple(text_of[d] if type(d) is _Id else d for d in documents)

        return [replace(s, documents=filled(s.documents), others=filled(s.others)) for s in samples]


def _mapped(file: str) -> mmap.mmap:
    try:
        with open(file, "rb") as source:
            return mmap.mmap(source.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError) as error:
        raise DataError(
            f"{file}: cannot be read on this machine ({error}); training data must be on storage "
            "that every worker sees"
        ) from None
