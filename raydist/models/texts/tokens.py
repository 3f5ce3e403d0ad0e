"""From texts to token ids and from token ids to padded tensors.

Tokenizers here are frozen clones of the checkpoint's fast tokenizer, one per role, so that no
thread ever sees another's truncation. They carry no weights: data workers may hold them alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Literal, get_args

import numpy as np
import torch
from tokenizers import Tokenizer

from raydist.models.texts.clip import Clipper
from raydist.models.texts.words import Words, works_by_words

Role = Literal["query", "document", "answer"]
ROLES: tuple[Role, ...] = get_args(Role)
"""What a text is to a bi-encoder; an answer is encoded by the query's tower."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A tokenised (query, document): the ids, and where segment 1 begins (`len(ids)`: never)."""

    ids: list[int]
    boundary: int

    def __len__(self) -> int:
        return len(self.ids)


SEGMENTED = frozenset({"xlnet"})
"""Architectures to which a token's type means something although they have no table of types."""


def _clone(tokenizer: Any) -> Tokenizer:
    clone = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    clone.no_padding()
    clone.no_truncation()
    return clone


def _around(tokenizer: Tokenizer) -> tuple[list[int], list[int]]:
    probe = tokenizer.encode("a")
    own = [place for place, owner in enumerate(probe.sequence_ids) if owner == 0]
    return probe.ids[: own[0]], probe.ids[own[-1] + 1 :]


class TextTokenizer:
    """Tokenises texts of one role: instruction before, special tokens in, truncated, unpadded.

    A `bare` one leaves special tokens out, and may give a text without any token.
    """

    def __init__(
        self, tokenizer: Any, *, max_length: int, instruction: str = "", bare: bool = False
    ) -> None:
        self.max_length = max_length
        self.instruction = instruction
        self.bare = bare
        self._tokenizer = _clone(tokenizer)
        self._tokenizer.enable_truncation(max_length, direction=tokenizer.truncation_side)
        self._clip = None if tokenizer.truncation_side == "left" else Clipper(self._tokenizer)
        self._words: Words | None = None
        if tokenizer.truncation_side == "right" and works_by_words(self._tokenizer):
            whole = _clone(tokenizer)
            self._words = Words(whole)
            self._before, self._after = ([], []) if bare else _around(whole)
        # A decoder's tokenizer may give nothing for an empty text; a row needs one token.
        self._filler = tokenizer.eos_token_id or tokenizer.pad_token_id or 0

    def __call__(
        self, texts: Sequence[str], instruction: str | None = None, *, first: int = 0
    ) -> list[list[int]]:
        """Returns the token ids of each text.

        Args:
            texts: the texts.
            instruction: replaces the frozen one.
            first: how many ids of a text will be read: it has at least one more, if the whole text
                has, but perhaps no others. 0 is all.
        """
        before = self.instruction if instruction is None else instruction
        prepared = [before + text for text in texts] if before else list(texts)
        if self._words is not None:
            start, end = self._before, self._after
            limit = self.max_length - len(start) - len(end)
            return [[*start, *row, *end] for row in self._words(prepared, limit)]
        if self._clip is not None:
            prepared = self._clip(prepared, first or self.max_length)
        encodings = self._tokenizer.encode_batch_fast(prepared, add_special_tokens=not self.bare)
        filler = [] if self.bare else [self._filler]
        return [encoding.ids or filler for encoding in encodings]

    def spans(self, text: str) -> list[tuple[int, int] | None]:
        """Returns where each token lies in a text, None for those that it does not have.

        Spaces at a token's ends are none of it.
        """
        before = len(self.instruction)
        encoding = self._tokenizer.encode(self.instruction + text, add_special_tokens=not self.bare)
        spans: list[tuple[int, int] | None] = []
        for (start, end), owner in zip(encoding.offsets, encoding.sequence_ids):
            own = text[max(0, start - before) : max(0, end - before)]
            start = max(0, start - before) + len(own) - len(own.lstrip())
            own = own.strip()
            spans.append((start, start + len(own)) if own and owner == 0 else None)
        return spans or ([] if self.bare else [None])

    def special_types(self) -> dict[int, int]:
        """Returns the types beyond 0, by the special token that has them."""
        probe = self._tokenizer.encode("a")
        return {token: kind for token, kind in zip(probe.ids, probe.type_ids) if kind}

    def around(self) -> tuple[list[int], list[int]]:
        """Returns the special tokens before and after a text."""
        return _around(self._tokenizer)


