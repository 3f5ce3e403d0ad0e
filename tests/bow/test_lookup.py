"""What an index knows of terms and documents: counted again in Python, from postings and texts."""

from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

import raydist as rd
from raydist.bow.build.append import append_to_index
from raydist.bow.build.delete import delete_from_index
from raydist.bow.build.segments import merge_segments
from raydist.bow.format import forward
from raydist.bow.format.segment import Segment
from raydist.bow.index import BowIndex
from raydist.bow.lookup import document_vector, postings, statistics_of, term_counts
from raydist.bow.spec import IndexSpec, MergeSpec
from raydist.bow.verify import verify_index
from raydist.checks import Report
from raydist.cli import main
from raydist.errors import ConfigError, NotFoundError
from raydist.manifest import read_manifest
from raydist.text.analyzer import Analyzer
from tests.bow.answers import make_index
from tests.bow.documents import read, splits_of

FORWARD = {"forward": True, "store": False}


def rows_of(count: int, seed: int) -> list[tuple[str, str, str]]:
    """Documents of Zipf's words, some empty, some with one word many times."""
    draw = random.Random(seed)
    words = [f"w{number}é" for number in range(3000)]
    weights = [1 / (rank + 1) for rank in range(len(words))]
    rows = []
    for number in range(count):
        text = draw.choices(words, weights, k=draw.choice([0, 1, 5, 40, 200]))
        text += ["often"] * draw.choice([0, 0, 0, 1, 2, 3, 300])
        rows.append((f"d{seed}-{number}", "", " ".join(text)))
    return rows


def counted(rows: list[tuple[str, str, str]]) -> list[dict[str, int]]:
    analyzer = Analyzer()
    return [dict(sorted(Counter(analyzer.tokens(text)).items())) for _, _, text in rows]


@pytest.fixture(scope="module")
def rows() -> list[tuple[str, str, str]]:
    return rows_of(300, 1)


@pytest.fixture(scope="module")
def index(rows: list[tuple[str, str, str]], tmp_path_factory: pytest.TempPathFactory) -> BowIndex:
    """An index in three segments with deleted documents."""
    folder = tmp_path_factory.mktemp("lookup") / "idx"
    make_index(rows, folder, [100, 200], merge=False, **FORWARD)
    delete_from_index(folder, [doc_id for doc_id, _, _ in rows[::7]])
    return BowIndex.open(folder)


def test_vectors_postings_and_frequencies_are_those_of_the_texts(
    index: BowIndex, rows: list[tuple[str, str, str]]
) -> None:
    live = [row for number, row in enumerate(rows) if number % 7]
    vectors = counted(live)
    assert [document_vector(index, doc_id) for doc_id, _, _ in live[:20]] == vectors[:20]
    order = np.random.default_rng(0).permutation(len(live))
    every = index.positions([live[number][0] for number in order])
    read_again = term_counts(index, every)
    assert [list(each.items()) for each in read_again] == [
        list(vectors[number].items()) for number in order
    ]
    for term in ("often", "w0é", "w2999é", "nowhere"):
        expected = [(row[0], each[term]) for row, each in zip(live, vectors) if term in each]
        assert list(postings(index, term)) == expected
        statistics = statistics_of(index, term)
        assert statistics.document_frequency == len(expected)
        assert statistics.collection_frequency == sum(tf for _, tf in expected)


def test_a_merge_an_append_and_one_build_write_the_same_forward_index(
    rows: list[tuple[str, str, str]], tmp_path: Path
) -> None:
    more = rows_of(40, 2)
    grown = make_index(rows, tmp_path / "grown", **FORWARD)
    spec = IndexSpec(**FORWARD)
    append_to_index(splits_of(more), read, grown, spec, inputs={"more": "2"})
    delete_from_index(grown, [doc_id for doc_id, _, _ in rows[:30]])
    report = Report()
    verify_index(grown, read_manifest(grown), report)  # what the statistics lose, too
    assert not report.faults
    merge_segments(grown, MergeSpec())
    fresh = make_index(rows[30:] + more, tmp_path / "fresh", [50], **FORWARD)
    for name in forward.NAMES:
        one, two = (
            folder / read_manifest(folder)["segments"][0] / name for folder in (grown, fresh)
        )
        assert one.read_bytes() == two.read_bytes()
    assert read_manifest(grown)["forward_bytes"] == read_manifest(fresh)["forward_bytes"] > 0
    with pytest.raises(ConfigError, match="forward"):
        append_to_index(splits_of(more), read, grown, IndexSpec(store=False), inputs={"x": "3"})


