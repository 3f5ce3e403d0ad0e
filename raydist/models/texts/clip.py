"""A long text's beginning that has the same first tokens, so that the rest is never tokenised.

No number of characters per token is certain: a word of any length may be one token, and blanks none
at all. So the beginning is tokenised and its tokens are counted, but for those that what follows
could still change. A tokenizer normalises characters, splits the text into words from left to
right, and turns each word into tokens on its own. Then cutting the text changes no word that ends
before the last few characters: a word's end depends on the word, on the character behind it, and
on a run of white space there; characters are composed with the marks behind them; and an added
token is found within its own length. Tokenizers of which this is not known, such as those without
words, get the whole text.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Sequence
from typing import Any

from tokenizers import Tokenizer

_CHARS_PER_TOKEN = 8
"""Of the first try; a longer one follows if it has too few tokens."""
_GROWTH = 4
_MARGIN = 16
"""Characters at a beginning's end that the rest of the text may change, added tokens aside."""
_BLANKS = frozenset({r" {2,}", r"\s{2,}", r"\s+", r"[ ]{2,}"})
"""Patterns of normalizers: runs of white space."""
_WORDS = frozenset(
    {
        *("'s", "'t", "'re", "'ve", "'m", "'ll", "'d"),
        *(r"(?i:'s|'t|'re|'ve|'m|'ll|'d)", r"'(?i:[sdmt]|ll|ve|re)"),
        *(r" ?\p{L}+", r"[^\r\n\p{L}\p{N}]?\p{L}+", r"[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+"),
        *(r" ?\p{N}+", r"\p{N}", r"\p{N}+", r"\p{N}{1,3}", r"\d", r"\d+"),
        *(r" ?[^\s\p{L}\p{N}]+", r" ?[^\s\p{L}\p{N}]+[\r\n]*", r" ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*"),
        *(r"\s*[\r\n]+", r"\s*[\r\n]", r"\s+(?!\S)", r"\s+", r"\s", " "),
    }
)
"""Alternatives of patterns that split texts into words (GPT-2's, Llama 3's, Qwen's and others'):
runs of one kind of character. How far each reaches, and whether, follows from the next character,
or from the run of white space that it is in."""
_NORMALIZERS = frozenset(
    {
        *("BertNormalizer", "NFC", "NFD", "NFKC", "NFKD", "Lowercase", "StripAccents", "Nmt"),
        *("Precompiled", "Replace", "Prepend", "ByteLevel", "Strip", "Sequence"),
    }
)
_PRE_TOKENIZERS = frozenset(
    {
        *("BertPreTokenizer", "Whitespace", "WhitespaceSplit", "ByteLevel", "Split", "Digits"),
        *("Punctuation", "Metaspace", "CharDelimiterSplit", "Sequence"),
    }
)


class Clipper:
    """Cuts long texts to beginnings with the same first tokens.

    Args:
        tokenizer: a fast tokenizer; its truncation and padding do not matter.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._source = tokenizer
        self._clone: Tokenizer | None = None
        self._margin: int | None = None

    def __call__(self, texts: Sequence[str], tokens: int) -> list[str]:
        """Returns each text, or a beginning whose first `tokens` tokens are the text's.

        A beginning has more tokens than `tokens`, so that what was cut off shows.
        """
        first = _CHARS_PER_TOKEN * tokens + 1024
        return [
            self._clip(text, tokens, first) if len(text) > 2 * first else text for text in texts
        ]

    def _clip(self, text: str, tokens: int, size: int) -> str:
        if self._clone is None:  # once there is a long text: it takes a moment
            clone = Tokenizer.from_str(self._source.to_str())
            clone.no_padding()
            clone.no_truncation()
            clone.encode_special_tokens = self._source.encode_special_tokens
            self._margin = _margin(json.loads(clone.to_str()))
            self._clone = clone
        if self._margin is None:
            return text
        while size < len(text):
            beginning = text[:size]
            count = _certain(self._clone, beginning, self._margin)
            if count > tokens:
                return beginning
            if not count:  # one endless word
                break
            size *= _GROWTH
        return text


def _certain(tokenizer: Tokenizer, text: str, margin: int) -> int:
    """Returns how many first tokens a text has whatever follows it."""
    end = max(0, len(text) - margin)
    while end and (text[end - 1].isspace() or unicodedata.combining(text[end])):
        end -= 1
    encoding = tokenizer.encode(text, add_special_tokens=False)
    words, offsets = encoding.word_ids, encoding.offsets
    last = len(words) - 1
    while last >= 0 and offsets[last][1] > end:
        last -= 1
    # The word that reaches over the end is left out from its beginning.
    while last >= 0 and last + 1 < len(words) and words[last] == words[last + 1]:
        last -= 1
    return last + 1


def _margin(settings: dict[str, Any]) -> int | None:
    """Returns the characters that what follows may change; None where that is not known."""
    pieces = [*_flat(settings["normalizer"], "normalizers")]
    splits = [*_flat(settings["pre_tokenizer"], "pretokenizers")]
    if not splits or settings["model"].get("dropout"):
        return None
    if not {each["type"] for each in pieces} <= _NORMALIZERS:
        return None
    if not {each["type"] for each in splits} <= _PRE_TOKENIZERS:
        return None
    if not {pattern for each in pieces if (pattern := _regex(each))} <= _BLANKS:
        return None
    if not {part for each in splits for part in _alternatives(_regex(each))} <= _WORDS:
        return None
    longest = max((len(each["content"]) for each in settings["added_tokens"]), default=0)
    return _MARGIN + longest


def _regex(part: dict[str, Any]) -> str:
    """Returns the regular expression of a normalizer or pre-tokenizer, empty if it has none."""
    return str(part.get("pattern", {}).get("Regex", ""))


def _alternatives(pattern: str) -> list[str]:
    """Returns what a pattern has between its outermost bars."""
    parts, depth = [""], 0
    for token in re.findall(r"\\.|.", pattern, re.DOTALL):
        depth += (token in "([") - (token in ")]")
        if token == "|" and not depth:
            parts.append("")
        else:
            parts[-1] += token
    return [part for part in parts if part]


def _flat(part: dict[str, Any] | None, key: str) -> list[dict[str, Any]]:
    """Returns a normalizer or pre-tokenizer, or the members of a sequence of them."""
    if part is None:
        return []
    return [part, *(each for member in part.get(key, ()) for each in _flat(member, key))]
