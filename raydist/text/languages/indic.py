"""Hindi, Bengali and Telugu: letters that are written in several ways, and endings.

Hindi: A. Ramanathan and D. D. Rao: A lightweight stemmer for Hindi (2003); P. Pingali and V. Varma:
Word normalization in Indian languages; L. S. Larkey et al.: Hindi CLIR in thirty days (2003).
Bengali: N. UzZaman and M. Khan: A double metaphone encoding for Bangla (2005); P. Sengupta and B.
B. Chaudhuri: Natural language processing in an Indian language (Bengali) I (1993).
"""

from __future__ import annotations

from raydist.text.languages.rules import Endings, Rule, replacing

# Sequences that look like one letter, by script: where it begins, and its letters in hexadecimal;
# ZWJ is the zero-width joiner. After the Unicode Standard 5.2, chapter 9, and
# http://ldc.upenn.edu/myl/IndianScriptsUnicode.html.
_COMPOSED = {
    0x0900: """  devanagari
        053E45=11 053E46=12 053E47=13 053E48=14 053E=06 0545=72 0546=04 0549=11 054A=12 054B=13
        054C=14 0645=11 0646=12 0647=13 0648=14 0941=0A 0F45=0D 0F46=0E 0F47=10 153C=58 163C=59
        173C=5A 1C3C=5B 213C=5C 223C=5D 283C=29 2B3C=5E 2F3C=5F 303C=31 333C=34 3E45=49 3E46=4A
        3E47=4B 3E48=4C
    """,
    0x0980: "bengali 053E=06 213C=5C 223C=5D 244DZWJ=4E 2F3C=5F 473E=4B 4757=4C",
    0x0A00: """  gurmukhi
        053E=06 0548=10 054C=14 163C=59 173C=5A 1C3C=5B 2B3C=5E 4141=42 723F=07 7240=08 7247=0F
        7341=09 7342=0A 734B=13
    """,
    0x0A80: """  gujarati
        053E45=11 053E47=13 053E48=14 053E=06 0545=0D 0547=0F 0548=10 0549=11 054B=13 054C=14
        0645=11 0647=13 0648=14 3E45=49 3E47=4B 3E48=4C
    """,
    0x0B00: "oriya 053E=06 0F57=10 1357=14 213C=5C 223C=5D 473E=4B 4757=4C",
    0x0B80: "tamil 0957=0A 1257=14 463E=4A 4657=4C 473E=4B",
    0x0C00: "telugu 124C=14 1255=13 2C4141=0B 3541=2E 4655=47 4656=48",
    0x0C80: "kannada 124C=14 3F55=40 464255=4B 4642=4A 4655=47 4656=48 4A55=4B",
    0x0D00: """  malayalam
        0757=08 0957=0A 0E46=10 123E=13 1257=14 234DZWJ=7A 284DZWJ=7B 304DZWJ=7C 324DZWJ=7D
        334DZWJ=7E 463E=4A 4646=48 4657=4C 473E=4B
    """,
}


def _sequences() -> dict[str, str]:
    composed = {}
    for base, listed in _COMPOSED.items():
        for pair in listed.split()[1:]:
            sequence, _, letter = pair.partition("=")
            codes = bytes.fromhex(sequence.removesuffix("ZWJ"))
            text = "".join(chr(base + code) for code in codes)
            text += "\u200d" if sequence.endswith("ZWJ") else ""
            composed[text] = chr(base + int(letter, 16))
    return composed


composed_indic = replacing(_sequences())
"""Writes letters of Indian scripts that were typed in parts as one character."""


# Letters with a nukta, of other languages and long, and what takes their place.
_HINDI = dict(
    zip(
        "\u0929\u0931\u0934\u0958\u0959\u095a\u095b\u095c\u095d\u095e\u095f"
        "\u0945\u0946\u0949\u094a\u090d\u090e\u0911\u0912\u0972\u0906\u0908\u090a\u0960\u0961"
        "\u0910\u0914\u0940\u0942\u0944\u0963\u0948\u094c",
        "\u0928\u0930\u0933\u0915\u0916\u0917\u091c\u0921\u0922\u092b\u092f"
        "\u0947\u0947\u094b\u094b\u090f\u090f\u0913\u0913\u0905\u0905\u0907\u0909\u090b\u090c"
        "\u090f\u0913\u093f\u0941\u0943\u0962\u0947\u094b",
        strict=True,
    )
)
_DEAD_N, _CANDRABINDU, _BINDU, _NUKTA, _VIRAMA = (
    "\u0928\u094d", "\u0901", "\u0902", "\u093c", "\u094d",
)  # fmt: skip

plain_hindi = replacing(
    _HINDI
    | {_DEAD_N: _BINDU, _CANDRABINDU: _BINDU, _NUKTA: "", _VIRAMA: "", "\u200c": "", "\u200d": ""}
)
"""Returns a word in the simplest of its spellings."""

