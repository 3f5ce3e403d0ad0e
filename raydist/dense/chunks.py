"""Long documents as passages: some tokens of the model each, of which neighbours share a few.

A passage is `DOCUMENT#NUMBER`, from 0, as in MS MARCO's segmented collections. It has a part of the
document's text, `text[start:end]`, that begins and ends with whole words where these are no longer
than a passage; `start` and `end` become columns. The document's title comes before each part.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from tokenizers import Encoding, Tokenizer

from raydist.data.columns import PREFIX, Column
from raydist.dense.spec import ChunkSpec
from raydist.errors import ConfigError
from raydist.models.folders.encoder import read_encoder_folder
from raydist.models.spec import BiEncoderSettings
from raydist.models.texts.tokenizer import append_eos, load_tokenizer
from raydist.models.texts.tokens import TextTokenizer
from raydist.records import DOCUMENTS

START, END = "start", "end"
"""Columns of passages: where they begin and end in the document's text, in characters."""

_ROWS = 256  # documents that are cut together

Span = tuple[int, int]


def check_chunks(spec: ChunkSpec, folder: Path, model: BiEncoderSettings) -> None:
    """Raises ConfigError where a model would not read a passage to its end."""
    read, _ = read_encoder_folder(folder, model)
    tokenizer = load_tokenizer(folder, read.config, trust_remote_code=model.trust_remote_code)
    if read.contract.append_eos:
        append_eos(tokenizer)
    instruction, most = read.contract.document_instruction, read.contract.document_max_length
    whole = TextTokenizer(tokenizer, max_length=most, instruction=instruction)
    room = most - len(whole(["a"])[0]) + 1
    if spec.tokens > room:
        raise ConfigError(
            f"chunk.tokens={spec.tokens}: the model reads {most} tokens of a text, of which "
            f"{most - room} are its own; expected at most {room}"
        )


def check_columns(columns: Iterable[str]) -> None:
    """Raises ConfigError where documents have columns that their passages have."""
    for name in (Column.of(each).name for each in columns):
        if name in (START, END):
            raise ConfigError(
                f"corpus.columns: {name!r} is where a passage begins or ends; rename the "
                "documents' column"
            )


def check_appended(columns: Iterable[str], manifest: Mapping[str, Any]) -> None:
    """Raises ConfigError where documents to append have other columns than vectors have."""
    own = [START, END] if "chunk" in manifest else []
    there = [name for name in manifest.get("columns", ()) if name not in own]
    now = [Column.of(each).name for each in columns]
    if there != now:
        names = ",".join(there)
        raise ConfigError(
            f"corpus.columns={','.join(now)}: the vectors have "
            + (f"the columns {names}; append with corpus.columns={names}" if there else "none")
        )


class Chunker:
    """Cuts documents into passages."""

    def __init__(self, tokenizer: Any, spec: ChunkSpec) -> None:
        """Takes the tokenizer of a model."""
        self._tokenizer = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self._spec = spec

    def __call__(self, tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
        """Yields the passages of documents, with the documents' columns and their own."""
        for table in tables:
            for batch in table.to_batches(max_chunksize=_ROWS):
                yield self._passages(batch)

    def _passages(self, batch: pa.RecordBatch) -> pa.Table:
        titles, texts = batch["title"].to_pylist(), batch["text"].to_pylist()
        heads = self._encoded([f"{title}\n" if title else "" for title in titles])
        most = self._spec.tokens
        cut = [self._spans(each, most // 2, 0)[0] for each in heads]
        kept = [min(len(each), most // 2) for each in heads]
        titles = [title and title[: span[1]].rstrip() for title, span in zip(titles, cut)]
        spans = [
            self._spans(each, most - own, self._spec.overlap) if len(each) + own > most else None
            for each, own in zip(self._encoded(texts), kept)
        ]
        whole = [[(0, len(text))] if own is None else own for text, own in zip(texts, spans)]
        rows = np.repeat(np.arange(len(texts)), [len(each) for each in whole])
        numbers = [number for each in whole for number in range(len(each))]
        starts, ends = (np.array([span[i] for each in whole for span in each]) for i in (0, 1))
        names = batch["doc_id"].to_pylist()
        parts = {
            "doc_id": [f"{names[row]}#{number}" for row, number in zip(rows, numbers)],
            "title": [titles[row] for row in rows],
            "text": [texts[row][a:z] for row, a, z in zip(rows, starts, ends)],
        }
        columns = [pa.array(parts[field.name], field.type) for field in DOCUMENTS]
        passages = pa.table(columns, schema=DOCUMENTS)
        for name in batch.schema.names[len(DOCUMENTS) :]:
            passages = passages.append_column(name, batch[name].take(pa.array(rows)))
        passages = passages.append_column(PREFIX + START, pa.array(starts, pa.int64()))
        return passages.append_column(PREFIX + END, pa.array(ends, pa.int64()))

    def _encoded(self, texts: Sequence[str]) -> list[Encoding]:
        encodings: list[Encoding] = self._tokenizer.encode_batch(texts, add_special_tokens=False)
        return encodings

    def _spans(self, encoding: Encoding, most: int, overlap: int) -> list[Span]:
        """Returns the parts of a text: of at most so many tokens, with so many of the last one."""
        count, first = len(encoding), 0
        offsets, overlap = encoding.offsets, min(overlap, most // 2)
        breaks = np.flatnonzero(_begins_words(encoding))
        spans: list[Span] = []
        while first + most < count:
            cut = _last(breaks, first, first + most)
            spans.append((offsets[first][0], offsets[cut - 1][1]))
            place = int(np.searchsorted(breaks, max(first + 1, cut - overlap)))
            first = min(cut, int(breaks[place])) if place < len(breaks) else cut
        return [*spans, (offsets[first][0], offsets[-1][1]) if count else (0, 0)]


def _last(breaks: np.ndarray, first: int, end: int) -> int:
    """Returns the last break behind one token, and at most at another; that one if none is."""
    place = int(np.searchsorted(breaks, end, "right")) - 1
    return int(breaks[place]) if place >= 0 and breaks[place] > first else end


def _begins_words(encoding: Encoding) -> np.ndarray:
    """Returns which tokens begin a word."""
    words = encoding.word_ids
    pairs = zip(encoding.tokens[1:], words, words[1:])
    rest = [a != b or b is None or token.startswith("▁") for token, a, b in pairs]
    return np.array([True, *rest][: len(words)], bool)
