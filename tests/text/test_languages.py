"""Languages: Lucene's recorded tokens, each rule's own examples, what overrides what."""

from __future__ import annotations

import gzip
import json
from itertools import groupby
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from raydist.cli import main
from raydist.errors import ConfigError
from raydist.text.analyzer import Analyzer
from raydist.text.languages.cjk import even_width, is_cjk
from raydist.text.languages.indic import composed_indic, plain_bengali
from raydist.text.languages.rules import Endings, in_units, western_digits
from raydist.text.languages.table import LANGUAGES, language_of
from raydist.text.languages.turkish import lower_turkish
from raydist.text.passages import find_matches, highlighted
from raydist.text.spec import AnalyzerSpec

GOLDEN = Path(__file__).parents[1] / "golden/lucene/languages.jsonl.gz"
CODES = [each.code for each in LANGUAGES]


def rows(path: Path) -> dict[str, list[dict[str, Any]]]:
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        read = sorted(map(json.loads, lines), key=lambda row: str(row["language"]))
    return {code: list(group) for code, group in groupby(read, key=lambda row: row["language"])}


def differences(code: str, recorded: list[dict[str, Any]]) -> list[str]:
    analyzer = Analyzer(code)
    return [row["text"] for row in recorded if analyzer.tokens(row["text"]) != row["tokens"]]


@pytest.fixture(scope="module")
def golden() -> dict[str, list[dict[str, Any]]]:
    return rows(GOLDEN)


@pytest.mark.parametrize("code", CODES)
def test_the_tokens_of_a_language_are_lucenes(code, golden):
    assert len(golden[code]) >= 22
    assert not differences(code, golden[code])


def test_every_recorded_token_list_of_the_languages_comes_out(oracle):
    recorded = rows(oracle / "lucene_languages.jsonl.gz")
    assert set(recorded) == set(CODES)
    wrong = {code: differences(code, recorded[code]) for code in CODES if code != "ja"}
    assert sum(map(len, recorded.values())) == 2860
    assert not any(wrong.values())


def test_batches_and_single_texts_have_the_same_terms(golden):
    for code in ("zh", "fa", "te", "tr"):
        texts = [row["text"] for row in golden[code]]
        lexicon = Analyzer(code).lexicon()
        for part in (texts[:9], texts[9:]):
            terms, lengths = lexicon(pa.array(part, pa.string()))
            names = [name.decode() for name in lexicon.terms.strings().to_pylist()]
            tokens = iter([names[term] for term in terms.tolist()])
            for text, length in zip(part, lengths.tolist(), strict=True):
                assert [next(tokens) for _ in range(length)] == Analyzer(code).tokens(text)


def test_a_language_is_known_by_name_and_code():
    assert Analyzer("de") == Analyzer("german") == Analyzer("German")
    assert Analyzer("en") == Analyzer()
    assert AnalyzerSpec(language="zh").language == "chinese"
    assert len({*CODES}) == len({each.name for each in LANGUAGES}) == 22
    with pytest.raises(ConfigError, match="has no analyzer of its own; expected one of english, a"):
        Analyzer("klingon")


def test_what_is_set_overrides_what_the_language_brings():
    text = "Die Häuser"
    assert Analyzer("de").tokens(text) == ["haus"]
    assert Analyzer("de", stop_words="none").tokens(text) == ["die", "haus"]
    assert Analyzer("de", stop_words=("häuser",)).tokens(text) == ["die"]
    assert Analyzer("de", "none").tokens(text) == ["die", "häuser"]
    assert Analyzer("de", "none", normalize=True).tokens(text) == ["hauser"]
    assert Analyzer("de", "snowball", normalize=True).tokens(text) == ["haus"]
    assert Analyzer("de", normalize=False).tokens(text) == ["die", "haus"]
    assert Analyzer("de", "snowball").tokens(text) == ["die", "haus"]


def test_stop_words_of_ones_own_are_spelled_as_words_of_texts_are():
    assert Analyzer("tr", stop_words=("IŞIK", "İzmir'de")).tokens("ışık Işık izmir ev") == ["ev"]
    assert Analyzer("fr", stop_words=("L'Avion",)).tokens("un avion d'avion") == ["un"]
    assert Analyzer("te", stop_words=("ABC",)).tokens("ABC abc") == ["abc"]
    hindi = Analyzer("hi", stop_words=("अँग्रेज़ी",))
    assert hindi.tokens("अंग्रेजी") == []
    telugu = Analyzer("te", stop_words=("\u0c12\u0c4c",))  # its spelling has a spelling of its own
    for analyzer in (hindi, telugu):
        assert Analyzer.from_dict(json.loads(json.dumps(analyzer.to_dict()))) == analyzer


