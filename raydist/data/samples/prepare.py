"""Checking a data set once, before anything expensive starts, and indexing its lines.

The lines are parsed as training will parse them. Sources that are not lines of samples (runs,
relevance judgements, BEIR folders, ir_datasets) become lines of ids first: see
`raydist.data.samples.sources`.
"""

from __future__ import annotations

import json
import os
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from raydist.data.files import Line, Paths, compression_of, read_blocks, read_lines
from raydist.data.rejects import Rejects, skipped
from raydist.data.samples.lines import FORMATS, UNJUDGED, Texts, overrides, sniff
from raydist.data.samples.sample_set import (
    FACTS,
    LINES,
    REPEATED,
    SIZES,
    SampleFacts,
    StoredTexts,
)
from raydist.data.samples.sources import SampleLines, find_lines, input_key
from raydist.data.spec import SampleSource
from raydist.data.store.reader import DocumentStore
from raydist.disk import atomic, write_json
from raydist.errors import DataError
from raydist.fingerprints import text_key, value_fingerprint
from raydist.log import Progress, count, size
from raydist.records import Sample


def prepare(
    source: SampleSource | Paths, folder: str | os.PathLike[str], *, name: str = "data"
) -> SampleFacts:
    """Checks and indexes a data set, or returns the facts of an earlier, equal call.

    Args:
        source: the data set.
        folder: folder of the index, which belongs to this data set alone.
        name: name of the data set, for messages.

    Raises:
        DataError: a missing file, a bad line (with file, number and excerpt), or no usable sample.
    """
    source, target = SampleSource.of(source), Path(folder)
    key = value_fingerprint(
        {
            "content": [input_key(each) for each in source.path],
            "paths": [os.path.abspath(each) for each in source.path],
            "inputs": {name: input_key(each) for name, each in source.inputs().items()},
            "meaning": [
                source.format,
                source.positives,
                source.relevance,
                source.split,
                source.max_rows,
            ],
            "checks": [source.on_bad, source.need_negatives, source.need_scores],
        }
    )
    if (target / FACTS).exists():
        known = SampleFacts.from_dict(json.loads((target / FACTS).read_text(encoding="utf-8")))
        if known.key == key and (target / SIZES).exists():  # earlier versions did not count
            return known
        (target / FACTS).unlink()
    target.mkdir(parents=True, exist_ok=True)
    facts = replace(_index(find_lines(source, target), source, target, name), key=key)
    write_json(target / FACTS, facts.to_dict())
    return facts


_REJECTS = "rejects.jsonl"
_MOST = 64  # counts of negatives from here on are one class


def _index(lines: SampleLines, source: SampleSource, target: Path, name: str) -> SampleFacts:
    """Reads every line, writes the index of those that are used, and returns the facts."""
    files = [_plain(file, target, i) for i, file in enumerate(lines.files)]
    (target / _REJECTS).unlink(missing_ok=True)
    rejects = Rejects(target / _REJECTS) if source.on_bad == "skip" else None
    texts: Texts = StoredTexts(
        DocumentStore.open(lines.documents) if lines.documents else None,
        DocumentStore.open(lines.queries) if lines.queries else None,
    )
    if lines.checked:
        texts = _Checked(texts)
    format = lines.format
    index, collected = array("q"), _Collected(source.need_negatives, source.need_scores)
    total = sum(os.path.getsize(file) for file in files)
    with Progress(f"check {name}", unit="sample", share_total=float(total)) as progress:
        for file, (number, start, line) in _numbered(files):
            if source.max_rows and collected.rows >= source.max_rows:
                break
            place = lines.names[file]
            try:
                if format is None:
                    format = sniff(line, texts.has_documents)
                sample = FORMATS[format](line, texts)
                collected.add(sample, line, f"{place}, line {number}")
            except ValueError as error:
                excerpt = line[:200].decode("utf-8", "backslashreplace").strip()
                if rejects is None:
                    expected = f"{error} (on_bad=skip skips it)"
                    raise DataError.at(place, number, excerpt, expected) from None
                rejects.add(place, number, excerpt, f"expected {error}")
                continue
            finally:
                progress.advance(0, share=len(line))
            index.extend((file, start, start + len(line), number))
            progress.advance(1, nbytes=len(line))
    rejected = rejects.count if rejects else 0
    if not collected.rows:
        reason = f"; {skipped(rejected, rejects.first, '')}" if rejects and rejected else ""
        raise DataError(f"{name} ({', '.join(lines.names)}): no usable sample{reason}")
    np.save(target / LINES, np.frombuffer(index, dtype=np.int64).reshape(-1, 4))
    np.save(target / SIZES, np.frombuffer(collected.sizes, dtype=np.int32).reshape(-1, 2))
    np.save(target / REPEATED, collected.repeated(format or ""))
    notes = list(lines.notes)
    if rejected:
        notes.append(f"{count(rejected, 'bad line')} skipped, see {target / _REJECTS}")
    return collected.facts(
        SampleFacts(
            name=name,
            format=format or "",
            rows=collected.rows,
            rejected=rejected,
            files=tuple(os.path.abspath(file) for file in files),
            notes=tuple(notes),
            documents=str(lines.documents or ""),
            queries=str(lines.queries or ""),
        )
    )


