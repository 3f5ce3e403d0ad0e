"""Checking a data set once, before anything expensive starts, and indexing its lines.

`raydist.data.samples.prepare` passes over the lines. Sources that are not lines of samples (runs,
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
from typing import Literal

import numpy as np

from raydist.data.files import compression_of, read_blocks
from raydist.data.rejects import Rejects
from raydist.data.samples.lines import FORMATS, Texts, overrides, sniff
from raydist.data.samples.sample_set import FACTS, LINES, SampleFacts, StoredTexts
from raydist.data.samples.sources import Input, Source, find_source, input_key
from raydist.data.store.reader import DocumentStore
from raydist.disk import write_json
from raydist.errors import DataError
from raydist.fingerprints import value_fingerprint
from raydist.log import Progress, size
from raydist.records import Sample


def prepare(
    path: str | os.PathLike[str] | Sequence[str],
    folder: str | os.PathLike[str],
    *,
    name: str = "data",
    format: str | None = None,
    corpus: Input | None = None,
    queries: Input | None = None,
    qrels: Input | None = None,
    run: Input | None = None,
    positives: Literal["judged", "retrieved"] = "judged",
    relevance: int = 1,
    split: str = "train",
    on_bad: Literal["error", "skip"] = "error",
    need_negatives: bool = False,
    need_scores: bool = False,
    max_rows: int = 0,
) -> SampleFacts:
    """Checks and indexes a data set, or returns the facts of an earlier, equal call.

    Args:
        path: samples, a run, relevance judgements, a BEIR folder or `irds:ID`; globs and several
            files of one format are one data set.
        folder: where the index goes; everything in it belongs to this data set.
        name: for messages.
        format: a key of `FORMATS`; found out if None.
        corpus: documents that ids refer to: a path, or `read_documents`' keyword arguments; so
            are the following ones with their readers.
        queries: queries that ids refer to.
        qrels: relevance judgements that make positives.
        run: a run whose other documents become negatives, where `path` is no run itself.
        positives: `judged` takes all judged relevant documents, `retrieved` those that the run has.
        relevance: least grade of a positive.
        split: of a BEIR folder's qrels.
        on_bad: `skip` leaves bad lines out, counts them and writes them to `rejects.jsonl`.
        need_negatives: a sample without a negative is a bad line; samples made of judgements and
            a run are left out and counted.
        need_scores: a sample without teacher scores is a bad line.
        max_rows: use the first rows only; 0 = all.

    Raises:
        DataError: a missing file, a bad line (with file, number and excerpt), or no usable sample.
    """
    target = Path(folder)
    given = [path] if isinstance(path, str | os.PathLike) else list(path)
    inputs = {
        what: input_key(where)
        for what, where in (
            ("corpus", corpus),
            ("queries", queries),
            ("qrels", qrels),
            ("run", run),
        )
        if where
    }
    key = value_fingerprint(
        {
            "content": [input_key(each) for each in given],
            "paths": [os.path.abspath(os.fspath(each)) for each in given],
            "inputs": inputs,
            "meaning": [format, positives, relevance, split, max_rows],
            "checks": [on_bad, need_negatives, need_scores],
        }
    )
    if (target / FACTS).exists():
        known = SampleFacts.from_dict(json.loads((target / FACTS).read_text(encoding="utf-8")))
        if known.key == key:
            return known
        (target / FACTS).unlink()
    target.mkdir(parents=True, exist_ok=True)
    source = find_source(
        [os.fspath(each) for each in given],
        target,
        format=format,
        corpus=corpus,
        queries=queries,
        qrels=qrels,
        run=run,
        positives=positives,
        relevance=relevance,
        split=split,
        need_negatives=need_negatives,
    )
    facts = scan(source, target, name, on_bad, need_negatives, need_scores, max_rows)
    facts = replace(facts, key=key)
    write_json(target / FACTS, facts.to_dict())
    return facts


_REJECTS = "rejects.jsonl"
_MOST = 64  # counts of negatives from here on are one class


def scan(
    source: Source,
    target: Path,
    name: str,
    on_bad: str,
    need_negatives: bool,
    need_scores: bool,
    max_rows: int,
) -> SampleFacts:
    """Reads every line and writes the index of those that are used.

    Args:
        source: the lines and what their ids refer to.
        target: the folder of the index, of rejects and of unpacked copies.
        name: for messages.
        on_bad: `error` or `skip`.
        need_negatives: a sample without a negative is a bad line.
        need_scores: a sample without teacher scores is a bad line.
        max_rows: use the first rows only; 0 = all.

    Raises:
        DataError: a bad line (with file, number and excerpt), or no usable sample.
    """
    files = [_plain(file, target, i) for i, file in enumerate(source.files)]
    names = source.shown
    (target / _REJECTS).unlink(missing_ok=True)
    rejects = Rejects(target / _REJECTS) if on_bad == "skip" else None
    texts: Texts = StoredTexts(
        DocumentStore.open(source.documents) if source.documents else None,
        DocumentStore.open(source.queries) if source.queries else None,
    )
    if source.checked:
        texts = _Checked(texts)
    format = source.format
    lines, seen = array("q"), _Seen(need_negatives, need_scores)
    total = sum(os.path.getsize(file) for file in files)
    with Progress(f"check {name}", unit="samples", share_total=float(total)) as progress:
        for number_of_file, file in enumerate(files):
            for number, start, line in _lines(file):
                if not line.strip():
                    continue
                try:
                    if format is None:
                        format = sniff(line, texts.has_documents)
                    sample = FORMATS[format](line, texts)
                    where = f"{names[number_of_file]}, line {number}"
                    seen.add(sample, line, where)
                except ValueError as error:
                    excerpt = line[:200].decode("utf-8", "backslashreplace").strip()
                    shown = names[number_of_file]
                    if rejects is None:
                        raise DataError.at(
                            shown, number, excerpt, f"{error} (on_bad=skip goes on)"
                        ) from None
                    rejects.add(shown, number, excerpt, f"expected {error}")
                    continue
                finally:
                    progress.advance(0, share=len(line))
                lines.extend((number_of_file, start, start + len(line), number))
                progress.advance(1, nbytes=len(line))
                if max_rows and seen.rows >= max_rows:
                    break
            if max_rows and seen.rows >= max_rows:
                break
    rejected = rejects.count if rejects else 0
    if not seen.rows:
        first = f"; the first of {rejected} bad lines: {rejects.first}" if rejects else ""
        raise DataError(f"{name} ({', '.join(names)}): no usable sample{first}")
    np.save(target / LINES, np.frombuffer(lines, dtype=np.int64).reshape(-1, 4))
    notes = list(source.notes)
    if rejected:
        notes.append(f"{rejected} bad lines skipped, see {target / _REJECTS}")
    return seen.facts(
        SampleFacts(
            name=name,
            format=format or "",
            rows=seen.rows,
            rejected=rejected,
            files=tuple(os.path.abspath(file) for file in files),
            notes=tuple(notes),
            documents=str(source.documents or ""),
            queries=str(source.queries or ""),
        )
    )


class _Seen:
    """The facts of the samples seen so far; the first one says what all of them must have."""

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

    def add(self, sample: Sample, line: bytes, where: str) -> None:
        """Takes a sample in; ValueError if it does not go with the others."""
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
        self.rows += 1

    def facts(self, facts: SampleFacts) -> SampleFacts:
        """Returns the facts with what was seen filled in."""
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
    """Stands in for texts where the ids were checked as they were written."""

    def __init__(self, texts: Texts) -> None:
        self.has_documents = texts.has_documents

    def documents(self, doc_ids: Sequence[str]) -> list[str]:
        return ["-"] * len(doc_ids)

    def query(self, query_id: str) -> str:
        return "-"


def _lines(file: str) -> Iterator[tuple[int, int, bytes]]:
    """Yields (line number from 1, byte offset, line)."""
    offset = 0
    with open(file, "rb") as source:
        for number, line in enumerate(source, 1):
            bom = 3 if number == 1 and line.startswith(b"\xef\xbb\xbf") else 0
            yield number, offset + bom, line[bom:]
            offset += len(line)


def _plain(file: str, target: Path, number: int) -> str:
    """Returns a local, uncompressed file with the same lines, made if there is none."""
    local = os.path.expanduser(file.removeprefix("file://"))
    compression = compression_of(file)
    if compression is None and os.path.isfile(local):
        return local
    copy = target / f"lines-{number:05}{Path(file).suffixes[0] if Path(file).suffixes else ''}"
    partial = copy.with_name(f".{copy.name}.part")
    with (
        Progress(f"unpack {Path(file).name}", unit="blocks") as progress,
        open(partial, "wb") as out,
    ):
        for _, block in read_blocks(file, compression=compression):
            out.write(block)
            progress.advance(1, nbytes=len(block), note=size(out.tell()))
    os.replace(partial, copy)
    return str(copy)
