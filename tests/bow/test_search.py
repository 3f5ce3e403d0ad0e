"""Search: pruned, exhaustive, merged or not, the answer is the definition's, bit for bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raydist.bow.format.segment import Segment
from raydist.bow.index import BowIndex
from raydist.bow.search import workspace
from raydist.bow.search.retriever import BowRetriever
from raydist.bow.search.ties import anserini_scores
from raydist.bow.spec import Bm25, BowSearchSpec, Qld, QueryLikelihood
from raydist.errors import ArtifactError, ConfigError, DataError
from raydist.protocols import Retriever
from raydist.records import Query
from raydist.text.analyzer import Analyzer
from tests.bow.small_index import index_of, lucene_scores, ranking

WORDS = [chr(97 + i) for i in range(12)]


@st.composite
def collections(draw: st.DrawFn) -> list[list[str]]:
    """Documents of few words, some empty, some long, with tfs of all sizes."""
    word = st.sampled_from(WORDS[: draw(st.integers(1, len(WORDS)))])
    short = st.lists(word, max_size=8)
    long = st.builds(lambda w, n, rest: [w] * n + rest, word, st.integers(1, 300), short)
    documents = draw(st.lists(st.one_of(short, short, short, long), min_size=1, max_size=60))
    return documents * draw(st.sampled_from([1, 1, 1, 7]))  # repeats make ties and longer lists


queries = st.dictionaries(
    st.sampled_from([*WORDS, "unknown"]), st.integers(1, 3), min_size=1, max_size=13
)


def pairs(docs: np.ndarray, scores: np.ndarray) -> list[tuple[int, np.float32]]:
    return list(zip(docs.tolist(), scores))


@settings(max_examples=100, deadline=None)
@given(collections(), queries, st.data())
def test_every_way_of_searching_is_the_definition(
    tmp_path_factory: pytest.TempPathFactory,
    documents: list[list[str]],
    query: dict[str, int],
    data: st.DataObject,
) -> None:
    cuts = sorted(data.draw(st.sets(st.integers(1, len(documents)), max_size=3)) - {len(documents)})
    index = index_of(
        documents,
        tmp_path_factory.mktemp("index"),
        cuts=cuts,
        compress=data.draw(st.booleans()),
        block_size=data.draw(st.sampled_from([8, 16, 128])),
    )
    k = data.draw(st.sampled_from([1, 2, 10, 1000]))
    k1, b = data.draw(st.sampled_from([(0.9, 0.4), (1.2, 0.75), (0.0, 1.0), (50.0, 0.0)]))
    expected = ranking(lucene_scores(documents, query, k1, b), k)
    for pruned in (True, False):
        retriever = BowRetriever(index, BowSearchSpec(scoring=Bm25(k1=k1, b=b)), pruned=pruned)
        assert pairs(*retriever.rank_terms(query, k)) == expected


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 2**32),
    st.integers(2, 6),
    st.sampled_from([10, 100, 1000]),
    st.sampled_from([0, 1, -1]),
)
def test_pruned_is_exhaustive_over_many_windows(
    tmp_path_factory: pytest.TempPathFactory, seed: int, terms: int, k: int, longer: int
) -> None:
    rng = np.random.default_rng(seed)
    folder = tmp_path_factory.mktemp("large")
    index = random_index(folder, rng, documents=int(rng.integers(9_000, 40_000)), longer=longer)
    slow = BowRetriever(index, pruned=False)
    fast = BowRetriever(index)
    for _ in range(5):
        words = rng.choice(60, terms, replace=False)
        query = {f"w{word}": int(rng.integers(1, 3)) for word in words}
        expected, actual = slow.rank_terms(query, k), fast.rank_terms(query, k)
        assert np.array_equal(expected[0], actual[0])
        assert np.array_equal(expected[1], actual[1])


def test_an_expectation_that_the_documents_do_not_meet_changes_no_answer(tmp_path: Path) -> None:
    lengths = np.arange(20_000) // 256
    documents = [["a", *"b" * (i % 3 == 0), *"x" * length] for i, length in enumerate(lengths)]
    index = index_of(documents, tmp_path)  # the best documents come first
    retriever, exhaustive = BowRetriever(index), BowRetriever(index, pruned=False)
    for mistakes, k in enumerate([500, 700, 700, 1000], 1):
        for text in ({"a": 1, "b": 1}, {"a": 1}, {"b": 2, "x": 1}):
            expected, actual = exhaustive.rank_terms(text, k), retriever.rank_terms(text, k)
            assert np.array_equal(expected[0], actual[0])
            assert np.array_equal(expected[1], actual[1])
        assert retriever._thread.workspace._caution[1] >= mistakes


def random_index(
    folder: Path, rng: np.random.Generator, documents: int, longer: int = 0
) -> BowIndex:
    """60 words, w0 in most documents and w59 in few, frequencies geometric, in two segments.

    Documents become longer from the first to the last (1), shorter (-1), or neither (0).
    """
    import pyarrow as pa

    from raydist.bow.format.writing import SegmentWriter

    segments = []
    for number, count in enumerate([documents // 3, documents - documents // 3]):
        lengths = rng.integers(1, 300, count).astype(np.uint32)
        if longer:
            lengths = np.sort(lengths)[::longer].copy()
        docs, tfs = [], []
        for word in range(60):
            have = np.flatnonzero(rng.random(count) < 0.7 / (1 + word) ** 1.2)
            docs.append(have)
            tfs.append(rng.geometric(0.5 if word % 7 else 0.03, len(have)))
        order = sorted(range(60), key=lambda word: f"w{word}")
        keep = [word for word in order if len(docs[word])]
        indptr = np.cumsum([0] + [len(docs[word]) for word in keep])
        writer = SegmentWriter(
            folder / str(number),
            lengths_N=lengths,
            doc_ids=pa.array([f"{number}-{i}" for i in range(count)]),
        )
        terms = pa.array([f"w{word}".encode() for word in keep], pa.large_binary())
        writer.append(
            terms,
            indptr,
            np.concatenate([docs[word] for word in keep]),
            np.concatenate([tfs[word] for word in keep]),
        )
        writer.close()
        segments.append(Segment.open(folder / str(number)))
    return BowIndex(segments, None)


def test_more_ties_than_the_kernel_has_room_for_are_still_exact(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    documents = [["a", "b"]] * 30_000 + [["a"]] + [["a", "b"]] * 10_000
    index = index_of(documents, tmp_path)
    monkeypatch.setattr(workspace, "_ROOM", 3_000)
    monkeypatch.setattr(workspace, "_KEPT", 0)
    expected = BowRetriever(index, pruned=False).rank_terms({"a": 1, "b": 1}, 50)
    for most in (3_000, 1 << 22):  # the exhaustive search answers, or the room grows
        monkeypatch.setattr(workspace, "_MOST_ROOM", most)
        retriever = BowRetriever(index)
        actual = retriever.rank_terms({"a": 1, "b": 1}, 50)
        assert np.array_equal(expected[0], actual[0])
        assert np.array_equal(expected[1], actual[1])
        assert retriever._thread.workspace.fits(50) == (most == 3_000)


def test_hundreds_of_terms_frequencies_above_16_bits_and_unknown_terms(tmp_path: Path) -> None:
    rng = np.random.default_rng(7)
    words = [f"t{i}" for i in range(400)]
    documents = [list(rng.choice(words, 30)) for _ in range(200)]
    documents[3] = ["t0"] * 70_000 + ["t1"]
    documents[4] = ["t0"] * 65_535 + ["t1"]
    index = index_of(documents, tmp_path)
    for size in (1, 20, 70, 300, 400):
        query = {word: 1 for word in [*words[:size], "absent"]}
        expected = ranking(lucene_scores(documents, query), 10)
        assert pairs(*BowRetriever(index).rank_terms(query, 10)) == expected


def test_empty_and_unknown_queries_and_empty_collections_find_nothing(tmp_path: Path) -> None:
    index = index_of([["a"], []], tmp_path / "a", analyzer=Analyzer())
    run = BowRetriever(index).search([Query("1", ""), Query("2", "the"), Query("3", "zebra")], 5)
    assert len(run) == 0
    assert len(BowRetriever(index).search([], 5)) == 0
    empty = index_of([[], []], tmp_path / "b", analyzer=Analyzer())
    assert len(BowRetriever(empty).search([Query("1", "cat")], 5)) == 0


def test_a_retriever_makes_runs_and_repeated_words_count(tmp_path: Path) -> None:
    documents = [["cat", "dog"], ["dog"], ["cat", "cat", "mous"]]
    index = index_of(documents, tmp_path, analyzer=Analyzer(), cuts=[1])
    for threads in (1, 2):
        retriever: Retriever = BowRetriever(index, BowSearchSpec(threads=threads))
        run = retriever.search([Query("q1", "cats mice dogs dog"), Query("q2", "Mouse")], 10)
        expected = ranking(lucene_scores(documents, {"cat": 1, "mice": 1, "dog": 2}), 10)
        (first, docs, scores), (second, other, _) = list(run)
        assert (first, second) == ("q1", "q2")
        assert [(f"d{d}", s) for d, s in expected] == list(zip(docs, scores))
        assert other == ["d2"]


def test_filters_rank_the_allowed_documents_by_the_statistics_of_all(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    index = random_index(tmp_path, rng, documents=20_000)
    query = {"w0": 1, "w3": 1, "w20": 2}
    docs, scores = BowRetriever(index, pruned=False).rank_terms(query, 20_000)
    ids = np.array(index.pick_ids(docs).to_pylist())
    some = rng.permutation(len(ids))[: len(ids) // 2]
    allowed = np.sort(some)
    for pruned in (True, False):
        only = BowRetriever(index, only=ids[some].tolist(), pruned=pruned)
        for k in (10, 500):
            actual = only.rank_terms(query, k)
            assert np.array_equal(actual[0], docs[allowed][:k])
            assert np.array_equal(actual[1], scores[allowed][:k])
        later = BowRetriever(index, pruned=pruned).only([*ids[some].tolist(), "nowhere"])
        assert np.array_equal(later.rank_terms(query, 500)[0], docs[allowed][:500])
        without = BowRetriever(index, exclude=ids[some].tolist(), pruned=pruned)
        rest = np.setdiff1d(np.arange(len(ids)), some)
        assert np.array_equal(without.rank_terms(query, 100)[0], docs[rest][:100])
    with pytest.raises(DataError, match="'nowhere'"):
        BowRetriever(index, only=["nowhere"])


def test_a_search_can_be_restricted_to_some_documents(tmp_path: Path) -> None:
    documents = [["dog", "cat"], ["dog"], ["dog", "dog"], ["cat"]]
    retriever = BowRetriever(index_of(documents, tmp_path, analyzer=Analyzer(), cuts=[1]))
    queries = [Query("q", "dog cat")]
    everything = dict(zip(*next(iter(retriever.search(queries, 10)))[1:]))
    restricted = retriever.only(["d3", "d1", "nowhere"])
    ((_, docs, scores),) = restricted.search(queries, 10)
    assert docs == ["d3", "d1"] and list(scores) == [everything[d] for d in docs]
    assert [d for _, docs, _ in restricted.search(queries, 1) for d in docs] == ["d3"]
    assert len(retriever.only([]).search(queries, 10)) == 0
    assert len(restricted.only(["d0"]).search(queries, 10)) == 0
    assert len(retriever.search(queries, 10)) == 4  # the whole search is as it was


def test_ties_by_external_id_reach_beyond_the_cut_off(tmp_path: Path) -> None:
    documents = [["a"], ["a"], ["a", "a"], ["a"], ["b"]]
    ids = ["d9", "d10", "x", "d\U0001f600", "y"]  # a surrogate pair sorts below U+E000 and above d1
    index = index_of(documents, tmp_path, ids=ids, cuts=[1])

    def names(ties: str, k: int) -> list[str]:
        search = BowSearchSpec(ties=ties)  # type: ignore[arg-type]
        docs, _ = BowRetriever(index, search).rank_terms({"a": 1}, k)
        return index.pick_ids(docs).to_pylist()  # type: ignore[no-any-return]

    assert names("docid", 3) == ["x", "d9", "d10"]
    assert names("external", 2) == ["x", "d10"]
    assert names("external", 9) == ["x", "d10", "d9", "d\U0001f600"]


def test_anserinis_scores_are_rounded_and_strictly_ordered(tmp_path: Path) -> None:
    index = index_of([["a", "b"], ["a"], ["a"], ["a"], ["c"]], tmp_path)
    _, exact = BowRetriever(index).rank_terms({"a": 1}, 9)
    docs, scores = BowRetriever(index, BowSearchSpec(ties="anserini")).rank_terms({"a": 1}, 9)
    assert docs.tolist() == [1, 2, 3, 0]
    first = round(float(exact[0]), 4)
    assert scores[:3].tolist() == [np.float32(first - step) for step in (0, 1e-6, 2e-6)]
    assert np.all(np.diff(scores) < 0)


def test_anserinis_scores_are_rounded_in_double() -> None:
    """In float32 times 1e4 these are halves, which are rounded up; in double they are below."""
    scores = np.array([9.69965, 4.55815], np.float32)
    assert (scores * np.float32(1e4)).tolist() == [96996.5, 45581.5]
    assert anserini_scores(scores).tolist() == np.array([9.6996, 4.5581], np.float32).tolist()


def test_anserinis_scores_have_the_ties_of_six_decimals() -> None:
    """As in its ranking of the collection vaswani by qljm; float32 has 12.7074995 as well."""
    scores = anserini_scores(np.full(4, 12.70752, np.float32))
    assert [f"{score:.6f}" for score in scores] == [
        "12.707500",
        "12.707500",
        "12.707499",
        "12.707498",
    ]
    assert scores[0] == scores[1] and not np.any(scores[1:-1] == scores[2:])


def test_an_explanation_adds_up(tmp_path: Path) -> None:
    documents = [["cat", "cat", "dog"], ["dog"], ["bird"]]
    index = index_of(documents, tmp_path, analyzer=Analyzer(), cuts=[2])
    formulas = [Bm25(), Bm25(variant="bm25+"), Bm25(query_side=True), QueryLikelihood(), Qld()]
    for formula in formulas:
        retriever = BowRetriever(index, BowSearchSpec(scoring=formula))
        docs, scores = retriever.rank("cat dog fish", 5)
        why = retriever.explain("cat dog fish", "d0")
        assert why.score == scores[docs.tolist().index(0)]
        assert [(part.term, part.tf, part.df) for part in why.parts] == [
            ("cat", 2, 1),
            ("dog", 1, 2),
        ]
        assert why.score == np.float32(sum(part.score for part in why.parts) + why.constant)
    assert BowRetriever(index).explain("cat", "d2").parts == ()


def test_bad_options_name_what_is_allowed(tmp_path: Path) -> None:
    index = index_of([["a"]], tmp_path)
    with pytest.raises(ConfigError, match="expected one of docid"):
        BowRetriever(index, BowSearchSpec(ties="random"))  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="k = 0"):
        BowRetriever(index).rank_terms({"a": 1}, 0)


def test_corrupted_postings_are_noticed_by_the_query_that_needs_them(tmp_path: Path) -> None:
    documents = [["a", "b"] if i % 3 else ["b"] for i in range(2000)]
    for compress, name in ((True, "postings"), (False, "docs")):
        folder = tmp_path / str(compress)
        index_of(documents, folder, compress=compress)
        path = folder / "00000" / name
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
        index = BowIndex([Segment.open(folder / "00000")], None)
        with pytest.raises(ArtifactError, match=f"{name} is corrupted"):
            BowRetriever(index).rank_terms({"a": 1, "b": 1}, 10)