def test_analyzers_of_earlier_versions_have_their_fingerprints():
    assert Analyzer().fingerprint == "b28a9dff1ef24ecc"
    assert Analyzer("english", "snowball").fingerprint == "e942ace4b868cd74"
    assert Analyzer("german", "snowball").fingerprint == "157b4680fcb48eee"
    assert Analyzer("german", "none").fingerprint == "d9462a717e2a40f2"
    assert Analyzer("french", "snowball", ("le", "la")).fingerprint == "e1151c4218a313ea"


def test_a_languages_analyzer_survives_json():
    analyzers = [Analyzer(code) for code in CODES]
    analyzers += [Analyzer("de", "none", normalize=True), Analyzer("de", normalize=False)]
    for analyzer in analyzers:
        values = json.loads(json.dumps(analyzer.to_dict()))
        assert Analyzer.from_dict(values) == analyzer
    assert len({analyzer.fingerprint for analyzer in analyzers}) == len(analyzers)


def test_bigrams_end_with_a_text_a_blank_and_a_word_of_letters():
    assert Analyzer("zh").tokens("北京大学 的abc中") == ["北京", "京大", "大学", "的", "abc", "中"]
    assert Analyzer("zh").tokens("漢\u0600字々人") == ["漢\u0600", "\u0600字", "々", "人"]
    assert Analyzer("ko").tokens("한국 사람들abc") == ["한국", "사람들abc"]
    lexicon = Analyzer("ja").lexicon()
    terms, lengths = lexicon(pa.array(["東京", "都", "", "ラーメン"]))
    names = [name.decode() for name in lexicon.terms.strings().to_pylist()]
    assert [names[term] for term in terms] == ["東京", "都", "ラー", "ーメ", "メン"]
    assert lengths.tolist() == [1, 1, 0, 3]


def test_matches_of_bigrams_do_not_overlap():
    analyzer = Analyzer("zh")
    text = "在北京大学读书, 京A"
    assert [text[a:z] for a, z, _ in find_matches(text, "北京大学", analyzer)] == [
        "北京",
        "大",
        "学",
    ]
    assert highlighted(text, "京大", analyzer, ("[", "]")) == "在北[京大]学读书, 京A"
    turkish = Analyzer("tr")
    assert highlighted("Irak'ta IŞIK", "ırak ışık", turkish, ("[", "]")) == "[Irak'ta] [IŞIK]"


def test_widths_digits_and_composed_letters():
    assert even_width("ｶﾞｷﾊﾟｱﾞＡ１") == "ガキパア゙A1"
    assert western_digits("a٣५۷𝟘") == "a3570"
    assert composed_indic("\u0905\u093e\u0945\u0928\u093c") == "\u0911\u0929"
    assert composed_indic("\u09a4\u09cd\u200d") == "\u09ce"
    assert plain_bengali("\u0995\u09cd\u09bf") == "\u0996"
    assert all(map(is_cjk, ("漢", "か", "カタ", "한국"))) and not is_cjk("한a") and not is_cjk("a")


def test_a_turkish_i_keeps_its_dot_or_its_lack_of_one():
    words = ["ISPARTA", "İZMİR", "I\u0307ZMI\u0301\u0307R", "Iı"]
    assert [lower_turkish(word) for word in words] == ["ısparta", "izmir", "izmi\u0301r", "ıı"]


def test_stemmers_count_as_java_does():
    assert in_units(lambda word: str(len(word)))("a\U0001d400b") == "4"
    assert in_units(lambda word: word[:-1])("a\U0001d400b") == "a\U0001d400"
    assert Endings("en n").of("waren", 4) == ("n", "ware", "")


def test_analyze_takes_a_language(tmp_path, capfdbinary):
    (tmp_path / "lines.txt").write_text("Die Häuser am Fluß\n\nStraßen\n", encoding="utf-8")
    assert main(["analyze", "analyzer.language=de", f"input={tmp_path}/lines.txt"]) == 0
    assert capfdbinary.readouterr().out.decode() == "haus fluss\n\nstrass\n"
    assert language_of("klingon") is None