plain_telugu = replacing(
    dict(
        zip(
            "\u0c00\u0c01\u0c14\u0c10\u0c06\u0c08\u0c0a\u0c40\u0c42\u0c47\u0c4b",
            "\u0c02\u0c02\u0c13\u0c0f\u0c05\u0c07\u0c09\u0c3f\u0c41\u0c46\u0c4a",
            strict=True,
        )
    )
    | {"\u0c03": "", "\u200c": "", "\u200d": ""}
    | {"\u0c46\u0c56": "\u0c48", "\u0c12\u0c55": "\u0c13", "\u0c12\u0c4c": "\u0c14"}
)
"""Returns a word in the simplest of its spellings."""

_BENGALI = {
    "\u09c0": "\u09bf", "\u09c2": "\u09c1", "\u0999": "\u0982", "\u09b6": "\u09b8",
    "\u09b7": "\u09b8", "\u09a3": "\u09a8", "\u09dc": "\u09b0", "\u09dd": "\u09b0",
    "\u09ce": "\u09a4",
}  # fmt: skip
_HASANTA, _KA, _KHA, _I, _AA, _E = "\u09cd", "\u0995", "\u0996", "\u09bf", "\u09be", "\u09c7"
_YA, _BA, _HA, _VISARGA = "\u09af", "\u09ac", "\u09b9", "\u0983"


def plain_bengali(word: str) -> str:
    """Returns a word as it sounds, in the simplest of its spellings."""
    s = list(word)
    i = 0
    while i < len(s):
        letter = s[i]
        joined = i > 0 and s[i - 1] == _HASANTA
        if letter == "\u0981":  # candrabindu
            del s[i]
            continue
        if letter == _KA and s[i + 1 : i + 3] == [_HASANTA, _I]:
            s[max(i, 1) if i else 0 : i + 3] = [_KHA] if i == 0 else [_KA, _KHA]
        elif letter == _YA and joined:
            if i == 2:
                s[1] = _E
                del s[2 : 4 if s[3:4] == [_AA] else 3]
                continue
            del s[i - 1 : i + 1]
            i -= 1
            continue
        elif letter == _BA and joined:
            if i == 2 or (i >= 5 and s[i - 3] == _HASANTA):
                del s[i - 1 : i + 1]
                i -= 1
                continue
            if i > 2:
                s[i - 1] = s[i - 2]
                del s[i]
                continue
        elif letter == _VISARGA:
            if i < len(s) - 1:
                s[i] = s[i + 1]
            elif len(s) <= 3:
                s[i] = _HA
            else:
                del s[i]
                continue
        else:
            s[i] = _BENGALI.get(letter, letter)
        i += 1
    return "".join(s)


_HINDI_ENDINGS = Endings("""
    ाएंगी ाएंगे ाऊंगी ाऊंगा ाइयाँ ाइयों ाइयां ाएगी ाएगा ाओगी ाओगे एंगी ेंगी एंगे ेंगे ूंगी
    ूंगा ातीं नाओं नाएं ताओं ताएं ियाँ ियों ियां ाकर ाइए ाईं ाया ेगी ेगा ोगी ोगे ाने ाना
    ाते ाती ाता तीं ाओं ाएं ुओं ुएं ुआं कर ाओ िए ाई ाए ने नी ना ते ीं ती ता ाँ ां ों ें ो
    े ू ु ी ि ा
""")
_BENGALI_ENDINGS = Endings(
    """
    িয়াছিলাম িতেছিলাম িতেছিলেন ইতেছিলেন িয়াছিলেন ইয়াছিলেন িতেছিলি িতেছিলে িয়াছিলা
    িয়াছিলে িতেছিলা িয়াছিলি য়েদেরকে িতেছিস িতেছেন িয়াছিস িয়াছেন েছিলাম েছিলেন েদেরকে
    িতেছি িতেছা িতেছে ছিলাম ছিলেন িয়াছি িয়াছা িয়াছে েছিলে েছিলা য়েদের দেরকে িলাম িলেন
    িতাম িতেন িবেন ছিলি ছিলে ছিলা তেছে িতেছ খানা খানি গুলো গুলি য়েরা েদের লাম িলি ইলি িলে
    ইলে লেন িলা ইলা তাম িতি ইতি িতে ইতে তেন িতা িবা ইবা িবি ইবি বেন িবে ইবে ছেন য়োন য়ের
    েরা দের িস েন লি লে লা তি তে তা বি বে বা ছি ছা ছে ুন ুক টা টি নি ের রা কে ি ী া ো ে ব
    ত
    """.replace("\u09af\u09bc", "\u09df")
)
_TELUGU_ENDINGS = Endings("""
    ళ్ళు డ్లు డు ము వు లు ని ను చే కై లో ది కి సు వై పై ి ీ ు ూ ె ే ొ ో ా
""")


def _stemming(endings: Endings) -> Rule:
    def stem(word: str) -> str:
        end = endings.of(word, 2)
        return end.stem if end else word

    return stem


stem_hindi = _stemming(_HINDI_ENDINGS)
stem_bengali = _stemming(_BENGALI_ENDINGS)
stem_telugu = _stemming(_TELUGU_ENDINGS)