class PairTokenizer:
    """Tokenises (query, document) pairs for a cross-encoder."""

    def __init__(
        self, tokenizer: Any, *, max_length: int, query_max_length: int = 0, instruction: str = ""
    ) -> None:
        self.max_length = max_length
        self.instruction = instruction
        self.query_max_length = query_max_length
        self._tokenizer = _clone(tokenizer)
        strategy = "only_second" if query_max_length else "longest_first"
        self._tokenizer.enable_truncation(max_length, strategy=strategy)
        self._query = None
        if query_max_length:
            self._query = _clone(tokenizer)
            self._query.enable_truncation(query_max_length)

    def __call__(self, queries: Sequence[str], documents: Sequence[str]) -> list[Pair]:
        """Returns a `Pair` for each (query, document)."""
        if len(queries) != len(documents):
            raise ValueError(f"{len(queries)} queries for {len(documents)} documents")
        if self.instruction:
            queries = [self.instruction + query for query in queries]
        if self._query is not None:
            queries = self._capped(queries)
        encodings = self._tokenizer.encode_batch_fast(list(zip(queries, documents)))
        pairs = []
        for encoding in encodings:
            types = encoding.type_ids
            pairs.append(Pair(encoding.ids, types.index(1) if 1 in types else len(types)))
        return pairs

    def special_types(self) -> dict[int, int]:
        """Returns the types beyond 0 and 1, by the special token that has them."""
        probe = self._tokenizer.encode("a", "b")
        return {token: kind for token, kind in zip(probe.ids, probe.type_ids) if kind > 1}

    def _capped(self, queries: Sequence[str]) -> list[str]:
        assert self._query is not None
        # Offsets are needed here, so not encode_batch_fast; each distinct query once.
        distinct = list(dict.fromkeys(queries))
        encodings = self._query.encode_batch(distinct, add_special_tokens=False)
        cut = {
            text: text[: encoding.offsets[-1][1]] if encoding.overflowing else text
            for text, encoding in zip(distinct, encodings)
        }
        return [cut[query] for query in queries]


def _grid(rows: Sequence[Sequence[int]], filler: int, left: bool, multiple: int) -> tuple[Any, Any]:
    lengths = np.fromiter(map(len, rows), np.int64, len(rows))
    width = int(lengths.max(initial=1))
    width = -(-width // multiple) * multiple
    columns = np.arange(width)
    if left:
        mask_BT = columns >= (width - lengths)[:, None]
    else:
        mask_BT = columns < lengths[:, None]
    ids_BT = np.full((len(rows), width), filler, np.int64)
    flat = np.fromiter(chain.from_iterable(rows), np.int64, int(lengths.sum()))
    ids_BT[mask_BT] = flat
    return ids_BT, mask_BT


def pad_ids(
    rows: Sequence[Sequence[int]], *, filler: int, side: str = "right", multiple: int = 1
) -> dict[str, torch.Tensor]:
    """Returns `input_ids` and `attention_mask` [B, T], T the longest row up to a `multiple`."""
    ids_BT, mask_BT = _grid(rows, filler, side == "left", multiple)
    return {
        "input_ids": torch.from_numpy(ids_BT),
        "attention_mask": torch.from_numpy(mask_BT.astype(np.int64)),
    }


def pad_pairs(
    rows: Sequence[Pair],
    *,
    filler: int,
    side: str = "right",
    types: bool,
    special_types: Mapping[int, int] | None = None,
    multiple: int = 1,
) -> dict[str, torch.Tensor]:
    """Returns `input_ids`, `attention_mask` and, if the model has them, `token_type_ids` [B, T].

    `special_types` are the types of special tokens where they are beyond 1.
    """
    ids_BT, mask_BT = _grid([row.ids for row in rows], filler, side == "left", multiple)
    padded: dict[str, Any] = {"input_ids": ids_BT, "attention_mask": mask_BT.astype(np.int64)}
    if types:
        lengths = mask_BT.sum(axis=1)
        start = (ids_BT.shape[1] - lengths) if side == "left" else np.zeros_like(lengths)
        first = start + np.fromiter((row.boundary for row in rows), np.int64, len(rows))
        padded["token_type_ids"] = (
            (np.arange(ids_BT.shape[1]) >= first[:, None]) & mask_BT
        ).astype(np.int64)
        for token, kind in (special_types or {}).items():
            padded["token_type_ids"][(ids_BT == token) & mask_BT] = kind
    tensors: Mapping[str, torch.Tensor] = {k: torch.from_numpy(v) for k, v in padded.items()}
    return dict(tensors)
