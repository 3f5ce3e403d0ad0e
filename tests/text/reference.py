"""Slow, independent references of the analysis: regular expressions and plain Python."""

from __future__ import annotations

import regex

MARKS = r"[\p{WB=Extend}\p{WB=Format}\p{WB=ZWJ}]*"
EMOJI_MARKS = r"[[\p{WB=Extend}\p{WB=Format}\p{WB=ZWJ}]--[\ufe0e\ufe0f]]*"


def _marked(inside: str) -> str:
    return f"(?:[{inside}]{MARKS})"


LETTER = _marked(r"\p{WB=ALetter}\p{WB=Hebrew_Letter}")
HEBREW = _marked(r"\p{WB=Hebrew_Letter}")
DIGIT = _marked(r"\p{WB=Numeric}")
KANA = _marked(r"\p{WB=Katakana}")
JOIN = _marked(r"\p{WB=ExtendNumLet}")
IN_WORD = _marked(r":\p{WB=MidLetter}\p{WB=MidNumLet}'")
IN_NUMBER = _marked(r"\p{WB=MidNum}\p{WB=MidNumLet}'")
STRETCH = (
    f"(?:{HEBREW}(?:{_marked(chr(39))}|{_marked(chr(34))}{HEBREW})"
    f"|{DIGIT}(?:{IN_NUMBER}{DIGIT})*"
    f"|{LETTER}(?:{IN_WORD}{LETTER})*)+"
)
HAN, HIRAGANA, ASIAN, FLAG = map(
    _marked,
    (r"\p{Script=Han}", r"\p{Script=Hiragana}", r"\p{LB=SA}", r"\p{WB=Regional_Indicator}"),
)
PIECE = f"(?:{KANA}(?:{JOIN}*{KANA})*|{STRETCH})"
PICTURE = r"\p{Extended_Pictographic}"
EMOJI = (
    rf"\u200d*{PICTURE}"
    rf"(?:{EMOJI_MARKS}(?:\ufe0f\u200d+|(?<=\u200d)){PICTURE})*{EMOJI_MARKS}\ufe0f?"
)
KEY = rf"[0-9#*]{EMOJI_MARKS}\ufe0f?\u20e3{EMOJI_MARKS}"
WORD = f"{JOIN}*{PIECE}(?:{JOIN}+{PIECE})*{JOIN}*"
KINDS = [
    regex.compile(f"(?V1){kind}")
    for kind in (WORD, HAN, HIRAGANA, f"{ASIAN}+", EMOJI, KEY, f"{FLAG}{{2}}")
]
LIMIT = 255


def window(text: str) -> str:
    """The longest beginning of at most LIMIT UTF-16 units."""
    units = 0
    for i, character in enumerate(text[: LIMIT + 1]):
        units += 1 + (character > "\uffff")
        if units > LIMIT:
            return text[:i]
    return text


def words(text: str, possessive: bool = True) -> list[str]:
    """Lower-case words without their possessive ending."""
    result = []
    at = 0
    while at < len(text):
        ahead = window(text[at : at + LIMIT])
        matches = [kind.match(ahead) for kind in KINDS]
        word = max((m.group() for m in matches if m), key=len, default="")
        if not word:
            at += 1
            continue
        at += len(word)
        lower = "".join(c.lower()[0] if c == "İ" else c.lower() for c in word)
        if possessive and lower.endswith(("'s", "’s", "＇s")):
            lower = lower[:-2]
        result.append(lower)
    return result
