"""Training data of any size, read by row: a line index, files mapped into memory, and the texts.

`raydist.data.samples.prepare.prepare` checks a data set once and writes the index; every worker
opens it here. A worker holds no text but that of the rows it asks for.
"""

from __future__ import annotations

import json
import mmap
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from raydist.data.samples.lines import FORMATS, Texts
from raydist.data.store.reader import DocumentStore
from raydist.errors import ArtifactError, DataError
from raydist.records import Sample

FACTS = "facts.json"
LINES = "lines.npy"


@dataclass(frozen=True, slots=True)
class SampleFacts:
    """What is known of a prepared data set; every worker sees the same.

    Attributes:
        name: of the data set.
        format: of its lines, a key of `FORMATS`.
        rows: usable samples.
        rejected: bad lines that were skipped.
        files: the files that hold the lines.
        scores: every sample carries teacher scores.
        lowest_score, highest_score: their bounds, 0 without any.
        answers: some sample carries an answer.
        answer_scores: every answer carries teacher scores.
        negative_answers: most negative answers of a sample.
        labels: every sample carries graded labels.
        negatives: how many samples have so many negatives (counts of 64 and more as 64).
        longest: most documents of a sample.
        without_negatives: where the first sample without negatives stands, empty if there is none.
        kind: the samples' `type`.
        overrides: `train_group_size` and `batch_size` that the lines ask for.
        notes: sentences for the user: what was dropped or left out, and how often.
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
        """Returns the facts of `to_dict`, as JSON gave them back."""
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
        """Whether a corpus was given."""
        return self._documents is not None

    def documents(self, doc_ids: Sequence[str]) -> list[str]:
        """Returns the documents' contents; ValueError names an id that is not there."""
        if self._documents is None:
            raise ValueError("document ids only where a corpus is given (corpus=PATH)")
        found = self._documents.get(doc_ids)
        for doc_id, document in zip(doc_ids, found):
            if document is None:
                raise ValueError(f"ids of documents in the corpus, {doc_id!r} is not there")
        return [document.contents for document in found if document is not None]

    def query(self, query_id: str) -> str:
        """Returns a query's text; ValueError if it is not there."""
        if self._queries is None:
            raise ValueError("query ids only where queries are given (queries=PATH)")
        found = self._queries.get([query_id])[0]
        if found is None:
            raise ValueError(f"ids of given queries, {query_id!r} is not there")
        text: str = found.text
        return text


class _Id(str):
    """A document's id where its text will stand."""

    __slots__ = ()


class _Later:
    """Texts whose documents stay ids until a draw has chosen among them."""

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
            prompt: instruction of queries that bring none of their own.
            lazy: leave documents that come by id to `fill`, after some of them were drawn.

        Raises:
            ArtifactError: the folder is not complete.
            DataError: a file is missing, or was changed since it was prepared.
        """
        path = Path(folder)
        try:
            facts = json.loads((path / FACTS).read_text(encoding="utf-8"))
            self._lines = np.load(path / LINES, mmap_mode="r")
        except (OSError, ValueError) as error:
            raise ArtifactError(f"{path}: not a prepared data set ({error})") from None
        self.folder = path
        self.facts = SampleFacts.from_dict(facts)
        self.prompt = prompt
        self._parse = FORMATS[self.facts.format]
        self._maps = [_mapped(file) for file in self.facts.files]
        self._store = StoredTexts(
            DocumentStore.open(Path(self.facts.documents)) if self.facts.documents else None,
            DocumentStore.open(Path(self.facts.queries)) if self.facts.queries else None,
        )
        self._texts: Texts = _Later(self._store) if lazy else self._store

    def __len__(self) -> int:
        return self.facts.rows

    def __getitem__(self, row: int) -> Sample:
        file, start, stop, number = self._lines[row].tolist()
        line = self._maps[file][start:stop]
        try:
            sample = self._parse(line, self._texts)
        except ValueError as error:
            raise DataError.at(
                self.facts.files[file],
                number,
                line.decode("utf-8", "replace"),
                f"{error}; the file was changed since it was prepared",
            ) from None
        if self.prompt is not None and sample.prompt is None:
            sample = replace(sample, prompt=self.prompt)
        return sample

    def fill(self, samples: Sequence[Sample]) -> list[Sample]:
        """Returns samples of a lazy set with their documents' texts, looked up all at once."""
        ids = list(
            {text: None for s in samples for text in s.documents + s.others if type(text) is _Id}
        )
        if not ids:
            return list(samples)
        try:
            found = dict(zip(ids, self._store.documents(ids)))
        except ValueError as error:
            raise DataError(f"{self.folder}: expected {error}") from None
        return [
            replace(
                s,
                documents=tuple(found[d] if type(d) is _Id else d for d in s.documents),
                others=tuple(found[d] if type(d) is _Id else d for d in s.others),
            )
            for s in samples
        ]


def _mapped(file: str) -> mmap.mmap:
    try:
        with open(file, "rb") as source:
            return mmap.mmap(source.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError) as error:
        raise DataError(
            f"{file}: cannot be read on this machine ({error}); training data must lie where "
            "every worker sees it"
        ) from None
