"""Token ids of texts, word by word: each distinct word goes through the tokenizer once.

A tokenizer like BERT's cuts a text at white space before all else, and what it makes of a word does
not depend on the words around it. Texts repeat their words, so most of them are looked up; and of a
long text, only the words that will be kept are looked at. The ids are the tokenizer's own.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer

_MOST_CHARACTERS = 1 << 21
"""Of words that are kept: some 300,000 words."""
_ODD = re.compile("[\x0b\x0c\x1c-\x1f\x85]")
"""White space to Python, and nothing to the tokenizer, which joins the words beside it."""


def works_by_words(tokenizer: Tokenizer) -> bool:
    """Returns whether a tokenizer's words have the same ids in every text."""
    normalizer = tokenizer.normalizer
    if not (
        isinstance(tokenizer.model, WordPiece)
        and isinstance(tokenizer.pre_tokenizer, BertPreTokenizer)
        and isinstance(normalizer, BertNormalizer)
    ):
        return False
    added = tokenizer.get_added_tokens_decoder().values()
    return normalizer.clean_text and not any(re.search(r"\s", token.content) for token in added)


class Words:
    """The ids of words that were seen."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        """Keeps a tokenizer that `works_by_words` and does not truncate."""
        self._tokenizer = tokenizer
        self._ids: dict[str, list[int]] = {}
        self._characters = 0

    def __call__(self, texts: Sequence[str], limit: int) -> list[list[int]]:
        """Returns the first ids of each text, `limit` at most, without special tokens around it."""
        if self._characters > _MOST_CHARACTERS:
            self._ids, self._characters = {}, 0
        known = self._ids  # another thread may begin a new one
        cut = [_cut(text, limit) for text in texts]
        self._learn(known, {word for words, _ in cut for word in words})
        rows = []
        for words, rest in cut:
            row: list[int] = []
            for word in words:
                row += known[word]
            while len(row) < limit and rest:
                words, rest = _cut(rest, limit)
                if not words:
                    row += self._tokenizer.encode(rest, add_special_tokens=False).ids
                    break
                self._learn(known, {*words})  # some of the words before have no ids at all
                for word in words:
                    row += known[word]
            rows.append(row[:limit])
        return rows

    def _learn(self, known: dict[str, list[int]], words: set[str]) -> None:
        new = [word for word in words if word not in known]
        encodings = self._tokenizer.encode_batch_fast(new, add_special_tokens=False)
        known.update((word, encoding.ids) for word, encoding in zip(new, encodings))
        self._characters += sum(map(len, new))


def _cut(text: str, limit: int) -> tuple[list[str], str]:
    """Returns the first words of a text and what follows them: of an odd one, all of it."""
    if _ODD.search(text):
        return [], text
    words = text.split(None, limit)
    return (words[:limit], words[limit]) if len(words) > limit else (words, "")
