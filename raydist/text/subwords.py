"""Subwords: the tokens of a Hugging Face tokenizer, from its `tokenizer.json` alone.

The file is data that the tokenizers library reads; no code of a model is run. An index carries it
whole, so that searches need no folder.
"""

from __future__ import annotations

import base64
import hashlib
import zlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from raydist.errors import ArtifactError, ConfigError
from raydist.extras import require
from raydist.text.string_table import StringTable, joined

if TYPE_CHECKING:
    from tokenizers import Encoding, Tokenizer

Array = npt.NDArray[Any]

FILE = "tokenizer.json"

_MOST_BYTES = 64 << 20
_MOST_CHARACTERS = 255  # of a term, as in Lucene; unknown words can be longer
_BATCH = 256  # texts at a time


@dataclass(frozen=True, slots=True)
class Subwords:
    """A tokenizer as the content of its file.

    Attributes:
        content: of `tokenizer.json`.
    """

    content: bytes

    @classmethod
    def read(cls, path: Path) -> Subwords:
        """Reads a file, and tries it.

        Raises ConfigError where there is none, or it is no fast tokenizer.
        """
        if not path.is_file():
            raise ConfigError(
                f"analyzer.tokenizer: {path}: no such file; expected a folder with {FILE}, as "
                "AutoTokenizer.from_pretrained(NAME).save_pretrained(FOLDER) writes it"
            )
        if path.stat().st_size > _MOST_BYTES:
            raise ConfigError(f"analyzer.tokenizer: {path}: larger than {_MOST_BYTES >> 20} MiB")
        require("analyzer.tokenizer", "tokenizers")
        subwords = cls(path.read_bytes())
        try:
            _loaded(subwords)
        except ValueError as error:
            raise ConfigError(f"analyzer.tokenizer: {path}: {error}") from None
        return subwords

    @classmethod
    def unpack(cls, text: str) -> Subwords:
        """Returns what `pack` packed; raises ArtifactError for anything else."""
        try:
            reader = zlib.decompressobj()
            content = reader.decompress(base64.b85decode(text), _MOST_BYTES)
        except (ValueError, zlib.error) as error:
            raise ArtifactError(f"the analyzer's tokenizer is damaged: {error}") from None
        if not reader.eof:
            raise ArtifactError("the analyzer's tokenizer is damaged: it is cut or too long")
        return cls(content)

    def pack(self) -> str:
        """Returns the file as ASCII, compressed."""
        return base64.b85encode(zlib.compress(self.content, 9)).decode()

    @property
    def digest(self) -> str:
        """The SHA-256 of the file, in 64 hex digits."""
        return _digest(self.content)

    def __hash__(self) -> int:
        return hash(self.digest)

    def __repr__(self) -> str:
        return f"tokenizer {self.digest[:16]}"


@lru_cache(maxsize=8)
def _loaded(subwords: Subwords) -> Tokenizer:
    """Returns a tokenizer that cuts and pads nothing, for all threads.

    Raises ValueError where the file is none.
    """
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_buffer(subwords.content)
    except ValueError as error:
        raise ValueError(f"not a tokenizer of the tokenizers library: {error}") from None
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


@lru_cache(maxsize=8)
def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


class SubwordTokenizer:
    """Turns texts into numbers of distinct tokens, as `Tokenizer` does into those of words.

    Attributes:
        words: the distinct tokens.
    """

    def __init__(self, subwords: Subwords) -> None:
        """Loads the tokenizer."""
        self.words = StringTable()
        self._tokenizer = _loaded(subwords)
        self._number_of: dict[str, int] = {}

    def __call__(self, data: Array, offsets_N1: Array) -> tuple[Array, Array]:
        """Tokenizes the UTF-8 texts `data[offsets[n] : offsets[n + 1]]`.

        Returns:
            tokens, uint32 [W]; where each text's end, uint64 [N].
        """
        tokens: list[str] = []
        ends_N = np.zeros(len(offsets_N1) - 1, np.uint64)
        bounds = offsets_N1.tolist()
        raw = data[: bounds[-1]].tobytes()
        for first in range(0, len(ends_N), _BATCH):
            spans = list(zip(bounds[first : first + _BATCH], bounds[first + 1 :]))
            texts = [raw[begin:end].decode("utf-8", "replace") for begin, end in spans]
            for n, encoding in enumerate(self._encode(texts), first):
                tokens += [token[:_MOST_CHARACTERS] for token in encoding.tokens if token]
                ends_N[n] = len(tokens)
        self._learn(tokens)
        numbers = map(self._number_of.__getitem__, tokens)
        return np.fromiter(numbers, np.uint32, len(tokens)), ends_N

    def spans(self, text: str) -> list[tuple[int, int, str]]:
        """Returns the tokens of a text: start, end, token; blanks before them left out."""
        (encoding,) = self._encode([text.encode("utf-8", "replace").decode()])
        spans = []
        for (start, end), token in zip(encoding.offsets, encoding.tokens):
            start = end - len(text[start:end].lstrip())
            if start < end:
                spans.append((start, end, token[:_MOST_CHARACTERS]))
        return spans

    def _encode(self, texts: list[str]) -> list[Encoding]:
        return self._tokenizer.encode_batch(texts, add_special_tokens=False)

    def _learn(self, tokens: list[str]) -> None:
        """Numbers the tokens that are new."""
        new = [token for token in dict.fromkeys(tokens) if token not in self._number_of]
        if not new:
            return
        numbers = self.words.add(*joined([token.encode() for token in new]))
        self._number_of.update(zip(new, numbers.tolist()))
