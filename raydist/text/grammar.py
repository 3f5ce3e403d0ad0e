"""The word grammar of Lucene's StandardTokenizer, compiled into the tables of `uax29.npz`.

A token is the longest match of one grammar: UAX #29 words, numbers and Katakana runs, runs of
South-East Asian text, single Han and Hiragana characters, and the emoji sequences of UTS #51.
Code points that the grammar cannot tell apart share a class, so the tokenizer needs the class of a
code point and one small automaton. Run `python -m raydist.text.grammar` to write the tables again.

Shapes: P pages of 128 code points, S states, C classes.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from raydist.text.automaton import Pattern, compile_patterns, one_of
from raydist.text.unicode12 import differences

TABLES = Path(__file__).with_name("uax29.npz")
PAGE = 128
_CODE_POINTS = 0x110000

# Unicode properties as the `regex` package names them.
_PROPERTIES = {
    "letter": r"\p{WB=ALetter}",
    "hebrew": r"\p{WB=Hebrew_Letter}",
    "digit": r"\p{WB=Numeric}",
    "joiner": r"\p{WB=ExtendNumLet}",
    "mid_letter": r"\p{WB=MidLetter}",
    "mid_number": r"\p{WB=MidNum}",
    "mid_both": r"\p{WB=MidNumLet}",
    "quote": r"\p{WB=Single_Quote}",
    "double_quote": r"\p{WB=Double_Quote}",
    "zwj": r"\p{WB=ZWJ}",
    "extend": r"[\p{WB=Extend}\p{WB=Format}\p{WB=ZWJ}]",
    "katakana": r"\p{WB=Katakana}",
    "han": r"\p{Script=Han}",
    "hiragana": r"\p{Script=Hiragana}",
    "asian": r"\p{LB=SA}",
    "flag": r"\p{WB=Regional_Indicator}",
    "pictograph": r"\p{Extended_Pictographic}",
    "emoji": r"\p{Emoji}",
    "modifier": r"\p{Emoji_Modifier}",
    "modifier_base": r"\p{Emoji_Modifier_Base}",
    "key_base": r"[0-9#*]",
    "key_cap": "\u20e3",
    "text_style": "\ufe0e",
    "emoji_style": "\ufe0f",
    "tag": "[\U000e0020-\U000e007e]",
    "tag_end": "\U000e007f",
    "plain_sign": "[©®™\u3030\u303d]",
}


def code_point_sets() -> dict[str, np.ndarray]:
    """Returns for each property a bool array [0x110000]: which code points have it."""
    import regex

    scalars = "".join(map(chr, (*range(0xD800), *range(0xE000, _CODE_POINTS))))
    sets = {}
    for name, expression in _PROPERTIES.items():
        members = np.zeros(_CODE_POINTS, bool)
        for run in regex.finditer(f"(?:{expression})+", scalars):
            members[[ord(c) for c in run.group()]] = True
        sets[name] = members
    sets["mid_letter"][ord(":")] = True  # as in Unicode 12.1, which Lucene 9 follows
    for members in sets.values():
        for places, model in differences():
            members[places.start : places.stop] = members[model]
    return sets


def build_tables() -> dict[str, np.ndarray]:
    """Returns the tokenizer's tables.

    Returns:
        page_of uint16 [P]: where the page of code points `128 p ..` lies; `classes` uint8 and
        `lower` int32 (what to add to a code point for its lower-case form), both by page;
        `next_state` uint8 [S, C]; `accepting` bool [S].
    """
    sets = code_point_sets()
    names = list(sets)
    member = np.zeros(_CODE_POINTS, np.int64)
    for i, name in enumerate(names):
        member |= sets[name].astype(np.int64) << i
    kinds, classes = np.unique(member, return_inverse=True)
    of = {name: frozenset(np.flatnonzero(kinds >> i & 1).tolist()) for i, name in enumerate(names)}
    next_state, accepting = compile_patterns(_words(of), len(kinds))
    merged, column = np.unique(next_state, axis=1, return_inverse=True)
    column = column.reshape(-1)
    # Class 0 belongs to what starts no token and continues none: the class of U+0000.
    order = np.argsort(np.arange(merged.shape[1]) != column[classes[0]], kind="stable")
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    class_of = rank[column[classes]].astype(np.uint8)
    lower = np.array([_lower(c) - c for c in range(_CODE_POINTS)], np.int32)
    lower[class_of == 0] = 0  # never part of a token
    both = np.stack([class_of.astype(np.int32), lower], axis=1).reshape(-1, PAGE * 2)
    pages, page_of = np.unique(both, axis=0, return_inverse=True)
    pages = pages.reshape(len(pages), PAGE, 2)
    return {
        "page_of": page_of.reshape(-1).astype(np.uint16),
        "classes": np.ascontiguousarray(pages[:, :, 0]).astype(np.uint8).reshape(-1),
        "lower": np.ascontiguousarray(pages[:, :, 1]).reshape(-1),
        "next_state": np.ascontiguousarray(merged[:, order]),
        "accepting": accepting,
    }


def _lower(code: int) -> int:
    """Returns the simple lower-case mapping of a code point (U+0130 goes to `i`)."""
    if 0xD800 <= code < 0xE000:
        return code
    mapped = chr(code).lower()
    return ord(mapped[0]) if len(mapped) == 1 or code == 0x130 else code


def _words(of: dict[str, frozenset[int]]) -> Pattern:
    """Returns the grammar; `of` gives the classes that have a property."""
    zwj, extend = one_of(of["zwj"]), one_of(of["extend"]).any()

    def with_marks(*names: str) -> Pattern:  # WB4: marks belong to what they follow
        return one_of(frozenset().union(*(of[name] for name in names))) + extend

    letter, hebrew = with_marks("letter", "hebrew"), with_marks("hebrew")
    digit, joiner, kana = with_marks("digit"), with_marks("joiner"), with_marks("katakana")
    in_word = with_marks("mid_letter", "mid_both", "quote")
    in_number = with_marks("mid_number", "mid_both", "quote")
    quote, double_quote = with_marks("quote"), with_marks("double_quote")

    stretch = (
        (hebrew + (quote | (double_quote + hebrew)))  # WB7a-c
        | (digit + ((joiner.any() | in_number) + digit).any())  # WB8, WB11, WB12
        | (letter + ((joiner.any() | in_word) + letter).any())  # WB5-WB7
    ).many()
    piece = (kana + (joiner.any() + kana).any()) | stretch  # WB13
    word = joiner.any() + piece + (joiner.many() + piece).any() + joiner.any()  # WB13a-b

    alone = with_marks("han") | with_marks("hiragana") | with_marks("asian").many()
    return word | alone | _emoji(of, zwj)


def _emoji(of: dict[str, frozenset[int]], zwj: Pattern) -> Pattern:
    """Returns the emoji sequences: style selectors are no marks inside of them."""
    marks = one_of(of["extend"] - of["text_style"] - of["emoji_style"]).any()
    any_marks = one_of(of["extend"]).any()
    style = one_of(of["emoji_style"]).maybe()
    special = of["flag"] | of["key_base"] | of["plain_sign"] | of["modifier"]
    picture = one_of(of["pictograph"] | (of["emoji"] - special)) + marks
    modifier = one_of(of["modifier"]) + marks
    base = one_of(of["modifier_base"]) + marks
    element = (zwj.any() + picture + style) | ((zwj.any() + base).maybe() + modifier)
    tags = one_of(of["tag"]).many() + one_of(of["tag_end"])
    key = one_of(of["key_base"]) + marks + style + one_of(of["key_cap"]) + marks
    flag = one_of(of["flag"]) + any_marks
    return (element + ((zwj + element).any() | tags)) | key | (flag + flag)


if __name__ == "__main__":
    np.savez_compressed(TABLES, **build_tables())  # type: ignore[arg-type]
