"""The analyzer: Lucene's recorded answers, its values, its errors."""

from __future__ import annotations

import gzip
import json
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa
import pytest
import snowballstemmer
from hypothesis import given, settings
from hypothesis import strategies as st

from raydist.errors import ArtifactError, ConfigError
from raydist.text.analyzer import ENGLISH_STOP_WORDS, Analyzer
from tests.text import reference
from tests.text.test_porter import stems

ENGLISH = Analyzer()


def test_every_recorded_token_list_of_lucene_comes_out(oracle):
    with gzip.open(oracle / "lucene_english_tokens.jsonl.gz", "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    assert len(rows) == 6047
    wrong = [row["text"] for row in rows if ENGLISH.tokens(row["text"]) != row["tokens"]]
    assert not wrong


def test_every_recorded_stem_of_lucene_comes_out(oracle):
    with gzip.open(oracle / "lucene_porter_stems.tsv.gz", "rt", encoding="utf-8") as lines:
        rows = [line.rstrip("\n").split("\t") for line in lines]
    assert len(rows) == 69429
    assert stems([word for word, _ in rows]) == [stem for _, stem in rows]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.text("abegilnosty'., \nÉ", max_size=30), max_size=6))
def test_the_batch_form_equals_words_then_stops_then_stems(texts):
    lexicon = ENGLISH.lexicon()
    expected = [
        stems([word for word in reference.words(text) if word not in ENGLISH_STOP_WORDS])
        for text in texts
    ]
    for _ in range(2):  # what was learnt before changes nothing
        terms, lengths = lexicon(pa.array(texts, pa.string()))
        names = [name.decode() for name in lexicon.terms.strings().to_pylist()]
        assert [names[t] for t in terms.tolist()] == [t for tokens in expected for t in tokens]
        assert lengths.tolist() == [len(tokens) for tokens in expected]


def test_slices_chunks_and_both_string_types_are_taken():
    texts = ["one fish", "two fishes", "", "red fish"]
    array = pa.array(["skipped", *texts, "skipped"])[1:5]
    for column in (array, array.cast(pa.large_string()), pa.chunked_array([texts, []])):
        lexicon = ENGLISH.lexicon()
        terms, lengths = lexicon(column)
        names = lexicon.terms.strings().to_pylist()
        assert [names[t] for t in terms] == [b"on", b"fish", b"two", b"fish", b"red", b"fish"]
        assert lengths.tolist() == [2, 2, 0, 2]
    assert [len(part) for part in ENGLISH.lexicon()(pa.array([], pa.string()))] == [0, 0]


def test_stop_words_of_ones_own_are_compared_after_lower_casing():
    analyzer = Analyzer(stemmer="none", stop_words=("Fox", " den ", ""))
    assert analyzer.tokens("The FOX's dens, the den") == ["the", "dens", "the"]
    assert Analyzer(stemmer="none", stop_words="none").tokens("To be") == ["to", "be"]
    assert Analyzer(stop_words=()) == Analyzer(stop_words="none")


def test_other_languages_are_stemmed_by_snowball_and_keep_their_s():
    french = Analyzer(language="french", stemmer="snowball")
    stem = snowballstemmer.stemmer("french").stemWord
    words = ["les", "continuellement", "Majestueusement", "été", "continuellement"]
    assert french.tokens(" ".join(words)) == [stem(word.lower()) for word in words]
    assert Analyzer(language="german", stemmer="none").tokens("Peter's") == ["peter's"]


def test_an_analyzer_survives_json_and_keeps_its_fingerprint():
    for analyzer in (
        ENGLISH,
        Analyzer(language="german", stemmer="snowball"),
        Analyzer(stop_words=("x", "y")),
    ):
        values = json.loads(json.dumps(analyzer.to_dict()))
        assert Analyzer.from_dict(values) == analyzer
        assert Analyzer.from_dict(values).fingerprint == analyzer.fingerprint


def test_equal_analysis_means_an_equal_fingerprint():
    assert Analyzer(stop_words=ENGLISH_STOP_WORDS).fingerprint == ENGLISH.fingerprint
    different = [
        Analyzer(stemmer="none"),
        Analyzer(stemmer="snowball"),
        Analyzer(stop_words="none"),
        Analyzer(language="french", stemmer="none"),
        Analyzer(language="german", stemmer="snowball"),
    ]
    assert len({analyzer.fingerprint for analyzer in (ENGLISH, *different)}) == 6


def test_an_analyzer_of_other_rules_is_refused():
    values = ENGLISH.to_dict() | {"fingerprint": "0123456789abcdef"}
    with pytest.raises(ArtifactError, match="build the index again"):
        Analyzer.from_dict(values)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"stemmer": "lovins"}, "'lovins': expected one of default, porter, snowball, none"),
        ({"language": "french", "stemmer": "porter"}, "set stemmer to default, snowball or none"),
        ({"language": "klingon", "stemmer": "snowball"}, "no snowball stemmer; expected one of"),
        ({"stop_words": "lucene"}, "expected default, none or a list of words"),
    ],
)
def test_a_mistake_names_the_field_and_what_is_allowed(values, message):
    with pytest.raises(ConfigError, match=message):
        Analyzer(**values)


@pytest.mark.parametrize("stemmer", ["porter", "snowball"])
def test_threads_do_not_share_what_they_learn(stemmer):
    analyzer = Analyzer(stemmer=stemmer)
    texts = [f"word{i % 97} running{i % 13} wordings{i % 31}ness" for i in range(2000)]
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(analyzer.tokens, texts))
    assert results == [analyzer.tokens(text) for text in texts]


def test_half_a_surrogate_pair_is_no_part_of_a_token():
    assert ENGLISH.tokens("a\ud800b \udfff c") == ["b", "c"]
