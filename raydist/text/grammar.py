"""The word grammar of Lucene's StandardTokenizer, compiled into the tables of `uax29.npz`.

A token is the longest match of one grammar: UAX #29 words, numbers and Katakana runs, runs of
South-East Asian text, single Han and Hiragana characters, and the emoji sequences of UTS #51.
Code points that the grammar cannot tell apart share a class, so the tokenizer needs the class of a
code point and one small automaton. Run `python -m raydist.text.grammar` to write the tables again.

Shapes: P pages of 128 code points, S states, C classes.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from raydist.text.automaton import Pattern, compile_patterns, one_of

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


# Where Unicode 12.1, which Lucene 9 follows, differs from the Unicode of today: the code points
# listed behave like the character before them (one without a class of its own, a comma, a
# pictograph, a format character, a Thai letter). Recorded by probing Lucene 9.9's StandardTokenizer
# with every code point in 17 contexts.
_LIKE = {
    "\u0000": """
        b8 2e5-2eb 558 55a 55f 58a-58c 5c8-5c9 870-887 889-891 897-89f 8b5 8be-8d2 b53-b55 c3c
        c5c-c5d cdc-cdd cf3 d04 d81 ece 170d 1715 171f 180f 1abf-1af0 1b4c 1c89-1c8a 1dfa 208f
        209d-209f 2c2f 2c5f 31bb-31bf 4db6-4dbf 9ff0-9fff a708-a716 a7c0-a7c1 a7c7-a7dd a7e2
        a7f1-a7f6 a82c ab68-ab69 ab6c-ab6d 10570-1057a 1057c-1058a 1058c-10592 10594-10595
        10597-105a1 105a3-105b1 105b3-105b9 105bb-105bc 105c0-105f3 10780-10785 10787-107b0
        107b2-107bf 10940-10959 10d40-10d65 10d69-10d6d 10d6f-10d85 10e80-10ea9 10eab-10eac
        10eb0-10eb1 10ec2-10ec7 10ecb-10ecf 10ed9-10eee 10ef0-10eff 10f70-10f85 10fb0-10fc4
        11070-11075 110c2 11147 111ce-111cf 1123f-11241 11380-11389 1138b 1138e 11390-113b5
        113b7-113c0 113c2 113c5 113c7-113ca 113cc-113d3 113e1-113e2 11460-11461 116d0-116e3
        11740-11746 11900-11906 11909 1190c-11913 11915-11916 11918-11935 11937-11938
        1193b-11943 11950-11959 11ab0-11abf 11b0a 11b60-11b67 11bc0-11be0 11bf0-11bf9
        11db0-11ddb 11de0-11de9 11df0-11df1 11f00-11f10 11f12-11f3a 11f3e-11f42 11f50-11f5a
        11fb0 1246f 12475-1247f 12550-12686 12f90-12ff0 1342f 13439-13455 13460-143fa
        16100-16139 16a70-16abe 16ac0-16ac9 16d40-16d6c 16d70-16d79 16ea0-16eb8 16ebb-16ed3
        16fe2 16fe4 16ff0-16ff6 1aff0-1aff3 1aff5-1affb 1affd-1affe 1b11f-1b128 1b132 1b155
        1b168 1ccf0-1ccf9 1cf00-1cf2d 1cf30-1cf46 1d127-1d128 1d250-1d252 1d25b-1d25c 1d25f
        1d280-1d281 1d6a6 1df00-1df81 1df90-1df96 1dfcd-1dfff 1e030-1e06d 1e08f 1e290-1e2ae
        1e4d0-1e4f9 1e5d0-1e5fa 1e6c0-1e6de 1e6e0-1e6f5 1e6fe-1e6ff 1e7e0-1e7e6 1e7e8-1e7eb
        1e7ed-1e7ee 1e7f0-1e7fe 2a6d7-2a6df 2b735-2b73f 2b81e 2cea2-2cead 2ebf0-2ee5d
        30000-3134a 31350-33479
    """,
    ",": "fe10 fe14",
    "\u00a9": """
        2388 2605 2607-260d 260f-2610 2612 2616-2617 2619-261c 261e-261f 2621 2624-2625
        2627-2629 262b-262d 2630-2637 263b-263f 2641 2643-2647 2654-265e 2661-2662 2664 2667
        2669-267a 267c-267d 2680-2685 2690-2691 2698 269a 269d-269f 26a2-26a6 26a8-26a9
        26ac-26af 26b2-26bc 26bf-26c3 26c6-26c7 26c9-26cd 26d0 26d2 26d5-26e8 26eb-26ef 26f6
        26fb-26fc 26fe-2701 2703-2704 270e 2710-2711 2765-2767 1f000-1f003 1f005-1f02b
        1f030-1f093 1f0a0-1f0ae 1f0b1-1f0bf 1f0c1-1f0ce 1f0d1-1f0f5 1f10d-1f10f 1f12f
        1f16c-1f16f 1f1ad-1f1ae 1f260-1f265 1f322-1f323 1f394-1f395 1f398 1f39c-1f39d
        1f3f1-1f3f2 1f3f6 1f4fe 1f546-1f548 1f54f 1f568-1f56e 1f571-1f572 1f57b-1f586
        1f588-1f589 1f58e-1f58f 1f591-1f594 1f597-1f5a3 1f5a6-1f5a7 1f5a9-1f5b0 1f5b3-1f5bb
        1f5bd-1f5c1 1f5c5-1f5d0 1f5d4-1f5db 1f5df-1f5e0 1f5e2 1f5e4-1f5e7 1f5e9-1f5ee
        1f5f0-1f5f2 1f5f4-1f5f9 1f6c6-1f6ca 1f6d3-1f6d4 1f6e6-1f6e8 1f6ea 1f6f1-1f6f2
        1f774-1f77f 1f7d5-1f7db 1f7f1-1f7ff 1f8b0-1f8bb 1f8c0-1f8c1 1f8d0-1f8d8 1fa00-1fa57
        1fa60-1fa6d 1fb00-1fbff
    """,
    "\u00ad": "600-605 6dd 70f 8e2 110bd 110cd",
    "\u0e01": "19da",
}


def _differences() -> Iterator[tuple[range, int]]:
    """Yields ranges of code points with the code point that they behave like."""
    for model, listed in _LIKE.items():
        for part in listed.split():
            first, _, last = part.partition("-")
            yield range(int(first, 16), int(last or first, 16) + 1), ord(model)


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
        for places, model in _differences():
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
