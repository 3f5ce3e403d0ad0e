"""Hungarian: Snowball's stemmer as of version 2."""

from __future__ import annotations

from raydist.text.languages.rules import Endings

_VOWELS = "aeiouáéíóöőúüű"
_DIGRAPHS = ("dzs", "cs", "gy", "ly", "ny", "sz", "ty", "zs")
_DOUBLE = Endings("bb cc dd ff gg jj kk ll mm nn pp rr ccs ss zzs tt vv ggy lly nny tty ssz zz")


def _shortening(removed: str, to_a: str = "", to_e: str = "") -> Endings:
    """Returns endings with what takes their place: nothing, a or e."""
    return Endings(removed, dict.fromkeys(to_a.split(), "a") | dict.fromkeys(to_e.split(), "e"))


_CASES = Endings("""
    ba ra be re ig nak nek val vel ul nál nél ból ról tól ül ből ről től n an ban en ben képpen on
    ön képp kor t at et ként anként enként onként ot ért öt hez hoz höz vá vé
""")
_FINAL_VOWEL = _shortening("", "á", "é")
_FURTHER_CASES = (
    _shortening("", "án ánként", "én"),
    _shortening("stul astul stül estül", "ástul", "éstül"),
)
_OWNERS = (
    _shortening("éi é ké aké eké oké öké", "áéi áké", "ééi éké éé"),
    _shortening(
        "a ja d ad ed od öd e je nk unk ünk uk juk ük jük m am em om o",
        "ád ánk ájuk ám á",
        "éd énk éjük ém é",
    ),
    _shortening(
        """
        id aid jaid eid jeid i ai jai ei jei itek eitek jeitek ik aik jaik eik jeik ink aink jaink
        eink jeink aitok jaitok im aim jaim eim jeim
        """,
        "áid ái áik áink áitok áim",
        "éid éi éitek éik éink éim",
    ),
    _shortening("k ak ek ok ök", "ák", "ék"),
)


def _region(word: str) -> int:
    size = len(word)
    if not word or word[0] not in _VOWELS:
        return next((i + 1 for i in range(size) if word[i] in _VOWELS), size)
    first = next((i for i in range(size) if word[i] not in _VOWELS), size)
    digraph = next((each for each in _DIGRAPHS if word.startswith(each, first)), "?")
    return min(first + len(digraph), size)


def stem_hungarian(word: str) -> str:
    """Returns the stem of a Hungarian word."""
    begin = _region(word)

    def shortened(word: str, endings: Endings) -> str:
        end = endings.of(word)
        return end.stem + end.value if end and len(end.stem) >= begin else word

    def undoubled(word: str, endings: tuple[str, ...]) -> str:
        for ending in endings:
            stem = word.removesuffix(ending)
            if stem != word and len(stem) >= begin and _DOUBLE.of(stem):
                return stem[:-2] + stem[-1]
        return word

    word = undoubled(word, ("al", "el"))
    if (end := _CASES.of(word)) and len(end.stem) >= begin:
        word = shortened(end.stem, _FINAL_VOWEL)
    for endings in _FURTHER_CASES:
        word = shortened(word, endings)
    word = undoubled(word, ("á", "é"))
    for endings in _OWNERS:
        word = shortened(word, endings)
    return word