def test_the_memory_changes_no_byte(
    rows: list[tuple[str, str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_index(rows, tmp_path / "idx", **FORWARD) / "segments/00000"
    before = [(folder / name).read_bytes() for name in forward.NAMES]
    monkeypatch.setattr(forward, "_ENCODED", 50)
    monkeypatch.setattr(forward, "_TERMS", 64)
    monkeypatch.setattr(forward, "_POSTINGS", 100)
    forward.add_forward(folder, 16 * 1000)
    assert before == [(folder / name).read_bytes() for name in forward.NAMES]
    Segment.open(folder).files.verify()


def test_an_index_without_a_forward_index_has_nothing_of_one(
    rows: list[tuple[str, str, str]], tmp_path: Path
) -> None:
    folder = make_index(rows[:9], tmp_path / "idx")
    assert "forward" not in (folder / "segments/00000/segment.json").read_text()
    assert "forward" not in (folder / "manifest.json").read_text()


def test_verify_compares_the_forward_index_with_the_postings(
    rows: list[tuple[str, str, str]], tmp_path: Path
) -> None:
    folder = make_index(rows, tmp_path / "idx", **FORWARD)
    manifest = read_manifest(folder)
    report = Report()
    verify_index(folder, manifest, report)
    assert not report.faults
    segment = folder / "segments/00000"
    data = np.fromfile(segment / "forward.terms", np.uint32)
    data[[0, 1]] = data[[1, 0]]
    data.tofile(segment / "forward.terms")
    forward.extend(segment, forward.NAMES)  # intact, and wrong
    report = Report()
    verify_index(folder, manifest, report)
    assert any("other terms in the forward index" in fault for fault in report.faults)


# --- From Python and the command line -------------------------------------------------------------


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("small")
    texts = {"1": "A heron eats fish.", "2": "Herons, herons and boats", "3": "of the"}
    rd.index(texts, folder / "idx")
    rd.index(texts, folder / "bare", store=False)
    return folder


def test_the_interface_of_python_analyses_words_or_takes_terms(small: Path) -> None:
    index = rd.open(small / "idx")
    assert index.document_frequency("herons") == 2 == index.document_frequency("heron")
    assert index.document_frequency("herons", analyzed=False) == 0
    assert index.collection_frequency("herons") == 3
    assert list(index.postings("Heron")) == [("1", 1), ("2", 2)]
    assert index.document_vector("2") == {"boat": 1, "heron": 2}
    assert index.document_vector("3") == {}
    assert index.total_tokens == 6
    statistics = index.term_statistics("herons")
    assert (statistics.term, statistics.document_frequency) == ("heron", 2)
    assert statistics.idf == pytest.approx(np.log(1 + 0.5 / 2.5), abs=1e-7)
    for word, message in (("the", "makes no term"), ("a heron's boat", "heron, boat")):
        with pytest.raises(ConfigError, match=message):
            index.term_statistics(word)
    with pytest.raises(NotFoundError, match="'9': no document"):
        index.document_vector("9")
    with pytest.raises(ConfigError, match="forward=true, or with store=true"):
        rd.open(small / "bare").document_vector("1")


def test_inspect_shows_an_index_a_term_and_a_document(
    small: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def shown(*words: str) -> str:
        capsys.readouterr()
        assert main(["inspect", str(small / "idx"), *words]) == 0
        return capsys.readouterr().out

    facts = json.loads(shown("format=json"))
    assert (facts["documents"], facts["without_terms"], facts["tokens"]) == (3, 1, 6)
    assert facts["terms"][0] == {"term": "heron", "df": 2}
    assert "average length  3.0000" in shown()
    term = json.loads(shown("term=herons", "format=json", "k=1"))
    assert term["documents"] == [{"id": "2", "tf": 2, "length": 3}]
    assert (term["term"], term["collection_frequency"]) == ("heron", 3)
    assert json.loads(shown("term=herons", "analyzed=false", "format=json"))["documents"] == []
    document = json.loads(shown("doc=2", "format=json"))
    assert document["terms"][0] == {"term": "heron", "tf": 2, "df": 2} | {
        "idf": document["terms"][0]["idf"]
    }
    assert document["number"] == 2 and "heron   2   2" in shown("doc=2")
    mistakes = {"term=x doc=1": "give one of", "doc=9": "doc = '9'", "term=the": "makes no term"}
    for words, message in mistakes.items():
        assert main(["inspect", str(small / "idx"), *words.split()]) == 2
        assert message in capsys.readouterr().err