def _numbered(files: Sequence[str]) -> Iterator[tuple[int, Line]]:
    """Yields the lines of files, each with its file's number."""
    for number, file in enumerate(files):
        for line in read_lines(file):
            yield number, line


class _Collected:
    """The facts of the samples so far; the first one decides what all of them must have."""

    def __init__(self, need_negatives: bool, need_scores: bool) -> None:
        self.rows = 0
        self._need_negatives = need_negatives
        self._need_scores = need_scores
        self._first: Sample | None = None
        self._answer: Sample | None = None
        self._negatives: Counter[int] = Counter()
        self._negative_answers = self._longest = 0
        self._without = ""
        self._low, self._high = float("inf"), float("-inf")
        self._overrides: dict[str, int] = {}
        self._keys = array("q")
        self.sizes = array("i")

    def add(self, sample: Sample, line: bytes, where: str) -> None:
        """Counts a sample; ValueError if it does not go with the others."""
        negatives = len(sample.documents) - sample.positives
        first = self._first
        if self._need_negatives and negatives < 1:
            raise ValueError("at least one negative, which this training needs")
        if self._need_scores and sample.scores is None:
            raise ValueError("teacher scores (pos_scores and neg_scores), which distillation needs")
        if first is None:
            self._overrides = overrides(line)
            self._first = first = sample
        _alike("teacher scores", first.scores, sample.scores, "sample")
        _alike("labels", first.labels, sample.labels, "sample")
        if first.kind != sample.kind:
            raise ValueError(
                f"type {first.kind!r} as in the first sample, found {sample.kind!r}: "
                "give each type as its own data set"
            )
        if sample.answer is not None:
            self._answer = self._answer or sample
            _alike("answer_scores", self._answer.answer_scores, sample.answer_scores, "answer")
            self._negative_answers = max(self._negative_answers, len(sample.negative_answers))
        if first.scores is not None and sample.scores:
            self._low = min(self._low, *sample.scores)
            self._high = max(self._high, *sample.scores)
        if negatives < 1 and not self._without:
            self._without = where
        self._negatives[min(negatives, _MOST)] += 1
        self._longest = max(self._longest, len(sample.documents))
        self.sizes.extend((len(sample.documents), sample.positives))
        positives = (sample.doc_ids or sample.documents)[: sample.positives]
        self._keys.extend((text_key(sample.query), text_key("\0".join(positives))))
        self.rows += 1

    def repeated(self, format: str) -> np.ndarray:
        """Returns (text key, row) of queries that occur with different positives, by key.

        A teacher's lists name no positives.
        """
        keys = np.frombuffer(self._keys, dtype=np.int64).reshape(-1, 2)
        if format in UNJUDGED:
            return np.empty((0, 2), np.int64)
        distinct, first = np.unique(keys, axis=0, return_index=True)
        _, group, counts = np.unique(distinct[:, 0], return_inverse=True, return_counts=True)
        repeated = counts[group] > 1
        return np.stack([distinct[repeated, 0], first[repeated]], 1)

    def facts(self, facts: SampleFacts) -> SampleFacts:
        """Returns the facts, completed."""
        first, answer = self._first, self._answer
        assert first is not None
        has_scores = first.scores is not None
        return replace(
            facts,
            scores=has_scores,
            lowest_score=self._low if has_scores else 0.0,
            highest_score=self._high if has_scores else 0.0,
            answers=answer is not None,
            answer_scores=answer is not None and answer.answer_scores is not None,
            negative_answers=self._negative_answers,
            labels=first.labels is not None,
            negatives=dict(sorted(self._negatives.items())),
            longest=self._longest,
            without_negatives=self._without,
            kind=first.kind,
            overrides=self._overrides,
        )


def _alike(what: str, first: object, here: object, of: str) -> None:
    """Raises ValueError where only one of two samples has what all or none must have."""
    if first is not None and here is None:
        raise ValueError(f"{what}, as the first {of} has them")
    if first is None and here is not None:
        raise ValueError(
            f"no {what}, as the first {of} has none: give those with and without as data sets of "
            "their own"
        )


class _Checked:
    """Takes the place of texts whose ids were checked when they were written."""

    def __init__(self, texts: Texts) -> None:
        self.has_documents = texts.has_documents

    def documents(self, doc_ids: Sequence[str]) -> list[str]:
        return ["-"] * len(doc_ids)

    def query(self, query_id: str) -> str:
        return "-"


def _plain(file: str, target: Path, number: int) -> str:
    """Returns a local, uncompressed file with the same lines: the file itself or a copy."""
    local = os.path.expanduser(file.removeprefix("file://"))
    compression = compression_of(file)
    if compression is None and os.path.isfile(local):
        return local
    copy = target / f"lines-{number:05}{Path(file).suffixes[0] if Path(file).suffixes else ''}"
    with (
        atomic(copy) as partial,
        Progress(f"unpack {Path(file).name}", unit="block") as progress,
        open(partial, "wb") as out,
    ):
        for _, block in read_blocks(file, compression=compression):
            out.write(block)
            progress.advance(1, nbytes=len(block), note=size(out.tell()))
    return str(copy)
